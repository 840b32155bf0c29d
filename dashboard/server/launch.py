"""Start the board as a server of its own: `trainvitals dashboard RUNS --port P`.

The server listens on this machine only, asks for a token, sends no telemetry and watches no files.
"""

from __future__ import annotations

import atexit
import html
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

from trainvitals.errors import UsageError

HOST = "127.0.0.1"
RUNS_VARIABLE, TOKEN_VARIABLE = "TRAINVITALS_RUNS", "TRAINVITALS_TOKEN"
"""Environment variables that tell the app which folder holds the runs, and the server what a viewer must know."""
LEAST_TOKEN = 16
"""Characters of a token of the user's own. 16 random ones of 64 are 96 bits, beyond any guessing over a network."""

APP = Path(__file__).parents[1] / "app.py"


@dataclass(frozen=True, slots=True)
class Door:
    """Where the board is reached, and what it asks of those who come."""

    port: int = 8501
    """TCP port on 127.0.0.1."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """"" lets everybody in who reaches the port."""
    base_path: str = ""
    """Path below which everything lies, where a proxy gives the board one: "/vitals"."""
    host_names: tuple[str, ...] = ()
    """Names beside localhost, as a proxy's: "vitals.lab.example", or with the port where that is not 80 or 443."""

    def __post_init__(self) -> None:
        """Raises UsageError for what no server could be started with."""
        if not 1 <= self.port <= 65535:
            raise UsageError(f"Port {self.port} is not a TCP port. Choose one from 1 to 65535.")
        if self.token and not re.fullmatch(rf"[\w.~-]{{{LEAST_TOKEN},200}}", self.token, re.ASCII):
            raise UsageError(
                f"{TOKEN_VARIABLE} is no good token. Give {LEAST_TOKEN} to 200 letters, digits or any of . _ ~ -, as "
                'python -c "import secrets; print(secrets.token_urlsafe())" prints them.'
            )
        if not re.fullmatch(r"(/[\w.~-]+)*/?", self.base_path, re.ASCII) or "/." in self.base_path:
            raise UsageError(f"{self.base_path!r} is no base path. Give one such as /vitals.")
        for name in self.host_names:
            if not re.fullmatch(r"[\w.-]+(:\d{1,5})?", name, re.ASCII):
                raise UsageError(f"{name!r} is no host name. Give one such as vitals.lab.example, without https://.")

    @property
    def url(self) -> str:
        """Address of the board, without the token and without a slash at its end."""
        return f"http://{HOST}:{self.port}{self.base_path.rstrip('/')}"

    @property
    def link(self) -> str:
        """Address that lets a browser in."""
        return f"{self.url}/?token={self.token}" if self.token else f"{self.url}/"


def serve(
    runs_path: str | os.PathLike[str], door: Door, *, wait_seconds: float = 30.0, quiet: bool = True
) -> subprocess.Popen[bytes]:
    """Start the server and return its process once it answers; the caller waits for it or terminates it.

    The runs folder may be empty or not exist yet: the board says so and looks again.

    Args:
        runs_path: a run, a folder of runs, an audit or a folder of audits; a path or an fsspec URL.
        door: where it is reached, and by whom.
        wait_seconds: how long the server may take to answer.
        quiet: keep Streamlit's own output off the terminal.

    Raises:
        UsageError: the port is taken, or the server did not come up.
    """
    runs = os.fspath(runs_path)
    variables = {RUNS_VARIABLE: runs if "://" in runs else os.path.abspath(runs)}
    return start(command(door), variables, door, wait_seconds=wait_seconds, quiet=quiet)


def start(
    line: list[str], variables: dict[str, str], door: Door, *, wait_seconds: float = 30.0, quiet: bool = True
) -> subprocess.Popen[bytes]:
    """Start a server's command line with extra variables and wait until it answers; errors as in `serve`."""
    _claim(door.port)
    process = subprocess.Popen(
        line,
        env=environment() | variables | {TOKEN_VARIABLE: door.token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else None,
    )
    _await(process, door, wait_seconds)
    return process


def open_browser(door: Door) -> None:
    """Open the board in the user's browser.

    By way of a file that only this user can read, because a browser's command line is shown to all.
    """
    folder = tempfile.mkdtemp(prefix="trainvitals-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = Path(folder, "board.html")
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(door.link)}">', "utf-8")
    webbrowser.open(page.as_uri())


def environment() -> dict[str, str]:
    """This process's environment for a child that must find our packages, installed or only checked out."""
    paths = filter(None, [str(APP.parent.parent), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def command(door: Door) -> list[str]:
    """Argument list that starts the server. It holds no token: every user of the machine can read it."""
    names = [f"--host-name={name}" for name in door.host_names]
    base = f"--base-path={door.base_path.rstrip('/') or '/'}"
    return [sys.executable, "-m", "dashboard.asgi", str(APP), f"--port={door.port}", base, *names]


def _claim(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"Port {port} on {HOST} cannot be used ({error.strerror}). Choose another with --port."
            ) from error


def _await(process: subprocess.Popen[bytes], door: Door, wait_seconds: float) -> None:
    # Past any proxy that the environment names: the server is on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{door.url}/_stcore/health", headers={"Authorization": f"Bearer {door.token}"})
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UsageError(f"The board's server ended at once with code {process.returncode}. Its error is above.")
        try:
            with direct.open(request, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    process.terminate()
    raise UsageError(f"The board's server did not answer within {wait_seconds:g} s on port {door.port}.")
