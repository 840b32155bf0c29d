"""`trainvitals report`: a run's health as one HTML file."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click

from checks.judge import run_checks
from checks.reading import Snapshot
from checks.report.page import report_page
from checks.report.verdict import decide
from trainvitals.errors import UsageError

EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}


@click.command()
@click.argument("path", type=click.Path())
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True,
              help="HTML file to write.")
def report(path: str, out: Path) -> None:
    """Judge a run and write its health as one HTML file that opens anywhere, prints, and loads nothing.

    PATH is a run folder or the log of another tool. The exit code is that of `check`.

    Example: trainvitals report runs/demo --out report.html
    """
    from trainvitals.anything import open_run

    if out.is_dir():
        raise UsageError(f"{out} is a folder, and --out needs a file. Give --out {out / 'report.html'}.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent} is no folder. Make it, or choose another --out.")
    run = open_run(path)
    judged = run_checks(run)
    page = report_page(Snapshot(run), judged, time.time())  # type: ignore[arg-type]
    _write(out, page)
    decision = decide(judged)
    click.echo(f"{decision.headline}: {decision.sentence}\n{out}")
    levels = {finding.level for finding in judged.findings}
    sys.exit(next((EXIT_CODES[level] for level in ("fail", "warn", "pass") if level in levels), EXIT_CODES["unknown"]))


def _write(out: Path, page: str) -> None:
    """Put the page in place whole: a reader never sees half of it."""
    handle, name = tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n", errors="replace") as file:
            file.write(page)
        os.chmod(name, 0o644)
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
