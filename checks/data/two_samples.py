"""Whether two groups of windows have one token distribution, told from counts alone.

The distance is a weighted square of the difference of shares, sum over tokens of (p - q)^2 / m with m the pooled
share; for small differences it is 8 times the Jensen-Shannon divergence in nats. It is estimated without bias from
products of *different* windows (Chen and Qin 2010, https://doi.org/10.1214/09-AOS716): noise of one window is
independent of that of another, whether tokens are drawn one by one or come in documents, so nothing has to be known
about how they clump. Its scatter is estimated from differences of windows that lie beside each other.

Legend: K tokens of the vocabulary, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIRECTIONS = 7.0
"""Directions of equal size over which the scatter of documents counts as spread: the fewer, the wider a distance
scatters. Measured from 7 (books) over 15 to 50 (papers, web pages) to 67 (code) on texts cut into documents of 200 to
4,000 tokens."""
LADDER = np.geomspace(1e-4, 1.0, 25)
"""Shares of other text between which a distance is read."""


@dataclass(slots=True)
class Pool:
    """Sums over windows of one kind."""

    total: Floats
    """[K] counts."""
    pairs: Floats
    """[K] sum over ordered pairs of different windows of the product of their counts."""
    n: float
    """Tokens."""
    n_squares: float
    """Sum of the windows' squared numbers of tokens."""
    windows: int

    @classmethod
    def of(cls, windows: Sequence[Floats]) -> Pool:
        """The pool of at least one window of counts [K]."""
        sizes = np.array([w.sum() for w in windows])
        total = np.sum(windows, axis=0)
        pairs = total * total
        for w in windows:
            pairs -= w * w
        return cls(total, pairs, float(sizes.sum()), float((sizes**2).sum()), len(windows))


@dataclass(frozen=True, slots=True)
class Gap:
    """The distance between two pools and what its estimate scatters by where there is none."""

    square: float
    sigma: float
    fraction: float
    """Part of all tokens that the second pool holds; the weights depend on it."""


def gap(a: Pool, b: Pool, clumping: float) -> Gap:
    """The distance of two pools of two windows or more. clumping: from `clumping_of`."""
    weights, seen = _weights(a.total + b.total)
    own = _sum(a.pairs, weights) / (a.n**2 - a.n_squares)
    other = _sum(b.pairs, weights) / (b.n**2 - b.n_squares)
    square = own + other - 2 * _sum(a.total, b.total, weights) / (a.n * b.n)
    pairs = 2 / (a.n**2 - a.n_squares) + 2 / (b.n**2 - b.n_squares) + 4 / (a.n * b.n)
    # Trace of the squared covariance in units of 1 / n^2: of independent tokens sum((p / m)^2) = K.
    trace = seen + max(clumping, 0.0) ** 2 / DIRECTIONS
    return Gap(square, float(np.sqrt(trace * pairs)), b.n / (a.n + b.n))


def single_gap(a: Pool, b: Pool) -> Gap:
    """The distance of two lone windows, tokens taken as independent: too large where documents clump."""
    weights, seen = _weights(a.total + b.total)
    terms = (a.total / a.n - b.total / b.n) ** 2 - a.total / a.n**2 - b.total / b.n**2
    return Gap(_sum(terms, weights), float(np.sqrt(2 * seen) * (1 / a.n + 1 / b.n)), b.n / (a.n + b.n))


def clumping_of(first: Floats, second: Floats) -> float:
    """Scatter of two neighbouring windows [K] beyond that of independent tokens, in tokens of the vocabulary.

    Documents repeat their words, so windows of one text differ by more than tokens drawn one by one would: chi-square
    of the two windows less its expectation.
    """
    weights, seen = _weights(first + second)
    n, m = first.sum(), second.sum()
    return _sum((first / n - second / m) ** 2, weights) / float(1 / n + 1 / m) - seen


def _sum(*factors: Floats) -> float:
    """Sum over tokens of a product. Not by BLAS: its threads spin where another job has the cores."""
    return float(np.einsum(",".join("i" * len(factors)) + "->", *factors))


def _weights(counts: Floats) -> tuple[Floats, int]:
    """One over the pooled shares, 0 where a token was not seen, and the number of tokens seen."""
    weights = np.divide(counts.sum(), counts, out=np.zeros_like(counts), where=counts > 0)
    return weights, int(np.count_nonzero(counts))


def widest(pairs: Sequence[float]) -> float:
    """The clumping to reckon with, of that of every pair of neighbours: the second widest, of many the widest tenth.

    Windows of few documents scatter unevenly, so the middle is too little; and the one pair between which the text
    changes must not count. 0 without pairs.
    """
    return sorted(pairs)[min(max(len(pairs) - 2, 0), int(0.9 * len(pairs)))] if pairs else 0.0


class OtherText:
    """What a share of other text would do to a distribution: text of the same frequencies in other tokens of the
    vocabulary. It makes distances of vocabularies and exponents comparable.
    """

    def __init__(self, counts: Floats) -> None:
        self._p = counts / counts.sum()
        self._other = np.random.default_rng(0).permutation(self._p)
        self._known: dict[float, Floats] = {}

    def square(self, share: float, fraction: float) -> float:
        """The distance of text with this share of other text in it."""
        return float(np.interp(np.log(share), np.log(LADDER), self._ladder(fraction)))

    def share(self, square: float, fraction: float) -> float:
        """The share of other text that gives this distance; 0 at and below 0."""
        ladder = self._ladder(fraction)
        if square <= ladder[0]:
            return max(float(LADDER[0] * square / ladder[0]), 0.0) if ladder[0] > 0 else 0.0
        return float(np.exp(np.interp(np.log(square), np.log(ladder), np.log(LADDER))))

    def _ladder(self, fraction: float) -> Floats:
        key = round(fraction, 2)
        if key not in self._known:
            self._known[key] = np.maximum.accumulate([self._exact(share, key) for share in LADDER])
        return self._known[key]

    def _exact(self, share: float, fraction: float) -> float:
        change = share * (self._other - self._p)
        pooled = self._p + fraction * change
        seen = pooled > 0
        return float((change[seen] ** 2 / pooled[seen]).sum())
