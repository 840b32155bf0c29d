"""`trainvitals scaling`: fit a ladder, plan a budget, forecast a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from checks.scaling._files import read_file
from checks.scaling._names import UNITS
from checks.scaling.bootstrap import MOST_RESAMPLES, RESAMPLES
from checks.scaling.fit import FitResult, fit_ladder, parse_fit
from checks.scaling.forecast_command import forecast
from checks.scaling.levenberg import LOSSES
from checks.scaling.plan import Plan, budget, plan_fit, plan_reference
from checks.scaling.reference import REFERENCES, reference
from checks.scaling.table import parse_columns, read_ladder
from trainvitals.errors import UsageError

EXIT = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}
FEWEST_RESAMPLES = 100
MOST_LEFT_OUT = 20
"""Rows left out that the text names; the JSON has them all."""
MOST_FIT_BYTES = 16 * 2**20


@click.group()
def scaling() -> None:
    """Scaling laws: fit a ladder of runs, plan a budget, forecast a run's final loss."""


@scaling.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--columns", default="", help="Columns of the table, such as N=params,D=tokens,loss=val_loss. [by name]")
@click.option("--loss", "loss_name", type=click.Choice(LOSSES), default="huber", show_default=True,
              help="Loss of the log loss's residuals; huber has threshold 1e-3.")
@click.option("--bootstrap", default=RESAMPLES, show_default=True, help="Resamples for the intervals; 0 for none.")
@click.option("--unit", type=click.Choice(UNITS), help="What the loss is counted in. [by the column's name]")
@click.option("--flops", type=float, help="Budget at which N*, D* and D*/N* are given. [the table's largest]")
@click.option("--json", "as_json", is_flag=True, help="Print strict JSON; `scaling plan --fit` reads it.")
def fit(
    table: Path, columns: str, loss_name: str, bootstrap: int, unit: str | None, flops: float | None, as_json: bool
) -> None:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta to finished runs: a table, or a folder of run folders.

    TABLE is a CSV file as spreadsheets export them, JSON, JSON lines or Parquet. Beside the law stand IsoFLOP
    parabolas, where runs share their compute. Exits with 0 for a sound fit, 1 for one to be careful with, 2 for one
    not to use, 3 where the runs are too few to tell.

    Example: trainvitals scaling fit ladder.csv --columns N=params,D=tokens,loss=val_loss --json > fit.json
    """
    if bootstrap and not FEWEST_RESAMPLES <= bootstrap <= MOST_RESAMPLES:
        raise UsageError(f"--bootstrap is {bootstrap}. Give {FEWEST_RESAMPLES} to {MOST_RESAMPLES:,}, or 0 for none.")
    at = None if flops is None else budget(flops=flops).flops
    result = fit_ladder(read_ladder(table, parse_columns(columns) if columns else None, unit),
                        loss_name, resamples=bootstrap)  # type: ignore[arg-type]
    found = result.to_json(at)
    click.echo(json.dumps(found, indent=2, allow_nan=False) if as_json else _fit_text(found))
    sys.exit(EXIT[found["level"]])


@scaling.command()
@click.option("--flops", type=float, help="Compute of the run.")
@click.option("--gpus", type=int, help="Instead of --flops, with the next three.")
@click.option("--days", type=float)
@click.option("--peak-flops", type=float, help="FLOP/s of one GPU at the run's precision, 989e12 for an H100 in bf16.")
@click.option("--mfu", type=float, help="Model FLOPs utilisation, 0.4 for 40 %.")
@click.option("--price", type=float, help="Price of a GPU hour, for the cost.")
@click.option("--fit", "fit_path", type=click.Path(path_type=Path), help="Output of `scaling fit --json`.")
@click.option("--reference", "reference_name", help=f"Published law: {', '.join(REFERENCES)}. [besiroglu]")
@click.option("--unique", type=float, help="Different tokens at hand, where data is short.")
@click.option("--json", "as_json", is_flag=True, help="Print strict JSON.")
def plan(
    flops: float | None, gpus: int | None, days: float | None, peak_flops: float | None, mfu: float | None,
    price: float | None, fit_path: Path | None, reference_name: str | None, unique: float | None, as_json: bool,
) -> None:
    """Size, tokens and loss to expect of a budget, and what deviating from it costs.

    Example: trainvitals scaling plan --gpus 256 --days 10 --peak-flops 989e12 --mfu 0.4 --fit fit.json
    """
    spend = budget(flops=flops, gpus=gpus, days=days, peak_flops=peak_flops, mfu=mfu, price_per_gpu_hour=price)
    if fit_path is not None and reference_name is not None:
        raise UsageError("Give --fit or --reference, not both.")
    found = (
        plan_reference(reference(reference_name or "besiroglu"), spend, unique=unique) if fit_path is None
        else plan_fit(read_fit(fit_path), spend, unique=unique)
    )
    click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False) if as_json else _plan_text(found))
    sys.exit(EXIT[found.level])


scaling.add_command(forecast)


def read_fit(path: Path) -> FitResult:
    """A fit that `scaling fit --json` wrote.

    Raises:
        UsageError: the file is missing or is something else.
    """
    return parse_fit(read_file(path, MOST_FIT_BYTES), str(path))


def _fit_text(found: dict[str, Any]) -> str:
    spans = found["intervals"] or {}
    lines = [f"{found['level']}: {found['summary']}", "", f"{found['runs']} runs of {found['sizes']} sizes, "
             f"{found['loss']} objective {found['objective']:.6g}, {found['consensus']['reached']} of "
             f"{found['consensus']['starts']} starts agree", ""]
    for name in ("E", "A", "B", "alpha", "beta", "n_exponent"):
        lines.append(f"  {name:<11}{found[name]:>10.5g}" + _span(spans.get(name)))
    best = found["optimum"]
    spans = best["intervals"] or {}
    lines += ["", f"At {best['flops']:.3g} FLOPs:"]
    for key, name in (("N", "N*"), ("D", "D*"), ("tokens_per_parameter", "D*/N*"), ("loss", "loss")):
        lines.append(f"  {name:<11}{best[key]:>10.4g}" + _span(spans.get(key)))
    lines += [*_isoflop_text(found["isoflop"], found["n_exponent"]), ""]
    lines += [f"Unit: {found['unit_doubt']}"] if found["unit_doubt"] else []
    lines += [f"Not determined: {reason}" for reason in found["not_identifiable"]]
    left_out = found["refused"]
    lines += [f"Left out: {reason}" for reason in left_out[:MOST_LEFT_OUT]]
    lines += [f"Left out: {len(left_out) - MOST_LEFT_OUT:,} more"] * (len(left_out) > MOST_LEFT_OUT)
    return "\n".join(lines)


def _isoflop_text(found: dict[str, Any] | None, exponent: float) -> list[str]:
    if found is None:
        return ["IsoFLOP: no budget has four runs of three sizes or more at equal compute."]
    if found["n_exponent"] is None:
        return [f"IsoFLOP: {found['minima_inside']} of {found['budgets']} budgets have their minimum inside the sizes "
                "tried, too few for an exponent."]
    bias = "" if found["exponent_bias"] is None else f"; parabolas alone would add {found['exponent_bias']:+.3f}"
    span = _span(found["interval"])
    return [f"IsoFLOP, {found['minima_inside']} budgets: N* ~ C^{found['n_exponent']:.3f}{span}, by the law "
            f"C^{exponent:.3f}{bias}", f"  N* {found['N']:.4g}, D* {found['D']:.4g}"]


def _span(ends: list[float | None] | None) -> str:
    if ends is None:
        return ""
    low, high = ("open" if end is None else f"{end:.4g}" for end in ends)
    return f"   95 %: {low} to {high}"


def _plan_text(found: Plan) -> str:
    span = "" if found.interval is None else f"   90 %: {found.interval[0]:.3f} to {found.interval[1]:.3f}"
    ends = found.to_json()["intervals"] or {}
    lines = [f"{found.level}: {found.summary}", "", f"{found.budget.flops:.3g} FLOPs, law of {found.source}",
             f"  N      {found.n:>10.4g}" + _span(ends.get("N")), f"  D      {found.d:>10.4g}" + _span(ends.get("D")),
             f"  D/N    {found.d / found.n:>10.4g}" + _span(ends.get("tokens_per_parameter")),
             f"  loss   {found.loss:>10.4f}{span}"]
    if found.budget.gpu_hours is not None:
        lines.append(f"  {found.budget.gpu_hours:,.0f} GPU hours"
                     + ("" if found.budget.cost is None else f", {found.budget.cost:,.0f} at this price"))
    if found.epochs is not None:
        lines.append(f"  {found.epochs:.2f} passes over the data")
    lines += ["", "The same compute spent on another size:"]
    for x in found.deviations:
        wasted = "" if x.wasted is None else f", {100 * x.wasted:.0f} % of the compute wasted"
        lines.append(f"  {x.factor:>5g} x N*   loss {x.loss:.4f}  (+{100 * x.penalty:.2f} %{wasted})")
    return "\n".join([*lines, "", *found.caveats])
