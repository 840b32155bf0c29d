"""One writer's events on their way to its file: bounded in number and in size, whatever a script hands over."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

import numpy as np

from trainvitals.store.events import event_line
from trainvitals.store.folder import FileGone, Folder

WAITING_EVENTS = 2_000
"""Events in memory while the disk does not take them; later ones are counted."""
LINES_AT_ONCE = 100
MESSAGE_CHARACTERS, TEXT_CHARACTERS = 4_000, 1_000
ITEMS, DEPTH = 100, 4
"""Entries of a list or mapping, and levels of nesting, that are kept of an event's data."""

OUR_KINDS = frozenset("""
    batch_unseen clock_offset closed collector_disabled config_hidden domains_unknown evaluation_sets_many
    evaluation_unnamed evaluations_unnamed events_dropped exception folder_lost forward_unseen forward_unused
    grad_surprise loss_from_log_probs loss_ignored loss_late loss_scalar loss_several loss_twice loss_unaligned
    loss_unseen name_taken number_refused overlap parameters_added parameters_uncovered replicas_unknown
    resume_unknown resumed_by_scheduler rollback router_impossible router_missed router_not_by_token router_unaligned
    router_uneven router_unread rows_dropped rows_gone rows_late sample_refused samples_dropped started step_behind
    step_skipped weights_moved
""".split())
"""Kinds of event that readers and checks give a meaning; a training script's own of the same name gets `custom/`."""


class EventLog:
    """Keeps lines until the disk has them; `add` from any thread, `write` from one."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, dict[str, Any]]] = deque()
        self._torn: set[str] = set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, path: str, line: dict[str, Any], *, always: bool = False) -> None:
        """Queue one event; drops it, counted, if too many wait and it must not be kept `always`."""
        if len(self._lines) >= WAITING_EVENTS and not always:
            self.dropped += 1
        else:
            self._lines.append((path, line))

    def stamp(self, kind: str, **data: Any) -> None:
        """Add to the data of the events of one kind that are not written yet."""
        for _, line in list(self._lines):
            if line["kind"] == kind:
                line["data"] |= data

    def write(self, folder: Folder) -> None:
        """Append all lines. Raises OSError; what is not written stays."""
        while self._lines:
            # A file that grows takes them one by one: of several, a full disk could keep some, to be written again.
            path, lines = self._first(1 if folder.appends_cheaply else LINES_AT_ONCE)
            data = b"".join(map(event_line, lines))
            # After a failure a part of the last line may be on disk, and what follows must not become a part of it.
            data = b"\n" + data if path in self._torn else data
            try:
                folder.append(path, data)
            except FileGone:
                folder.append(path, data)  # a new file
            except OSError:
                self._torn.add(path)
                raise
            self._torn.discard(path)
            for _ in lines:
                self._lines.popleft()

    def _first(self, most: int) -> tuple[str, list[dict[str, Any]]]:
        """The oldest lines that go to one file, and its path."""
        waiting = list(self._lines)[:most]
        path = waiting[0][0]
        return path, [line for _, line in takewhile(lambda entry: entry[0] == path, waiting)]


def cut(text: str, most: int = MESSAGE_CHARACTERS) -> str:
    """A text of at most about `most` characters, with a mark where it was cut."""
    return text if len(text) <= most else f"{text[:most]}… (cut from {len(text):,} characters)"


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A bounded copy of a value as JSON holds it: no tensor is read, no text or list is longer than our limits.

    Numbers that JSON has no word for become their names ("nan", "inf"); other objects become the name of their type.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return cut(value, TEXT_CHARACTERS)
    if isinstance(value, np.generic):
        return plain(value.item(), depth)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping) and depth:
        kept = {cut(str(key), TEXT_CHARACTERS) if isinstance(key, str | int | float) else _kind(key):
                plain(item, depth - 1) for key, item in islice(value.items(), ITEMS)}
        return kept if len(value) <= ITEMS else kept | {"…": f"cut from {len(value):,} entries"}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray) and depth:
        some = [plain(item, depth - 1) for item in islice(value, ITEMS)]
        return some if len(value) <= ITEMS else [*some, f"… (cut from {len(value):,} entries)"]
    if isinstance(value, BaseException):
        return cut(repr(value), TEXT_CHARACTERS)
    return cut(str(value), TEXT_CHARACTERS) if hasattr(value, "__fspath__") else _kind(value)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"<{type(value).__name__}{' ' + str(list(shape)) if isinstance(shape, tuple) else ''}>"
