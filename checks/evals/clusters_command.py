"""`trainvitals evals clusters`, and the work list that it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from checks.evals.clusters import Found, error_clusters
from checks.evals.command import two_checkpoints
from trainvitals.errors import UsageError
from trainvitals.evals import read_evals
from trainvitals.spreadsheet import write_csv

COLUMNS = ("priority", "cluster", "task", "item", "gain_mean_points", "gain_task_points", "lift", "text",
           "answer_before", "answer_after", "look_at")  # fmt: skip


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--from", "before", default="", help="Checkpoint that it is compared with; by default the one before.")
@click.option("--to", "after", default="", help="Checkpoint; by default the newest.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the work list: a row (CSV) for each lost item.")
@click.option("--json", "as_json", is_flag=True, help="Print the clusters as JSON.")
def clusters(run: Path, before: str, after: str, out: Path | None, as_json: bool) -> None:
    """Say which kinds of items went from right to wrong between two checkpoints, those first that cost most.

    The exit code is 1 where there are such kinds, 0 where none stands out, 3 where nothing could be compared.

    Example: trainvitals evals clusters runs/demo --from step-1000 --to step-2000 --out work_list.csv
    """
    evals = read_evals(run)
    found = error_clusters(evals, *two_checkpoints(evals, run, before, after))
    for problem in evals.problems:
        click.echo(problem, err=True)
    if out is not None:
        try:
            with out.open("w", encoding="utf-8", newline="") as file:
                write_csv(file, COLUMNS, work_list(found))
        except OSError as error:
            raise UsageError(f"{out} cannot be written ({error.strerror}). Choose another --out.") from error
    click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False) if as_json else told(found))
    sys.exit(3 if not found.items else 1 if found.clusters else 0)


def told(found: Found) -> str:
    """For people."""
    head = (f"{found.before} -> {found.after}: of {found.items:,} items {found.lost:,} went from right to wrong, "
            f"{found.won:,} from wrong to right; {found.slices:,} slices were looked at.")  # fmt: skip
    lines = [head, *([] if found.clusters else ["No kind of item stands out."] if found.items else [])]
    for rank, one in enumerate(found.clusters, 1):
        lines.append(f"{rank}. {one.name}\n   {one.look_at}")
        lines += [f"   - {e.task} {e.item}: {' '.join(e.text.split())[:100]}" for e in one.lost_items[:3]]
    return "\n".join([*lines, *(f"{note[0].upper()}{note[1:]}." for note in found.notes)])


def work_list(found: Found) -> Iterator[Sequence[Any]]:
    """What is to be mended, the most valuable first: each lost item under the first cluster that it is in."""
    seen = set()
    for rank, one in enumerate(found.clusters, 1):
        for lost in one.lost_items:
            if (lost.task, lost.item) not in seen:
                seen.add((lost.task, lost.item))
                yield (rank, one.name, lost.task, lost.item, round(100 * one.gain, 4),
                       round(100 * one.task_gain[lost.task], 4), round(one.lift, 2), lost.text, lost.before, lost.after,
                       one.look_at)  # fmt: skip
