"""Expert loads summed over windows of rows, so that sampling noise is small beside what is looked for.

Legend: w windows, L layers with a router, E experts. A load ratio is an expert's tokens over the layer's mean: 1 is
fair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Masked
from checks.masking import quiet
from checks.reading import remember, vector
from checks.robust import Floats, best_split, excursions, segmented_baseline

if TYPE_CHECKING:
    from trainvitals.store import Run, Series

TOKENS_PER_EXPERT = 200
"""A window's fair share: the load of one expert then has a relative sampling error of 7 %."""
MIN_WINDOWS = 6
MIN_ROWS_PER_WINDOW = 4
"""Rows share few documents each; several rows average their topics."""
MAX_WINDOWS = 2000
MAX_VALUES = 30_000_000
"""Numbers read at a time: 240 MB."""


@dataclass(frozen=True, slots=True)
class Loads:
    """Token counts per window."""

    first: np.ndarray
    """[w] first step"""
    last: np.ndarray
    """[w] last step"""
    tokens: Floats
    """[w, L, E]"""
    layers: tuple[str, ...]
    experts: tuple[str, ...]
    top_k: int
    """Experts per token; 1 where the run card does not say."""
    rows_per_window: int

    @property
    def ratio(self) -> Floats:
        """[w, L, E] load ratio; 1 in layers that saw no token."""
        mean = self.tokens.mean(axis=-1, keepdims=True)
        ratio: Floats = np.divide(self.tokens, mean, out=np.ones_like(self.tokens), where=mean > 0)
        return ratio

    @property
    def noise(self) -> Floats:
        """[w, L] what the largest of E fair loads exceeds 1 by, by chance: sqrt(2 ln E / tokens per expert)."""
        mean = np.maximum(self.tokens.mean(axis=-1), 1.0)
        noise: Floats = np.sqrt(2 * np.log(max(len(self.experts), 2)) / mean)
        return noise

    @property
    def ceiling(self) -> float:
        """Largest possible MaxVio, E / k - 1: every token takes the same k experts."""
        return max(len(self.experts) / self.top_k - 1, 1e-9)

    @property
    def effective_experts(self) -> Floats:
        """[w, L] exp of the load's entropy, with Miller-Madow's correction for the sample size.

        https://en.wikipedia.org/wiki/Entropy_estimation; E for a fair load, k for a collapsed router.
        """
        total = self.tokens.sum(axis=-1, keepdims=True)
        p = np.divide(self.tokens, total, out=np.full(self.tokens.shape, 1 / len(self.experts)), where=total > 0)
        entropy = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1)
        entropy += ((p > 0).sum(axis=-1) - 1) / (2 * np.maximum(total[..., 0], 1))
        effective: Floats = np.minimum(np.exp(entropy), len(self.experts))
        return effective


def loads(run: Run) -> Loads | None:
    """Loads of the run, None where it has fewer than `MIN_WINDOWS` windows of enough tokens."""
    return remember(run, "loads", lambda: _loads(run))


def _loads(run: Run) -> Loads | None:
    known = run.signals()
    row = known[known["name"] == "router/tokens"]
    if row.empty:
        return None
    points, first, last = (
        int(row["points"].iloc[0]),
        int(row["first_step"].iloc[0]),
        int(row["last_step"].iloc[0]),
    )
    head = run.array("router/tokens", steps=(first, first + max((last - first) // max(points, 1), 1) * 8))
    if head.values.ndim != 3 or not head.values.size:
        return None
    _, layers, experts = head.values.shape
    size, steps, sums = 0, [], []
    for piece in _pieces(run, points, first, last, layers * experts):
        tokens = np.nan_to_num(piece.values)
        if not size:
            per_row = max(float(np.median(tokens.sum(axis=-1))), 1.0)
            size = max(
                int(np.ceil(TOKENS_PER_EXPERT * experts / per_row)),
                MIN_ROWS_PER_WINDOW,
                -(-points // MAX_WINDOWS),
            )
        for a in range(0, len(tokens) - size + 1, size):
            steps.append((piece.steps[a], piece.steps[a + size - 1]))
            sums.append(tokens[a : a + size].sum(axis=0))
    if len(sums) < MIN_WINDOWS:
        return None
    edges = np.asarray(steps)
    return Loads(
        edges[:, 0],
        edges[:, 1],
        np.asarray(sums),
        tuple(head.labels[0]),
        tuple(head.labels[1]),
        int(run.card.top_k or 1),
        size,
    )


def _pieces(run: Run, points: int, first: int, last: int, width: int) -> Iterator[Series]:
    pieces = max(1, -(-points * width // MAX_VALUES))
    edges = np.linspace(first, last + 1, pieces + 1).astype(int)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        yield run.array("router/tokens", steps=(int(a), int(b) - 1))


def too_few(run: Run) -> Finding:
    """The answer where windows are too few."""
    return Finding(
        level="unknown",
        summary="Too few routed tokens for the smallest window.",
        what_it_means=f"A load is judged on windows of {TOKENS_PER_EXPERT} tokens per expert, at least "
        f"{MIN_WINDOWS} of them.",
        what_to_do="Wait for more steps.",
    )


MIN_OWN = 8
"""Windows before a run's own level is known."""


@dataclass(frozen=True, slots=True, order=True)
class Episode:
    """Windows in which one layer was beyond its limit."""

    first: int
    last: int
    recovered: bool
    layer: int


def episodes(
    run: Run,
    loads: Loads,
    values: Floats,
    *,
    own: Callable[[Floats, Floats], Floats],
    margin: float,
    absolute: float,
    windows: int,
) -> tuple[list[Episode], tuple[Masked, ...]]:
    """Where three of four windows are above `absolute` or above what is usual in this run, earliest first.

    values: [w, L]. `own` makes the run's own limit of the median and sigma of the `windows` windows before; an episode
    ends below that median plus `margin`. Planned events excuse one, and come second.
    """
    mask = quiet(run, "routing")
    center, sigma = segmented_baseline(values, mask.level_rows(loads.first), window=windows, min_rows=MIN_OWN)
    limit, calm = own(center, sigma), center + margin
    # Where nothing in this run is known yet, only the absolute limit holds.
    limit, calm = (np.fmin(np.where(np.isfinite(x), x, np.inf), absolute) for x in (limit, calm))
    over = values > limit
    found: list[Episode] = []
    masked: dict[Masked, None] = {}
    for layer in np.flatnonzero(over.any(axis=0)):
        for e in excursions(values[:, layer], over[:, layer], calm[:, layer], k=3, n=4, calm_rows=3):
            if events := mask.explains(int(loads.first[e.first]), int(loads.last[e.last])):
                masked |= dict.fromkeys(events)
            else:
                found.append(Episode(e.first, e.last, e.recovered, int(layer)))
    return sorted(found), tuple(masked)


def sustained(values: Floats, found: list[Episode]) -> float:
    """The largest median of an episode's values [w, L]."""
    return max(float(np.median(values[e.first : e.last + 1, e.layer])) for e in found)


def onset(run: Run, loads: Loads, window: int, end: int, layer: int, expert: int | None) -> int:
    """First step of the change seen in windows `window` to `end`: best two-level split of the rows around the first."""
    low, high = max(window - 4, 0), min(window + 4, end)
    rows = run.array("router/tokens", steps=(int(loads.first[low]), int(loads.last[high])))
    tokens = np.nan_to_num(rows.values[:, layer])
    total = np.maximum(tokens.sum(axis=-1, keepdims=True), 1)
    p = tokens / total
    values = p[:, expert] if expert is not None else -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1)
    return int(rows.steps[best_split(values)])


def mix_shift(run: Run, step: int, around: int) -> float | None:
    """Total variation distance between the domain shares of `around` steps before and after a step; None if unknown."""
    data = vector(run, "data/domain_tokens")
    if not len(data):
        return None
    before = np.nansum(data.values[(data.steps >= step - around) & (data.steps < step)], axis=0)
    after = np.nansum(data.values[(data.steps >= step) & (data.steps < step + around)], axis=0)
    if not before.sum() or not after.sum():
        return None
    return float(0.5 * np.abs(before / before.sum() - after / after.sum()).sum())


MIX_NOTE = 0.1


def mix_sentence(shift: float | None) -> str:
    """What a simultaneous change of the data says about a router."""
    if shift is None or shift < MIX_NOTE:
        return ""
    return (
        f" The domain mix changed by {shift:.2f} at the same time: a new mix moves loads without any fault of the "
        "router, so look at data.mix first."
    )
