"""The Chinchilla fit beside the published procedure and PyPI's `chinchilla`: the same runs, the same objective.

    python -m benchmarks scaling

Each candidate runs in a fresh process with one BLAS thread. Seconds are processor time, all processes together, so
that a pool of workers is not free; imports are left out.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.report import Table, fresh

POINTS = Path(__file__).parents[2] / "shared" / "data" / "scaling" / "epoch_chinchilla_points.csv"
"""Figure 4 of Hoffmann et al. 2022, read off by Besiroglu et al. 2024 (MIT licence)."""
GRID = {"e": np.arange(-1, 1.5, 0.5), "a": np.arange(0, 30, 5), "b": np.arange(0, 30, 5),
        "alpha": np.arange(0, 2.5, 0.5), "beta": np.arange(0, 2.5, 0.5)}
"""Hoffmann et al. 2022, appendix D.3: 4,500 starts."""
DELTA = 1e-3
RESAMPLES = 4000
THREADS = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}

Found = dict[str, Any]


def points() -> pd.DataFrame:
    """N, D and loss of the 240 real runs; of as many simulated ones where the file is absent."""
    if POINTS.exists():
        raw = pd.read_csv(POINTS).sort_values("loss").iloc[:-5]
        n, flops, loss = (raw[c].to_numpy() for c in ("Model Size", "Training FLOP", "loss"))
        return pd.DataFrame({"C": flops, "N": n, "D": flops / 6 / n, "loss": loss})
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240))
    d = n * np.exp(rng.normal(np.log(20), 1, 240))
    loss = (1.817 + 482 * n**-0.348 + 2085 * d**-0.366) * np.exp(0.005 * rng.standard_normal(240))
    return pd.DataFrame({"C": 6 * n * d, "N": n, "D": d, "loss": loss})


def objective(theta: np.ndarray, runs: pd.DataFrame) -> float:
    """Sum of Huber(1e-3) of the log loss's residuals at (log A, log B, log E, alpha, beta)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * np.log(runs.N.to_numpy()), b - beta * np.log(runs.D.to_numpy()),
                      np.full(len(runs), e)])
    size = np.abs(np.logaddexp.reduce(terms) - np.log(runs.loss.to_numpy()))
    return float(np.where(size < DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).sum())


def seconds() -> float:
    """Processor time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# -- candidates: fit the runs; `every` thins the starts for a quick look ----------------------------------------


def ours(runs: pd.DataFrame, every: int) -> Found:
    from checks.scaling.chinchilla import fit_law
    from checks.scaling.levenberg import Points

    logs = Points.of(*(runs[c].to_numpy() for c in ("N", "D", "loss")))
    fit_law(logs)  # the first call pays for lazily loaded parts of numpy
    repeats = 20
    began = seconds()
    for _ in range(repeats):
        best = fit_law(logs)
    return {"seconds": (seconds() - began) / repeats, "starts": best.consensus.starts, "theta": best.theta.tolist()}


def bootstrap(runs: pd.DataFrame, every: int) -> Found:
    from checks.scaling.bootstrap import resample
    from checks.scaling.chinchilla import fit_law
    from checks.scaling.levenberg import Points

    logs = Points.of(*(runs[c].to_numpy() for c in ("N", "D", "loss")))
    best = fit_law(logs)
    began = seconds()
    resample(logs, best, resamples=RESAMPLES)
    return {"seconds": seconds() - began, "starts": RESAMPLES, "theta": best.theta.tolist()}


def published(runs: pd.DataFrame, every: int) -> Found:
    """L-BFGS-B with numeric gradients from every start, as in the notebook of Besiroglu et al."""
    from scipy.optimize import minimize

    log_n, log_d, log_loss = (np.log(runs[c].to_numpy()) for c in ("N", "D", "loss"))

    def huber(theta: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full(len(log_n), e)])
        top = terms.max(axis=0)
        size = np.abs(top + np.log(np.exp(terms - top).sum(axis=0)) - log_loss)
        return float(np.where(size < DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).sum())

    starts = [(a, b, e, alpha, beta) for e, a, b, alpha, beta in product(*GRID.values())][::every]
    began = seconds()
    best = min((minimize(huber, start, method="L-BFGS-B") for start in starts), key=lambda r: float(r.fun))
    return {"seconds": seconds() - began, "starts": len(starts), "theta": best.x.tolist()}


def pypi(runs: pd.DataFrame, every: int) -> Found:
    """PyPI `chinchilla`, its loss set to the paper's: as shipped, log_huber has threshold 1."""
    from chinchilla import Chinchilla  # type: ignore[import-not-found]

    def log_huber(observed: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        size = np.abs(np.log(observed) - np.log(fitted))
        return np.where(size < DELTA, size**2 / 2, DELTA * (size - DELTA / 2))

    thin = max(1, round(every ** 0.5))
    grid = dict(GRID, a=GRID["a"][::thin], b=GRID["b"][::thin])
    with tempfile.TemporaryDirectory() as folder:
        runs.to_csv(Path(folder) / "df.csv", index=False)
        tool = Chinchilla(project_dir=folder, param_grid=grid, loss_fn=log_huber, log_level=50)
        began = seconds()
        tool.fit()
    starts = int(np.prod([len(v) for v in grid.values()]))
    theta = [np.log(float(tool.A)), np.log(float(tool.B)), np.log(float(tool.E)), float(tool.alpha), float(tool.beta)]
    return {"seconds": seconds() - began, "starts": starts, "theta": theta}


CANDIDATES: dict[str, Callable[[pd.DataFrame, int], Found]] = {
    "ours": ours, "bootstrap": bootstrap, "published": published, "pypi": pypi,
}


def main(argv: list[str]) -> None:
    runs = points()
    found = CANDIDATES[argv[0]](runs, int(argv[1]))
    theta = np.array(found["theta"])
    print("\n" + json.dumps(found | {"objective": objective(theta, runs)}))


# -- the table ---------------------------------------------------------------------------------------------------


def row(name: str, found: Found, base: float, total: int) -> list[str]:
    a, b, e, alpha, beta = found["theta"]
    scaled = found["seconds"] * total / found["starts"]
    thinned = "" if total == found["starts"] else f" (timed on {found['starts']:,})"
    return [name, f"{total:,}{thinned}", f"{scaled:,.3f}", f"{scaled / base:,.0f}x", f"{1e3 * found['objective']:.9f}",
            f"{np.exp(a):.1f} / {np.exp(b):.0f} / {np.exp(e):.4f} / {alpha:.4f} / {beta:.4f}"]


def run(quick: bool) -> list[Table]:
    every = 25 if quick else 1
    best = fresh("benchmarks.scaling", "ours", every, env=THREADS)
    rows = [row("TrainVitals", best, best["seconds"], best["starts"]),
            row("published procedure: scipy L-BFGS-B, numeric gradient",
                fresh("benchmarks.scaling", "published", every, env=THREADS), best["seconds"], 4500)]
    if find_spec("chinchilla"):
        rows.append(row("PyPI chinchilla, threshold set to 1e-3",
                        fresh("benchmarks.scaling", "pypi", every, env=THREADS), best["seconds"], 4500))
    else:
        rows.append(["PyPI chinchilla", "not installed", *[""] * 4])
    drawn = fresh("benchmarks.scaling", "bootstrap", every, env=THREADS)
    source = "240 runs of Besiroglu et al. 2024" if POINTS.exists() else "240 simulated runs (the real ones are absent)"
    return [Table(
        f"Scaling-law fit: {source}",
        ["fit", "starts", "CPU, s", "against ours", "objective x 1e3", "A / B / E / alpha / beta"], rows,
        notes="One core, imports left out. Objective: sum of Huber(1e-3) of the log loss's residuals, evaluated alike "
              f"for all. {RESAMPLES:,} bootstrap resamples of ours, each fitted to its optimum, take "
              f"{drawn['seconds']:.2f} s of CPU.")]


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # chinchilla imports matplotlib
    main(sys.argv[1:])
