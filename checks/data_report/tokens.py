"""What the token counts tell: which tokens moved, what became of watched words, scripts, and the tokenizer's fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from checks.data.movers import movers
from checks.data.two_samples import OtherText, Pool, gap
from checks.data_report.sample import Floats, Sample, Share, share
from checks.data_report.vocabulary import Vocabulary
from trainvitals.spelling import SCRIPTS

MOVED_DEVIATIONS = 6.0
"""Of a token's own scatter between windows and of its count, below which it is not said to have moved."""
MOST_MOVED, MOST_TOKENS = 10, 8
ALL = "all domains"


@dataclass(frozen=True, slots=True)
class Moved:
    """A token whose share changed beyond chance."""

    token: int
    text: str
    before: float
    now: float
    part: float
    """Its part of the divergence between the two samples."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one domain's tokens moved; shares are None where there are too few windows."""

    domain: str
    tokens_before: float
    tokens_now: float
    share: float | None
    """Share of other text that would move them as far."""
    low: float | None
    high: float | None
    moved: tuple[Moved, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """A word that was asked for, in one domain or in all."""

    word: str
    tokens: tuple[str, ...]
    """The tokens that are counted."""
    whole: bool
    """Whether they are the word itself, and not merely hold it."""
    domain: str
    before: Share
    now: Share


@dataclass(frozen=True, slots=True)
class Script:
    """A script's share of the bytes."""

    domain: str
    script: str
    before: Share
    now: Share


@dataclass(frozen=True, slots=True)
class Fit:
    """How a tokenizer fits one domain."""

    domain: str
    tokens: float
    bytes_per_token: float
    unspelled: float
    """Share of tokens that the vocabulary does not spell: special ones, unknown ones, ids outside of the tokenizer."""
    per_word: float | None
    """Tokens of letters per word: those that begin one; None where the spelling does not mark beginnings."""
    by_script: dict[str, float]
    """Bytes per token of the tokens that are mostly of one script."""


def drifts(sample: Sample, vocabulary: Vocabulary) -> tuple[Drift, ...]:
    """Every domain that has tokens in both samples."""
    found = []
    for d, name in enumerate(sample.domains):
        first, newest = sample.pair(d)
        if not len(first) or not len(newest):
            continue
        told = _other_text(first, newest, float(sample.clumping[d]))
        found.append(Drift(name, float(first.sum()), float(newest.sum()), *told, _moved(first, newest, vocabulary)))
    return tuple(found)


def _other_text(first: Floats, newest: Floats, clumping: float) -> tuple[float | None, float | None, float | None]:
    if min(len(first), len(newest)) < 2:
        return None, None, None
    found, other = gap(Pool.of(list(first)), Pool.of(list(newest)), clumping), OtherText(first.sum(axis=0))
    value, low, high = (other.share(found.square + k * found.sigma, found.fraction) for k in (0, -2, 2))
    return value, low, high


def _moved(first: Floats, newest: Floats, vocabulary: Vocabulary) -> tuple[Moved, ...]:
    beyond = _deviations(first, newest) > MOVED_DEVIATIONS
    labels = [str(i) for i in range(first.shape[1])]
    every = movers(first.sum(axis=0), newest.sum(axis=0), labels, top=50 * MOST_MOVED)
    sure = [m for m in every if beyond[int(m.label)]][:MOST_MOVED]
    return tuple(Moved(int(m.label), vocabulary.text(int(m.label)), m.before, m.now, m.part) for m in sure)


def _deviations(first: Floats, newest: Floats) -> Floats:
    """[K] change of each token's share over its scatter: that of its counts, or that between windows where larger."""
    shares, variance = [], np.zeros(first.shape[1])
    pooled = (first.sum(axis=0) + newest.sum(axis=0)) / (first.sum() + newest.sum())
    for rows in (first, newest):
        shares.append(rows.sum(axis=0) / rows.sum())
        counted = pooled / rows.sum()
        between = (rows / rows.sum(axis=1, keepdims=True)).var(axis=0, ddof=1) / len(rows) if len(rows) > 1 else 0.0
        variance += np.maximum(counted, between)
    deviations: Floats = np.abs(shares[1] - shares[0]) / np.sqrt(np.maximum(variance, 1e-300))
    return deviations


def watched(sample: Sample, vocabulary: Vocabulary, words: Sequence[str]) -> tuple[tuple[Watched, ...], list[str]]:
    """Every word in all domains and in each, and the words that no token spells."""
    found: list[Watched] = []
    absent: list[str] = []
    for word in words:
        ids = vocabulary.spelling(word)
        whole = bool(ids)
        ids = ids or vocabulary.containing(word)
        if not ids:
            absent.append(word)
            continue
        texts = tuple(vocabulary.text(i) for i in sorted(ids, key=lambda i: -sample.total[:, i].sum())[:MOST_TOKENS])
        for d in (None, *range(len(sample.domains))):
            first, newest = sample.pair(d)
            if len(first) and len(newest):
                before, now = (share(rows[:, ids].sum(axis=1), rows.sum(axis=1)) for rows in (first, newest))
                found.append(Watched(word, texts, whole, ALL if d is None else sample.domains[d], before, now))
    return tuple(found), absent


def scripts(sample: Sample, vocabulary: Vocabulary, least: float = 0.0005) -> tuple[Script, ...]:
    """Scripts with a share of the bytes of a sample of at least `least`, in all domains and in each."""
    found = []
    for d in (None, *range(len(sample.domains))):
        pair = [rows @ vocabulary.bytes for rows in sample.pair(d) if len(rows)]
        pair = [rows[rows.sum(axis=1) > 0] for rows in pair]
        if len(pair) < 2 or not all(len(rows) for rows in pair):
            continue
        for s, name in enumerate(SCRIPTS):
            before, now = (share(rows[:, s], rows.sum(axis=1)) for rows in pair)
            if max(before.value, now.value) >= least:
                found.append(Script(ALL if d is None else sample.domains[d], name, before, now))
    return tuple(found)


def fits(sample: Sample, vocabulary: Vocabulary) -> tuple[Fit, ...]:
    """The tokenizer on every domain, over the whole run."""
    return tuple(_fit(name, sample.total[d], vocabulary) for d, name in enumerate(sample.domains)
                 if sample.total[d].sum() > 0)


def _fit(name: str, counts: Floats, vocabulary: Vocabulary) -> Fit:
    known = counts * vocabulary.known
    sizes = vocabulary.bytes.sum(axis=1)
    by_script = {}
    for s, script in enumerate(SCRIPTS):
        of = counts * (vocabulary.script == s)
        if of.sum() > 0.0005 * counts.sum():
            by_script[script] = float(of @ sizes / of.sum())
    per_word = None
    if vocabulary.words is not None:
        letters, begins = vocabulary.words
        per_word = float(counts[letters].sum() / counts[begins].sum()) if counts[begins].sum() else None
    return Fit(name, float(counts.sum()), float(known @ sizes / known.sum()) if known.sum() else float("nan"),
               1 - float(known.sum() / counts.sum()), per_word, by_script)
