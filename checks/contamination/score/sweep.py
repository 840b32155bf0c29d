"""The estimated performance gain at every threshold, so that nobody has to believe in one (ConTAM, arXiv 2411.03923).

Flagged are items whose containment score is at least the threshold; clean is the rest. Untestable items are left out of
both sides and of `score_whole`: they cannot be flagged, so their ease or difficulty would pass for a gain.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from checks.contamination.score.effect import Floats, is_binary, newcombe, wilson
from checks.contamination.score.scores import Matched

THRESHOLDS: Floats = np.arange(5, 101) / 100
"""0.05 to 1.00 in hundredths."""

SWEEP = pa.schema(
    [
        ("benchmark", pa.string()),
        ("model", pa.string()),  # null: the counts of all testable items, scored or not
        ("threshold", pa.float64()),
        ("flagged", pa.int32()),
        ("n_clean", pa.int32()),
        ("score_whole", pa.float64()),  # of all testable items; null without a model
        ("score_clean", pa.float64()),  # null where every item is flagged
        ("low", pa.float64()),  # 95 % interval of score_clean: Wilson's, or mean +- 1.96 standard errors
        ("high", pa.float64()),
        ("gain", pa.float64()),  # score_whole - score_clean
        ("gain_low", pa.float64()),  # 95 % interval of gain; null where nothing or everything is flagged
        ("gain_high", pa.float64()),
    ]
)
"""sweep.parquet."""


def sweep(items: pd.DataFrame, matched: Matched) -> pa.Table:
    """One row per benchmark, model and threshold, and per benchmark and threshold without a model.

    items: the columns of items.parquet.
    """
    parts = []
    for name, own in items[items["verdict"] != "untestable"].groupby("benchmark", sort=False):
        overlap = own["score"].fillna(0.0).to_numpy(float).round(6)
        parts.append(_counts(overlap).assign(benchmark=name, model=None))
        scored = matched.rows[(matched.rows["benchmark"] == name) & (matched.rows["verdict"] != "untestable")]
        for model, rows in scored.groupby("model", sort=False):
            values = _gains(rows["overlap"].to_numpy(float), rows["score"].to_numpy(float))
            parts.append(values.assign(benchmark=name, model=model))
    tables = [pa.Table.from_pandas(part.reindex(columns=SWEEP.names), SWEEP, preserve_index=False) for part in parts]
    return pa.concat_tables(tables) if tables else SWEEP.empty_table()


def _counts(overlap: Floats) -> pd.DataFrame:
    flagged = len(overlap) - np.searchsorted(np.sort(overlap), THRESHOLDS)
    return pd.DataFrame({"threshold": THRESHOLDS, "flagged": flagged, "n_clean": len(overlap) - flagged})


def _gains(overlap: Floats, score: Floats) -> pd.DataFrame:
    order = np.argsort(overlap, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(score[order])])
    squares = np.concatenate([[0.0], np.cumsum(score[order] ** 2)])
    table = _counts(overlap)
    n = len(score)
    clean = table["n_clean"].to_numpy()
    dirty = n - clean
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, rest = sums[clean] / clean, (sums[-1] - sums[clean]) / dirty
        if is_binary(score):
            low, high = wilson(sums[clean], clean)
            gap_low, gap_high = newcombe(sums[-1] - sums[clean], dirty, sums[clean], clean)
        else:
            error = np.sqrt(np.maximum(squares[clean] / clean - mean**2, 0) / clean)
            rest_error = np.sqrt(np.maximum((squares[-1] - squares[clean]) / dirty - rest**2, 0) / dirty)
            low, high = np.clip(mean - 1.96 * error, 0, 1), np.clip(mean + 1.96 * error, 0, 1)
            half = 1.96 * np.hypot(error, rest_error)
            gap_low, gap_high = rest - mean - half, rest - mean + half
    # whole - clean is the flagged share of (dirty - clean), whose parts share no item.
    return table.assign(
        score_whole=sums[-1] / n,
        score_clean=mean,
        low=low,
        high=high,
        gain=sums[-1] / n - mean,
        gain_low=gap_low * dirty / n,
        gain_high=gap_high * dirty / n,
    )
