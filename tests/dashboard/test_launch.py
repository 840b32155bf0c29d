from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from dashboard.server import launch
from tests.dashboard.conftest import free_port
from trainvitals import cli
from trainvitals.errors import UsageError


def test_a_taken_port_is_named_before_a_server_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind((launch.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} .* Choose another"):
            launch.serve(tmp_path, launch.Door(port))


def test_an_impossible_port_is_refused():
    with pytest.raises(UsageError, match="not a TCP port"):
        launch.Door(70000)


def test_the_browser_is_sent_by_a_file_that_only_its_owner_reads(monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(launch.webbrowser, "open", opened.append)
    door = launch.Door(8501, base_path="/vitals")
    launch.open_browser(door)
    page = Path(url2pathname(urlsplit(opened[0]).path))
    assert door.token not in opened[0]
    assert f"url=http://127.0.0.1:8501/vitals/?token={door.token}" in page.read_text()
    assert page.parent.stat().st_mode & 0o077 == 0


def test_the_command_prints_an_address_that_lets_one_in_and_ends_its_server(tmp_path):
    token, port = "a-token-of-my-own", free_port()
    line = [sys.executable, "-m", "trainvitals.cli", "dashboard", str(tmp_path), "--port", str(port)]
    unset = {"DISPLAY": "", "WAYLAND_DISPLAY": "", launch.TOKEN_VARIABLE: token}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=launch.environment() | unset) as command:
        assert command.stdout is not None
        link = command.stdout.readline().removeprefix("Board: ").strip()
        assert link == f"http://127.0.0.1:{port}/?token={token}"
        jar = urllib.request.HTTPCookieProcessor()
        with urllib.request.build_opener(urllib.request.ProxyHandler({}), jar).open(link) as answer:
            assert answer.status == 200 and answer.url == f"http://127.0.0.1:{port}/"
        command.send_signal(signal.SIGTERM)
        assert command.wait(timeout=20) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise AssertionError("the server outlives its command")


def test_a_weak_token_and_an_empty_one_are_refused(tmp_path, monkeypatch, capsys):
    for token in ("short", ""):
        monkeypatch.setenv(launch.TOKEN_VARIABLE, token)
        monkeypatch.setattr(sys, "argv", ["trainvitals", "dashboard", str(tmp_path)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        assert ending.value.code == 64 and launch.TOKEN_VARIABLE in capsys.readouterr().err
