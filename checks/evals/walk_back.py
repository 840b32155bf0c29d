"""From an eval's fall back to the training: what moved in the steps in which it began. Company, not proven cause.

    moved(run, low=1600, high=1800, findings=report.answer_json())

The steps (low, high] between the last good checkpoint and the first bad one are held against as many before them:
incidents of the judge, the data mix, the routers, the learning rate, and the domains whose validation loss moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from checks.reading import Rows, has, vector

if TYPE_CHECKING:
    from trainvitals.store import Run

LEAST_STEPS = 20
"""Steps before that are held against, at the least; convention."""
BEYOND, RELATIVE, LEAST_NATS = 4.0, 0.25, 0.02
"""Standard errors, share of itself, and nats that a change must reach to be told; conventions."""
LEAST_ROWS = 2
"""Of a signal, before and in the steps."""
OFF_PLAN = 0.01
"""Share by which a learning rate may leave its plan."""
MOST = 6

Kind = Literal["incident", "mix", "routing", "rate", "loss"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moved:
    """Something of the training that changed in these steps."""

    kind: Kind
    sentence: str
    domain: str = ""
    """Of a change of the mix or a loss."""
    size: float = 0.0
    """How much of itself it changed, or nats of a loss."""

    def to_json(self) -> dict[str, Any]:
        """As reviews keep it."""
        return asdict(self)


def moved(run: Run, low: int, high: int, findings: Mapping[str, Any] | None = None) -> list[Moved]:
    """What moved in the steps (low, high], the data mix first.

    Args:
        run: the training's record; what it did not log is not looked at.
        low: step of the last good checkpoint.
        high: step of the first bad one.
        findings: the judge's answer, for its incidents.
    """
    found = [*_mix(run, low, high), *_losses(run, low, high), *_routing(run, low, high), *_rate(run, low, high),
             *_incidents(findings or {}, low, high)]  # fmt: skip
    return found


def seen(run: Run, low: int, high: int) -> list[str]:
    """What the record holds on both sides of these steps, so that a change could have shown; incidents are the judge's.

    Args:
        run: the training's record.
        low: step of the last good checkpoint.
        high: step of the first bad one.
    """
    found = [said for name, said in (("data/domain_share", "the data mix"), ("router/max_vio", "routing"))
             if min(map(len, _sides(vector(run, name), low, high))) >= LEAST_ROWS]  # fmt: skip
    used, val = vector(run, "lr/used"), vector(run, "loss/val_domain")
    if len(_sides(used, low, high)[1]) and has(run, "lr/planned"):
        found.append("the learning rate")
    if (val.steps <= low).any() and (val.steps > low).any() and len(val.labels) > 1:
        found.append("validation losses by domain")
    return found


def _sides(rows: Rows, low: int, high: int) -> tuple[Floats, Floats]:
    """Values before and in the steps."""
    first = low - max(high - low, LEAST_STEPS)
    before = (rows.steps > first) & (rows.steps <= low)
    within = (rows.steps > low) & (rows.steps <= high)
    return rows.values[before], rows.values[within]


def _mix(run: Run, low: int, high: int) -> Iterator[Moved]:
    rows = vector(run, "data/domain_share")
    before, within = _sides(rows, low, high)
    if min(len(before), len(within)) < LEAST_ROWS:
        return
    planned = dict(run.card.domains)
    changes = []
    for at, name in enumerate(rows.labels):
        old, new = (values[:, at][np.isfinite(values[:, at])] for values in (before, within))
        if len(old) < 2 or len(new) < 2:
            continue
        error = float(np.sqrt(old.var(ddof=1) / len(old) + new.var(ddof=1) / len(new)))
        change = float(new.mean() - old.mean())
        base = max(float(old.mean()), 1e-12)
        if abs(change) > BEYOND * error and abs(change) >= RELATIVE * base:
            plan = planned.get(name)
            said = "" if plan is None else f" (planned {plan:.1%})"
            changes.append(Moved("mix", f"the share of {name} in the training tokens went from {old.mean():.1%} to "
                                        f"{new.mean():.1%}{said}", name, change / base))  # fmt: skip
    yield from sorted(changes, key=lambda m: m.size)[:MOST]


def _losses(run: Run, low: int, high: int) -> Iterator[Moved]:
    """Domains whose validation loss rose against that of the others."""
    rows = vector(run, "loss/val_domain")
    upto, behind = np.flatnonzero(rows.steps <= low), np.flatnonzero(rows.steps > low)
    if not len(upto) or not len(behind) or len(rows.labels) < 2:
        return
    # An evaluation that lies on the last of these steps, or is the first behind them, has seen them.
    at = behind[min(int(np.searchsorted(rows.steps[behind], high)), len(behind) - 1)]
    beside = _beside(rows.values)
    change = rows.values[at] - rows.values[upto[-1]]
    usual = np.abs(np.diff(beside[upto][-6:], axis=0)) if len(upto) > 2 else np.zeros((1, len(rows.labels)))
    others = float(np.nanmedian(change))
    for place in np.argsort(-np.nan_to_num(beside[at] - beside[upto[-1]], nan=-np.inf)):
        excess = float(beside[at][place] - beside[upto[-1]][place])
        noise = float(np.nanmedian(usual[:, place])) if np.isfinite(usual[:, place]).any() else 0.0
        if not np.isfinite(excess) or excess < max(BEYOND * noise, LEAST_NATS):
            return
        yield Moved("loss", f"the validation loss of {rows.labels[place]} moved by {change[place]:+.3f} nats from step "
                            f"{rows.steps[upto[-1]]:,} to {rows.steps[at]:,}, the median of all domains by "
                            f"{others:+.3f}", rows.labels[place], excess)  # fmt: skip


def _beside(values: Floats) -> Floats:
    """Each domain's loss less the median of all, row by row; domains without any value stay NaN."""
    some = np.isfinite(values).any(axis=1)
    middle = np.full(len(values), np.nan)
    middle[some] = np.nanmedian(values[some], axis=1)
    return np.asarray(values - middle[:, None])


def _routing(run: Run, low: int, high: int) -> Iterator[Moved]:
    rows = vector(run, "router/max_vio")
    before, within = _sides(rows, low, high)
    if min(len(before), len(within)) < LEAST_ROWS:
        return
    for at, name in enumerate(rows.labels):
        old, new = before[:, at], within[:, at]
        error = float(np.sqrt(np.nanvar(old) / len(old) + np.nanvar(new) / len(new)))
        if not np.isfinite(old).any() or not np.isfinite(new).any():
            continue
        change = float(np.nanmean(new) - np.nanmean(old))
        if change > max(BEYOND * error, RELATIVE * abs(float(np.nanmean(old)))):
            yield Moved("routing", f"the load of the experts in layer {name} grew uneven: MaxVio "
                                   f"{np.nanmean(old):.2f} before, {np.nanmean(new):.2f} in these steps", "",
                        change)  # fmt: skip


def _rate(run: Run, low: int, high: int) -> Iterator[Moved]:
    used, planned = vector(run, "lr/used"), vector(run, "lr/planned")
    if not len(used) or used.values.shape != planned.values.shape or not (used.steps == planned.steps).all():
        return
    within = (used.steps > low) & (used.steps <= high)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(used.values[within] / planned.values[within] - 1)
    steps = used.steps[within][np.nan_to_num(off, nan=0.0, posinf=0.0).max(axis=1, initial=0.0) > OFF_PLAN]
    if len(steps):
        said = f"the learning rate left its plan at {len(steps):,} steps, the first of them {steps[0]:,}"
        yield Moved("rate", said, "", float(np.nanmax(off)))


def _incidents(findings: Mapping[str, Any], low: int, high: int) -> Iterator[Moved]:
    for one in list(findings.get("incidents", []))[:200]:
        first, last = one["steps"]
        if first <= high and last > low:
            yield Moved("incident", f"incident of steps {first:,} to {last:,}: {one['summary']}")

