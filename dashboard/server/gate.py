"""Who may talk to the board: an ASGI middleware in front of everything that the server answers.

A request must carry the board's token, name this board as its host, and come from no foreign page. Anything else gets
a short page that says how to get in, or a closed door where it wanted a websocket. The token comes once in the address;
a cookie stands for it from then on. A program may send `Authorization: Bearer TOKEN` instead.
"""

from __future__ import annotations

import hashlib
import html
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PARAMETER = "token"
OWN_NAMES = frozenset(("127.0.0.1", "localhost", "::1"))
"""Names that a browser on this machine, or at the near end of an ssh tunnel, calls the board by."""
DEFAULT_PORTS = {"http": 80, "https": 443}
MOST_QUERY = 4_000
"""Characters of an address that the page of refusal hands on."""

_WAY_IN = (
    "<p>Open the address that <code>trainvitals dashboard</code> printed when it started: it ends in "
    "<code>?token=…</code>. The browser keeps the token until it is closed.</p>"
)
_WRONG_NAME = (
    "<p>This board answers to <code>localhost</code> and <code>127.0.0.1</code>. To reach it by another name, through "
    "a proxy, start it with <code>--host-name NAME</code>.</p>"
)
_FOREIGN = "<p>The request came from a page of another site.</p>"
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:34em;margin:15vh auto;padding:0 1.2em;color:#1b2430;background:#fff}"
    "h1{font-size:1.25em}code{background:#f3f5f8;padding:1px 4px;border-radius:3px}"
    "input,button{font:inherit;padding:.35em .6em;border:1px solid #b5bfcc;border-radius:6px;max-width:100%;"
    "box-sizing:border-box}button{background:#2f5fa8;color:#fff;border-color:#2f5fa8;margin:.4em 0}"
    "@media(prefers-color-scheme:dark){body{color:#e4e9f0;background:#11161d}code{background:#1a212b}"
    "input{color:#e4e9f0;background:#1a212b}}"
)


class Gate:
    """Lets requests of those through who know the token."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str = "", names: tuple[str, ...] = (),
        cookie_path: str = "/",
    ) -> None:
        """Keep what every request is held against.

        Args:
            token: what a request must know; "" lets everybody in who names the board rightly.
            names: further names of the board, as `vitals.lab.example` or `vitals.lab.example:8443`.
            cookie_path: where the browser sends the cookie.
        """
        self.app = app
        self.token = token.encode()
        self.names = frozenset(_without_default(name.lower()) for name in names)
        self.hosts = OWN_NAMES | {_host(name) for name in self.names}
        digest = hashlib.sha256(b"trainvitals cookie " + self.token).hexdigest()
        # Browsers send one machine's cookies to all of its ports: boards side by side must not take each other's.
        self.cookie_name = f"trainvitals-{digest[:8]}".encode()
        self.cookie_value = digest[8:].encode()
        self.cookie_path = cookie_path.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        why = self._objection(scope)
        if why is not None:
            await _refuse(scope, receive, send, why)
        elif not self.token or self._knows(scope):
            # Streamlit looks up the machine's outside address to judge an origin; this one has been judged.
            kept = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            await self.app({**scope, "headers": kept}, receive, send)
        elif self._brings(scope):
            await self._welcome(scope, send)
        else:
            await _refuse(scope, receive, send, _WAY_IN + _form(scope))

    def _objection(self, scope: Scope) -> str | None:
        """Why a request is refused whatever it knows: the board's name is wrong (DNS rebinding), or its page is."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or _host(hosts[0]) not in self.hosts:
            return _WRONG_NAME
        for origin in _values(scope, b"origin"):
            scheme, _, place = origin.partition("://")
            place = _without_default(place, scheme)
            if place not in self.names and place != _without_default(hosts[0], scheme):
                return _FOREIGN
        return None

    def _knows(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, given = value.partition(b" ")
                if scheme.lower() == b"bearer" and self._is_token(given.strip()):
                    return True
            if name == b"cookie":
                for part in value.split(b";"):
                    key, _, given = part.strip().partition(b"=")
                    if key == self.cookie_name and secrets.compare_digest(given, self.cookie_value):
                        return True
        return False

    def _brings(self, scope: Scope) -> bool:
        """Whether the address carries the token; of a page only, so that no other place has to strip it again."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        return any(name == PARAMETER and self._is_token(value.encode()) for name, value in _query(scope))

    def _is_token(self, given: bytes) -> bool:
        return secrets.compare_digest(given, self.token)

    async def _welcome(self, scope: Scope, send: Send) -> None:
        """Set the cookie and send the browser to the same place without the token."""
        rest = urlencode([(name, value) for name, value in _query(scope) if name != PARAMETER])
        # Relative, so that it holds behind any proxy and leads to no other site.
        place = "./" + quote(scope["path"].rsplit("/", 1)[-1], safe="") + (f"?{rest}" if rest else "")
        cookie = b"%b=%b; Path=%b; HttpOnly; SameSite=Lax" % (self.cookie_name, self.cookie_value, self.cookie_path)
        if scope.get("scheme") == "https":
            cookie += b"; Secure"
        headers = [(b"location", place.encode()), (b"set-cookie", cookie)]
        await _answer(send, 303, headers, b"")


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>TrainVitals</title><style>{_STYLE}</style><h1>This board is closed</h1>{why}</html>"
    ).encode()
    policy = b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy)]
    await _answer(send, 403, headers, b"" if scope["method"] == "HEAD" else page)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    always = [(b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"),
              (b"x-content-type-options", b"nosniff"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers + always})
    await send({"type": "http.response.body", "body": body})


def _form(scope: Scope) -> str:
    """A field for the token that keeps the rest of the address."""
    if scope["type"] != "http" or len(scope["query_string"]) > MOST_QUERY:
        return ""
    kept = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in _query(scope) if name != PARAMETER
    )
    return (
        f'<form method="get">{kept}<label>Token <input type="password" name="{PARAMETER}" autocomplete="off" '
        'autofocus></label> <button>Open</button></form>'
    )


def _query(scope: Scope) -> list[tuple[str, str]]:
    text = scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="replace")
    except ValueError:
        return []


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for name, value in scope["headers"] if name == wanted]


def _host(place: str) -> str:
    """The name in `name:port`; "" where it is none."""
    try:
        parts = urlsplit(f"//{place}")
        sound = parts.netloc == place and parts.username is None and (parts.port is None or parts.port > 0)
        return (parts.hostname or "").rstrip(".") if sound else ""
    except ValueError:
        return ""


def _without_default(place: str, scheme: str = "") -> str:
    """`name:port` without the port that goes without saying."""
    wanted = [DEFAULT_PORTS[scheme]] if scheme in DEFAULT_PORTS else DEFAULT_PORTS.values()
    return next((place.removesuffix(f":{port}") for port in wanted if place.endswith(f":{port}")), place)
