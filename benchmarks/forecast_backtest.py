"""Rolling-origin backtest of the final-loss forecast on public curves: errors and coverage of the band, by phase.

    python -m benchmarks.forecast_backtest ../shared/data/curves

Every curve of every folder `mpl_*` below the path (columns step, lr, loss, from
https://github.com/thu-yao-01-luo/MultiPowerLaw) is cut at many shares of its length and its last loss forecast: alone,
and beside one to three shorter runs of the same model. A few minutes on two cores.
"""

from __future__ import annotations

import sys
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from checks.scaling._rates import phase
from checks.scaling.curve import Curve, read_curve
from checks.scaling.forecast import forecast

SHARES = (0.3, 0.4, 0.5, 0.7, 0.83, 0.87, 0.9, 0.95)
SIBLINGS = {
    "alone": (),
    "two siblings": ("cosine_24000", "constant_24000"),
    "three siblings": ("cosine_24000", "constant_24000", "wsdcon_9"),
    "a WSD sibling": ("constant_24000", "wsd_20000_24000"),
}
FITTED = SIBLINGS["three siblings"]

Row = dict[str, object]


def partial_runs(curves: dict[str, Curve], name: str) -> list[Row]:
    """One row per cut of a curve and set of siblings that it is not one of."""
    whole = curves[name]
    rows: list[Row] = []
    for mode, names in SIBLINGS.items():
        if name in names:
            continue
        for share in SHARES:
            cut = whole.until(int(share * whole.last_step))
            if len(cut.steps):
                told = forecast(cut, whole.rates, [curves[n] for n in names])
                rows.append({"curve": name, "mode": mode, "share": share, "phase": phase(whole.rates, cut.last_step)}
                            | _held(told.final_loss, told.interval, float(whole.losses[-1])))
    return rows


def other_schedules(curves: dict[str, Curve]) -> list[Row]:
    """Fitted on three whole curves, the final loss of every other schedule."""
    known = [curves[name] for name in FITTED]
    rows: list[Row] = []
    for name, whole in curves.items():
        if name not in FITTED:
            told = forecast(known[0], whole.rates, known[1:])
            rows.append({"curve": name} | _held(told.final_loss, told.interval, float(whole.losses[-1])))
    return rows


def _held(final: float | None, interval: tuple[float, float] | None, seen: float) -> Row:
    if final is None or interval is None:
        return {"error": None, "inside": None, "half_width": None}
    return {"error": final - seen, "inside": interval[0] <= seen <= interval[1], "half_width": interval[1] - final}


def _of_curve(job: tuple[str, str]) -> list[Row]:
    folder, name = job
    curves = {path.stem: read_curve(path) for path in sorted(Path(folder).glob("*.csv"))}
    return [{"size": Path(folder).name} | row for row in partial_runs(curves, name)]


def summary(table: pd.DataFrame, keys: list[str]) -> str:
    """Coverage, errors and refusals per group."""
    told = table[table.error.notna()].astype({"error": float, "inside": bool, "half_width": float})
    found = told.assign(absolute=told.error.abs()).groupby(keys).agg(
        forecasts=("inside", "size"), inside=("inside", "mean"), bias=("error", "mean"),
        mean_error=("absolute", "mean"), worst=("absolute", "max"), half_width=("half_width", "median"),
    )
    return found.join(table[table.error.isna()].groupby(keys).size().rename("unknown")).fillna(0).round(4).to_string()


def main(folder: Path) -> None:
    """Print the tables."""
    jobs = []
    for size in sorted(folder.glob("mpl_*")):
        curves = {path.stem: read_curve(path) for path in sorted(size.glob("*.csv"))}
        others = pd.DataFrame(other_schedules(curves))
        print(f"{size.name}: fitted on {', '.join(FITTED)}")
        print(others.round(4).to_string(index=False))
        print(f"  mean absolute error {others.error.abs().mean():.4f}, inside {int(others.inside.sum())}/{len(others)}",
              flush=True)
        jobs += [(str(size), name) for name in curves]
    with get_context("spawn").Pool() as pool:
        table = pd.DataFrame([row for rows in pool.map(_of_curve, jobs, chunksize=1) for row in rows])
    for keys in (["phase"], ["phase", "size"], ["phase", "mode"], ["phase", "mode", "size"]):
        print(f"\npartial runs by {', '.join(keys)}\n{summary(table, keys)}")
    told = table[table.error.notna()]
    print(f"\n{len(told)} forecasts, {100 * told.inside.astype(bool).mean():.1f} % inside the 90 % band; "
          f"{len(table) - len(told)} answers `unknown`")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
