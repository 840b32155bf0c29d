"""From live segments to Parquet: 53 MB of 65,536 steps x 100 series become 21 MB that read one column at a time.

A history file is immutable and named after the steps, the writer and the segments that it holds:

    frames/loss/history/steps-1-65536-host-0-4711-1763712000000-0-7.parquet

so readers prefer it over those segments, and making it twice does no harm. A writer compacts its own segments; those
of a killed writer are read as they are, until `compact_run` turns them into history.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from trainvitals.store.folder import Folder
from trainvitals.store.history import HistoryFile, encode
from trainvitals.store.segment import Header
from trainvitals.store.tail import Tail

ROWS_PER_FILE = 65_536
BYTES_PER_FILE = 64 << 20
"""A history file below both, in memory, takes in the next segment."""
MOST_SEGMENT_BYTES = 1 << 30
"""Segments end at 64 MB: a longer file is not read."""


@dataclass(frozen=True, slots=True)
class SegmentName:
    """Which segments of which writer a file holds, as its path says."""

    frame: str
    writer: str
    first: int
    last: int
    live: bool
    steps: tuple[int, int] | None = None
    """First and last step of a history file."""

    @classmethod
    def parse(cls, path: str) -> SegmentName | None:
        """The name in a path of the run folder; None for any other file."""
        parts = path.split("/")
        try:
            if len(parts) == 5 and parts[2] == "live" and path.endswith(".arrows"):
                sequence = int(parts[4].removesuffix(".arrows"))
                return cls(parts[1], parts[3], sequence, sequence, True)
            if len(parts) == 4 and parts[2] == "history" and path.endswith(".parquet"):
                words = parts[3].removesuffix(".parquet").split("-")
                steps = int(words[1].replace("m", "-")), int(words[2].replace("m", "-"))
                return cls(parts[1], "-".join(words[3:-2]), int(words[-2]), int(words[-1]), False, steps)
        except (ValueError, IndexError):
            return None
        return None


def live_path(header: Header, sequence: int) -> str:
    """Where a segment is appended to."""
    return f"frames/{header.frame}/live/{header.writer}/{sequence:06d}.arrows"


def compact(folder: Folder, segment: str, previous: str | None = None) -> str | None:
    """Turn a finished segment into Parquet, together with the previous history file if that is small.

    Returns the path of the new file and removes its sources; None, and all stays, where the segment holds no row or
    damage that somebody may want to look at.
    Raises OSError where the folder cannot be read or written; nothing is lost then.
    """
    tail, data = Tail(), folder.read(segment)
    tail.feed(data)
    if tail.header is None or not tail.rows or tail.torn_bytes or tail.gaps:
        return None
    header, table = tail.header, pa.Table.from_batches(tail.batches, tail.schema)
    first, sources = header.sequence, [segment]
    if previous and (before := _joinable(folder, previous, header)) is not None:
        first, rows = before
        table, sources = pa.concat_tables([rows, table]), [segment, previous]
    path = history_path(header, table, first, header.sequence)
    folder.replace(path, encode(table, first))
    if folder.sizes(segment.rpartition("/")[0]).get(segment, len(data)) != len(data):
        folder.remove(path)  # its writer lives, and this history would hide what it added meanwhile
        return None
    for source in sources:
        folder.remove(source)
    return path


def history_path(header: Header, table: pa.Table, first: int, last: int) -> str:
    """Where a table of the writer's segments first..last is kept."""
    ends = pc.min_max(table["step"]).as_py()
    return (f"frames/{header.frame}/history/steps-{_word(ends['min'])}-{_word(ends['max'])}-{header.writer}-{first}-"
            f"{last}.parquet")


def _word(step: int) -> str:
    return str(int(step)).replace("-", "m")


def _joinable(folder: Folder, previous: str, header: Header) -> tuple[int, pa.Table] | None:
    """First segment and rows of the previous history file, if it is small, of the same fields, verifiably whole."""
    try:
        file = HistoryFile.open(folder, previous, folder.sizes(previous.rpartition("/")[0])[previous])
        same = (file.header.fields, file.header.labels) == (header.fields, header.labels)
        # A segment between the two that stays as it is, because it is torn, must not be hidden by their history.
        next_to = file.header.sequence + 1 == header.sequence
        if not (same and next_to) or file.sums is None or file.first is None \
                or file.metadata.num_rows >= ROWS_PER_FILE:
            return None
        table = file.table()
    except (ValueError, KeyError):
        return None  # it stays as it is: joined, its damage would get a checksum that matches
    if table.nbytes >= BYTES_PER_FILE:
        return None
    return file.first, table.replace_schema_metadata(header.schema().metadata).cast(header.schema())


def compact_run(folder: Folder, quiet_for: float) -> int:
    """Compact what killed writers left: segments that did not change for `quiet_for` seconds by the folder's own clock.

    Returns how many segments became history; none where the folder's clock cannot be asked.
    """
    if not folder.appends_cheaply:
        from trainvitals.store.levels import merge_left  # which builds on this module

        return merge_left(folder, quiet_for)
    done = 0
    changed, now = folder.times("frames"), folder.now()
    for path, size in folder.sizes("frames").items():
        name = SegmentName.parse(path)
        if name is None or not name.live or size > MOST_SEGMENT_BYTES:
            continue
        with contextlib.suppress(FileNotFoundError):  # its writer compacted it meanwhile
            if now is not None and path in changed and now - changed[path] > quiet_for:
                done += compact(folder, path) is not None
    return done
