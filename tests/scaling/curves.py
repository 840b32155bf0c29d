"""Curves for the forecast's tests: the public ones, and simulated ones whose law is known.

Legend: n rows, T steps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checks.scaling.annealing import sums
from checks.scaling.curve import Curve, rates_of, read_curve
from trainvitals.schedules import Plan

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "curves"
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
OTHERS = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")
TRUTH = {"L0": 2.7, "A": 0.55, "alpha": 0.48, "C": 0.9, "tau": 500.0}


def path_of(size: int, name: str) -> Path:
    """A public curve of 25M or 100M parameters; skips where the data is absent."""
    path = PUBLIC / f"mpl_{size}" / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path} is missing: the public curves are not part of the repository")
    return path


def public(size: int, name: str) -> Curve:
    """A public curve."""
    return read_curve(path_of(size, name))


def plan(kind: str, total: int, **more: float) -> np.ndarray:
    """Rates of a plan with 500 steps of warm-up to 3e-4: [T]."""
    values = {"peak": 3e-4, "final": 3e-5, "warmup_steps": 500} | more
    return rates_of(Plan(kind=kind, total_steps=total, **values))  # type: ignore[arg-type]


def truth(rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The annealing law with `TRUTH`: [n]."""
    s1, s2 = sums(rates, TRUTH["tau"])
    return TRUTH["L0"] + TRUTH["A"] * s1[steps - 1] ** -TRUTH["alpha"] - TRUTH["C"] * s2[steps - 1]


def simulated(rates: np.ndarray, *, every: int = 50, noise: float = 0.004, seed: int = 0, name: str = "run") -> Curve:
    """A whole run that follows the law, with independent noise."""
    steps = np.arange(every, len(rates) + 1, every)
    losses = truth(rates, steps) + noise * np.random.default_rng(seed).standard_normal(len(steps))
    return Curve(name, steps, losses, rates)


def write_csv(path: Path, curve: Curve, *, rates: bool = True) -> Path:
    """The curve as a file with columns step, lr, loss."""
    lines = ["step,lr,loss" if rates else "step,loss"]
    for step, loss in zip(curve.steps, curve.losses, strict=True):
        lines.append(f"{step},{curve.rates[step - 1]!r},{loss!r}" if rates else f"{step},{loss!r}")
    path.write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")
    return path
