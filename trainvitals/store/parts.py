"""The readable pieces of a frame: live segments and history files behind one small interface."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainvitals.catalogue import Field
from trainvitals.store.compact import SegmentName
from trainvitals.store.folder import Folder
from trainvitals.store.segment import Header, Tail

CACHE_BYTES = 512 << 20


class Part(Protocol):
    """Some rows of one writer, in order of time."""

    @property
    def name(self) -> SegmentName: ...

    @property
    def header(self) -> Header: ...

    @property
    def rows(self) -> int: ...

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step."""

    def column(self, name: str) -> NDArray[Any]:
        """A column's values [rows], or [rows, n] for a vector."""


def _numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):
        chunks = [_numpy(chunk) for chunk in column.chunks]
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width))
    return np.asarray(column.to_numpy(zero_copy_only=False))


class LivePart:
    """A segment that may still grow."""

    def __init__(self, folder: Folder, path: str, name: SegmentName) -> None:
        self.folder, self.path, self.tail = folder, path, Tail()
        self.name: SegmentName = name

    def refresh(self, size: int) -> None:
        """Read what was appended since the last time. Raises FileNotFoundError."""
        if size > self.tail.offset:
            self.tail.feed(self.folder.read(self.path, self.tail.offset))

    @property
    def readable(self) -> bool:
        return self.tail.schema is not None and bool(self.tail.rows)

    @cached_property
    def header(self) -> Header:
        assert self.tail.schema is not None
        return Header.of(self.tail.schema)

    @property
    def rows(self) -> int:
        return self.tail.rows

    @property
    def steps(self) -> tuple[int, int]:
        steps = self.column("step")
        return int(steps.min()), int(steps.max())

    def column(self, name: str) -> NDArray[Any]:
        arrays = [_numpy(batch.column(name)) for batch in self.tail.batches]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


class ColumnCache:
    """Least recently used columns of immutable files, up to a number of bytes."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self.columns: OrderedDict[tuple[str, str], NDArray[Any]] = OrderedDict()

    def get(self, key: tuple[str, str]) -> NDArray[Any] | None:
        column = self.columns.get(key)
        if column is not None:
            self.columns.move_to_end(key)
        return column

    def put(self, key: tuple[str, str], column: NDArray[Any]) -> None:
        if column.nbytes > self.limit // 4:
            return
        self.columns[key] = column
        self.bytes += column.nbytes
        while self.bytes > self.limit:
            _, old = self.columns.popitem(last=False)
            self.bytes -= old.nbytes


class HistoryPart:
    """An immutable Parquet file."""

    def __init__(self, folder: Folder, path: str, name: SegmentName, cache: ColumnCache) -> None:
        assert name.steps is not None
        self.folder, self.path = folder, path
        self.name: SegmentName = name
        self.steps: tuple[int, int] = name.steps
        self._cache = cache
        with folder.open(path) as file:
            self._metadata = pq.read_metadata(file)
        self.header = Header.of(self._metadata.schema.to_arrow_schema())
        self.rows: int = self._metadata.num_rows

    def column(self, name: str) -> NDArray[Any]:
        column = self._cache.get((self.path, name))
        if column is None:
            with self.folder.open(self.path) as file:
                parquet = pq.ParquetFile(file, metadata=self._metadata)
                column = _numpy(parquet.read(columns=[name]).column(name))  # "a" also reads "a.b"
            self._cache.put((self.path, name), column)
        return column


def values(part: Part, item: Field) -> NDArray[np.float64]:
    """A field's values in a part [rows, *axes] as float64."""
    if not item.axes:
        return np.asarray(part.column(item.name), np.float64)
    columns = [part.column(name) for name in part.header.columns(item)]
    stacked = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return np.asarray(stacked, np.float64).reshape(part.rows, *part.header.shape(item))
