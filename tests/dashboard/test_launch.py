from __future__ import annotations

import socket

import pytest

from dashboard.server import launch
from trainvitals.errors import UsageError


def test_a_taken_port_is_named_before_a_server_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind((launch.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} .* Choose another"):
            launch.serve(tmp_path, port)


def test_an_impossible_port_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a TCP port"):
        launch.serve(tmp_path, 70000)


def test_the_server_stays_on_this_machine_and_calls_nobody():
    line = launch.command(1234)
    assert f"--server.address={launch.HOST}" in line
    assert "--browser.gatherUsageStats=false" in line
    assert "--server.fileWatcherType=none" in line
