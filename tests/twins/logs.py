"""Logs of one data order and of others: published ones where they lie beside the checkout, and made ones."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checks.twins.rows import LossRows, from_arrays

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
Log = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and losses."""


def published() -> dict[str, Log]:
    """The nanoGPT logs of one data order, by family, and llm.c's of another."""
    files = {"optimizers_a": "twins/nanogpt_optimizers_a.csv", "optimizers_b": "twins/nanogpt_optimizers_b.csv",
             "valueembed_b": "twins/nanogpt_valueembed_seed_b.csv",
             "valueembed_c": "twins/nanogpt_valueembed_seed_c.csv",
             "valueembed_a": "nanogpt_train_one_seed.csv"}  # fmt: skip
    logs: dict[str, Log] = {}
    for name, file in files.items():
        with (CURVES / file).open() as lines:
            rows = [(float(r["step"]), float(r["train_loss"])) for r in csv.DictReader(lines)
                    if r["train_loss"] not in ("", "nan")]
        logs[name] = np.array([int(s) for s, _ in rows]), np.array([v for _, v in rows])
    text = (CURVES / "llmc_124m_main.log").read_text()
    found = re.findall(r"^s:(\d+) trl:([\d.]+)", text, re.MULTILINE)
    logs["llmc"] = np.array([int(s) for s, _ in found]), np.array([float(v) for _, v in found])
    return logs


def made(rows: int, seed: int, data: int = 0, *, noise: float = 0.03, own: float = 0.003, start: int = 0) -> Log:
    """A falling loss whose noise is mostly that of data order `data`; `seed` is the run's own."""
    steps = np.arange(start, start + rows)
    shared = np.random.default_rng(1_000 + data).standard_normal(start + rows)[start:]
    mine = np.random.default_rng(seed).standard_normal(rows)
    return steps, (2 + 6 * (steps + 20.0) ** -0.3) * np.exp(noise * shared + own * mine)


def rows_of(log: Log, name: str = "run") -> LossRows:
    """A log as recognition takes it."""
    return from_arrays(name, *log)


def part(log: Log, first: int, last: int) -> Log:
    """Rows `first` up to `last` of a log."""
    return log[0][first:last], log[1][first:last]


def every(log: Log, k: int) -> Log:
    """Each k-th row of a log."""
    return log[0][k - 1 :: k], log[1][k - 1 :: k]


def averaged(log: Log, k: int) -> Log:
    """Means of k rows, at the last of their steps."""
    n = len(log[0]) // k * k
    return log[0][:n].reshape(-1, k)[:, -1], log[1][:n].reshape(-1, k).mean(axis=1)
