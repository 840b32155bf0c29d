"""Published logs as runs: healthy ones, and the two that broke. See the data folder's SOURCES.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.score import Truth
from tests.checks.stored import store
from trainvitals.store import Run

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
MEGATRON = re.compile(r"iteration +(\d+)/.*?lm loss: (\S+) .*?grad norm: (\S+) ")
FINDERS: Mapping[str, tuple[str, ...]] = {"grad.explosion": ("bloom",), "loss.divergence": ("megatron",)}
"""BLOOM-176B's gradient left its range before its loss; the sample of datablations has no way back."""
BLOOM_ONSET = 31215
"""The first iteration of the gradient norm above its range, 0.24 -> 0.95 at a loss of 2.20."""

Rows = NDArray[np.float64]


def runs(folder: Path) -> Iterator[tuple[Run, Truth]]:
    """Every log that is at hand, written below a folder."""
    if not CURVES.is_dir():
        return
    text = (CURVES / "llmc_124m_main.log").read_text()
    rows = np.array(re.findall(r"s:(\d+) trl:([\d.]+) lr:([\d.]+) norm:([\d.]+)", text), float)
    validation = np.array(re.findall(r"s:(\d+) tel:([\d.]+)", text), float)
    yield _healthy(store(folder / "llmc", rows, ("step", "loss", "lr", "grad"), validation))
    for path in [CURVES / "nanogpt_train_one_seed.csv", *sorted(CURVES.glob("twins/*.csv"))]:
        table = np.genfromtxt(path, delimiter=",", skip_header=1)[:, :2]
        yield _healthy(store(folder / path.stem, table[np.isfinite(table).all(1)], ("step", "loss")))
    for path in sorted(CURVES.glob("mpl_*/*.csv")):
        table = np.loadtxt(path, delimiter=",", skiprows=1)
        yield _healthy(store(folder / f"{path.parent.name}-{path.stem}", table, ("step", "lr", "loss")))
    yield _bloom(folder / "bloom")
    table = _numbers("megatron_log_divergence_sample.log")
    run = store(folder / "megatron", table, ("step", "loss", "grad"))
    # One row in 200 steps; the loss turns at 3,200 and jumps at 3,400.
    yield run, Truth("megatron", 0, "jump", ("loss", "optimisation"), 3200, None, int(table[-1, 0]), rows=0)


def _bloom(folder: Path) -> tuple[Run, Truth]:
    """The published rows between 300 and 200 made ones of the noise around them, which count as no healthy rows."""
    spike, rng = _numbers("bloom176b_spike_2022-04-12.log"), np.random.default_rng(0)

    def calm(first: int, n: int) -> Rows:
        loss, norm = 2.21 + 0.02 * rng.standard_normal(n), 0.24 * np.exp(0.08 * rng.standard_normal(n))
        return np.stack([np.arange(first, first + n), loss, norm], axis=1)

    rows = np.concatenate([calm(30914, 300), spike, calm(31252, 200)])
    truth = Truth("bloom", 0, "jump", ("optimisation",), BLOOM_ONSET, 31222, int(rows[-1, 0]), rows=0)
    return store(folder, rows, ("step", "loss", "grad")), truth


def _numbers(name: str) -> Rows:
    found = np.array(MEGATRON.findall((CURVES / name).read_text()), float)
    return found[np.isfinite(found).all(1)]


def _healthy(run: Run) -> tuple[Run, Truth]:
    rows = len(run.array("loss/train").steps)
    return run, Truth("published", 0, None, (), None, None, run.last_step or rows, rows)
