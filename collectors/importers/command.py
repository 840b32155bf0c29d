"""`trainvitals import`: a foreign log into a run folder, and what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from collectors.importers.door import sessions
from collectors.importers.session import Session


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "format_", help="Name of the format, where it is not recognised.")
@click.option("--map", "maps", multiple=True, metavar="SIGNAL=COLUMN", help="What a column is; may be repeated. A unit "
              "goes behind a star: throughput/step_time=dt*ms.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder to write. [below runs/imported]")
def import_(path: Path, format_: str | None, maps: Sequence[str], run: Path | None) -> None:
    """Convert the log of another tool into a run folder, and say what was taken for what.

    Example: trainvitals import wandb/offline-run-20261130_120000-x1
    """
    found = sessions(path, run=run, format=format_, maps=maps or None)
    for one in found:
        one.look()
        one.close()
        click.echo(told(one))


def told(session: Session) -> str:
    """What an import says of itself."""
    about = session.about
    lines = [f"{session.run.name}: {about.title} ({about.why}) -> {session.folder}"]
    if session.afresh:
        lines.append(f"  imported afresh: {session.afresh}")
    lines += [f"  {taken.words}" for taken in about.taken]
    lines += [f"  note: {note}" for note in about.notes]
    lines += [f"  hides {spot.kind}: {spot.says.rstrip('.')}. {spot.remedy.rstrip('.')}." for spot in about.blind]
    return "\n".join(lines)
