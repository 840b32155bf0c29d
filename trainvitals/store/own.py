"""Numbers that a training script logs under names of its own: stored, or refused once by name, never raised at it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainvitals.catalogue import own_name
from trainvitals.store.writer import RunWriter, whole_step

log = logging.getLogger("trainvitals")

NAME_CHARACTERS = 1_000
MOST_NAMES = 4_000
"""Names of a run's own: each is a column of every segment, so a name per step would grow without an end."""
MOST_SAID = 50
"""Refusals and renamings that are named in the log and as events; more are one last line."""


class OwnNumbers:
    """The frame `custom` of one writer."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._frame = writer.frame("custom", [])
        self._names: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    def log(self, step: Any, values: Mapping[Any, Any]) -> None:
        """Store what can be stored: numbers, and arrays of one number. None stands for no number at this step."""
        at = whole_step(step)
        if at is None:
            self.refuse("step", f"the step {_short(step)} is no whole number below 2**62")
            return
        row: dict[str, float] = {}
        for name, value in values.items():
            if type(name) is not str or (name not in self._names and not self._admit(name)):
                if type(name) is not str:
                    self.refuse(_short(name), f"a name must be a string, not {type(name).__name__}")
                continue
            if type(value) is float:
                row[name] = value
            elif value is not None and (number := self._number(name, value)) is not None:
                row[name] = number
        if row:
            self._frame.append(at, row)

    def refuse(self, name: str, why: str) -> None:
        """Say once that something handed to `log` is not stored."""
        self._say("number_refused", name, f"What is logged as {_short(name)} is not stored: {why}")

    def _admit(self, name: str) -> bool:
        """Whether a new name can be stored; tells the user where theirs is one of ours."""
        why = ""
        if not name.strip():
            why = "a name must not be empty"
        elif len(name) > NAME_CHARACTERS:
            why = f"a name has at most {NAME_CHARACTERS:,} characters, this one {len(name):,}"
        elif not name.isprintable() and any("\ud800" <= c <= "\udfff" or c == "\0" for c in name):
            why = "it has characters that are no text"
        elif len(self._names) >= MOST_NAMES:
            why = f"a run has at most {MOST_NAMES:,} names of its own. Log a changing thing as a value, not as a name"
        if why:
            self.refuse(name, why)
            return False
        self._names.add(name)
        stored = own_name(name)
        if stored != name:
            self._say("name_taken", name, f"{_short(name)} is a name of TrainVitals; the number that the training "
                      f"script logs under it is {_short(stored)}")
        return True

    def _number(self, name: str, value: Any) -> float | None:
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(())[()]
        kind = type(value).__name__
        if isinstance(value, str | bytes | bytearray | Mapping | list | tuple | set | complex | np.ndarray):
            self.refuse(name, f"it is a {kind}, not one number. There are log_text, log_table, log_histogram and "
                        "log_image")
            return None
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError) as error:
            self.refuse(name, f"a {kind} is no number that can be stored ({error})")
            return None

    def _say(self, kind: str, name: str, message: str) -> None:
        key = kind, name[:NAME_CHARACTERS]
        if key in self._said or len(self._said) > MOST_SAID:
            return
        self._said.add(key)
        if len(self._said) > MOST_SAID:
            message = "More of what the training script logs is not stored as it was logged; no more is named"
        log.warning("trainvitals: %s. Training goes on.", message)
        self._writer.event(kind, message=message, name=name)


def _short(value: Any) -> str:
    """A name or step for a message; no object's own repr is called, and no long one is made."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 80 else f"{value[:80]!r}…"
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 100):
        return repr(value)
    return f"of type {type(value).__name__}"
