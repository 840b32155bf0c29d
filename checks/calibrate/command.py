"""`trainvitals calibrate`: thresholds fitted to healthy runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from checks.calibrate.dials import dials
from checks.calibrate.fit import Fitted, fit
from checks.calibrate.healthy import Healthy
from checks.calibrate.write import measured, policy_text, words
from checks.policy import read
from trainvitals.errors import TrainVitalsError, UsageError

LOUDEST = 0.01
MOST_TOLD, LONGEST = 10, 240


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--out", type=click.Path(path_type=Path), required=True, help="TOML file to write; must not exist.")
@click.option("--false-alarms", "rate", default="1/100000", show_default=True,
              help="Wanted false failures a row, as 1/100000 or 1e-5; five times as many warnings.")
def calibrate(paths: tuple[str, ...], out: Path, rate: str) -> None:
    """Fit the thresholds of the checks to healthy runs, and write them as a policy for `check --policy`.

    A path is a run folder, the log of another tool, or a folder of runs. A threshold is changed only where the runs
    show that the shipped one alarms more often than wanted, or that a tighter one would not; the rest is kept, with
    what so many rows can tell. A run with a fault is named and not learnt from.

    Example: trainvitals calibrate runs/good-1 runs/good-2 --out policy.toml
    """
    wanted = _rate(rate)
    if out.exists():
        raise UsageError(f"{out} exists. Choose another --out, or delete it.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent} is no folder. Make it, or choose another --out.")
    runs, refused = _healthy(paths)
    if not runs:
        raise UsageError("None of the runs can be learnt from: " + "; ".join(refused)[:LONGEST])
    fits = [fit(dial, runs, wanted) for dial in dials()]
    out.write_text(policy_text(fits, [run.name for run in runs], refused, wanted), encoding="utf-8")
    read(out)  # what we write, we can read
    click.echo(_table(fits, len(runs), wanted))
    for sentence in refused[:MOST_TOLD]:
        click.echo(f"Not learnt from: {sentence[:LONGEST]}")
    if len(refused) > MOST_TOLD:
        click.echo(f"Not learnt from: {len(refused) - MOST_TOLD} more.")
    for run in dict.fromkeys(name for f in fits for name in f.alone):
        of = ", ".join(f"{f.dial.name} ({f.dial.level})" for f in fits if run in f.alone)
        click.echo(f"Not learnt from: {run} alone decided {of}. See whether it is healthy: trainvitals check {run}")
    click.echo(f"{out}: {sum(f.scale != 1 for f in fits)} of {len(fits)} thresholds changed.")


def _rate(given: str) -> float:
    part, _, whole = given.partition("/")
    try:
        rate = float(part) / float(whole or 1)
    except (ValueError, ZeroDivisionError):
        rate = 0.0
    if not 0 < rate <= LOUDEST:
        raise UsageError(f"--false-alarms is {given[:40]}. Give a rate above 0 and at most {LOUDEST}, as 1/100000.")
    return rate


def _healthy(paths: tuple[str, ...]) -> tuple[list[Healthy], list[str]]:
    """The runs at the paths, and sentences about those that are no ground."""
    kept: list[Healthy] = []
    refused: list[str] = []
    seen: set[str] = set()
    for path in _runs(paths):
        from trainvitals.anything import open_run

        try:
            one = Healthy.of(open_run(path))
        except TrainVitalsError as error:
            if len(paths) == 1:
                raise
            refused.append(str(error))
            continue
        if os.path.realpath(one.name) in seen:
            continue  # a run that is named twice is one
        seen.add(os.path.realpath(one.name))
        faults = one.unexplained()
        if faults:
            refused.append(f"{one.name} has a failure that no threshold explains: {faults[0].summary}")
        else:
            kept.append(one)
        print(f"{one.name}: {one.run.last_step or 0:,} steps", file=sys.stderr)
    return kept, refused


def _runs(paths: tuple[str, ...]) -> Iterator[str]:
    from trainvitals.anything import is_run
    from trainvitals.store import list_runs

    for path in paths:
        below = list_runs(path) if os.path.isdir(path) and not is_run(path) else []
        yield from below or [path]


def _table(fits: list[Fitted], runs: int, wanted: float) -> str:
    lines = [f"Wanted: {words(wanted)} false failures. {runs} healthy run{'' if runs == 1 else 's'}."]
    for f in fits:
        turned = f"x{f.scale:.3g}" if f.scale != 1 else "kept"
        lines.append(f"{f.dial.name:22} {f.dial.level:5} {turned:6} {measured(f)}. {f.why[0].upper()}{f.why[1:]}.")
    return "\n".join(lines)
