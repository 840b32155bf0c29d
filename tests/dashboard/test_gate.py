"""The gate before the board: over real sockets, against the real server, which is watched for calls to the outside."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from dashboard.server import launch
from tests.dashboard.conftest import free_port
from trainvitals.errors import UsageError

PLACES = ("", "loss", "contamination", "index.html", "static/js/index.js", "_stcore/health", "_stcore/metrics",
          "_stcore/host-config", "_stcore/script-health-check", "_stcore/stream", "_stcore/upload_file/a/b",
          "_stcore/agent/openapi.json", "_stcore/message", "media/a.png", "component/a/b.html",
          "_stcore/bidi-components/a/b.js", "app/static/a", "oauth2callback", "auth/login", "nothing/here", "%2e%2e/")
"""Pages, assets and every family of routes that Streamlit serves."""
FOREIGN = "http://evil.example"
LOCAL = re.compile(r"AF_(UNIX|NETLINK)|sin_addr=inet_addr\(\"127\.|inet_pton\(AF_INET6, \"::1\"")


class Answer:
    """What came back: status, headers by lower-case name, body."""

    def __init__(self, door: launch.Door, path: str, method: str = "GET", **headers: str | None) -> None:
        connection = http.client.HTTPConnection(launch.HOST, door.port, timeout=20)
        connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        raw = connection.getresponse()
        self.status, self.body = raw.status, raw.read().decode("utf-8", "replace")
        self.headers = {name.lower(): value for name, value in raw.getheaders()}
        connection.close()


def upgrade(door: launch.Door, **headers: str) -> int:
    """Status of a websocket handshake at the place where Streamlit talks to its pages."""
    key = base64.b64encode(os.urandom(16)).decode()
    path = urlsplit(f"{door.url}/_stcore/stream").path
    return Answer(door, path, Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=key,
                  Sec_WebSocket_Version="13", Sec_WebSocket_Protocol="streamlit", **headers).status


@contextmanager
def served(runs: Path, door: launch.Door) -> Iterator[launch.Door]:
    process = launch.serve(runs, door)
    try:
        yield door
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def door(runs: Path) -> Iterator[launch.Door]:
    with served(runs, launch.Door(free_port(), host_names=("vitals.example",))) as found:
        yield found


@pytest.fixture(scope="module")
def cookie(door: launch.Door) -> str:
    return Answer(door, f"/?token={door.token}").headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("origin", [None, FOREIGN, "null", "same"])
def test_without_the_token_nothing_comes_back(door, origin):
    origin = f"http://127.0.0.1:{door.port}" if origin == "same" else origin
    pages = {Answer(door, f"/{place}", origin=origin).body for place in PLACES}
    assert len(pages) == 1  # nothing tells what is there and what is not
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        for place in PLACES:
            answer = Answer(door, f"/{place}", method, origin=origin)
            assert answer.status == 403, (method, place)
            assert answer.body == "" if method == "HEAD" else "trainvitals" in answer.body.lower()
            assert len(answer.body) < 2500 and "streamlit" not in answer.body.lower()
            assert "access-control-allow-origin" not in answer.headers and "set-cookie" not in answer.headers
    assert upgrade(door, **({"origin": origin} if origin else {})) == 403


def test_a_wrong_token_is_no_token(door, cookie):
    name, _, value = cookie.partition("=")
    for wrong in ("", "x", door.token[:-1], door.token + "x", door.token.swapcase(), "é", "\ud800"):
        assert Answer(door, "/?token=" + wrong.encode("utf-8", "replace").hex()).status == 403
    for wrong in ("", value[:-1], value + "0", door.token, "é"):
        assert Answer(door, "/_stcore/health", cookie=f"{name}={wrong}").status == 403
    assert Answer(door, "/_stcore/health", cookie=f"other={value}").status == 403
    assert Answer(door, "/_stcore/health", authorization="Bearer ").status == 403
    assert Answer(door, "/_stcore/health", authorization=f"Basic {door.token}").status == 403
    assert Answer(door, f"/_stcore/health?token={door.token}", "POST").status == 403
    assert upgrade(door, cookie=f"{name}=0") == 403


def test_the_token_sets_a_cookie_and_leaves_the_address(door, cookie):
    answer = Answer(door, f"/loss?run=a%26b&token={door.token}&from=10&x=")
    assert answer.status == 303
    assert answer.headers["location"] == "./loss?run=a%26b&from=10&x="
    assert urljoin("https://lab.example/vitals/loss?token=1", answer.headers["location"]) == (
        "https://lab.example/vitals/loss?run=a%26b&from=10&x="
    )
    kept = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(kept.split("; ")) and door.token not in kept
    assert "Secure" not in kept
    assert "Secure" in Answer(door, f"/?token={door.token}", x_forwarded_proto="https").headers["set-cookie"]
    for path in ("//evil.example/%2e%2e", "//evil.example", "/\\evil.example", "/javascript:alert(1)"):
        where = Answer(door, f"{path}?token={door.token}").headers["location"]
        assert urlsplit(urljoin("http://127.0.0.1/a/b", where)).netloc == "127.0.0.1"


def test_with_the_cookie_everything_works(door, cookie):
    assert "<script" in Answer(door, "/", cookie=f"a=b; {cookie}").body
    for place in ("_stcore/health", "_stcore/metrics", "_stcore/host-config", "loss"):
        assert Answer(door, f"/{place}", cookie=cookie).status == 200
    assert upgrade(door, cookie=cookie) == 101
    assert upgrade(door, cookie=cookie, origin=f"http://127.0.0.1:{door.port}") == 101
    assert Answer(door, "/_stcore/health", authorization=f"Bearer {door.token}").body == "ok"


def test_a_foreign_page_cannot_use_the_cookie(door, cookie):
    for origin in (FOREIGN, "null", f"http://127.0.0.1:{door.port + 1}", f"http://localhost:{door.port}",
                   f"http://127.0.0.1:{door.port}.evil.example", "http://evil.example@127.0.0.1", "vitals.example"):
        assert upgrade(door, cookie=cookie, origin=origin) == 403, origin
        for method in ("GET", "OPTIONS", "PUT"):
            assert Answer(door, "/_stcore/health", method, cookie=cookie, origin=origin).status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "", "localhost@evil",
                                  "127.0.0.1:x", "localhost/evil", "[::1", "10.0.0.1", "vitals.example.evil"])
def test_a_rebound_name_gets_nothing(door, cookie, host):
    assert Answer(door, "/", cookie=cookie, host=host).status == 403
    assert Answer(door, f"/?token={door.token}", host=host).status == 403
    assert upgrade(door, cookie=cookie, host=host) == 403


@pytest.mark.parametrize("host", ["localhost:9000", "LOCALHOST", "[::1]:7", "vitals.example", "Vitals.Example:443"])
def test_the_boards_own_names_work_at_any_port(door, cookie, host):
    """At the near end of an ssh tunnel the port is another one."""
    assert Answer(door, "/_stcore/health", cookie=cookie, host=host).status == 200
    assert upgrade(door, cookie=cookie, host=host, origin=f"http://{host}") == 101
    assert upgrade(door, cookie=cookie, host="127.0.0.1", origin="https://vitals.example") == 101


def test_no_token_lets_everybody_in_who_is_no_foreign_page(runs):
    with served(runs, launch.Door(free_port(), token="")) as open_door:
        assert Answer(open_door, "/_stcore/health").status == 200
        assert upgrade(open_door) == 101
        assert upgrade(open_door, origin=FOREIGN) == 403
        assert Answer(open_door, "/", host="evil.example").status == 403


def test_the_token_is_in_no_argument_and_no_log(runs, tmp_path):
    door = launch.Door(free_port())
    assert door.token not in " ".join(launch.command(door)) and door.token not in repr(door)
    with (tmp_path / "log").open("w") as log:
        line = [sys.executable, "-c", "import sys, subprocess; sys.exit(subprocess.call(sys.argv[1:], stderr=1))"]
        process = subprocess.Popen(line + launch.command(door), stdout=log, stderr=log, env=launch.environment() | {
            launch.TOKEN_VARIABLE: door.token, launch.RUNS_VARIABLE: str(runs)})
        try:
            launch._await(process, door, 30)
            given = Answer(door, f"/?token={door.token}").headers["set-cookie"].partition(";")[0]
            Answer(door, f"/_stcore/stream?token={door.token}", "PUT")
            upgrade(door, cookie=given)
            everything = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout
            assert f"--port={door.port}" in everything and door.token not in everything
        finally:
            end_children(process)
    assert door.token not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("wrong", [{"token": "short"}, {"token": "a b" * 10}, {"token": "x" * 300}, {"port": 0},
                                   {"base_path": "vitals"}, {"base_path": "/../x"}, {"base_path": "//x"},
                                   {"host_names": ("https://x",)}, {"host_names": ("a b",)}])
def test_a_door_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError):
        launch.Door(**wrong)


class Proxy(socketserver.ThreadingTCPServer):
    """As small as a reverse proxy can be: hands on bytes, and the address unchanged, under a name of its own."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, target: int) -> None:
        self.target = target
        super().__init__((launch.HOST, 0), Hands)


class Hands(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.create_connection((launch.HOST, self.server.target)) as far:
            back = threading.Thread(target=self.copy, args=(far, self.request), daemon=True)
            back.start()
            self.copy(self.request, far)
            back.join(timeout=10)

    @staticmethod
    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_behind_a_proxy_with_a_base_path(runs, chromium):
    with served(runs, launch.Door(free_port(), base_path="/vitals/", host_names=("vitals.example",))) as door:
        assert door.url.endswith("/vitals")
        assert Answer(door, "/vitals/_stcore/health").status == 403
        given = Answer(door, f"/vitals/?token={door.token}").headers["set-cookie"]
        assert "Path=/vitals;" in given
        with Proxy(door.port) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            port = proxy.server_address[1]
            context = chromium.new_context(viewport={"width": 1200, "height": 800})
            page = context.new_page()
            # Localhost at another port: what an ssh tunnel looks like, too.
            page.goto(f"http://localhost:{port}/vitals/loss?run=clean&token={door.token}")
            page.wait_for_selector("[data-testid=stVegaLiteChart] svg", timeout=60_000)
            assert page.url == f"http://localhost:{port}/vitals/loss?run=clean"
            context.close()
            proxy.shutdown()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_leaves_the_machine(runs, tmp_path):
    """Every address that the server and its children connect or send to, under foreign origins and a viewer."""
    door = launch.Door(free_port())
    trace = tmp_path / "trace"
    line = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    process = launch.start(line + launch.command(door), {launch.RUNS_VARIABLE: str(runs)}, door, wait_seconds=120)
    try:
        given = Answer(door, f"/?token={door.token}").headers["set-cookie"].partition(";")[0]
        for origin in (FOREIGN, "https://127.0.0.2:1", "null"):
            for headers in ({"origin": origin}, {"origin": origin, "cookie": given}):
                assert upgrade(door, **headers) == 403
                assert Answer(door, "/_stcore/health", **headers).status == 403
                assert Answer(door, "/_stcore/upload_file/a/b", "PUT", **headers).status == 403
        assert look_around(door, given)
    finally:
        end_children(process)
    assert calls_outside(trace) == []

    # The same watch sees a call where there is one: no packet leaves for a UDP socket that is only connected.
    call = (
        "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); "
        "u.connect_ex(('127.0.0.1', 9)); u.connect_ex(('192.0.2.1', 9))"
    )
    subprocess.run([*line, sys.executable, "-c", call], check=True)
    assert len(calls_outside(trace)) == 1


def calls_outside(trace: Path) -> list[str]:
    return [text for text in trace.read_text().splitlines() if "AF_INET" in text and not LOCAL.search(text)]


def end_children(process: subprocess.Popen[bytes]) -> None:
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)
    process.wait(timeout=120)  # a run that is being judged is judged to its end


def look_around(door: launch.Door, cookie: str, query: str = "run=faulty", page: str = "") -> bytes:
    """Everything that a browser would be sent to draw a page."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    wish, message, got = BackMsg(), ForwardMsg(), []
    wish.rerun_script.query_string, wish.rerun_script.page_name = query, page
    address = f"ws://127.0.0.1:{door.port}/_stcore/stream"
    with connect(address, additional_headers={"Cookie": cookie}, subprotocols=["streamlit"], proxy=None,
                 max_size=None) as socket_:
        socket_.send(wish.SerializeToString())
        until = time.monotonic() + 60
        while time.monotonic() < until:
            got.append(socket_.recv(timeout=60))
            message.ParseFromString(got[-1])
            again = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
            if message.WhichOneof("type") == "script_finished" and not again:
                return b"".join(got)
    raise AssertionError("the page is not drawn")


def test_a_server_outlives_odd_visitors_and_shows_them_nothing_of_itself(door, cookie):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    odd = (("", "run=faulty&to=1e999&from=nan"), ("loss", f"to={'9' * 400}&run=../../etc"), ("../../etc", "&&&=;%zz"),
           ("scaling", "run=%00&budget=machines&gpus=1e999&fit_loss="))
    for page, query in odd:
        seen = look_around(door, cookie, query, page)
        assert not any(word in seen for word in (b"Traceback", b"site-packages", b"sidebar.py")), (query, page)
    for sent in (b"", b"\xff" * 1000, "text", b"\x0a" * 100_000):
        with connect(f"ws://127.0.0.1:{door.port}/_stcore/stream", additional_headers={"Cookie": cookie},
                     subprotocols=["streamlit"], proxy=None) as socket_:
            socket_.send(sent)
            try:
                while b"Traceback" not in socket_.recv(timeout=0.5):
                    pass
                raise AssertionError("a traceback")
            except (ConnectionClosed, TimeoutError):
                pass
    assert Answer(door, "/_stcore/health", cookie=cookie).status == 200
