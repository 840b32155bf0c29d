"""data.mix: realised shares of the data domains against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import window_steps
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import MAD_TO_SIGMA, Bools, Floats, best_split, k_of_n
from trainvitals.card import UNATTRIBUTED

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention (no published limit): total variation distance above what sampling explains"
MIN_ROWS = 32
OWN_ROWS = 500
"""Rows of a stage without planned shares that stand for its plan, at most."""
ROUNDING = 1e-3
"""Planned shares that miss 1 by less leave nothing to the domains without a share."""
UNIT = "total variation distance"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a mix is off its plan."""

    warn_tvd: float
    """Over the whole run."""
    fail_tvd: float
    """Over a window."""
    starved: float
    """Part of its planned share below which a domain starves."""
    deviations: float
    blind_tvd: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows between two stage switches, with the plan that holds there."""

    rows: Rows
    """tokens per planned domain, [n, D]"""
    plan: Floats
    """[D], sums to 1; of a stage without planned shares those of its own first rows"""
    event: Masked | None
    own_rows: int = 0
    """How many rows the plan was read from; 0 where it was given"""


@dataclass(frozen=True, slots=True)
class Noise:
    """What sampling alone does to the shares of `rows` rows."""

    rows: int
    sigma: Floats
    """[D] of each domain's share"""

    @property
    def mean_tvd(self) -> float:
        """Expected total variation distance of a sound window: half the sum of mean absolute normal deviations."""
        return float(0.5 * np.sqrt(2 / np.pi) * self.sigma.sum())

    @property
    def sigma_tvd(self) -> float:
        """Its standard deviation, deviations taken as independent."""
        return float(0.5 * np.sqrt((1 - 2 / np.pi) * (self.sigma**2).sum()))


@check(
    "data.mix",
    area="data",
    reads=("data/domain_tokens",),
    refs=("https://github.com/EleutherAI/the-pile", "https://arxiv.org/abs/2305.10429"),
)
def mix(
    run: Run,
    *,
    warn_tvd: float = 0.01,
    fail_tvd: float = 0.03,
    starved: float = 0.5,
    deviations: float = 4.0,
    blind_tvd: float = 0.1,
) -> Iterator[Finding]:
    """The domains that were fed differ from the planned shares, over the run or recently.

    Why it matters: a loader that lost a shard or restarted at another weight trains another model, and no loss
    curve says so. How to read it: total variation distance (half the sum of absolute differences; 0.05 = 5 % of the
    tokens are from the wrong domain) less what sampling explains. The noise is measured on this run's own rows, so
    documents and packing are in it. Every domain of the record counts: one that the plan does not name is planned
    at 0, and those named without a share have together what the others leave of 1. A domain below half its plan
    fails however small it is. A run or a stage without planned shares is held against its own first quarter (32 to 500
    rows): that the mix stays is all that a pass then says, and a mix that moved warns. Where even the whole stage
    cannot tell `blind_tvd` from chance the answer is unknown.
    """
    planned = {name: share for name, share in run.card.domains.items() if share is not None}
    if planned and len(planned) < len(run.card.domains) and sum(planned.values()) > 1 + ROUNDING:
        yield Ground().unknown(
            "The plan has weights that add up to more than 1, and domains without one.",
            "What those domains should get is not said, so any mix may be right.",
            "Attach with a share for every domain.",
        )
        return
    limits = Limits(warn_tvd, fail_tvd, starved, deviations, blind_tvd)
    answers = [_judge(s, limits) for s in _segments(run, run.card.domains)]
    alarms = [f for f in answers if f.level in ("warn", "fail")]
    passed = [f for f in answers if f.level == "pass"]
    # A stage that cannot be judged is named beside one that passes: the pass is not of it.
    blind = [f for f in answers if f.level == "unknown"][-1:]
    yield from alarms or [*passed[-1:], *blind] or [_no_rows(bool(planned))]


def _no_rows(planned: bool) -> Finding:
    if not planned:
        return Ground().unknown(
            "The run card has no planned shares, and fewer than two domains have tokens.",
            "One domain is no mix.",
            "Attach with domains={name: planned share}, and let batches carry a column named domain.",
        )
    return Ground().unknown(
        "No row has tokens of a planned domain.",
        "Either the batches carry no domain, or its names are not those of the plan.",
        "Let batches carry a column named domain whose ids follow the order of the plan.",
    )


def _segments(run: Run, planned: Mapping[str, Any]) -> Iterator[Segment]:
    data = vector(run, "data/domain_tokens")
    edges = _edges(run, planned)
    for i, (start, event, shares) in enumerate(edges):
        end = edges[i + 1][0] if i + 1 < len(edges) else np.inf
        inside = (data.steps >= start) & (data.steps < end)
        planned_tokens = _planned(data.labels, shares)
        if planned_tokens is None:
            if (own := _own(Rows(data.steps[inside], data.values[inside], data.labels), event)) is not None:
                yield own
            continue
        names, members, plan = planned_tokens
        fed = np.nan_to_num(data.values[inside])
        tokens = np.stack([fed[:, columns].sum(axis=1) for columns in members], axis=1)
        some = tokens.sum(axis=1) > 0
        if some.any():
            yield Segment(Rows(data.steps[inside][some], tokens[some], names), plan, event)


def _own(data: Rows, event: Masked | None) -> Segment | None:
    """A stage without planned shares: its first rows are what the others are held against. None without domains."""
    known = [i for i, label in enumerate(data.labels) if label != UNATTRIBUTED]
    tokens = np.nan_to_num(data.values[:, known])
    some = tokens.sum(axis=1) > 0
    steps, tokens = data.steps[some], tokens[some]
    if len(known) < 2 or not len(tokens):
        return None
    first = min(max(len(tokens) // 4, MIN_ROWS), OWN_ROWS, len(tokens))
    plan = tokens[:first].sum(axis=0) / tokens[:first].sum()
    return Segment(Rows(steps, tokens, tuple(data.labels[i] for i in known)), plan, event, first)


def _edges(run: Run, planned: Mapping[str, Any]) -> list[tuple[int, Masked | None, Mapping[str, Any]]]:
    """First step of every stage, the switch that began it, and its shares; empty where the switch named none."""
    events = run.events().dropna(subset=["step"])
    switches = events[events["kind"] == "stage_switch"].sort_values("step")
    edges: list[tuple[int, Masked | None, Mapping[str, Any]]] = [(0, None, planned)]
    for step, extra in zip(switches["step"], switches["data"], strict=True):
        new = extra.get("domains") if isinstance(extra, Mapping) else None
        edges.append((int(step) + 1, Masked("stage_switch", int(step), int(step) + window_steps(run)), new or {}))
    return edges


def _planned(
    labels: tuple[str, ...], shares: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[list[int]], Floats] | None:
    """Names, columns and planned share of every part of the mix: all recorded domains, and all planned ones.

    A domain that the plan does not name is planned at 0. Domains named without a share have together what the
    others leave of 1, and are one part. Tokens without a domain are the matter of `data.unattributed`. None where
    the plan has no share above 0.
    """
    open_ended = [name for name, share in shares.items() if share is None]
    given = {name: float(share) for name, share in shares.items() if _positive(share)}
    total = sum(given.values())
    if total <= 0:
        return None
    left = max(1.0 - total, 0.0) if open_ended else 0.0
    if left < ROUNDING:
        left = 0.0
    column = {label: i for i, label in enumerate(labels)}
    single = [name for name in dict.fromkeys([*labels, *given]) if name != UNATTRIBUTED and name not in open_ended]
    names, plan = [*single], [given.get(name, 0.0) for name in single]
    members = [[column[name]] if name in column else [] for name in single]
    if open_ended:
        names.append(" + ".join(open_ended))
        plan.append(left)
        members.append([column[name] for name in open_ended if name in column])
    return tuple(names), members, np.array(plan) / sum(plan)


def _positive(share: Any) -> bool:
    return isinstance(share, int | float) and share > 0


def current_plan(run: Run) -> tuple[tuple[str, ...], Floats, Floats, int] | None:
    """Names, planned shares [D] and tokens fed [D] of the stage that the last row is in, and the stage's first step.

    None where that stage has no planned shares.
    """
    if not run.has("data/domain_tokens") or (last := run.last_step) is None:
        return None
    stages = [s for s in _segments(run, run.card.domains) if not s.own_rows]
    starts = [s for s, *_ in _edges(run, run.card.domains) if s <= last]
    if not stages or not starts or int(stages[-1].rows.steps[0]) < starts[-1]:
        return None
    rows = stages[-1].rows
    return rows.labels, stages[-1].plan, rows.values.sum(axis=0), int(rows.steps[0])


def _noise(shares: Floats, rows: int, own_rows: int = 0) -> Noise:
    """Noise of the mean of `rows` rows: from neighbouring rows, or windows where rows are not independent.

    With `own_rows` it is that of the distance to the mean of so many other rows.
    """
    single = np.mean(np.diff(shares, axis=0) ** 2, axis=0) / 2
    variance = single / rows
    blocks = len(shares) // rows
    if blocks >= 8:
        means = shares[len(shares) - blocks * rows :].reshape(blocks, rows, -1).mean(axis=1)
        between = (MAD_TO_SIGMA * np.median(np.abs(np.diff(means, axis=0)), axis=0)) ** 2 / 2
        variance = np.maximum(variance, between)
    if own_rows:
        variance = variance * (1 + rows / own_rows)
    return Noise(rows, np.sqrt(variance))


def _window_rows(shares: Floats, aim: float, deviations: float) -> int:
    one = _noise(shares, 1)
    wanted = ((one.mean_tvd + deviations * one.sigma_tvd) / aim) ** 2
    # Never more than a tenth of the run, or the recent past drowns in the old one.
    return int(np.clip(np.ceil(wanted), 1, max(len(shares) // 10, 1)))


@dataclass(frozen=True, slots=True)
class Windows:
    """A segment in windows that end at its last row."""

    shares: Floats
    """[n, D] of each row."""
    size: int
    """Rows per window."""
    noise: Noise
    by_window: Floats
    """[w, D] shares of each window."""
    over: Bools
    """[w] off the plan beyond chance."""
    tvd: Floats
    """[w] distance from the plan less the chance's part."""

    @property
    def hot(self) -> Bools:
        """[w] where it counts. Large windows carry the conclusion alone; of single noisy ones two of three must."""
        return k_of_n(self.over, 2, 3)

    def row(self, window: int) -> int:
        """First row of a window; of the one after the last, the number of rows."""
        return len(self.shares) - (len(self.over) - window) * self.size


def _windows(s: Segment, shares: Floats, limits: Limits) -> Windows:
    size = _window_rows(shares, limits.fail_tvd, limits.deviations)
    noise = _noise(shares, size, s.own_rows)
    windows = len(shares) // size
    tokens = s.rows.values[len(shares) - windows * size :].reshape(windows, size, -1).sum(axis=1)
    by_window = tokens / tokens.sum(axis=1, keepdims=True)
    return Windows(shares, size, noise, by_window, *_away(by_window, s.plan, noise, limits.fail_tvd, limits))


def _judge(s: Segment, limits: Limits) -> Finding:
    n, masked = len(s.rows), (s.event,) if s.event else ()
    totals = s.rows.values.sum(axis=1)
    shares = s.rows.values / totals[:, None]
    whole = _noise(shares, n, s.own_rows) if n >= MIN_ROWS + s.own_rows else None
    if whole is None or whole.mean_tvd + limits.deviations * whole.sigma_tvd > limits.blind_tvd:
        since = f" since step {int(s.rows.steps[0]):,}" if s.event else ""
        of = "its first rows" if s.own_rows else "its plan"
        return Ground(n, masked=masked).unknown(
            f"{n} rows of data{since} are too few to tell a mix {limits.blind_tvd:g} off {of} from chance.",
            "Shares of few documents scatter.",
        )
    w = _windows(s, shares, limits)
    total = s.rows.values.sum(axis=0) / totals.sum()
    over_all, tvd_all = _away(total[None], s.plan, whole, limits.warn_tvd, limits)
    if s.own_rows:
        over_all[:] = False  # the whole holds the first rows themselves
    resolution = limits.fail_tvd + w.noise.mean_tvd + limits.deviations * w.noise.sigma_tvd
    details = {
        "planned": dict(zip(s.rows.labels, s.plan.tolist(), strict=True)),
        "realised": dict(zip(s.rows.labels, total.tolist(), strict=True)),
        "rows_per_window": w.size,
        "smallest_shift_seen_in_a_window": resolution,
    }
    amount = float(tvd_all[0])
    ground = Ground(n, Threshold(limits.warn_tvd, limits.fail_tvd, UNIT, SOURCE), masked, details)
    if w.hot.any() or over_all[0]:
        return _alarm(ground, s, w, total, amount, limits)
    if s.own_rows:
        most = float(w.tvd.max())
        since = f"of the stage since step {int(s.rows.steps[0]):,}" if s.event else "of the run"
        return ground.passed(
            f"No shares are planned; the mix stays with the first {s.own_rows:,} rows {since}: {most:.3g} away at "
            "most.",
            Statistic(f"{UNIT} to the first rows, sampling noise subtracted", most, "1"),
            f"Whether it is the right mix nobody has said. A shift of more than {100 * resolution:.2g} % of the tokens "
            "would have been seen.",
            "Give the shares: domains={name: planned share} at attach, or with the stage switch.",
        )
    return ground.passed(
        f"The mix follows its plan: {amount:.3g} away over the run, sampling noise subtracted.",
        Statistic(f"{UNIT}, sampling noise subtracted", amount, "1", 0.0, amount),
        f"A shift that moves more than {100 * resolution:.2g} % of the tokens would have been seen.",
    )


def _away(shares: Floats, plan: Floats, noise: Noise, limit: float, limits: Limits) -> tuple[Bools, Floats]:
    """Windows [w] off the plan beyond chance, and their distance less the chance's part."""
    tvd = 0.5 * np.abs(shares - plan).sum(axis=1) - noise.mean_tvd
    starving = _starving(shares, plan, noise, limits)
    return (tvd > limit + limits.deviations * noise.sigma_tvd) | starving.any(axis=1), np.maximum(tvd, 0.0)


def _starving(shares: Floats, plan: Floats, noise: Noise, limits: Limits) -> Bools:
    hungry: Bools = (shares < limits.starved * plan) & (plan - shares > limits.deviations * noise.sigma)
    return hungry


def _alarm(ground: Ground, s: Segment, w: Windows, total: Floats, amount: float, limits: Limits) -> Finding:
    """The windows that are off since the first of them, else the run as a whole."""
    recent = bool(w.hot.any())
    first, end, now = 0, len(w.over) - 1, total
    if recent:
        first = max(int(np.argmax(w.hot)) - 2, 0)
        first += int(np.argmax(w.over[first:]))
        end = int(np.flatnonzero(w.over)[-1])
        now = w.by_window[first : end + 1].mean(axis=0)
        amount = float(np.median(w.tvd[first : end + 1]))
    stop = w.row(end + 1)
    row, method = _onset(w.shares[:stop], s.plan, now, w.row(first) if recent else None, w.size)
    ongoing = bool(w.hot[-1] or w.over[-1]) if recent else True
    spell = Spell(int(s.rows.steps[row]), int(s.rows.steps[stop - 1]), ongoing)
    gap, names = now - s.plan, s.rows.labels
    starving = _starving(now, s.plan, w.noise, limits)
    hungry = [name for name, starves in zip(names, starving, strict=True) if starves]
    worst = [
        f"{names[i]} {100 * now[i]:.3g} % instead of {100 * s.plan[i]:.3g} %" for i in (gap.argmin(), gap.argmax())
    ]
    error = 2 * w.noise.sigma_tvd
    return ground.alarm(
        f"The mix left {'its first rows' if s.own_rows else 'its plan'} at step {spell.first:,}: {', '.join(worst)}, "
        f"{spell.end}.",
        Statistic(
            f"{UNIT} since the onset, sampling noise subtracted", amount, "1", max(amount - error, 0.0), amount + error
        ),
        spell,
        level="warn" if s.own_rows else "fail" if hungry else None,
        evidence=[
            Evidence("data/domain_share", spell.steps, name)
            for i in np.argsort(-np.abs(gap))[:5]
            for name in names[i].split(" + ")
        ][:5],
        means="The model is trained on another mixture than "
        + ("at first, and no plan says so" if s.own_rows else "planned")
        + "; losses of domains are not comparable with before.",
        do=f"Look at the loader's weights and shards at step {spell.first:,}"
        + (f"; {', '.join(hungry)} gets less than half of what was planned." if hungry else "."),
        details={"since_onset": dict(zip(names, now.tolist(), strict=True)), "starved": hungry},
        onset=method,
    )


def _onset(shares: Floats, plan: Floats, now: Floats, row: int | None, size: int) -> tuple[int, str]:
    """First row of the new mix: best two-level split of the rows, projected on the direction of the change.

    Rows around the first window that is off (`row`) decide, all rows where only the whole run is off. A mix that
    was off from the first row on has no split.
    """
    direction = now - plan
    score = (shares - plan) @ direction / max(float(direction @ direction), 1e-30)
    low, high = (0, len(score)) if row is None else (max(row - max(8 * size, 50), 0), row + max(4 * size, 50))
    split = low + best_split(score[low:high])
    before, after = score[low:split], score[split:high]
    if split > low and before.mean() < 0.5 * after.mean():
        return split, "best two-level split of the shares, projected on the change"
    if low == 0:
        return 0, "off from the first rows on"
    return row or 0, "first window off its plan"
