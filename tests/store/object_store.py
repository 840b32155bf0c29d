"""An S3 server over HTTP for tests, and a TCP proxy in front of it that can be slow, refuse, cut and be gone.

    with s3_server() as server, Proxy(server.port) as proxy:
        proxy.mode = "cut"

The server is moto's, in a process of its own, so it keeps its data while the proxy is away.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

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
        process.wait()


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


@dataclass
class Proxy:
    """Forwards to a port on this machine, counts requests, and fails as it is told.

    `mode`: "pass"; "cut" ends every answer to a GET in its middle; "403" and "503" answer so; "hang" takes requests and
    says nothing. `gone()` closes the port and every connection, `back()` opens it again.
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
        if self.mode == "cut" and request.startswith(b"GET"):
            client.sendall(answer[:-(len(answer) - answer.index(b"\r\n\r\n") - 3) // 2])
            return False
        if self.mode == "lost":  # done, but nobody hears of it
            return False
        client.sendall(answer)
        return bool(answer)

    def _note(self, request: bytes) -> None:
        line = request.split(b"\r\n", 1)[0].decode(errors="replace")
        method = line.split(" ")[0]
        self.requests["LIST" if method == "GET" and "list-type=2" in line else method] += 1
        self.sent += len(request)


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
