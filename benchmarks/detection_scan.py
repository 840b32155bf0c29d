"""How often the scan of losses and gradient norms cries wolf, and what it finds: the figures of docs/checks.md.

    python -m benchmarks.detection_scan            # about a minute of one core, after compiling

Healthy rows are the published logs of `../shared/data/curves` and surrogates: a power-law trend with Gaussian or t
noise, or with the residuals of the published logs. Faults are planted at fixed random places.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.stats import chi2

from checks.stream.layout import GRADIENT, LOSS, Bounds
from checks.stream.series import Episode
from tests.checks.stream.logs import CURVES, judge, published

Floats = NDArray[np.float64]
Fault = Callable[[Floats], Floats]
"""Rows since the onset -> factor."""

FAULTS: dict[str, Fault] = {
    "row x1.5": lambda r: 1 + 0.5 * (r == 0),
    "three rows x1.8": lambda r: 1 + 0.8 * (r < 3),
    "level +3 %": lambda r: 1.03 + 0 * r,
    "level +5 %": lambda r: 1.05 + 0 * r,
    "level +10 %": lambda r: 1.10 + 0 * r,
    "level -5 %": lambda r: 0.95 + 0 * r,
    "level -30 %": lambda r: 0.70 + 0 * r,
    "ramp +10 % in 100": lambda r: 1 + 0.1 * np.minimum(r / 100, 1),
    "ramp +5 % in 300": lambda r: 1 + 0.05 * np.minimum(r / 300, 1),
    "ramp +10 % in 1,000": lambda r: 1 + 0.1 * np.minimum(r / 1000, 1),
    "+4 % per 1,000 rows": lambda r: 1 + 0.04 * r / 1000,
    "bump +10 %, 120 rows": lambda r: 1 + 0.1 * (r < 120),
}


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--places", type=int, default=18, help="Places of each fault in each group of logs.")
    places = arguments.parse_args().places
    if not CURVES.is_dir():
        raise SystemExit(f"The published logs are not at {CURVES}.")
    false_alarms()
    recall(places)


def false_alarms() -> None:
    """Episodes, failures and lone rows per 100,000 healthy rows, with the upper 95 % bound (Poisson)."""
    print("| healthy rows | n | warnings | failures | lone rows | failures per 100k, 95 % below |")
    print("|---|---|---|---|---|---|")
    for name, logs, bounds in _healthy():
        found = [e for y in logs for e in judge(y, bounds).episodes()]
        rows, lone = sum(map(len, logs)), sum(e.lone for e in found)
        failed = sum(e.failed is not None for e in found)
        bound = 1e5 * chi2.ppf(0.95, 2 * failed + 2) / 2 / rows
        print(f"| {name} | {rows:,} | {len(found) - lone - failed} | {failed} | {lone} | {bound:.2g} |")


def recall(places: int) -> None:
    """Found, failed, delay, error of the onset and coverage of its interval, for each fault."""
    logs = published()
    noisy = [y for name, y in logs.items() if "/" not in name]
    calm = [y for name, y in logs.items() if "/" in name]
    print("\n| fault | logs | found | failures | delay median / 90 % | onset error | covered |")
    print("|---|---|---|---|---|---|---|")
    for name, shape in FAULTS.items():
        for group, chosen in (("noisy", noisy), ("averaged", calm)):
            if "1,000" in name:
                chosen = [y for y in chosen if len(y) > 5000]
            if chosen:
                print(_row(name, group, chosen, shape, places))


def _row(name: str, group: str, logs: list[Floats], shape: Fault, places: int) -> str:
    rng = np.random.default_rng(11)
    told: list[tuple[Episode, int]] = []
    for i in range(places):
        y = logs[i % len(logs)].copy()
        at = int(len(y) * rng.uniform(0.3, 0.8))
        factor = shape(np.arange(len(y) - at))
        y[at:] *= factor
        side = -1 if factor.min() < 1 else 1
        told += [(e, at + 1) for e in judge(y).episodes() if e.side == side and e.noticed > at][:1]
    if not told:
        return f"| {name} | {group} | 0 of {places} | | | | |"
    late = [e.noticed - at for e, at in told]
    error = [abs(e.onset - at) for e, at in told]
    inside = np.mean([e.onset_low <= at <= e.onset_high for e, at in told])
    return (
        f"| {name} | {group} | {len(told)} of {places} | {sum(e.failed is not None for e, _ in told)} | "
        f"{np.median(late):.0f} / {np.quantile(late, 0.9):.0f} | "
        f"{np.median(error):.0f} / {np.quantile(error, 0.9):.0f} | {inside:.2f} |"
    )


def _healthy() -> Iterator[tuple[str, list[Floats], Bounds]]:
    logs = published()
    yield "llm.c 124M", [logs["llm.c"]], LOSS
    yield "nanoGPT, rank-local", [y for name, y in logs.items() if "nanogpt" in name], LOSS
    yield "multi-power-law curves, averaged", [y for name, y in logs.items() if "/" in name], LOSS
    lines = (CURVES / "llmc_124m_main.log").read_text().splitlines()
    norms = np.array([line.split("norm:")[1].split()[0] for line in lines if "norm:" in line], float)
    yield "llm.c 124M, gradient norm", [norms], GRADIENT
    rng = np.random.default_rng(5)
    for name, noise in {
        "surrogate, Gauss": lambda n: 0.02 * rng.standard_normal(n),
        "surrogate, t3": lambda n: 0.012 * rng.standard_t(3, n),
        "surrogate, residuals of llm.c": _resampled(logs["llm.c"], rng),
        "surrogate, residuals of nanoGPT": _resampled(logs["nanogpt_train_one_seed"], rng),
    }.items():
        trend = np.log(2.8 + 7 * (1 + np.arange(50_000) / 20) ** -0.5)
        yield name, [np.exp(trend + noise(50_000)) for _ in range(4)], LOSS
    yield "surrogate, 23 to 200 rows", [
        np.exp(np.log(2.8 + 7 * (1 + np.arange(n) / 20) ** -0.5) + 0.015 * rng.standard_t(5, n))
        for n in (23, 40, 80, 200) for _ in range(150)
    ], LOSS  # fmt: skip


def _resampled(log: Floats, rng: np.random.Generator) -> Callable[[int], Floats]:
    logs = np.log(log)[len(log) // 6 :]
    residual = logs - median_filter(logs, 101)

    def draw(n: int) -> Floats:
        starts = rng.integers(0, len(residual) - 512, n // 512 + 1)
        return np.concatenate([residual[a : a + 512] for a in starts])[:n]

    return draw


if __name__ == "__main__":
    main()
