"""data.mix: realised shares of the data domains against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.masking import window_steps
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import MAD_TO_SIGMA, Floats, best_split, k_of_n

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention (no published limit): total variation distance above what sampling explains"
MIN_ROWS = 32


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows between two stage switches, with the plan that holds there."""

    rows: Rows
    """tokens per planned domain, [n, D]"""
    plan: Floats
    """[D], sums to 1"""
    event: Masked | None


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
    documents and packing are in it. A domain below half its plan fails however small it is. Where even the whole
    run cannot tell `blind_tvd` from chance the answer is unknown.
    """
    planned = {name: share for name, share in run.card.domains.items() if share is not None}
    if not planned or sum(planned.values()) <= 0:
        yield Finding(
            level="unknown",
            summary="The run card has no planned shares.",
            what_it_means="Without a plan any mix may be right.",
            what_to_do="Attach with domains={name: planned share}.",
        )
        return
    answers = [_judge(s, warn_tvd, fail_tvd, starved, deviations, blind_tvd) for s in _segments(run, planned)]
    alarms = [f for f in answers if f.level in ("warn", "fail")]
    yield from alarms or sorted(answers, key=lambda f: f.level != "pass")[:1] or [_no_rows()]


def _no_rows() -> Finding:
    return Finding(
        level="unknown",
        summary="No row has tokens of a planned domain.",
        what_it_means="Either the batches carry no domain, or its names are not those of the plan.",
        what_to_do="Let batches carry a column named domain whose ids follow the order of the plan.",
    )


def _segments(run: Run, planned: Mapping[str, float]) -> Iterator[Segment]:
    data = vector(run, "data/domain_tokens")
    events = run.events().dropna(subset=["step"])
    switches = events[events["kind"] == "stage_switch"].sort_values("step")
    edges: list[tuple[int, Masked | None, Mapping[str, Any]]] = [(0, None, planned)]
    for step, extra in zip(switches["step"], switches["data"], strict=True):
        new = extra.get("domains") if isinstance(extra, Mapping) else None
        edges.append((int(step) + 1, Masked("stage_switch", int(step), int(step) + window_steps(run)), new or {}))
    for i, (start, event, shares) in enumerate(edges):
        end = edges[i + 1][0] if i + 1 < len(edges) else np.inf
        names = [label for label in data.labels if _positive(shares.get(label))]
        if not names:
            continue
        inside = (data.steps >= start) & (data.steps < end)
        tokens = np.nan_to_num(data.values[inside][:, [data.labels.index(name) for name in names]])
        some = tokens.sum(axis=1) > 0
        plan = np.array([float(shares[name]) for name in names])
        if some.any():
            yield Segment(Rows(data.steps[inside][some], tokens[some], tuple(names)), plan / plan.sum(), event)


def _positive(share: Any) -> bool:
    return isinstance(share, int | float) and share > 0


def _noise(shares: Floats, rows: int) -> Noise:
    """Noise of the mean of `rows` rows: from neighbouring rows, or windows where rows are not independent."""
    single = np.mean(np.diff(shares, axis=0) ** 2, axis=0) / 2
    variance = single / rows
    blocks = len(shares) // rows
    if blocks >= 8:
        means = shares[len(shares) - blocks * rows :].reshape(blocks, rows, -1).mean(axis=1)
        between = (MAD_TO_SIGMA * np.median(np.abs(np.diff(means, axis=0)), axis=0)) ** 2 / 2
        variance = np.maximum(variance, between)
    return Noise(rows, np.sqrt(variance))


def _window_rows(shares: Floats, aim: float, deviations: float) -> int:
    one = _noise(shares, 1)
    wanted = ((one.mean_tvd + deviations * one.sigma_tvd) / aim) ** 2
    # Never more than a tenth of the run, or the recent past drowns in the old one.
    return int(np.clip(np.ceil(wanted), 1, max(len(shares) // 10, 1)))


def _judge(
    s: Segment, warn_tvd: float, fail_tvd: float, starved: float, deviations: float, blind_tvd: float
) -> Finding:
    n = len(s.rows)
    totals = s.rows.values.sum(axis=1)
    shares = s.rows.values / totals[:, None]
    masked = (s.event,) if s.event else ()
    whole = _noise(shares, n) if n >= MIN_ROWS else None
    if whole is None or whole.mean_tvd + deviations * whole.sigma_tvd > blind_tvd:
        return Finding(
            level="unknown",
            n=n,
            masked=masked,
            summary=f"{n} rows of data are too few to tell a mix {blind_tvd:g} off its plan from chance.",
            what_it_means="Shares of few documents scatter.",
            what_to_do="Wait for more steps.",
        )
    size = _window_rows(shares, fail_tvd, deviations)
    noise = _noise(shares, size)
    windows = n // size
    cut = n - windows * size
    tokens = s.rows.values[cut:].reshape(windows, size, -1).sum(axis=1)
    by_window = tokens / tokens.sum(axis=1, keepdims=True)
    over, tvd = _away(by_window, s.plan, noise, fail_tvd, starved, deviations)
    # Large windows carry the conclusion alone; of single noisy ones two of three must agree.
    hot = k_of_n(over, 2, 3)
    total = s.rows.values.sum(axis=0) / totals.sum()
    over_all, tvd_all = _away(total[None], s.plan, whole, warn_tvd, starved, deviations)
    resolution = fail_tvd + noise.mean_tvd + deviations * noise.sigma_tvd
    details: dict[str, Any] = {
        "planned": dict(zip(s.rows.labels, s.plan.tolist(), strict=True)),
        "realised": dict(zip(s.rows.labels, total.tolist(), strict=True)),
        "rows_per_window": size,
        "smallest_shift_seen_in_a_window": resolution,
    }
    threshold = Threshold(warn_tvd, fail_tvd, "total variation distance", SOURCE)
    if not hot.any() and not over_all[0]:
        return Finding(
            level="pass",
            n=n,
            threshold=threshold,
            masked=masked,
            details=details,
            summary=f"The mix follows its plan: {tvd_all[0]:.3g} away over the run, sampling noise subtracted.",
            statistic=Statistic(
                "total variation distance, sampling noise subtracted",
                float(tvd_all[0]),
                "1",
                0.0,
                float(tvd_all[0]),
            ),
            what_it_means=f"A shift that moves more than {100 * resolution:.2g} % of the tokens would have been seen.",
            what_to_do="Nothing.",
        )
    return _alarm(
        s,
        shares,
        by_window,
        over,
        hot,
        tvd,
        float(tvd_all[0]),
        total,
        cut,
        size,
        fail_tvd,
        starved,
        noise,
        deviations,
        threshold,
        details,
        masked,
    )


def _away(
    shares: Floats, plan: Floats, noise: Noise, limit: float, starved: float, deviations: float
) -> tuple[np.ndarray, Floats]:
    """Windows [w] off the plan beyond chance, and their distance less the chance's part."""
    tvd = 0.5 * np.abs(shares - plan).sum(axis=1) - noise.mean_tvd
    starving = (shares < starved * plan) & (plan - shares > deviations * noise.sigma)
    return (tvd > limit + deviations * noise.sigma_tvd) | starving.any(axis=1), np.maximum(tvd, 0.0)


def _alarm(
    s: Segment,
    shares: Floats,
    by_window: Floats,
    over: np.ndarray,
    hot: np.ndarray,
    tvd: Floats,
    tvd_all: float,
    total: Floats,
    cut: int,
    size: int,
    fail_tvd: float,
    starved: float,
    noise: Noise,
    deviations: float,
    threshold: Threshold,
    details: dict[str, Any],
    masked: tuple[Masked, ...],
) -> Finding:
    recent = hot.any()
    first = max(int(np.argmax(hot)) - 2, 0) if recent else 0
    first += int(np.argmax(over[first:])) if recent else 0
    end = int(np.flatnonzero(over)[-1]) if recent else len(over) - 1
    now = by_window[first : end + 1].mean(axis=0) if recent else total
    row, method = _onset(shares[: cut + (end + 1) * size], s.plan, now, cut + first * size if recent else None, size)
    step = int(s.rows.steps[row])
    last = int(s.rows.steps[cut + (end + 1) * size - 1])
    ongoing = bool(hot[-1] or over[-1]) if recent else True
    amount = float(np.median(tvd[first : end + 1])) if recent else tvd_all
    gap = now - s.plan
    worst = int(np.argmin(gap))
    most = int(np.argmax(gap))
    hungry = [
        name
        for name, have, want, sigma in zip(s.rows.labels, now, s.plan, noise.sigma, strict=True)
        if have < starved * want and want - have > deviations * sigma
    ]
    names = s.rows.labels
    return Finding(
        level="fail" if amount > fail_tvd or hungry else "warn",
        n=len(s.rows),
        steps=(step, last),
        ongoing=ongoing,
        summary=f"The mix left its plan at step {step:,}: {names[worst]} {100 * now[worst]:.3g} % instead of "
        f"{100 * s.plan[worst]:.3g} %, {names[most]} {100 * now[most]:.3g} % instead of {100 * s.plan[most]:.3g} %"
        + (", to the last step." if ongoing else f", until step {last:,}."),
        statistic=Statistic(
            "total variation distance since the onset, sampling noise subtracted",
            amount,
            "1",
            max(amount - 2 * noise.sigma_tvd, 0.0),
            amount + 2 * noise.sigma_tvd,
        ),
        threshold=threshold,
        masked=masked,
        evidence=tuple(Evidence("data/domain_share", (step, last), names[i]) for i in np.argsort(-np.abs(gap))[:5]),
        what_it_means="The model is trained on another mixture than planned; losses of domains are not "
        "comparable with before.",
        what_to_do=f"Look at the loader's weights and shards at step {step:,}"
        + (f"; {', '.join(hungry)} gets less than half of what was planned." if hungry else "."),
        details=details
        | {
            "since_onset": dict(zip(names, now.tolist(), strict=True)),
            "starved": hungry,
            "onset": {"method": method},
        },
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
