"""`trainvitals twins`: which runs saw the same data, and which steps that data makes stand out."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from checks.twins.culprits import Culprit, of_all
from checks.twins.known import find_twins, note_twins
from checks.twins.pair import Pair
from trainvitals.anything import runs_at
from trainvitals.errors import UsageError
from trainvitals.spreadsheet import safe_cell

if TYPE_CHECKING:
    from trainvitals.store import Run

MOST_RUNS, MOST_SHOWN = 200, 20


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print pairs and culprits as JSON.")
@click.option("--culprits", "sheet", type=click.Path(path_type=Path, dir_okay=False),
              help="CSV file for the steps that stand out, with their cause.")
@click.option("--no-keep", is_flag=True, help="Do not note twins in the run folders, for `check` and the board.")
def twins(paths: tuple[str, ...], as_json: bool, sheet: Path | None, no_keep: bool) -> None:
    """Find runs that were trained on the same data in the same order.

    A path is a run folder, the log of another tool, or a folder of either. Twins are known by their batches'
    fingerprints, else by how the changes of their losses correlate. They are each other's control group: `check` then
    judges each run also against its twins. The exit code is 0 where a pair of twins was found, else 3.

    Example: trainvitals twins runs/seed-a runs/seed-b --json
    """
    runs = _open(paths)
    if len(runs) < 2:
        raise UsageError(f"Twins are two runs at least, and {'one run is' if runs else 'no run is'} at "
                         f"{', '.join(paths)}. Name another, or a folder of them.")  # fmt: skip
    rows, pairs = find_twins(runs)
    found = of_all(rows, pairs)
    if not no_keep:
        note_twins(runs, pairs)
    if sheet is not None:
        _write(sheet, found)
    if as_json:
        click.echo(json.dumps({"pairs": [p.to_json() for p in pairs], "culprits": [c.to_json() for c in found]},
                              indent=2, allow_nan=False))  # fmt: skip
    else:
        _tell(pairs, found)
    sys.exit(0 if any(p.twin for p in pairs) else 3)


def _open(paths: tuple[str, ...]) -> list[Run]:
    runs: dict[str, Run] = {}
    for path in paths:
        for run in runs_at(path, _say, _say)[0]:
            runs.setdefault(run.path, run)
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs):,} runs would be {len(runs) * (len(runs) - 1) // 2:,} pairs. Name at most "
                         f"{MOST_RUNS}.")
    return list(runs.values())


def _say(words: str) -> None:
    click.echo(words, err=True)


def _write(sheet: Path, found: list[Culprit]) -> None:
    try:
        with sheet.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "step", "percent", "z", "recurs_in", "of", "cause"])
            writer.writerows([safe_cell(v) for v in c.to_json().values()] for c in found)
    except OSError as error:
        raise UsageError(f"{sheet} cannot be written: {error.strerror}. Choose another file.") from error


def _tell(pairs: list[Pair], found: list[Culprit]) -> None:
    for pair in sorted(pairs, key=lambda p: (p.twin is not True, p.twin is None)):
        what = {True: "twins", False: "no twins", None: "unknown"}[pair.twin]
        if pair.copy:
            what = "the same run"
        at = f", offset {pair.offset_steps:+,} steps" if pair.twin and pair.offset_steps is not None else ""
        click.echo(f"{what:9} {pair.a}  {pair.b}{at}\n          {pair.evidence}")
    for cause, title in (("data", "Stand out in most twins, so the data did it"), ("own", "Stand out in one run only")):
        of_cause = [c for c in found if c.cause == cause]
        if of_cause:
            click.echo(f"{title}: {len(of_cause):,} rows.")
            for c in of_cause[:MOST_SHOWN]:
                click.echo(f"  step {c.step:,} of {c.run}: {c.percent:+.3g} %, {c.words}")
