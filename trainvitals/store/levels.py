"""The segments of a writer on a store that cannot append: one object per flush, merged as they grow many.

    32 segments of one flush  ->  a history file;  8 of those  ->  a wider one;  and so on

Every row is so put once as it comes and about once more for every factor of 8 in the length of the run, and a frame of
a writer is never more than a few dozen objects. Putting a growing segment whole at every flush instead costs the square
of its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from trainvitals.store.compact import BYTES_PER_FILE, ROWS_PER_FILE, SegmentName, history_path
from trainvitals.store.folder import Folder
from trainvitals.store.history import HistoryFile, InMemory, encode
from trainvitals.store.segment import Header
from trainvitals.store.tail import Tail

FLUSHES = 32
"""Segments that become a history file."""
FAN = 8
"""History files of one level that become one of the next."""
LOOSE_BYTES = 16 << 20
"""Segments that hold so much become a history file though they are few."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of a writer's rows, and what they take in memory."""

    path: str
    rows: int
    nbytes: int


class Levels:
    """What one writer has put for one frame under one header. Used by one thread at a time."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._levels: list[list[Piece]] = [[]]
        """Segments, then history files of rising width; each level oldest first, later levels older."""
        self._covered: list[str] = []
        """Merged into others and still to be deleted."""

    def add(self, segment: str, rows: int, nbytes: int) -> None:
        """Take in a segment that is complete."""
        self._levels[0].append(Piece(segment, rows, nbytes))

    def settle(self) -> None:
        """Merge what has grown many.

        Raises OSError where the store refuses: nothing is lost, and a later call tries again.
        """
        level = 0
        while level < len(self._levels) and self._many(level):
            self._replace(self._levels[level], level + 1)
            level += 1

    def _many(self, level: int) -> bool:
        pieces = self._levels[level]
        if level:
            return len(pieces) >= FAN
        return len(pieces) >= FLUSHES or sum(piece.nbytes for piece in pieces) >= LOOSE_BYTES

    def end(self) -> None:
        """Merge as many of the newest rows as a file may hold, as no more will come. Raises OSError as `settle`."""
        newest: list[Piece] = []
        for piece in reversed([piece for level in reversed(self._levels) for piece in level]):
            if newest and not _fit([piece, *newest]):
                break
            newest.insert(0, piece)
        if len(newest) > 1 or self._levels[0]:
            self._replace(newest, len(self._levels))

    def _replace(self, pieces: Sequence[Piece], level: int) -> None:
        pieces = list(pieces)
        merged = merge(self.folder, [piece.path for piece in pieces]) if _fit(pieces) else None
        self._levels = [[piece for piece in others if piece not in pieces] for others in self._levels]
        if merged is not None:
            self._levels += [[] for _ in range(level + 1 - len(self._levels))]
            self._levels[level].append(merged)
            self._covered += [piece.path for piece in pieces]
        self.folder.remove_many(self._covered)
        self._covered = []


def _fit(pieces: Sequence[Piece]) -> bool:
    return (len(pieces) == 1 or sum(piece.rows for piece in pieces) <= ROWS_PER_FILE
            and sum(piece.nbytes for piece in pieces) <= BYTES_PER_FILE)


def merge(folder: Folder, paths: Sequence[str]) -> Piece | None:
    """Put one history file in place of neighbouring segments and history files of one writer, oldest first.

    The sources stay. None, and nothing is put, where one is damaged: somebody may want to look at it.
    Raises OSError where the store cannot be read or written.
    """
    found = []
    for path, data in folder.read_many(paths).items():
        if isinstance(data, OSError):
            raise data
        piece = _piece(path, data)
        if piece is None:
            return None
        found.append(piece)
    last = SegmentName.parse(paths[-1])
    assert last is not None
    schema = found[-1][1].schema
    whole = pa.concat_tables([table.cast(schema).replace_schema_metadata(schema.metadata) for _, table in found])
    path = history_path(Header.of(schema), whole, found[0][0], last.last)
    folder.replace(path, encode(whole, found[0][0]))
    return Piece(path, whole.num_rows, whole.nbytes)


def merge_left(folder: Folder, quiet_for: float) -> int:
    """Merge the segments of writers that put none for `quiet_for` seconds by the folder's own clock.

    Returns how many became history. Raises OSError where the store refuses; nothing is lost.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    history: dict[tuple[str, str], list[SegmentName]] = {}
    changed, now = folder.times("frames"), folder.now()
    for path in sorted(folder.sizes("frames")):
        name = SegmentName.parse(path)
        if name is not None and name.live:
            groups.setdefault((name.frame, name.writer), []).append(path)
        elif name is not None:
            history.setdefault((name.frame, name.writer), []).append(name)
    done = 0
    for key, paths in groups.items():
        if now is None or any(now - changed.get(path, now) <= quiet_for for path in paths):
            continue
        for alike in _alike(folder, [path for path in paths if not _held(path, history.get(key, ()))]):
            if merge(folder, alike) is not None:
                folder.remove_many(alike)
                done += len(alike)
    folder.beat("compact")
    return done


def _held(path: str, history: Iterable[SegmentName]) -> bool:
    name = SegmentName.parse(path)
    return name is not None and any(held.first <= name.first <= held.last for held in history)


def _alike(folder: Folder, paths: Sequence[str]) -> list[list[str]]:
    """Neighbouring segments with the same fields, as many as fit into a file."""
    found: list[list[str]] = []
    last: Header | None = None
    room = 0
    for path, data in folder.read_many(paths).items():
        tail = Tail()
        tail.feed(data if isinstance(data, bytes) else b"")
        if tail.header is None or not tail.rows:
            last = None
            continue
        header, room = tail.header, room - tail.rows
        if last is None or room < 0 or (header.fields, header.labels, header.sequence) != (
                last.fields, last.labels, last.sequence + 1):
            found.append([])
            room = ROWS_PER_FILE - tail.rows
        found[-1].append(path)
        last = header
    return found


def _piece(path: str, data: bytes) -> tuple[int, pa.Table] | None:
    """The first segment that an object holds, and its rows; None where not all of it can be verified."""
    if path.endswith(".parquet"):
        try:
            file = HistoryFile.open(InMemory(data), path, len(data))
            return (file.first, file.table()) if file.first is not None else None
        except ValueError:
            return None
    tail = Tail()
    tail.feed(data)
    if tail.header is None or not tail.rows or tail.torn_bytes or tail.gaps:
        return None
    return tail.header.sequence, pa.Table.from_batches(tail.batches, tail.schema)
