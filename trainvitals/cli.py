"""The command line. Every command prints a table for people, and JSON with `--json` where machines may ask.

Exit codes: 0 nothing above pass, 1 a warning, 2 a failure, 3 nothing could be judged, 64 and up a wrong argument or
input (one line on standard error says which, and what to do).
"""

from __future__ import annotations

import csv
import datetime
import importlib
import json
import math
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainvitals import __version__
from trainvitals.errors import RunDamaged, RunNotFound, TrainVitalsError, UsageError

if TYPE_CHECKING:
    from checks.judge import Report
    from checks.policy import Policy
    from collectors.demo.train import DemoConfig
    from collectors.importers.follow import Follower
    from trainvitals.store import Run

BOARD_PORT = 8501
MOST_DIGITS, LONGEST_LINE = 40, 900
MOST_TWINS = 20
"""Runs of one `check` among which twins are looked for: 190 pairs."""
DAMAGED = (OverflowError, RecursionError, UnicodeError, EOFError, csv.Error, zlib.error, json.JSONDecodeError)
"""What only an input can raise that a reader did not expect: the last word before it counts as a fault of ours."""
_NUMBER = re.compile(r"[-+]?\d[\d_]*\.?\d*(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)


ROOMS = {
    "audit": "checks.contamination.command:audit",
    "calibrate": "checks.calibrate.command:calibrate",
    "data": "checks.data_report.command:data",
    "evals": "trainvitals.evals.command:evals",
    "export": "collectors.exporters.command:export",
    "import": "collectors.importers.command:import_",
    "incident": "checks.triage.command:incident",
    "report": "checks.report.command:report",
    "review": "checks.review.command:review",
    "run": "collectors.launch.command:run",
    "scaling": "checks.scaling.command:scaling",
    "twin": "checks.twins.twin_command:twin",
    "twins": "checks.twins.command:twins",
    "watch": "checks.watch.command:watch",
}
"""Commands that live beside what they run, and are imported when they are asked for."""


POLICY = click.option("--policy", type=click.Path(), envvar="TRAINVITALS_POLICY", metavar="FILE",
                      help="TOML file with thresholds in place of the shipped ones, as `calibrate` writes.")
NO_TOKEN = click.option("--no-token", is_flag=True, help="Let everybody in who reaches the port, as all users of this "
                        "machine do.")


class LazyGroup(click.Group):
    """A group that knows `ROOMS` by name."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse, once no argument can hang or overflow whatever reads it."""
        # What `run` starts is for another program to judge.
        for word in args[: args.index("--")] if args[:1] == ["run"] and "--" in args else args:
            _refuse_unusable(word)
        return super().make_context(info_name, args, *rest, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, those of `ROOMS` included."""
        return sorted({*super().list_commands(ctx), *ROOMS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported by now."""
        if cmd_name not in ROOMS:
            return super().get_command(ctx, cmd_name)
        module, _, name = ROOMS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """TrainVitals: the health board for training runs of large language models."""


@cli.command()
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run folder to write. [runs/demo-TIME]")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps. [about two minutes of them]")
@click.option("--fault", help="Fault to inject, or `none`. [the one that shows best]")
@click.option("--story", type=click.Choice(["release"]), help="Stage a release instead: a model trains, is "
              "evaluated at its checkpoints, and is reviewed.")
@click.option("--healthy", is_flag=True, help="With --story: leave out what goes wrong in it.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with one text file or folder per domain.")
@click.option("--dataset", help="Name or path for `datasets.load_dataset`, instead of --data.")
@click.option("--domain-column", help="Column of --dataset that names the domain.")
@click.option("--text-column", default="text", show_default=True, help="Column of --dataset that holds the text.")
@click.option("--seed", default=0, show_default=True)
@click.option("--proxy", type=click.IntRange(2, 100), help="First train a model of one so-manyth of the size on the "
              "same batches, as a control group.")
@click.option("--board/--no-board", default=True, show_default=True, help="Open the live board beside the training.")
@click.option("--port", type=int, help=f"Port of the board. [the first free one from {BOARD_PORT}]")
@NO_TOKEN
def demo(run_path: Path | None, board: bool, port: int | None, no_token: bool, proxy: int | None, story: str | None,
         healthy: bool, **training: Any) -> None:
    """Train a small mixture of experts with the tap on, a fault in it, and the board open.

    With --story release, a second checkpoint lost its code data and a tool became slow; the review of it is written to
    RUN/review.

    Example: trainvitals demo --fault lr_jump --steps 200
    """
    if healthy and not story:
        raise UsageError("--healthy belongs to --story. A training without a fault is `--fault none`.")
    if story and training["fault"]:
        raise UsageError("--story brings its own fault. Leave out --fault, or say --healthy.")
    try:
        from collectors.demo.train import DemoConfig, run_demo
    except ImportError as error:
        raise UsageError(f"The demo trains a model and needs {error.name}. Install `trainvitals[train]`.") from error
    from trainvitals.store import open_run

    run_path = run_path or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    if file := next((place for place in (run_path, *run_path.parents) if place.is_file()), None):
        raise UsageError(f"{file} is a file, and --run needs a folder. Choose another --run, or delete it.")
    proxy_path = run_path.with_name(f"{run_path.name}-proxy")
    for path in (run_path, *([proxy_path] if proxy else [])):
        if path.exists() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty. Choose another --run, or delete it.")
    if proxy and story:
        raise UsageError("A story has no proxy. Leave out --proxy or --story.")
    chosen = {name: value for name, value in training.items() if value is not None}
    if story:
        from collectors.demo.story import small_config

        config = small_config(run_path, **chosen)
    else:
        config = DemoConfig(run=run_path, **chosen)
    server = _serve(run_path.parent, port, no_token) if board else None
    try:
        if story:
            _reviewed_story(config, healthy)
        else:
            if proxy:
                run_demo(replace(config, run=proxy_path, part=proxy, fault="none"))
            run_demo(config)
            if proxy:
                _note_twins(run_path, proxy_path)
            report = _judge(open_run(run_path))
            click.echo(_table(report))
        if server is not None:
            click.echo("\nThe board stays open until you press Ctrl-C.")
            server.wait()
    except KeyboardInterrupt:
        click.echo("\nStopped. Look again with: trainvitals dashboard " + str(run_path.parent))
    finally:
        if server is not None:
            server.terminate()


def _note_twins(*paths: Path) -> None:
    from checks.twins.known import find_twins, note_twins
    from trainvitals.store import open_run

    runs = [open_run(path) for path in paths]
    note_twins(runs, find_twins(runs)[1])


def _reviewed_story(config: DemoConfig, healthy: bool) -> None:
    from checks.review.bundle import write_review
    from checks.review.command import told
    from collectors.demo.story import release

    staged = release(config, healthy)
    out = staged.run / "review"
    decided = write_review(staged.run, staged.policy, out, datetime.datetime.now(datetime.UTC), None)
    click.echo(told(decided, out))


@cli.command()
@click.argument("runs", type=click.Path())
@click.option("--port", type=int, help=f"[the first free one from {BOARD_PORT}]")
@NO_TOKEN
@click.option("--host-name", "host_names", multiple=True, metavar="NAME", envvar="TRAINVITALS_HOST_NAME",
              help="Name that a proxy in front gives the board, beside localhost; may be repeated.")
@click.option("--base-path", default="", metavar="PATH", help="Path that a proxy in front gives it, as /vitals.")
@POLICY
def dashboard(runs: str, port: int | None, no_token: bool, host_names: tuple[str, ...], base_path: str,
              policy: str | None) -> None:
    """Open the board on a run, a folder of runs, an audit, or the log of another tool, which is followed live.

    The address that it prints holds a random token, which whoever opens the board must know. TRAINVITALS_TOKEN sets a
    token that stays the same.

    Example: trainvitals dashboard runs
    """
    if policy:
        _policy(policy)  # a wrong one is told here, not by every page
        os.environ["TRAINVITALS_POLICY"] = os.path.abspath(policy)
    following = _followed(runs)
    server = _serve(following.folder if following else runs, port, no_token, base_path, host_names)
    try:
        server.wait()
    except KeyboardInterrupt:
        click.echo("\nClosed.")
    finally:
        server.terminate()
        if following:
            following.stop()


def _followed(path: str) -> Follower | None:
    """What follows another tool's log while the board is open; None where the path is the board's own to read."""
    from trainvitals.anything import is_run
    from trainvitals.store import list_runs

    if not os.path.exists(path) or is_run(path) or (os.path.isdir(path) and list_runs(path)):
        return None
    from collectors.importers.command import told
    from collectors.importers.door import sessions
    from collectors.importers.follow import Follower

    try:
        every = sessions(path)
    except RunNotFound:
        return None  # an audit, or a folder whose runs are still to come
    following = Follower(every)
    for one in every:
        click.echo(told(one))
    following.start()
    return following


@cli.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print level, areas, incidents and findings as JSON.")
@click.option("--only", multiple=True, help="Run only this check; may be repeated.")
@POLICY
def check(paths: tuple[str, ...], as_json: bool, only: tuple[str, ...], policy: str | None) -> None:
    """Judge runs, live or finished, and store the findings in their folders.

    A path is a run folder, the log of another tool, or a folder of either. Another tool's log is imported first, and
    what it cannot tell is said. Of several runs of one data order it also says which steps stand out in more than one
    (the data, not the optimizer), and judges each against its twins.

    The exit code is that of the worst run: 2 fail, 1 warn, 3 unknown, 0 pass.

    Example: trainvitals check runs/demo --json
    """
    from checks.together import shared_steps, shared_words
    from checks.twins.known import find_twins, note_twins
    from trainvitals.anything import runs_at

    chosen = _policy(policy)
    runs: list[Run] = []
    unread = 0
    for path in paths:
        found, code = runs_at(path, lambda words: click.echo(words, err=True), _tell)
        runs, unread = [*runs, *found], unread or code
    if 1 < len(runs) <= MOST_TWINS:
        note_twins(runs, find_twins(runs)[1])
    reports = [_judge(run, only, chosen) for run in runs]
    shared = shared_steps(runs) if len(runs) > 1 else None
    if as_json:
        answers = [{"run": run.path, **report.answer_json()} for run, report in zip(runs, reports, strict=True)]
        one = reports[0].answer_json() if shared is None else {"runs": answers, "shared": shared}
        click.echo(json.dumps(one, indent=2, allow_nan=False))
    else:
        for run, report in zip(runs, reports, strict=True):
            click.echo((f"{run.path}\n" if shared is not None else "") + _table(report))
        if shared is not None:
            click.echo(shared_words(shared))
    levels = {report.level for report in reports}
    sys.exit(2 if "fail" in levels else 1 if "warn" in levels else unread or (3 if "unknown" in levels else 0))


@cli.command()
@click.argument("run")
@click.option("--quiet-for", default=3600.0, show_default=True, help="Seconds without a row that mean a dead writer.")
def compact(run: str, quiet_for: float) -> None:
    """Turn the segments that killed writers left into Parquet.

    Example: trainvitals compact runs/demo
    """
    from trainvitals.store import open_run
    from trainvitals.store.compact import compact_run
    from trainvitals.store.folder import open_folder

    if not math.isfinite(quiet_for):
        raise UsageError(f"--quiet-for is {quiet_for}. Give seconds, a finite number of them.")
    open_run(run)  # raises where there is no run
    done = compact_run(open_folder(run), quiet_for)
    click.echo(f"{done} segment{'' if done == 1 else 's'} compacted.")


def _policy(path: str | None) -> Policy:
    from checks.policy import Policy, read

    return read(path) if path else Policy()


def _judge(run: Run, only: tuple[str, ...] = (), policy: Policy | None = None) -> Report:
    from checks.judge import run_checks
    from checks.judged_by import judged_by
    from checks.scaling.forecast_log import keep_found

    settings = policy.settings if policy else {}
    report = run_checks(run, only=only or None, settings=settings)
    if not only:
        try:
            run.save_findings(report.to_json(), judged_by(settings))
            keep_found(run, report.findings)
        except OSError as error:
            click.echo(f"The findings are not stored: {error}", err=True)
    return report


def _refuse_unusable(word: str) -> None:
    """Raise UsageError for an argument that names a pipe or a device, or a number that no computer holds."""
    if "\0" in word:
        raise UsageError(f"{word!r} holds a NUL byte, which no file's name does.")
    for part in {word, word.partition("=")[2]}:
        try:
            kind = os.stat(part).st_mode
        except (OSError, ValueError):
            kind = 0
        if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UsageError(f"{part} is a pipe or a device, which may never end. Give a file or a folder.")
        if not kind and _NUMBER.fullmatch(part) and (len(part) > MOST_DIGITS or not math.isfinite(float(part))):
            raise UsageError(f"{part[:40]} is no usable number. Give a finite one of at most {MOST_DIGITS} digits.")


def _serve(
    runs: str | Path, port: int | None, no_token: bool, base_path: str = "", host_names: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    from dashboard.server import launch

    given = "" if no_token else os.environ.get(launch.TOKEN_VARIABLE)
    token = {} if given is None else {"token": given}
    if given == "" and not no_token:
        raise UsageError(f"{launch.TOKEN_VARIABLE} is empty. Unset it for a random token, or give --no-token.")
    door = launch.Door(port or _free_port(), base_path=base_path, host_names=host_names, **token)
    server = launch.serve(runs, door)
    click.echo(f"Board: {door.link}")
    if sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        launch.open_browser(door)
    return server


def _free_port() -> int:
    for port in range(BOARD_PORT, BOARD_PORT + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise UsageError(f"No free port from {BOARD_PORT} to {BOARD_PORT + 99}. Name one with --port.")


def _table(report: Report) -> str:
    order = ("fail", "warn", "unknown", "pass")
    rows = sorted(report.findings, key=lambda finding: (order.index(finding.level), finding.check))
    lines, blank = [], []
    for finding in rows:
        if "missing" in finding.details:
            blank.append(finding.check)
            continue
        where = f" [steps {finding.steps[0]}-{finding.steps[1]}]" if finding.steps else ""
        lines.append(f"{finding.level:8} {finding.check:24} {finding.summary}{where}")
        if finding.level in ("fail", "warn"):
            if whose := finding.details.get("whose"):
                lines.append(f"{'':33} {whose['words']}")
            lines.append(f"{'':33} -> {finding.what_to_do}")
    if blank:
        lines.append(f"{'unknown':8} {'no data':24} {len(blank)} checks read signals that the run does not hold: "
                     f"{', '.join(blank)}. `--json` says which, and how a run comes to have them.")
    areas = [f"{area}: {v.level}, {v.answered} of {v.asked} answered" for area, v in report.verdicts.items()]
    return "\n".join([*lines, *areas]) if lines else "No check could run."


def main() -> None:
    """Entry point of the `trainvitals` command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cli(standalone_mode=False)
    except TrainVitalsError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        _tell(f"{where}{error.strerror or error}. Nothing more could be read or written; mend that and try again.")
        sys.exit(RunNotFound.exit_code)
    except DAMAGED as error:
        _tell(f"What was given cannot be read ({type(error).__name__}: {error}). Restore the file, or write it anew.")
        sys.exit(RunDamaged.exit_code)
    except Exception as error:  # a fault of ours must not end like a verdict (1 or 2), nor with a traceback at a user
        _tell(f"internal error, {type(error).__name__}: {error}. Please report it.")
        sys.exit(TrainVitalsError.exit_code)


def _tell(message: str) -> None:
    """One line on standard error. Names of files can be long: the middle is what a reader can do without."""
    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 3]} ... {line[-2 * LONGEST_LINE // 3 :]}"
    click.echo(f"trainvitals: {line}", err=True)


if __name__ == "__main__":
    main()
