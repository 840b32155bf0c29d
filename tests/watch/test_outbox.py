"""Channels: what is not taken is tried again, what was taken is not sent twice, and no secret is ever said."""

from __future__ import annotations

import http.server
import json
import socket
import stat
import threading
from email import message_from_bytes
from pathlib import Path

import pytest

from checks.watch.alarms import News
from checks.watch.channels import Channel, NotTaken, addresses, hook, services
from checks.watch.message import Message, write
from checks.watch.outbox import FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, Outbox
from tests.watch.test_alarms import LOSS
from tests.watch.test_message import EVIL
from trainvitals.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Apprise loads modules of the standard library that are on their way out."""
MESSAGE = write(News("opened", LOSS), f"run {EVIL}", "/runs/a", 1.0)


class Broken:
    """A channel that fails so often before it takes anything."""

    def __init__(self, failures: int) -> None:
        self.left, self.taken = failures, list[Message]()

    def send(self, message: Message) -> None:
        self.left -= 1
        if self.left >= 0:
            raise NotTaken("down")
        self.taken.append(message)


def test_a_failure_is_said_and_tried_again_later_and_later(tmp_path: Path) -> None:
    """The waits double up to a quarter of an hour; the message is not lost."""
    broken, said = Broken(9), list[str]()
    box = Outbox(tmp_path, [Channel("slack-1", broken.send)], said.append)
    post = box.posts[0]
    post.put(MESSAGE)
    now, waits = 0.0, []
    while not broken.taken:
        wait = post.turn(now)
        waits.append(wait)
        assert post.turn(now + wait / 2) == pytest.approx(wait / 2) or broken.taken
        now += wait
    assert waits[:3] == [FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS, 4 * FIRST_WAIT_SECONDS]
    assert max(waits) == MOST_WAIT_SECONDS and len(said) == post.failures == 9 and not post.waiting


def test_a_restart_neither_repeats_nor_loses(tmp_path: Path) -> None:
    """What waits is sent by the next process; what was sent is not, though it is told anew."""
    down, up = Broken(10**6), Broken(0)
    box = Outbox(tmp_path, [Channel("a", down.send), Channel("b", up.send)], print)
    box.put([MESSAGE])
    for post in box.posts:
        post.turn(0.0)
    a, b = Broken(0), Broken(0)
    again = Outbox(tmp_path, [Channel("a", a.send), Channel("b", b.send)], print)
    again.put([MESSAGE])
    for post in again.posts:
        post.turn(0.0)
    assert (len(a.taken), len(b.taken), len(up.taken)) == (1, 0, 1)


def test_a_hook_gets_variables_and_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of the other channels are not among them; a program that fails or hangs did not take it."""
    monkeypatch.setenv("TRAINVITALS_ALERTS", "slack://secret")
    program = tmp_path / "hook; touch pwned"
    program.write_text(f'#!/bin/sh\nenv > "{tmp_path}/seen"\n')
    program.chmod(0o700)
    hook(str(program)).send(MESSAGE)
    seen = (tmp_path / "seen").read_text()
    assert "TRAINVITALS_INCIDENT=learning-412" in seen and "TRAINVITALS_LEVEL=warn" in seen
    assert "secret" not in seen and "\nBcc:" not in seen
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(NotTaken, match="ended with 3"):
        hook(str(program)).send(MESSAGE)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(NotTaken, match="longer"):
        hook(str(program), 0.2).send(MESSAGE)
    with pytest.raises(UsageError):
        hook(str(tmp_path))


def test_addresses_are_read_from_a_private_file_only(tmp_path: Path) -> None:
    """The refusal names the remedy and nothing of what the file holds."""
    file = tmp_path / "alerts"
    file.write_text("# mine\njson://localhost/tok3n\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        addresses(str(file))
    assert "tok3n" not in str(caught.value)
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert addresses(str(file)) == ["json://localhost/tok3n"]


def test_an_unknown_address_is_refused_without_its_text() -> None:
    """By its number."""
    pytest.importorskip("apprise")
    with pytest.raises(UsageError, match="Address 2 of 2") as caught:
        services(["json://localhost", "nonsense://s3cret"])
    assert "s3cret" not in str(caught.value)


def test_a_webhook_takes_the_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Through Apprise, against a real server; one that refuses leaves no secret in any word."""
    pytest.importorskip("apprise")
    bodies, code = list[bytes](), [200]

    class Taker(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(code[0])
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Taker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        channel = services([f"json://user:pa55@127.0.0.1:{server.server_port}/tok3n"])[0]
        channel.send(MESSAGE)
        assert json.loads(bodies[0])["title"] == MESSAGE.title and channel.name == "json-1"
        code[0] = 500
        with pytest.raises(NotTaken) as caught:
            channel.send(MESSAGE)
        assert "pa55" not in str(caught.value) + caplog.text and "tok3n" not in str(caught.value) + caplog.text
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_mail_has_no_forged_header() -> None:
    """Through Apprise, against a real SMTP server, with a name that tries."""
    pytest.importorskip("apprise")
    controller = pytest.importorskip("aiosmtpd.controller")
    letters = list[bytes]()

    class Taker:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
            letters.append(envelope.content)  # type: ignore[attr-defined]
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    box = controller.Controller(Taker(), hostname="127.0.0.1", port=port)
    box.start()
    try:
        services([f"mailto://localhost:{port}?from=watch@example.org&to=ann@example.org"])[0].send(MESSAGE)
    finally:
        box.stop()
    letter = message_from_bytes(letters[0])
    assert letter["Bcc"] is None and letter["To"] == "ann@example.org" and b"@everyone" not in letters[0]
