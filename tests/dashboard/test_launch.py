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
            launch.serve(tmp_path, launch.Door(port))


def test_an_impossible_port_is_refused():
    with pytest.raises(UsageError, match="not a TCP port"):
        launch.Door(70000)
