"""`trainvitals evals trend`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from checks.evals.command import EXIT_CODES
from checks.evals.trend import MARGIN, trends
from trainvitals.errors import UsageError
from trainvitals.evals import read_evals


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--task", "tasks", multiple=True, help="Task; may be repeated. [all]")
@click.option("--margin", default=MARGIN, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="Fall that must be able to show for a pass, as a share.")
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
def trend(run: Path, tasks: tuple[str, ...], margin: float, as_json: bool) -> None:
    """Say of every task whether it fell over the checkpoints, at which one, and which checkpoint is the best.

    The exit code is that of the worst task: 2 fail, 1 warn, 3 unknown, 0 pass.

    Example: trainvitals evals trend runs/demo
    """
    evals = read_evals(run)
    if unasked := [task for task in tasks if task not in evals.tasks]:
        raise UsageError(f"There is no task {unasked[0]!r:.60}. There are {', '.join(evals.tasks[:20]) or 'none'}.")
    found = trends(evals, margin, tasks)
    for problem in evals.problems:
        click.echo(problem, err=True)
    if not found:
        raise UsageError(f"{os.fspath(run)} holds no results of a checkpoint with a step. Import some with "
                         f"`trainvitals evals import PATHS --run {os.fspath(run)} --step N`.")
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2, allow_nan=False))
    else:
        for one in found:
            click.echo(f"{one.level:8} {one.task:32.32} {one.reason}")
            if one.best is not None and one.best.again is not None:
                best = one.best
                click.echo(f"{'':41} best: {best.checkpoint}, {best.score:.4g}, {best.again:.4g} to be expected again; "
                           f"{len(best.as_good)} of {len(one.points)} checkpoints may be as good.")
    levels = {one.level for one in found}
    sys.exit(next((EXIT_CODES[level] for level in ("fail", "warn", "unknown") if level in levels), 0))
