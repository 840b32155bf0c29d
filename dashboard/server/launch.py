"""Start the board as a server of its own: `trainvitals dashboard RUNS --port P`.

The server listens on this machine only, sends no telemetry and watches no files.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

from trainvitals.errors import UsageError

HOST = "127.0.0.1"
RUNS_VARIABLE = "TRAINVITALS_RUNS"
"""Environment variable that tells the app which folder holds the runs."""

APP = Path(__file__).parents[1] / "app.py"


def serve(
    runs_path: str | os.PathLike[str],
    port: int = 8501,
    open_browser: bool = False,
    *,
    wait_seconds: float = 30.0,
    quiet: bool = True,
) -> subprocess.Popen[bytes]:
    """Start the server and return its process once it answers; the caller waits for it or terminates it.

    The runs folder may be empty or not exist yet: the board says so and looks again.

    Args:
        runs_path: a run, a folder of runs, an audit or a folder of audits; a path or an fsspec URL.
        port: TCP port on 127.0.0.1.
        open_browser: open the board in the user's browser.
        wait_seconds: how long the server may take to answer.
        quiet: keep Streamlit's own output off the terminal.

    Raises:
        UsageError: the port is taken, or the server did not come up.
    """
    runs = os.fspath(runs_path)
    process = start(
        command(port),
        {RUNS_VARIABLE: runs if "://" in runs else os.path.abspath(runs)},
        port,
        wait_seconds=wait_seconds,
        quiet=quiet,
    )
    if open_browser:
        webbrowser.open(url(port))
    return process


def start(
    line: list[str], variables: dict[str, str], port: int, *, wait_seconds: float = 30.0, quiet: bool = True
) -> subprocess.Popen[bytes]:
    """Start a Streamlit command line with extra variables and wait until it answers; errors as in `serve`."""
    _claim(port)
    process = subprocess.Popen(
        line, env=environment() | variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if quiet else None
    )
    _await(process, port, wait_seconds)
    return process


def environment() -> dict[str, str]:
    """This process's environment for a child that must find our packages, installed or only checked out."""
    paths = filter(None, [str(APP.parent.parent), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def url(port: int) -> str:
    """Address of the board."""
    return f"http://{HOST}:{port}"


def command(port: int) -> list[str]:
    """Argument list that starts Streamlit; the rest of its settings is in `.streamlit/config.toml` beside the app."""
    return [
        sys.executable, "-m", "streamlit", "run", str(APP),
        f"--server.port={port}", f"--server.address={HOST}", "--server.headless=true",
        "--server.fileWatcherType=none", "--server.showEmailPrompt=false", "--browser.gatherUsageStats=false",
    ]  # fmt: skip


def _claim(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UsageError(f"Port {port} is not a TCP port. Choose one from 1 to 65535.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"Port {port} on {HOST} cannot be used ({error.strerror}). Choose another with --port."
            ) from error


def _await(process: subprocess.Popen[bytes], port: int, wait_seconds: float) -> None:
    # Past any proxy that the environment names: the server is on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UsageError(f"The board's server ended at once with code {process.returncode}. Its error is above.")
        try:
            with direct.open(f"{url(port)}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    process.terminate()
    raise UsageError(f"The board's server did not answer within {wait_seconds:g} s on port {port}.")
