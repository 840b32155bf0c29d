"""Logs to plant faults in: the published ones where they are at hand, and surrogates with the noise of such logs."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checks.stream.layout import LOSS, Bounds
from checks.stream.series import Episode, Series

CURVES = Path(__file__).parents[4] / "shared" / "data" / "curves"
Floats = NDArray[np.float64]


@cache
def published() -> dict[str, Floats]:
    """Healthy training losses by name; empty where the folder is absent."""
    if not CURVES.is_dir():
        return {}
    text = (CURVES / "llmc_124m_main.log").read_text()
    found = {"llm.c": np.array(re.findall(r"s:\d+ trl:([\d.]+)", text), float)}
    for path in [CURVES / "nanogpt_train_one_seed.csv", *sorted(CURVES.glob("twins/*.csv"))]:
        losses = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1]
        found[path.stem] = losses[np.isfinite(losses)]
    for path in sorted(CURVES.glob("mpl_*/*.csv")):
        found[f"{path.parent.name}/{path.stem}"] = np.loadtxt(path, delimiter=",", skiprows=1)[:, 2]
    return found


def surrogate(n: int, seed: int, noise: float = 0.015, df: float = 6.0) -> Floats:
    """A power law with t-distributed noise a row, printed with four decimals."""
    rng = np.random.default_rng(seed)
    trend = 2.7 + 7 * (1 + np.arange(n) / 15) ** -0.55
    return np.round(trend * np.exp(noise * rng.standard_t(df, n)), 4)


def judge(values: Floats, bounds: Bounds = LOSS, steps: NDArray[np.int64] | None = None) -> Series:
    """A series that has read all values."""
    series = Series(bounds)
    series.feed(np.arange(1, len(values) + 1) if steps is None else steps, values)
    return series


def rises(values: Floats, bounds: Bounds = LOSS) -> list[Episode]:
    """Episodes above the trend."""
    return [e for e in judge(values, bounds).episodes() if e.side > 0]
