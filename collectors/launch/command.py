"""The command `trainvitals run`: start a training command unchanged, and hear what it logs and prints."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from collectors.importers._launch import BEGIN, END, OUTPUT
from collectors.launch import relay
from trainvitals.errors import UsageError

HOOK = Path(__file__).resolve().parent / "hook"
FOLDER_VARIABLE = "TRAINVITALS_HEARD"
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "NODE_RANK", "GROUP_RANK",
                  "SLURM_NODEID")
MOST_COPIED = 1 << 30
"""Bytes of printed output that are kept per launch."""
LAST_LOOK_SECONDS = 20.0


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run folder to write. [runs/COMMAND-TIME]")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(run_path: Path | None, command: tuple[str, ...]) -> None:
    """Start a training command as it is, and listen to wandb.log, SummaryWriter, HF's Trainer and what it prints.

    Exit code, signals, input and output are the command's own, and it goes on whatever happens to the listener. On
    other nodes or ranks than the first nothing is listened to.

    Example: trainvitals run --run runs/mine -- torchrun --nproc-per-node 8 train.py
    """
    if any(os.environ.get(name, "0") not in ("", "0") for name in RANK_VARIABLES):
        _become(command)
    run_path = run_path or Path("runs") / f"{_name(command)}-{time.strftime('%Y%m%d-%H%M%S')}"
    ears = Ears(run_path, command)
    code = relay.NOT_FOUND
    try:
        code = relay.run(command, ears.environment(), ears.hear)
    except OSError as error:
        code = relay.NOT_EXECUTABLE if isinstance(error, PermissionError) else relay.NOT_FOUND
        click.echo(f"trainvitals: {command[0]} cannot be started: {error.strerror or error}.", err=True)
    finally:
        ears.end(code)
    sys.exit(relay.end_like(code))


class Ears:
    """What listens: a folder for what is heard, and a process that takes it into the run. None of it may raise."""

    def __init__(self, run: Path, command: tuple[str, ...]) -> None:
        self._run = Path(os.path.abspath(run))
        self._copied = 0
        self._file = -1
        self._torn = {1: b"", 2: b""}
        self._listener: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        try:
            self._folder = _launch_folder(self._run)
            _write(self._folder / BEGIN, {"command": shlex.join(command), "time": time.time()})
            self._file = os.open(self._folder / OUTPUT, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._listener = subprocess.Popen(
                [sys.executable, "-P", "-m", "collectors.launch.listen", str(self._folder), str(self._run),
                 str(os.getpid())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True, env=os.environ | {"PYTHONPATH": _path(Path(__file__).resolve().parents[2])})
        except OSError as error:
            self._say(f"nothing is listened to ({error.strerror or error})")

    def environment(self) -> dict[str, str]:
        """Of the command: ours, and the hook where somebody listens."""
        if self._folder is None:
            return dict(os.environ)
        return os.environ | {FOLDER_VARIABLE: str(self._folder), "PYTHONPATH": _path(HOOK)}

    def hear(self, stream: int, data: bytes) -> None:
        """Keep whole lines of what was printed, so that those of two streams do not mix."""
        try:
            if self._file < 0 or self._copied > MOST_COPIED:
                return
            text = self._torn[stream] + data
            cut = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
            if len(text) - cut > 1 << 20:
                cut = len(text)
            self._torn[stream] = text[cut:]
            self._copied += cut
            os.write(self._file, text[:cut])
        except Exception:  # the job's output goes on, whatever becomes of the copy
            self._file = -1

    def end(self, code: int) -> None:
        """Tell the listener that the command has ended, and wait until it has taken everything, for a bounded time."""
        try:
            if self._folder is None:
                return
            for rest in self._torn.values():
                if rest and self._file >= 0:
                    os.write(self._file, rest + b"\n")
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            _write(self._folder / END, {"code": code, "how": how, "time": time.time()})
            if self._listener is not None:
                _, said = self._listener.communicate(timeout=LAST_LOOK_SECONDS)
                if self._listener.returncode:
                    lines = said.decode("utf-8", "replace").strip().splitlines() or ["it was killed"]
                    self._say(f"the run could not be stored ({lines[-1][:300]})")
        except subprocess.TimeoutExpired:
            self._say("the last look takes long and goes on")
        except Exception as error:
            self._say(f"the end could not be told ({error})")

    def _say(self, what: str) -> None:
        where = "" if self._folder is None else f" What was heard lies in {self._folder.parent}: import it with " \
            f"trainvitals import {shlex.quote(str(self._folder.parent))} --run RUN."
        with contextlib.suppress(Exception):
            click.echo(f"trainvitals: {what}.{where}", err=True)


def _become(command: tuple[str, ...]) -> None:
    """Be the command."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started: {error.strerror or error}.") from error


def _launch_folder(run: Path) -> Path:
    """A new folder in `.NAME.heard` beside the run; in a temporary folder where none can be made there."""
    for place in (run.parent / f".{run.name}.heard", Path(tempfile.gettempdir()) / f"{run.name}-{os.getpid()}.heard"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            number = 1 + max((int(path.name) for path in place.glob("[0-9]*") if path.name.isdigit()), default=0)
            while True:
                try:
                    (place / f"{number:03d}").mkdir()
                    return place / f"{number:03d}"
                except FileExistsError:
                    number += 1
        except OSError as error:
            failed = error
    raise failed


def _write(path: Path, document: dict[str, object]) -> None:
    """Write a small file that is there whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(path)


def _path(first: Path) -> str:
    there = os.environ.get("PYTHONPATH", "")
    return f"{first}{os.pathsep}{there}" if there else str(first)


def _name(command: tuple[str, ...]) -> str:
    """What a run of a command is called: its script, or the program."""
    script = next((word for word in command if word.endswith((".py", ".sh"))), command[0])
    return "".join(c for c in Path(script).stem if c.isalnum() or c in "._-")[:40].strip(".") or "run"
