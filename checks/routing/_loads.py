"""Expert loads summed over windows of rows, so that sampling noise is small beside what is looked for.

A window is closed by what came before its end, so a run that is cut anywhere has the windows that it had live. Legend:
w windows, L layers with a router, E experts, k experts per token. A load ratio is an expert's tokens over the layer's
mean: 1 is fair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.finding import Finding
from checks.ground import Ground
from checks.reading import remember, vector
from checks.robust import Bools, Floats

if TYPE_CHECKING:
    from trainvitals.store import Run, Series

TOKENS_PER_EXPERT = 200
"""A window's fair share: the load of one expert then has a relative sampling error of 7 %."""
MIN_WINDOWS = 6
MIN_ROWS_PER_WINDOW = 4
"""Rows share few documents each; several rows average their topics."""
WINDOWS_PER_TIER = 512
"""After so many windows those that follow take twice as many rows: 4,608 windows hold a run of a million rows."""
MAX_VALUES = 30_000_000
"""Numbers read at a time: 240 MB."""
MOST_TOKENS = 1e15
"""In one row, more than any run has seen."""
TOO_EVEN = 0.01
"""Variance of loads over that of independent choices, below which no router chose: its loads are equal by
construction. Trained top-k routers are at 1 or far above."""
ALWAYS = 1e-3
"""Relative scatter of an expert's share below which it takes every token."""
WHOLE = 0.02
"""How far choices per token may be from a whole number."""

Known = Literal["card", "record", "nowhere"]


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
    """Experts per token; 1 where it is known nowhere."""
    rows_per_window: int
    """Of the first windows."""
    top_k_known: Known = "card"
    """By the run card, or by choices per input token in the record."""
    shared: tuple[str, ...] = ()
    """Experts that take every token, left out."""

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
    def by_construction(self) -> Bools:
        """[L] layers whose experts got equal loads in every window, far more so than any choice by tokens would give.

        So it is where experts choose their tokens (https://arxiv.org/abs/2202.09368), or tokens are assigned evenly
        (https://arxiv.org/abs/2103.16716).
        """
        mean = self.tokens.mean(axis=-1)
        excess = self.tokens.var(axis=-1) / np.maximum(mean, 1e-9)
        equal: Bools = ((excess < TOO_EVEN) & (mean > 0)).all(axis=0)
        return equal

    @property
    def effective_experts(self) -> Floats:
        """[w, L] exp of the load's entropy, with Miller-Madow's correction for the sample size.

        https://en.wikipedia.org/wiki/Entropy_estimation; E for a fair load, k for a collapsed router.
        """
        total = self.tokens.sum(axis=-1)
        p = self.ratio / len(self.experts)
        correction = ((p > 0).sum(axis=-1) - 1) / (2 * np.maximum(total, 1))
        number: Floats = np.minimum(effective_number(p) * np.exp(correction), len(self.experts))
        return number

    @property
    def degree(self) -> Floats:
        """[w, L] (E - effective experts) / (E - k): 0 is even, 1 the same k experts for every token."""
        return self.degree_of(self.effective_experts)

    def degree_of(self, effective_experts: Floats, top_k: Floats | int | None = None) -> Floats:
        """The collapse that so many effective experts are, at the run's k or another."""
        experts = len(self.experts)
        degree: Floats = (experts - effective_experts) / np.maximum(experts - (top_k or self.top_k), 1e-9)
        return np.clip(degree, 0.0, 1.0)


def effective_number(shares: Floats) -> Floats:
    """exp(entropy) of shares [..., E] that sum to 1."""
    entropy: Floats = -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=-1)
    return np.exp(entropy)


def counts(values: Floats) -> Floats:
    """Stored counts as such: what is missing, negative or beyond any run is no count."""
    known = np.nan_to_num(values)
    return np.clip(known, 0.0, MOST_TOKENS, out=known)


def loads(run: Run) -> Loads | None:
    """Loads of the run, None where it has fewer than `MIN_WINDOWS` windows of enough tokens."""
    return remember(run, "loads", lambda: _loads(run))


def _loads(run: Run) -> Loads | None:
    known = run.signals()
    row = known[known["name"] == "router/tokens"]
    if row.empty:
        return None
    points, first, last = (int(row[column].iloc[0]) for column in ("points", "first_step", "last_step"))
    labels = run.array("router/tokens", steps=(first, first)).labels
    if len(labels) != 2 or not all(labels):
        return None
    pieces = _pieces(run, points, first, last, len(labels[0]) * len(labels[1]))
    windows = list(_windows(pieces, TOKENS_PER_EXPERT * len(labels[1])))
    if len(windows) < MIN_WINDOWS:
        return None
    starts, ends, rows, tokens = zip(*windows, strict=True)
    edges, table = np.array([starts, ends]), np.asarray(tokens)
    top_k, source = _top_k(run, edges, table)
    shared = _shared(table, top_k) if source == "card" else np.zeros(len(labels[1]), bool)
    return Loads(edges[0], edges[1], table[:, :, ~shared], tuple(labels[0]),
                 tuple(np.array(labels[1])[~shared].tolist()), top_k, int(np.median(rows[:MIN_WINDOWS])), source,
                 tuple(np.array(labels[1])[shared].tolist()))  # fmt: skip


def _windows(pieces: Iterable[Series], enough: float) -> Iterator[tuple[int, int, int, Floats]]:
    """First step, last step, rows and tokens [L, E] of each window; the last rows wait where they are too few."""
    done = rows = start = 0
    total, held = 0.0, np.zeros(())
    for piece in pieces:
        tokens = counts(piece.values)
        sums = np.concatenate([[0.0], np.cumsum(np.median(tokens.sum(axis=-1), axis=-1))])
        a, n = 0, len(tokens)
        while a < n:
            least = MIN_ROWS_PER_WINDOW << (done // WINDOWS_PER_TIER)
            b = max(a + least - rows, int(np.searchsorted(sums, sums[a] + enough - total)), a + 1)
            full, b = b <= n, min(b, n)
            start = int(piece.steps[a]) if rows == 0 else start
            rows, total, held = rows + b - a, total + sums[b] - sums[a], held + tokens[a:b].sum(axis=0)
            if full:
                yield start, int(piece.steps[b - 1]), rows, held
                done, rows, total, held = done + 1, 0, 0.0, np.zeros(())
            a = b


def _pieces(run: Run, points: int, first: int, last: int, width: int) -> Iterator[Series]:
    pieces = max(1, -(-points * width // MAX_VALUES))
    edges = np.linspace(first, last + 1, pieces + 1).astype(int)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        yield run.array("router/tokens", steps=(int(a), int(b) - 1))


def _top_k(run: Run, edges: np.ndarray, tokens: Floats) -> tuple[int, Known]:
    """Experts per token, of the card or of the first windows: choices of a layer over input tokens."""
    if run.card.top_k:
        return min(max(int(run.card.top_k), 1), tokens.shape[2]), "card"
    data = vector(run, "data/domain_tokens")
    inside = (data.steps > edges[1, 0]) & (data.steps <= edges[1, MIN_WINDOWS - 1])
    inputs = float(np.nansum(data.values[inside]))
    per_token = float(np.median(tokens[1:MIN_WINDOWS].sum(axis=(0, 2)))) / inputs if inputs else 0.0
    whole = round(per_token)
    if whole >= 1 and abs(per_token - whole) <= WHOLE * whole:
        return min(whole, tokens.shape[2]), "record"
    return 1, "nowhere"


def _shared(tokens: Floats, top_k: int) -> Bools:
    """[E] experts that every token takes besides its k, in every layer: each has exactly 1 of k + s choices.

    A router that has collapsed onto the same k experts gives each of them 1 of k.
    """
    head = tokens[:MIN_WINDOWS]
    share = head / np.maximum(head.sum(axis=-1, keepdims=True), 1.0)
    for s in range(1, max(tokens.shape[2] - top_k, 1)):
        fixed: Bools = (np.abs(share * (top_k + s) - 1) < ALWAYS).all(axis=(0, 1))
        if fixed.sum() == s:
            return fixed
    return np.zeros(tokens.shape[2], bool)


def too_few() -> Finding:
    """The answer where windows are too few."""
    return Ground().unknown(
        "Too few routed tokens for the smallest window.",
        f"A load is judged on windows of {TOKENS_PER_EXPERT} tokens per expert, at least {MIN_WINDOWS} of them.",
    )


def no_choice(found: Loads) -> Finding | None:
    """The answer where loads say nothing about a router, for it does not choose; None where any layer's does."""
    ground = Ground(len(found.first), details={"rows_per_window": found.rows_per_window})
    if len(found.experts) <= found.top_k:
        return ground.passed("Every token takes every expert: loads are equal.", None, "The router has no choice.")
    if found.by_construction.all():
        return ground.unknown(
            "Every expert got the same number of tokens, in every window: loads are equal by construction.",
            "Where experts choose their tokens, or tokens are assigned evenly, a load says nothing about the router: "
            "tokens that no expert takes, and experts that do the same work, do not show in it.",
            "Log how many tokens no expert takes, and judge such a router by them.",
        )
    return None
