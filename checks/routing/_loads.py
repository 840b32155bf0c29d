"""Expert loads summed over windows of rows, so that sampling noise is small beside what is looked for.

Legend: w windows, L layers with a router, E experts. A load ratio is an expert's tokens over the layer's mean: 1 is
fair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding
from checks.ground import Ground
from checks.reading import remember
from checks.robust import Floats

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


def too_few() -> Finding:
    """The answer where windows are too few."""
    return Ground().unknown(
        "Too few routed tokens for the smallest window.",
        f"A load is judged on windows of {TOKENS_PER_EXPERT} tokens per expert, at least {MIN_WINDOWS} of them.",
    )
