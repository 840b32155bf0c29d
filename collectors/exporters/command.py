"""`trainvitals export`: all series of a run for other tools, so that nobody is locked in."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import click

from collectors.exporters import openmetrics, tables, tfevents
from collectors.exporters.lines import lines
from trainvitals.anything import open_run
from trainvitals.errors import UsageError
from trainvitals.store import Run

ENDINGS = {"tfevents": ".tfevents", "parquet": ".parquet", "csv": ".csv", "openmetrics": ".om.txt"}


@click.command()
@click.argument("run")
@click.option("--format", "format_", type=click.Choice(list(ENDINGS)), required=True)
@click.option("--out", type=click.Path(path_type=Path), help="File to write, or folder of tfevents. [named after RUN]")
def export(run: str, format_: str, out: Path | None) -> None:
    """Write all series of a run for other tools, bit by bit: NaN and infinities included, vectors label by label.

    tfevents is a folder for TensorBoard, parquet and csv are one long table, openmetrics is text for Prometheus. What a
    resumed job left behind is not in it.

    Example: trainvitals export runs/demo --format parquet
    """
    found = open_run(run)
    name = found.card.name or found.name
    path = out or Path((re.sub(r"[^\w.-]+", "_", found.name)[:80].strip("._") or "run") + ENDINGS[format_])
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already. Give another --out, or delete it.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        count = _write(found, format_, part, name)
        os.rename(part, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}). Give another --out.") from error
    finally:
        if os.path.lexists(part):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    click.echo(f"{path}: {count:,} values")
    for problem in found.problems():
        click.echo(f"  not all was there: {problem}", err=True)


def _write(run: Run, format_: str, path: Path, name: str) -> int:
    if format_ == "tfevents":
        return tfevents.write(path, lines(run), run.card.created)
    if format_ == "parquet":
        return tables.write_parquet(path, lines(run))
    if format_ == "csv":
        return tables.write_csv(path, lines(run))
    return openmetrics.write(path, lines(run), name)
