"""The bytes of a history file: Parquet in which every byte that is read has a checksum.

Parquet has checksums of pages at most: neither page headers nor the footer, which says where pages lie and what they
mean, are covered. So a block of our own stands between the last column chunk and the footer, where any Parquet reader
passes over it:

    "PAR1" | column chunks | CRC-32 of each chunk, row group by row group | CRC-32 of the footer | "TVC1" | footer

All CRCs are little-endian uint32; the footer goes from its Thrift bytes to the closing "PAR1". One read of a file's end
gives block and footer; one column is then read and verified without the others. A damaged CRC costs its own chunk. The
schema's metadata, key `trainvitals-history`, says which segment the file begins with and that there must be a block.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainvitals.store.segment import Header
from trainvitals.untrusted import parse_json, whole

KEY = b"trainvitals-history"
MAGIC = b"TVC1"
END = struct.Struct("<I4s")
TAIL_BYTES = 64 << 10
"""Read at first: block and footer of a frame of a few hundred columns."""
ROWS_PER_GROUP = 65_536
MOST_ROWS_PER_GROUP = 1 << 20
"""A row group that claims more was not made by a writer of ours."""


class Source(Protocol):
    """Where files are read from: a run folder, or memory."""

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a file. Raises OSError."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """The one file that `data` is."""

    data: bytes

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.data[start:stop]


def encode(table: pa.Table, first: int) -> bytes:
    """A table, whose schema has a header, as the bytes of a history file that begins with segment `first`."""
    about = json.dumps({"first": first, "checksums": "crc32"}).encode()
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, KEY: about}), sink, compression="zstd",
                   use_dictionary=False, use_byte_stream_split=True, row_group_size=ROWS_PER_GROUP,
                   write_statistics=["step", "time"])
    raw = sink.getbuffer()
    cut = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    chunks = _chunks(pq.read_metadata(sink))
    sums = np.array([zlib.crc32(raw[start:stop]) for start, stop in chunks], "<u4").tobytes()
    return b"".join([raw[:cut], sums, END.pack(zlib.crc32(raw[cut:]), MAGIC), raw[cut:]])


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """The verified footer of a history file, and verified reads of its columns."""

    source: Source
    path: str
    size: int
    metadata: pq.FileMetaData
    schema: pa.Schema
    header: Header
    first: int | None
    """The first segment that it holds; None where an older version wrote it."""
    sums: NDArray[np.uint32] | None
    """CRC-32 of every column chunk; None where an older version wrote the file, so that nothing can be verified."""

    @classmethod
    def open(cls, source: Source, path: str, size: int) -> HistoryFile:
        """Read the end of a file of `size` bytes.

        Raises OSError where it cannot be read, ValueError where it is damaged or no history file.
        """
        data = _range(source, path, max(0, size - TAIL_BYTES), size)
        footer, verified = _footer(data, source, path, size)
        try:
            metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise ValueError(f"its footer is damaged ({error})") from error
        header = Header.of(schema)
        about = parse_json((schema.metadata or {}).get(KEY, b"null"), finite=False)
        if about is not None and not verified:
            raise ValueError("its checksums are damaged, so that nothing in it can be verified")
        if metadata.num_columns != len(schema.names):
            raise ValueError("its columns are not those of a history file")
        rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        if any(not 0 < n <= MOST_ROWS_PER_GROUP for n in rows):
            raise ValueError(f"it claims a row group of {max(rows):,} rows")
        first = None if not isinstance(about, dict) else whole(about.get("first"), "first", 0, header.sequence)
        sums = _sums(data, source, path, size, len(footer), metadata) if verified else None
        return cls(source, path, size, metadata, schema, header, first, sums)

    def group_rows(self, group: int) -> int:
        return int(self.metadata.row_group(group).num_rows)

    def steps(self) -> tuple[int, int] | None:
        """First and last step, as the footer says; None where it does not."""
        found = self._statistics("step")
        return (min(int(s.min) for s in found), max(int(s.max) for s in found)) if found else None

    def last_time(self) -> float | None:
        """Time of the newest row, Unix seconds, as the footer says; None where it does not."""
        found = self._statistics("time")
        return max(float(s.max) for s in found) if found else None

    def _statistics(self, name: str) -> list[Any]:
        """Of every row group; none where one has none."""
        index = self.schema.get_field_index(name)
        found = [self.metadata.row_group(g).column(index).statistics for g in range(self.metadata.num_row_groups)]
        return [] if any(s is None or not s.has_min_max for s in found) else found

    def chunk(self, name: str, group: int) -> pa.ChunkedArray:
        """One column of one row group. Raises OSError or ValueError where it cannot be read or is damaged."""
        index = self.schema.get_field_index(name)
        if index < 0:
            raise ValueError(f"no column {name!r}")
        start, stop = _span(self.metadata.row_group(group).column(index))
        if not 0 <= start <= stop <= self.size:
            raise ValueError("its footer points outside of it")
        data = _range(self.source, self.path, start, stop)
        if self.sums is not None and zlib.crc32(data) != self.sums[group * self.metadata.num_columns + index]:
            raise ValueError("checksum mismatch")
        try:
            source = pa.PythonFile(_Window(data, start, self.size), mode="r")
            # By position: Parquet's paths would take "loss" for "loss.aux" too.
            table = pq.ParquetFile(source, metadata=self.metadata).reader.read_row_group(
                group, column_indices=[index], use_threads=False)
        except (pa.ArrowException, MemoryError) as error:
            raise ValueError(f"it cannot be decoded ({error})") from error
        if table.num_rows != self.group_rows(group):
            raise ValueError("it has another number of rows than its footer says")
        return table.column(0)

    def table(self) -> pa.Table:
        """All rows. Raises OSError or ValueError where any of them is damaged."""
        groups = range(self.metadata.num_row_groups)
        columns = [pa.chunked_array([piece for group in groups for piece in self.chunk(name, group).chunks], kind)
                   for name, kind in zip(self.schema.names, self.schema.types, strict=True)]
        return pa.table(columns, schema=self.schema)


class _Window(io.RawIOBase):
    """A file of which only the bytes that were verified can be read."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        self._data, self._start, self._size, self._at = data, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        begin = self._at - self._start
        if begin < 0 or size < 0 or begin + size > len(self._data):
            raise OSError("a read outside of the column")
        self._at += size
        return self._data[begin:begin + size]


def _footer(data: bytes, source: Source, path: str, size: int) -> tuple[bytes, bool]:
    """The footer with its length and magic, and whether it has a checksum, which then matches.

    `data` is the end of the file; more is read where the footer is longer.
    """
    if data[-4:] != b"PAR1" or size < 12:
        raise ValueError("it does not end like a Parquet file: cut short, or no such file")
    length = 8 + int.from_bytes(data[-8:-4], "little")
    if length > size:
        raise ValueError("the length of its footer is damaged")
    if length + END.size > len(data):
        data = _range(source, path, max(0, size - length - END.size), size)
    footer, before = data[-length:], data[:-length]
    if len(before) < END.size or before[-4:] != MAGIC:
        return footer, False
    if zlib.crc32(footer) != END.unpack(before[-END.size:])[0]:
        raise ValueError("its footer does not match its checksum")
    return footer, True


def _sums(data: bytes, source: Source, path: str, size: int, footer: int, metadata: pq.FileMetaData
          ) -> NDArray[np.uint32]:
    """The checksums of the column chunks; `footer` is the length of what follows the block."""
    count = metadata.num_row_groups * metadata.num_columns
    stop = size - footer - END.size
    start = stop - 4 * count
    if start < 0:
        raise ValueError("it has fewer checksums than columns")
    begin = size - len(data)
    found = data[start - begin:stop - begin] if start >= begin else _range(source, path, start, stop)
    return np.frombuffer(found, "<u4")


def _range(source: Source, path: str, start: int, stop: int) -> bytes:
    data = source.read(path, start, stop)
    if len(data) != stop - start:
        raise OSError("it has become shorter")
    return data


def _chunks(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Where each column chunk begins and ends, row group by row group."""
    return [_span(metadata.row_group(group).column(column))
            for group in range(metadata.num_row_groups) for column in range(metadata.num_columns)]


def _span(chunk: Any) -> tuple[int, int]:
    start = int(chunk.data_page_offset)
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, int(chunk.dictionary_page_offset))
    return start, start + int(chunk.total_compressed_size)
