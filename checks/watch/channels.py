"""Where messages go: services that Apprise knows, and a program of the user's own.

What a channel does not take it says by `NotTaken`; `checks.watch.outbox` tries again. The addresses of services hold
their secrets: they are handed to Apprise and to nothing else.
"""

from __future__ import annotations

import importlib
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from checks.watch.message import Message
from trainvitals.errors import UsageError

VARIABLE = "TRAINVITALS_ALERTS"
HOOK_SECONDS = 30.0
_TYPES = {"fail": "failure", "warn": "warning"}


class NotTaken(Exception):
    """A channel did not take a message; the text says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One place that messages go to."""

    name: str
    """Kind and number, as `slack-2`: what may be printed and stored of an address."""
    send: Callable[[Message], None]
    """Raises NotTaken."""


def addresses(file: str | None) -> list[str]:
    """The services' addresses, one a line, from a file that only its owner can read, else from the environment.

    Raises UsageError: the file cannot be read, or others can read it.
    """
    if file is None:
        text = os.environ.get(VARIABLE, "")
    else:
        try:
            with open(file, encoding="utf-8") as source:
                mode = os.fstat(source.fileno()).st_mode
                if not stat.S_ISREG(mode) or mode & 0o077:
                    raise UsageError(f"{file} holds secrets and can be read by others. Run `chmod 600 {file}`.")
                text = source.read(1 << 20)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{file} cannot be read ({type(error).__name__}). Give a text file of addresses.") \
                from error
    return [word for line in text.splitlines() for word in line.split() if not line.lstrip().startswith("#")]


def services(urls: Sequence[str]) -> list[Channel]:
    """A channel for each address. Raises UsageError for one that Apprise does not know, by its number."""
    if not urls:
        return []
    try:
        apprise = importlib.import_module("apprise")
    except ImportError as error:
        raise UsageError("Messages to services need Apprise. Install `trainvitals[watch]`.") from error
    # It logs addresses, masked only in part.
    logging.getLogger("apprise").disabled = True
    found = []
    for i, url in enumerate(urls, 1):
        service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if service is None:
            raise UsageError(f"Address {i} of {len(urls)} is none that Apprise knows. Its documentation lists them.")
        kind = url.partition("://")[0]
        found.append(Channel(f"{kind if kind.isalnum() else 'service'}-{i}", _sender(service)))
    return found


def _sender(service: Any) -> Callable[[Message], None]:
    def send(message: Message) -> None:
        try:
            taken = service.notify(title=message.title, body=message.body, body_format="text",
                                   notify_type=_TYPES.get(message.level, "info") if message.kind != "over"
                                   else "success")  # fmt: skip
        except Exception as error:  # clients of services have errors of their own, whose texts may hold the address
            raise NotTaken(type(error).__name__) from None
        if not taken:
            raise NotTaken("the service refused it or did not answer")

    return send


def hook(program: str, seconds: float = HOOK_SECONDS) -> Channel:
    """A channel that runs a program, without a shell, with the message in environment variables.

    Raises UsageError: it is no program that can be run.
    """
    if not os.path.isfile(program) or not os.access(program, os.X_OK):
        raise UsageError(f"{program} is no program that can be run. Give the path of an executable file.")

    def send(message: Message) -> None:
        given = {"RUN": message.run, "LEVEL": message.level, "INCIDENT": message.incident, "STEP": str(message.step),
                 "WHAT": message.what, "KIND": message.kind, "TITLE": message.title, "BODY": message.body}  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        environment |= {f"TRAINVITALS_{name}": value for name, value in given.items()}
        try:
            code = subprocess.run([os.path.abspath(program)], env=environment, timeout=seconds, check=False,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise NotTaken(f"it ran longer than {seconds:g} s") from None
        except OSError as error:
            raise NotTaken(str(error.strerror)) from None
        if code:
            raise NotTaken(f"it ended with {code}")

    return Channel("hook", send)
