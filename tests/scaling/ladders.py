"""Real ladders, skipped where absent, and simulated ones of known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from checks.scaling.reference import REFERENCES
from checks.scaling.table import Ladder, ladder

DATA = Path(__file__).parents[3] / "shared" / "data" / "scaling"
TRUTH = REFERENCES["besiroglu"].law


def table(name: str) -> pd.DataFrame:
    """A published table, or a skip that names it."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in shared/data/scaling")
    return pd.read_csv(path)


def epoch() -> Ladder:
    """The 240 runs of Besiroglu et al. 2024: 245 read off the figure, the five highest losses dropped."""
    return ladder(table("epoch_chinchilla_points.csv").sort_values("loss").iloc[:-5])


def olmo(loss: str = "eval/c4_en-validation/CrossEntropyLoss", largest: float = 1e10) -> Ladder:
    frame = table("olmo_ladder_final_rows.csv")
    return ladder(frame[frame.N <= largest].reset_index(drop=True), {"D": "throughput/total_tokens", "loss": loss})


def simulated(
    rng: np.random.Generator, *, noise: float = 0.003, sizes: int = 7, span: tuple[float, float] = (5e7, 3e9),
    multipliers: tuple[float, ...] = (2, 5, 10, 20, 50, 150),
) -> Ladder:
    """Runs on the published law with lognormal noise."""
    n = np.repeat(np.geomspace(*span, sizes), len(multipliers))
    d = n * np.tile(multipliers, sizes)
    loss = TRUTH.loss(n, d) * np.exp(noise * rng.standard_normal(len(n)))
    return Ladder(n, d, loss, np.ones(len(n)), tuple(f"run {i}" for i in range(len(n))))
