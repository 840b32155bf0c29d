"""What lm-evaluation-harness keeps of an item for a metric, as one score of that item.

Perplexities have no score of an item: the samples hold its log-likelihood, with the words or bytes that it is over, and
the harness sums both before it divides (`weighted_perplexity`, `bits_per_byte` in its api/metrics.py).
Their logarithm is a mean over items, so that is what is kept, under its own name: the mean of `log_word_perplexity` is
the logarithm of the harness' `word_perplexity`. F1 and Matthews' correlation hold pairs of labels: no item has a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.importers.evals.found import numeric

WEIGHTED = {"word_perplexity": ("log_word_perplexity", 1.0), "byte_perplexity": ("log_byte_perplexity", 1.0),
            "bits_per_byte": ("bits_per_byte", float(np.log(2)))}  # fmt: skip
"""Metric of pairs (log-likelihood, weight) -> name of what is kept, and nats in its unit."""


def scores_of(metric: str, values: Sequence[Any]) -> tuple[str, NDArray[np.float64]]:
    """Name of the scores, and the score of each item; NaN where it has none.

    Args:
        metric: as the harness names it.
        values: what the samples hold of each item.
    """
    plain = np.array([np.nan if (number := numeric(value)) is None else number for value in values], float)
    if metric in WEIGHTED and any(isinstance(value, list) for value in values):
        name, unit = WEIGHTED[metric]
        pairs = np.array([_pair(value) for value in values], float).reshape(-1, 2)
        # Over the mean weight, not the item's own: so the mean over items is the harness' quotient of sums.
        weight = np.nanmean(pairs[:, 1]) if np.isfinite(pairs[:, 1]).any() else np.nan
        return name, np.asarray(-pairs[:, 0] / weight / unit)
    known = plain[np.isfinite(plain)]
    if metric == "perplexity" and len(known) and (known <= 0).all():
        return "log_perplexity", -plain
    return metric, plain


def _pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        return np.nan, np.nan
    likelihood, weight = map(numeric, value)
    # An item without a likelihood keeps its weight: the mean weight must be that of every checkpoint.
    return np.nan if likelihood is None else likelihood, weight if weight is not None and weight > 0 else np.nan
