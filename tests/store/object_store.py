"""An S3 server over HTTP for tests, and a TCP proxy in front of it that can be slow, refuse, cut and be gone.

    with s3_server() as server, Proxy(server.port) as proxy:
        proxy.mode = "cut"

The server is moto's, in a process of its own, so it keeps its data while the proxy is away.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trainvitals.store import RunWriter

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address=sys.argv[1], port=int(sys.argv[2]), verbose=False)
server.start()
sys.stdin.read()
"""


@contextmanager
def s3_server(host: str = "127.0.0.1", command: tuple[str, ...] = ()) -> Iterator[int]:
    """Port of a server that lives until the block ends; `command` is put before its own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([*command, sys.executable, "-c", SERVER, host, str(port)], stdin=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.communicate()


def wait_for(host: str, port: int, seconds: float = 30.0) -> None:
    """Return once somebody listens."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {host}:{port}")
        time.sleep(0.05)


def make_bucket(endpoint: str, name: str) -> None:
    """An empty bucket, made without signing."""
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", data=b"", method="PUT"), timeout=10).close()


@contextmanager
def other_host() -> Iterator[tuple[tuple[str, ...], str]]:
    """What to put before a command so that it runs on another host, and the address at which it reaches this one.

    The host is a network namespace with one cable to here, its own loopback and a name of its own. Where this process
    may not make one (it takes root on Linux), the command runs on this host, under its name.
    """
    name = f"tv{os.getpid() % 100_000}"
    net = f"10.213.{os.getpid() % 250}"
    here, there = f"{name}a", f"{name}b"
    steps = [
        f"ip netns add {name}", f"ip link add {here} type veth peer name {there} netns {name}",
        f"ip addr add {net}.1/30 dev {here}", f"ip link set {here} up",
        f"ip -n {name} addr add {net}.2/30 dev {there}", f"ip -n {name} link set {there} up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for step in steps:
            subprocess.run(step.split(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        made = False
    else:
        made = True
    try:
        enter = ("ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")
        yield (enter, f"{net}.1") if made else ((), "127.0.0.1")
    finally:
        if shutil.which("ip"):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@dataclass
class Proxy:
    """Forwards to a port on this machine, counts requests, and fails as it is told.

    `mode`: "pass"; "cut" ends the answer to a GET of an object in its middle; "lost" does what is asked and does not
    say so; "403" and "503" answer so; "hang" takes requests and says nothing. `gone()` closes the port and every
    connection, `back()` opens it again.
    """

    target: int
    mode: str = "pass"
    delay: float = 0.0
    """Seconds before each request is passed on."""
    requests: Counter[str] = field(default_factory=Counter)
    """HTTP method -> number; a listing is LIST."""
    sent: int = 0
    """Bytes of request bodies and heads."""

    def __post_init__(self) -> None:
        self.port = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self.back()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.gone()

    @property
    def away(self) -> bool:
        return self._listener is None

    def back(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def gone(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in list(self._open):
            _close(connection)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            with closing(socket.create_connection(("127.0.0.1", self.target))) as server:
                self._open.add(server)
                while request := _message(client, server=False):
                    self._note(request)
                    time.sleep(self.delay)
                    if not self._answer(client, server, request):
                        break
        except OSError:
            pass
        finally:
            self._open.discard(client)
            _close(client)

    def _answer(self, client: socket.socket, server: socket.socket, request: bytes) -> bool:
        if self.mode == "hang":
            while self.mode == "hang" and self._listener is not None:
                time.sleep(0.05)
            return False
        if self.mode.isdigit():
            client.sendall(f"HTTP/1.1 {self.mode} Refused\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        server.sendall(request)
        answer = _message(server, server=True, head_only=request.startswith(b"HEAD"))
        if self.mode == "cut" and _method(request) == "GET":
            client.sendall(answer[:-(len(answer) - answer.index(b"\r\n\r\n") - 3) // 2])
            return False
        if self.mode == "lost":  # done, but nobody hears of it
            return False
        client.sendall(answer)
        return bool(answer)

    def _note(self, request: bytes) -> None:
        self.requests[_method(request)] += 1
        self.sent += len(request)


def _method(request: bytes) -> str:
    line = request.split(b"\r\n", 1)[0].decode(errors="replace")
    return "LIST" if line.startswith("GET") and "list-type=2" in line else line.split(" ")[0]


def _message(source: socket.socket, *, server: bool, head_only: bool = False) -> bytes:
    """One HTTP message, head and body; empty where the connection ended."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = source.recv(1 << 16)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in
               (line.partition(b":") for line in head.split(b"\r\n")[1:])}
    if not server and headers.get(b"expect", b"").lower() == b"100-continue":
        source.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
    length = 0 if head_only else int(headers.get(b"content-length", 0))
    chunked = b"chunked" in headers.get(b"transfer-encoding", b"") and not head_only
    while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
        chunk = source.recv(1 << 18)
        if not chunk:
            return b""
        body += chunk
    return head + b"\r\n\r\n" + body


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def credentials() -> dict[str, str]:
    """Environment of a process that uses the server; its client does not go on trying for half a minute."""
    return {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2", "NO_PROXY": "*"}


@contextmanager
def lab() -> Iterator[Proxy]:
    """A server with the bucket `lab` behind a proxy, to which this process's environment points."""
    from s3fs import S3FileSystem

    with pytest.MonkeyPatch.context() as environment, s3_server() as port:
        for name, value in credentials().items():
            environment.setenv(name, value)
        wait_for("127.0.0.1", port)
        with Proxy(port) as proxy:
            environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            make_bucket(proxy.endpoint, "lab")
            S3FileSystem.clear_instance_cache()
            yield proxy
        S3FileSystem.clear_instance_cache()


LOSS = ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"]
DOMAINS = {"domain": ["web", "code", "unattributed"]}


def row(rank: int, step: int) -> dict[str, Any]:
    """What rank `rank` stores at a step in these tests."""
    value = math.sin(step) * (rank + 1) / 3
    return {"loss/sum": value, "loss/tokens": 2, "loss/domain_sum": [value, 0, 0], "loss/domain_tokens": [2, 0, 0]}


def write(url: str | Path, steps: range, ranks: Sequence[int] = (0,), *, world_size: int = 1, pause: float = 0.0,
          **options: Any) -> RunWriter:
    """Writers of some ranks over the same steps; all but the first are closed."""
    writers = [RunWriter(url, rank=rank, world_size=world_size, **options) for rank in ranks]
    frames = [writer.frame("loss", LOSS, DOMAINS) for writer in writers]
    for step in steps:
        for rank, frame in zip(ranks, frames, strict=True):
            frame.append(step, row(rank, step))
        time.sleep(pause)
    for writer in writers[1:]:
        writer.close()
    return writers[0]
