"""The readable pieces of a frame: live segments and history files behind one small interface."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainvitals.catalogue import Field
from trainvitals.store.compact import MOST_SEGMENT_BYTES, SegmentName
from trainvitals.store.folder import Folder
from trainvitals.store.history import HistoryFile
from trainvitals.store.segment import Header
from trainvitals.store.tail import Tail

CACHE_BYTES = 512 << 20
RETRY_BYTES = 16 << 20
"""A torn end up to this size is read again although its file did not grow: a network mount may show the length before
the bytes."""


class Part(Protocol):
    """Some rows of one writer, in order of time."""

    @property
    def name(self) -> SegmentName: ...

    @property
    def header(self) -> Header: ...

    @property
    def rows(self) -> int:
        """Rows whose step can be read."""

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step."""

    @property
    def last_time(self) -> float | None:
        """Time of the newest row by its writer's clock, Unix seconds; None where none can be read."""

    def column(self, name: str) -> NDArray[Any]:
        """A column's values [rows], or [rows, n] for a vector; NaN where they are damaged."""

    def damaged(self, name: str) -> NDArray[np.bool_] | None:
        """Rows in which a column is damaged [rows]; None where none is. Known once the column was read."""

    def problems(self, growing: bool) -> list[str]:
        """What of the file is damaged or cannot be verified, as far as it was read; each goes on a path.

        `growing`: its writer may be in the middle of a record.
        """


def _numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):
        chunks = [_numpy(chunk) for chunk in column.chunks]
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _last_finite(times: NDArray[np.float64]) -> float | None:
    finite = times[np.isfinite(times)]
    return float(finite[-1]) if len(finite) else None


class LivePart:
    """A segment that may still grow."""

    def __init__(self, folder: Folder, path: str, name: SegmentName) -> None:
        self.folder, self.path, self.tail = folder, path, Tail()
        self.name: SegmentName = name
        self._size = 0

    def refresh(self, size: int) -> None:
        """Read what was appended since the last time. Raises OSError, ValueError where this is no segment."""
        if size > MOST_SEGMENT_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than any segment")
        grown, self._size = size != self._size, size
        if size > self.tail.offset and (grown or self.tail.torn_bytes < RETRY_BYTES):
            self.tail.feed(self.folder.read(self.path, self.tail.offset, size))
            header = self.tail.header
            name = self.name.frame, self.name.writer, self.name.last
            if header is not None and self.tail.rows and (header.frame, header.writer, header.sequence) != name:
                self.tail = Tail()
                raise ValueError("its name does not match what it holds")

    @property
    def header(self) -> Header:
        assert self.tail.header is not None
        return self.tail.header

    @property
    def rows(self) -> int:
        return self.tail.rows

    @property
    def steps(self) -> tuple[int, int]:
        steps = self.column("step")
        return int(steps.min()), int(steps.max())

    @property
    def last_time(self) -> float | None:
        return _last_finite(_numpy(self.tail.batches[-1].column("time"))) if self.tail.batches else None

    def column(self, name: str) -> NDArray[Any]:
        arrays = [_numpy(batch.column(name)) for batch in self.tail.batches]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def damaged(self, name: str) -> NDArray[np.bool_] | None:
        return None

    def problems(self, growing: bool) -> list[str]:
        tail = self.tail
        found = []
        for gap in tail.gaps:
            where = f"before step {gap.before:,}" if gap.after is None else \
                f"between steps {gap.after:,} and {gap.before:,}"
            found.append(f"has {gap.bytes:,} damaged bytes; the rows {where} are left out")
        if tail.schema is None and not growing:
            found.append(f"cannot be read: the {tail.torn_bytes:,} bytes that it has are no segment, its first record "
                         "is torn or damaged")
        elif tail.mismatch:
            found.append("ends in a record that does not match its checksum; its rows are left out")
        elif tail.torn_bytes and not growing:
            found.append(f"ends in {tail.torn_bytes:,} bytes that are no whole record: its writer was killed, the disk "
                         "was full, or they are damaged")
        return found


class ColumnCache:
    """Least recently used columns of immutable files, up to a number of bytes."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self.columns: OrderedDict[tuple[str, str], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> NDArray[Any] | None:
        with self._lock:
            column = self.columns.get(key)
            if column is not None:
                self.columns.move_to_end(key)
        return column

    def put(self, key: tuple[str, str], column: NDArray[Any]) -> None:
        if column.nbytes > self.limit // 4:
            return
        with self._lock:
            before = self.columns.pop(key, None)
            self.columns[key] = column
            self.bytes += column.nbytes - (0 if before is None else before.nbytes)
            while self.bytes > self.limit:
                _, old = self.columns.popitem(last=False)
                self.bytes -= old.nbytes


class HistoryPart:
    """An immutable Parquet file: what is read of it is verified then, and kept."""

    def __init__(self, folder: Folder, path: str, name: SegmentName, size: int, cache: ColumnCache) -> None:
        self.path, self.name = path, name
        self._cache = cache
        self.file = HistoryFile.open(folder, path, size)
        self.header = self.file.header
        known = (self.header.frame, self.header.writer, self.header.sequence, self.file.first)
        if known != (name.frame, name.writer, name.last, name.first if self.file.sums is not None else None):
            raise ValueError("its name does not match what it holds")
        self._bad: dict[str, dict[int, str]] = {}
        """Column -> row group -> why it cannot be read."""
        self._groups: list[int] | None = None
        """Row groups whose steps can be read; None before the first try."""
        self._steady = True
        """Whether another try would find the same row groups."""

    @property
    def rows(self) -> int:
        groups = range(self.file.metadata.num_row_groups) if self._groups is None else self._groups
        return sum(self.file.group_rows(group) for group in groups)

    @cached_property
    def steps(self) -> tuple[int, int]:
        found = self.file.steps()
        if found is None:
            steps = self.column("step")
            found = (int(steps.min()), int(steps.max())) if len(steps) else (0, 0)
        return found

    @cached_property
    def last_time(self) -> float | None:
        found = self.file.last_time()
        return _last_finite(self.column("time")) if found is None else found

    def column(self, name: str) -> NDArray[Any]:
        column = self._cache.get((self.path, name))
        if column is None or self._groups is None:
            column, final = self._read(name)
            if final:
                self._cache.put((self.path, name), column)
        return column

    def damaged(self, name: str) -> NDArray[np.bool_] | None:
        bad = self._bad.get(name)
        if not bad or name == "step" or self._groups is None:
            return None
        return np.repeat([group in bad for group in self._groups], [self.file.group_rows(g) for g in self._groups])

    def problems(self, growing: bool) -> list[str]:
        found = []
        if self.file.sums is None:
            found.append("was written without checksums, by an older version: its values cannot be verified")
        for name, bad in self._bad.items():
            for group, why in bad.items():
                rows = self.file.group_rows(group)
                what = f"the steps of {rows:,} rows, which are left out" if name == "step" else \
                    f"{name} in {rows:,} rows, where it is unknown"
                found.append(f"has lost {what} ({why})")
        return found

    def _read(self, name: str) -> tuple[NDArray[Any], bool]:
        """A column, and whether another read would give the same: not where the file could not be reached."""
        if name != "step" and self._groups is None:
            self.column("step")
        groups = range(self.file.metadata.num_row_groups) if name == "step" else self._groups or []
        arrays, final = [], True
        self._bad.pop(name, None)
        for group in groups:
            try:
                arrays.append(_numpy(self.file.chunk(name, group)))
                continue
            except OSError as error:  # compacted meanwhile, or a server that is away
                why, final = error.strerror or str(error), False
            except ValueError as error:
                why = str(error)
            self._bad.setdefault(name, {})[group] = why
            if name != "step":
                arrays.append(self._unknown(name, group))
        if name == "step":
            self._groups = [group for group in groups if group not in self._bad.get(name, {})]
            self._steady = final
        final = final and self._steady
        if not arrays:
            return np.empty(0, np.int64 if name == "step" else np.float64), final
        return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)), final

    def _unknown(self, name: str, group: int) -> NDArray[np.float64]:
        kind = self.file.schema.field(name).type
        width = (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()
        return np.full((self.file.group_rows(group), *width), np.nan)


def values(part: Part, item: Field) -> NDArray[np.float64]:
    """A field's values in a part [rows, *axes] as float64; NaN where they are damaged."""
    if not item.axes:
        return np.asarray(part.column(item.name), np.float64)
    columns = [np.asarray(part.column(name), np.float64) for name in part.header.columns(item)]
    stacked = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return stacked.reshape(part.rows, *part.header.shape(item))


def damaged(part: Part, item: Field) -> NDArray[np.bool_] | None:
    """Rows in which any column of a field is damaged [rows]; None where none is. Known after `values`."""
    found = [bad for name in part.header.columns(item) if (bad := part.damaged(name)) is not None]
    return np.logical_or.reduce(found) if found else None
