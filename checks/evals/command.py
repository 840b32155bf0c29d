"""`trainvitals evals compare`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from checks.evals.compare import MARGIN, compare
from trainvitals.errors import UsageError
from trainvitals.evals import Evals, read_evals

EXIT_CODES = {"fail": 2, "warn": 1, "unknown": 3, "pass": 0}


@click.command(name="compare")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--from", "before", default="", help="Checkpoint that it is compared with; by default the one before.")
@click.option("--to", "after", default="", help="Checkpoint; by default the newest.")
@click.option("--margin", default=MARGIN, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="Loss that must be able to show for a pass, as a share.")
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
def compare_(run: Path, before: str, after: str, margin: float, as_json: bool) -> None:
    """Compare two checkpoints of a run on the same items, task by task.

    A checkpoint is named as it was imported, or by its step. The exit code is that of the worst task: 2 fail, 1 warn,
    3 unknown, 0 pass.

    Example: trainvitals evals compare runs/demo --from step-1000 --to step-2000
    """
    evals = read_evals(run)
    for problem in evals.problems:
        click.echo(problem, err=True)
    first, last = two_checkpoints(evals, run, before, after)
    found = compare(evals, first, last, margin)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2, allow_nan=False))
    else:
        click.echo(f"{first} -> {last}")
        for one in found:
            click.echo(f"{one.level:8} {one.task:32.32} {one.reason}")
    levels = {one.level for one in found}
    sys.exit(next((EXIT_CODES[level] for level in ("fail", "warn", "unknown") if level in levels), 0 if found else 3))


def two_checkpoints(evals: Evals, run: Path, before: str, after: str) -> tuple[str, str]:
    if not evals.checkpoints:
        raise UsageError(f"{os.fspath(run)} holds no results. Import some with `trainvitals evals import PATHS --run "
                         f"{os.fspath(run)}`.")
    last = _named(evals, after) if after else evals.checkpoints[-1]
    earlier = evals.checkpoints[: evals.checkpoints.index(last)]
    if not before and not earlier:
        raise UsageError(f"There is no checkpoint before {last}. Name one with --from; there are "
                         f"{', '.join(evals.checkpoints[:20])}.")
    first = _named(evals, before) if before else earlier[-1]
    if first == last:
        raise UsageError(f"{first} cannot be compared with itself. Name two checkpoints.")
    return first, last


def _named(evals: Evals, name: str) -> str:
    for known in (name, f"step-{name}"):
        if known in evals.checkpoints:
            return known
    raise UsageError(f"There is no checkpoint {name!r:.60}. There are {', '.join(evals.checkpoints[:20])}.")
