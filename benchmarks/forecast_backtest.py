"""Rolling-origin backtest of the final-loss forecast on public curves: errors, coverage of the band, refusals.

    python -m benchmarks.forecast_backtest ../shared/data/curves

Every curve of every folder `mpl_*` below the path (columns step, lr, loss, from
https://github.com/thu-yao-01-luo/MultiPowerLaw) is cut at many shares of its length and its last loss forecast: alone,
and beside two or three shorter runs of the same model. A few minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from checks.scaling.curve import Curve, read_curve
from checks.scaling.forecast import forecast

SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
SIBLINGS = {
    "alone": (),
    "two siblings": ("cosine_24000", "constant_24000"),
    "three siblings": ("cosine_24000", "constant_24000", "wsdcon_9"),
}
FITTED = SIBLINGS["three siblings"]


def partial_runs(curves: dict[str, Curve]) -> list[dict[str, object]]:
    """One row per curve, cut and set of siblings."""
    rows: list[dict[str, object]] = []
    for name, whole in curves.items():
        for mode, names in SIBLINGS.items():
            beside = [curves[n] for n in names if n != name]
            if mode != "alone" and len(beside) < 2:
                continue
            for share in SHARES:
                cut = whole.until(int(share * whole.last_step))
                if len(cut.steps):
                    told = forecast(cut, whole.rates, beside)
                    rows.append({"curve": name, "mode": mode, "share": share} | _held(told.final_loss, told.interval,
                                                                                     float(whole.losses[-1])))
    return rows


def other_schedules(curves: dict[str, Curve]) -> list[dict[str, object]]:
    """Fitted on three whole curves, the final loss of every other schedule."""
    known = [curves[name] for name in FITTED]
    rows: list[dict[str, object]] = []
    for name, whole in curves.items():
        if name not in FITTED:
            told = forecast(known[0], whole.rates, known[1:])
            rows.append({"curve": name} | _held(told.final_loss, told.interval, float(whole.losses[-1])))
    return rows


def _held(final: float | None, interval: tuple[float, float] | None, seen: float) -> dict[str, object]:
    if final is None or interval is None:
        return {"error": None, "inside": None, "half_width": None}
    return {"error": final - seen, "inside": interval[0] <= seen <= interval[1], "half_width": interval[1] - final}


def main(folder: Path) -> None:
    """Print the tables."""
    rows = []
    for size in sorted(folder.glob("mpl_*")):
        curves = {path.stem: read_curve(path) for path in sorted(size.glob("*.csv"))}
        others = pd.DataFrame(other_schedules(curves))
        print(f"{size.name}: fitted on {', '.join(FITTED)}")
        print(others.round(4).to_string(index=False))
        print(f"  mean absolute error {others.error.abs().mean():.4f}, inside {int(others.inside.sum())}/{len(others)}")
        rows += [{"size": size.name} | row for row in partial_runs(curves)]
    table = pd.DataFrame(rows)
    told = table[table.error.notna()].astype({"error": float, "inside": bool, "half_width": float})
    told = told.assign(absolute=told.error.abs())
    print("\npartial runs")
    for keys in (["size"], ["mode"], ["mode", "share"], ["mode", "curve"]):
        grouped = told.groupby(keys)
        print(grouped.agg(n=("inside", "size"), inside=("inside", "mean"), mean_error=("absolute", "mean"),
                          half_width=("half_width", "median")).round(4).to_string())
    print(f"\n{len(told)} forecasts, {100 * told.inside.mean():.1f} % inside the 90 % band; "
          f"{len(table) - len(told)} answers `unknown`")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
