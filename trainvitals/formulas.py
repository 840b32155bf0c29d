"""From merged sums and counts to the numbers that people read.

Every function takes arrays whose first axis is the step and returns `Masked`: the values, and where they exist at
all. A domain without a token in a step has no loss there; that is not the same as a loss of NaN.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainvitals.card import RunCard

Array = NDArray[np.float64]


class Masked(NamedTuple):
    """Values [steps, *axes] and, where some do not exist, a boolean array of the same shape (None: all exist)."""

    values: Array
    present: NDArray[np.bool_] | None = None


MISSING_BITS = 0x7FF8_0000_5456_4E41
MISSING: float = struct.unpack("<d", struct.pack("<Q", MISSING_BITS))[0]
"""The NaN that a row holds for a scalar that was not given; every other NaN was a value."""


def given(values: Array) -> NDArray[np.bool_]:
    """Where a stored scalar was given at all, be it NaN."""
    return np.asarray(np.ascontiguousarray(values).view(np.int64) != MISSING_BITS)


def plain(values: Array) -> Masked:
    """The field as stored; absent where a row did not give it."""
    present = given(values)
    return Masked(values, None if present.all() else present)


def ratio(numerator: Array, denominator: Array) -> Masked:
    """Numerator over denominator; absent where the denominator is zero or unknown."""
    present = denominator > 0
    return Masked(np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=present), present)


def root(sumsq: Array) -> Masked:
    """The norm that belongs to a sum of squares."""
    with np.errstate(invalid="ignore"):
        return Masked(np.sqrt(sumsq))


def unequal(one: Array, other: Array) -> Masked:
    """1.0 where two numbers differ, else 0.0; absent where either is NaN."""
    return Masked((one != other).astype(np.float64), ~(np.isnan(one) | np.isnan(other)))


def modulo_lane(sums: Array) -> Masked:
    """Sums [steps, lanes] of numbers that are counted modulo 2**32, exact below 2**53.

    Absent where one is NaN, and where all are 0: nothing was counted, or by a version that did not record it.
    """
    with np.errstate(invalid="ignore"):
        return Masked(np.remainder(sums, 2.0**32), ~np.isnan(sums) & (sums != 0).any(axis=-1, keepdims=True))


def smaller(after: Array, before: Array) -> Masked:
    """1.0 where a sum of squares became smaller by more than rounding does, else 0.0; absent where either is NaN."""
    with np.errstate(invalid="ignore"):
        return Masked((after < before * (1 - 2e-6)).astype(np.float64), ~(np.isnan(after) | np.isnan(before)))


def root_ratio(numerator: Array, denominator: Array) -> Masked:
    """Ratio of two norms given as sums of squares."""
    squared = ratio(numerator, denominator)
    with np.errstate(invalid="ignore"):
        return Masked(np.sqrt(squared.values), squared.present)


def root_ratio_total(numerator: Array, denominator: Array) -> Masked:
    """Ratio of the norms over all labels."""
    return root_ratio(numerator.sum(axis=-1), denominator.sum(axis=-1))


def share(counts: Array) -> Masked:
    """Counts over their sum along the last axis."""
    total = counts.sum(axis=-1, keepdims=True)
    return ratio(counts.astype(np.float64), np.broadcast_to(total, counts.shape))


def load_entropy(tokens: Array) -> Masked:
    """Shannon entropy of the load [..., experts] over ln(experts).

    https://github.com/NVIDIA-NeMo/Automodel/issues/1232 asks for it; 1 is a perfectly balanced layer.
    """
    shares = share(tokens).values
    positive = shares > 0
    logs = np.log(shares, out=np.zeros_like(shares), where=positive)
    experts = tokens.shape[-1]
    entropy = -(np.where(positive, shares, 0.0) * logs).sum(axis=-1) / (np.log(experts) if experts > 1 else 1.0)
    return Masked(entropy, tokens.sum(axis=-1) > 0)


def max_violation(tokens: Array) -> Masked:
    """MaxVio = (max load - mean load) / mean load, over experts (https://arxiv.org/abs/2408.15664, eq. 4)."""
    mean = tokens.mean(axis=-1)
    return ratio(tokens.max(axis=-1) - mean, mean)


def load_cv(tokens: Array) -> Masked:
    """Coefficient of variation of the loads over experts."""
    return ratio(tokens.std(axis=-1), tokens.mean(axis=-1))


def dead_experts(tokens: Array) -> Masked:
    """Number of experts without a token, in layers that saw any."""
    return Masked((tokens == 0).sum(axis=-1).astype(np.float64), tokens.sum(axis=-1) > 0)


def known_share(domain_tokens: Array) -> Masked:
    """Tokens of the named domains over all; the last label is that of the others. Absent where no domain is named."""
    known, total = domain_tokens[..., :-1].sum(axis=-1), domain_tokens.sum(axis=-1)
    return ratio(known.astype(np.float64), np.where(domain_tokens.shape[-1] > 1, total, 0))


def padding_share(padding: Array, domain_tokens: Array) -> Masked:
    """Padding positions over all positions of the batch."""
    return ratio(padding, padding + domain_tokens.sum(axis=-1))


def cumulative_total(counts: Array) -> Masked:
    """Running total over steps and labels."""
    return Masked(np.cumsum(counts.sum(axis=-1), dtype=np.float64))


def epochs(domain_tokens: Array, card: RunCard) -> Masked:
    """Tokens seen per domain over the domain's unique tokens; absent where the card does not say how many."""
    sizes = [float(card.domain_tokens.get(name, 0)) for name in card.domain_labels]
    size = np.broadcast_to(np.asarray(sizes[: domain_tokens.shape[-1]]), domain_tokens.shape)
    return ratio(np.cumsum(domain_tokens, axis=0, dtype=np.float64), size)


def mfu(tokens: Array, step_time: Array, card: RunCard) -> Masked:
    """Model FLOP utilisation, tokens/s x FLOP/token over peak FLOP/s of all devices (PaLM, appendix B).

    https://arxiv.org/abs/2204.02311. Absent where the peak of the hardware is unknown: another card's peak would be
    a wrong number, not an estimate.
    """
    if not card.peak_flops_per_device or not card.flops_per_token:
        return Masked(np.full(tokens.shape, np.nan), np.zeros(tokens.shape, bool))
    peak = card.peak_flops_per_device * card.world_size
    rate = ratio(tokens, step_time)
    return Masked(rate.values * (card.flops_per_token / peak), rate.present)


REFERENCE_WINDOWS = 5
"""How many first windows make up the reference that later windows are compared with."""


def token_drift(counts: Array) -> Masked:
    """Jensen-Shannon distance (base 2) of each window's token counts to the first windows', noise subtracted.

    counts: [windows, domains, vocabulary]. The plug-in JS divergence of two samples of one distribution is not zero
    but about (K - 1) / 8 * (1/n1 + 1/n2) nats, K the number of categories seen; that is subtracted before the root.
    A reference window is compared with the other reference windows, not with itself.
    """
    windows, domains, _ = counts.shape
    values, present = np.full((windows, domains), np.nan), np.zeros((windows, domains), bool)
    pooled = counts[:REFERENCE_WINDOWS].sum(axis=0, dtype=np.float64)
    for w in range(windows):
        reference = pooled - counts[w] if w < REFERENCE_WINDOWS else pooled
        for d in range(domains):
            n, m = counts[w, d].sum(), reference[d].sum()
            if n > 0 and m > 0:
                values[w, d] = js_distance(counts[w, d], reference[d])
                present[w, d] = True
    return Masked(values, present)


def js_distance(counts: Array, reference: Array) -> float:
    """De-biased Jensen-Shannon distance (base 2) between two count vectors of one length; both sums positive."""
    n, m = float(counts.sum()), float(reference.sum())
    seen = (counts > 0) | (reference > 0)
    p, q = counts[seen] / n, reference[seen] / m
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = 0.5 * (np.where(p > 0, p * np.log(p / middle), 0).sum()
                            + np.where(q > 0, q * np.log(q / middle), 0).sum())
    noise = (int(seen.sum()) - 1) / 8 * (1 / n + 1 / m)
    return float(np.sqrt(max(divergence - noise, 0.0) / np.log(2)))
