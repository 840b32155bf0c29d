"""`trainvitals scaling forecast`: where a run will end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from checks.scaling._curve import Floats
from checks.scaling.curve import Curve, read_curve, read_schedule, with_schedule
from checks.scaling.curve_table import curve_columns
from checks.scaling.forecast import LAWS, Forecast
from checks.scaling.forecast import forecast as tell
from trainvitals.errors import RunNotFound, UsageError

EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}
NO_PLAN = "Nothing says what the learning rate will be from here on."
GIVE_PLAN = (
    "Give --schedule: a CSV with columns step and lr for the whole run, or a plan such as "
    "cosine:total=72000,warmup=2160,peak=3e-4,final=3e-5."
)


class _SeveralPaths(click.Command):
    """Lets `--siblings` be followed by several paths, as a shell expands `runs/*.csv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        inside = False
        for i, arg in enumerate(args):
            if arg.startswith("--"):
                inside = arg == "--siblings"
                spread += [] if inside else [arg]
                if inside and (i + 1 == len(args) or args[i + 1].startswith("--")):
                    raise UsageError("--siblings names no curve. Give one or more, or leave it out.")
            else:
                spread += ["--siblings", arg] if inside else [arg]
        try:
            return super().parse_args(ctx, [*spread])
        except click.MissingParameter as error:
            if "--siblings" in spread:
                raise UsageError("CURVE is missing: every path after --siblings is a sibling. Put CURVE before "
                                 "--siblings.") from error
            raise


@click.command(cls=_SeveralPaths)
@click.argument("curve")
@click.option("--columns", default="", help="Columns of CURVE, and of siblings that have them, such as "
              "step=_step,loss=train/loss,lr=lr. [by name]")
@click.option("--siblings", multiple=True, metavar="CURVE...",
              help="Other runs of the same model, data and batch: CSV files or run folders.")
@click.option("--schedule", metavar="SPEC", help="Learning rate of the whole run: a CSV file with columns step and lr, "
              "KIND:total=STEPS,warmup=STEPS,peak=RATE,final=RATE[,decay=STEPS] with KIND constant, linear, cosine or "
              "wsd, or a plan as JSON. [rows of CURVE without a loss; the plan of a run folder]")
@click.option("--target", type=float, help="Final loss that is wanted; the level then says whether it will be met.")
@click.option("--law", type=click.Choice(sorted(LAWS)), default="annealing", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print strict JSON.")
def forecast(
    curve: str, columns: str, siblings: tuple[str, ...], schedule: str | None, target: float | None, law: str,
    as_json: bool,
) -> None:
    """Forecast the final loss of the run in CURVE: a table with columns step, loss and lr, or a run folder.

    Tables are CSV, JSON, JSON lines or Parquet, as spreadsheets and trackers export them.

    Under another schedule than CURVE's own, the answer is for a new run of the same model. A forecast of a run folder
    is kept in it and scored when the run has ended. Exits with 0 (a forecast; with --target: below it), 1 (across the
    target), 2 (above it), 3 (not identifiable).

    Example: trainvitals scaling forecast run.csv --siblings a.csv b.csv --schedule wsd:total=24000,warmup=2160,\
peak=3e-4,final=3e-5,decay=4000
    """
    if target is not None and not (math.isfinite(target) and target > 0):
        raise UsageError(f"--target is {target:g}. Give a loss above zero.")
    named = curve_columns(columns) if columns else {}
    if named and Path(curve).is_dir():
        raise UsageError(f"--columns is for tables, and {curve} is a folder. Leave it out.")
    known, plan = _curve_and_plan(curve, schedule, named)
    beside = [_sibling(path, named) for path in siblings]
    told = (
        Forecast(level="unknown", reason=NO_PLAN, what_to_do=GIVE_PLAN, last_step=known.last_step, law=law,
                 target=target)
        if plan is None
        else tell(known, plan, beside, target=target, law=LAWS[law], compare=True)
    )
    _keep(curve, told)
    click.echo(json.dumps(told.to_json(), indent=2, allow_nan=False) if as_json else _text(told))
    sys.exit(EXIT_CODES[told.level])


def _sibling(path: str, columns: Mapping[str, str]) -> Curve:
    """A sibling by the same columns; one that lacks them by its own names."""
    if columns and not Path(path).is_dir():
        try:
            return _with_rates(path, *_curve_and_plan(path, None, columns))
        except UsageError:
            pass
    return read_sibling(path)


def _curve_and_plan(
    path: str, schedule: str | None, columns: Mapping[str, str] | None = None
) -> tuple[Curve, Floats | None]:
    if Path(path).is_dir():
        from checks.scaling.run_curve import curve_of, plan_of
        from trainvitals.store import open_run

        try:
            run = open_run(path)
            curve, plan = curve_of(run), plan_of(run)
        except RunNotFound:
            raise
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}. Name one run folder, or a CSV file.") from error
        if not len(curve.steps):
            raise UsageError(f"{path} has no training loss. Attach the loss collector, or give a CSV file.")
    else:
        curve = read_curve(path, columns)
        plan = curve.future if len(curve.future) else None
    return curve, plan if schedule is None else read_schedule(schedule, curve)


def read_sibling(path: str) -> Curve:
    """A finished run of the same model, from a CSV file with an lr column or a run folder.

    Raises:
        UsageError: it has no learning rate, or cannot be read.
        RunNotFound: it is a folder without a run.
    """
    return _with_rates(path, *_curve_and_plan(path, None))


def _with_rates(path: str, curve: Curve, plan: Floats | None) -> Curve:
    if not len(curve.rates) and plan is not None:
        curve = with_schedule(curve, plan)
    if not len(curve.rates):
        raise UsageError(f"{path} has no lr column, so its loss cannot be related to this run's. Add one.")
    return curve


def _keep(path: str, told: Forecast) -> None:
    if not Path(path).is_dir():
        return
    from checks.scaling.forecast_log import keep
    from trainvitals.store import open_run

    try:
        keep(open_run(path), told)
    except OSError as error:
        click.echo(f"The forecast is not stored: {error}", err=True)


def _text(told: Forecast) -> str:
    lines = [f"{told.level}: {told.reason}"]
    if told.level != "pass":
        lines.append(f"  -> {told.what_to_do}")
    if told.final_loss is not None:
        lines.append(f"  {100 * told.trained_share:.0f} % of {told.total_steps:,} steps; {told.law} law, "
                     + ", ".join(f"{name} {value:.4g}" for name, value in told.parameters.items()))
        lines += [f"  {name:<12} {value:.4f}" for name, value in told.alternatives.items()]
        past = told.backtest
        if past["forecasts"]:
            lines.append(f"  {past['inside_their_band']} of {past['forecasts']} past forecasts inside their band, "
                         f"mean error {past['mean_abs_error']:.4f}")
    lines += [f"  {sentence}" for sentence in told.assumed]
    return "\n".join(lines)
