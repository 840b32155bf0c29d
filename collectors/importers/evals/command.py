"""`trainvitals evals import`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from collectors.importers.evals.door import results_at
from collectors.importers.evals.found import Asked
from trainvitals.errors import UsageError
from trainvitals.evals import write_sheets


@click.command(name="import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Run folder that the results go to.")
@click.option("--step", type=click.IntRange(min=0), help="Training step of the checkpoint, where the files do not say.")
@click.option("--checkpoint", default="", help="Name of the checkpoint; by default step-N.")
@click.option("--task", default="", help="Name of the task, of files that do not say.")
@click.option("--columns", default="", help="Of a table: our name=its name, as item=id,score=acc; item=subject+id "
              "where two make up one.")
@click.option("--lower-is-better", is_flag=True, help="Of a table: its scores are losses or errors.")
def import_(paths: tuple[Path, ...], run: Path, step: int | None, checkpoint: str, task: str, columns: str,
            lower_is_better: bool) -> None:
    """Read results of evaluations into a run's folder, item by item.

    A path is a file or folder of lm-evaluation-harness, Inspect (.eval, .json), NeMo Evaluator, Every Eval Ever, HELM,
    lighteval, OpenAI evals (JSONL), or a table (CSV, Parquet, JSONL) with a row for each item. The checkpoint's step is
    read from the file or its path, or given.

    Example: trainvitals evals import out/ckpt-step1000 --run runs/demo
    """
    asked = Asked(step, checkpoint, task, _mapping(columns), lower_is_better)
    stored = refused = 0
    for path in paths:
        for file, format_, found in results_at(path, asked):
            if isinstance(found, UsageError):
                click.echo(str(found), err=True)
                refused += 1
                continue
            for note in found.notes:
                click.echo(f"  {note}")
            if found.sheets:
                write_sheets(run, found.sheets)
                items = sum(s.items["item"].nunique() if len(s.items) else 0 for s in found.sheets)
                where = ", ".join(sorted({s.checkpoint for s in found.sheets})[:5])
                click.echo(f"{file}: {format_.name}, {len(found.sheets)} results of {where}, {items:,} items")
                stored += len(found.sheets)
    if not stored:
        raise UsageError(f"Nothing was stored in {run}: each file's reason is above.")
    sys.exit(1 if refused else 0)


def _mapping(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, text.split(",")):
        ours, equals, theirs = part.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise UsageError(f"--columns {part!r:.60} is no pair: write item=id,score=acc.")
        found[ours.strip()] = theirs.strip()
    return found
