"""`trainvitals watch`: tells people once of each thing that goes wrong in runs that grow."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

import click

from checks.policy import Policy, read
from checks.watch.channels import VARIABLE, addresses, hook, services
from checks.watch.hours import quiet_hours
from checks.watch.message import Message
from checks.watch.metrics import Scraped, samples, serve
from checks.watch.outbox import Outbox
from checks.watch.state import State, StateFile
from checks.watch.watcher import BUSY_SHARE, Options, Watcher, daily
from trainvitals.errors import UsageError
from trainvitals.store.folder import open_folder
from trainvitals.store.listing import looks_like_run

LOOK_SECONDS = 15.0
"""Between two looks."""
DAY_SECONDS = 86_400.0
EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}
"""Of `--once`, as `trainvitals check` has them; the worst run's, and that of unknown where there is none."""
NAME = "trainvitals-watch"
"""The state's folder beside the runs."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUNS...")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Folder of what was told and what is "
              f"still to be sent. [{NAME} beside the first of RUNS]")
@click.option("--alerts", type=click.Path(), metavar="FILE", help="File of mode 600 with the addresses of services, "
              f"one a line, as Apprise takes them. [the environment's {VARIABLE}]")
@click.option("--hook", "program", metavar="PROGRAM", help="Program to run for each message, which it finds in the "
              "variables TRAINVITALS_RUN, _LEVEL, _INCIDENT, _STEP, _WHAT, _KIND, _TITLE and _BODY.")
@click.option("--board", metavar="URL", default="", help="Address of the board, for links.")
@click.option("--quiet", metavar="HOURS", help="As '22:00-07:00 Europe/Berlin' (UTC without a zone): warnings wait for "
              "the end of these hours and come as one message; failures never wait.")
@click.option("--digest", "with_digest", is_flag=True, help="One message a day on all runs.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Answer Prometheus there; on this machine only without a host.")
@click.option("--policy", type=click.Path(), envvar="TRAINVITALS_POLICY", metavar="FILE",
              help="TOML file with thresholds in place of the shipped ones, as `calibrate` writes.")
@click.option("--once", is_flag=True, help="Look once, print what would be told; send nothing, keep no state.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print JSON.")
def watch(paths: tuple[str, ...], state: Path | None, alerts: str | None, program: str | None, board: str,
          quiet: str | None, with_digest: bool, metrics: str | None, policy: str | None, once: bool,
          as_json: bool) -> None:  # fmt: skip
    """Judge runs while they grow, and send one message for each thing that goes wrong.

    RUNS are run folders, folders of them at any depth, or URLs of either. Another message follows when an incident gets
    worse, and one when it is over. A run that stops reporting or makes no more steps is an incident, too.

    Example: trainvitals watch runs --board http://board:8501
    """
    options = Options((read(policy) if policy else Policy()).settings, quiet_hours(quiet) if quiet else None, board,
                      None if once else BUSY_SHARE)  # fmt: skip
    if as_json and not once:
        raise UsageError("--json belongs to --once.")
    if once:
        _once(Watcher(paths, State(), options, _say), as_json)
        return
    channels = services(addresses(alerts)) + ([hook(program)] if program else [])
    if not channels and not metrics:
        raise UsageError(f"Nobody would be told. Set {VARIABLE}, or give --alerts, --hook or --metrics; --once prints.")
    file = StateFile(state or _beside(paths[0]))
    with file.held():
        known, damage = file.read()
        if damage:
            _say(damage)
        watcher = Watcher(paths, known, options, _say)
        outbox, scraped = Outbox(file.place, channels, _say), Scraped()
        if metrics:
            _say(f"Metrics: port {serve(scraped, metrics)}.")
        for post in outbox.posts:
            post.start(time.monotonic)
        _say(f"Watching {', '.join(paths)}; channels: {', '.join(c.name for c in channels) or 'none'}; "
             f"state: {file.place}.")  # fmt: skip
        try:
            while True:
                turn(watcher, outbox, file, scraped, time.time(), with_digest)
                time.sleep(LOOK_SECONDS)
        finally:
            for post in outbox.posts:
                post.close()


def turn(
    watcher: Watcher, outbox: Outbox, file: StateFile, scraped: Scraped, now: float, with_digest: bool = False
) -> list[Message]:
    """One look, with what it gives to tell, in the order that loses nothing: queue, then note as told."""
    messages = watcher.look(now)
    state = watcher.state
    if with_digest and now - state.digested >= DAY_SECONDS:
        if state.digested:
            messages = [*messages, daily(watcher, now)]
        state.digested = now
    outbox.put(messages)
    for message in messages:
        _say(f"{message.kind}: {message.title}")
    try:
        file.write(state)
    except OSError as error:
        _say(f"{file.place} cannot be written ({error.strerror}): a restart may repeat messages.")
    scraped.samples = samples(watcher, outbox, now)
    return messages


def _once(watcher: Watcher, as_json: bool) -> None:
    messages = watcher.look(time.time())
    runs = {path: {"level": report.level if report else "unknown", "status": run.status, "step": run.last_step}
            for path, (run, report) in watcher.reports.items()}  # fmt: skip
    levels = {found["level"] for found in runs.values()}
    code = next((EXIT_CODES[level] for level in ("fail", "warn", "unknown") if level in levels), 0 if levels else 3)
    if as_json:
        told = [m.to_json() for m in messages]
        click.echo(json.dumps({"runs": runs, "messages": told}, indent=2, allow_nan=False))
        sys.exit(code)
    for path, found in runs.items():
        click.echo(f"{found['level']:8} {found['status']:9} step {found['step'] or 0:,}  {path}")
    for message in messages:
        click.echo(f"\n{message.title}\n{message.body}")
    if not runs:
        click.echo("No runs are there yet.")
    sys.exit(code)


def _beside(path: str) -> Path:
    """Where the state lies by default. Raises UsageError for runs that are not on this machine's disk."""
    if "://" in path:
        raise UsageError("Runs behind a URL need --state DIR, a folder on this machine.")
    place = Path(os.path.abspath(path))
    return (place.parent if place.is_dir() and looks_like_run(open_folder(place).entries()) else place) / NAME


def _say(words: str) -> None:
    click.echo(f"{datetime.now().astimezone():%H:%M:%S} {' '.join(words.split())}", err=True)
