"""The readable part of a segment: whole records whose checksum matches, whatever lies between them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from trainvitals.store.segment import CRC_KEY, Header

MARK = b"\xff\xff\xff\xff"
"""Begins every message of an Arrow stream, at a multiple of 8 bytes."""
MOST_METADATA_BYTES = 16 << 20
MOST_TRIES = 10_000
"""Places at which a record is looked for behind damage, per read."""
_BAD = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError)
"""What pyarrow raises for bytes that a killed writer or a broken disk left."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Damaged bytes between whole records."""

    bytes: int
    after: int | None
    """Last step stored before it; None at the beginning of a segment."""
    before: int
    """First step stored behind it."""


@dataclass(slots=True)
class Tail:
    """The readable part of a segment so far; `feed` it the new bytes of each poll."""

    schema: pa.Schema | None = None
    header: Header | None = None
    batches: list[pa.RecordBatch] = field(default_factory=list)
    """Whole rows in order; neighbours of similar length are joined, so the list stays short."""
    offset: int = 0
    """Bytes understood; everything before is final."""
    torn_bytes: int = 0
    """Bytes behind `offset` that do not form a whole record (yet)."""
    mismatch: bool = False
    """The torn bytes are the whole of a record, but do not match its checksum (yet: a network mount can show a file's
    new length before its bytes)."""
    gaps: list[Gap] = field(default_factory=list)
    _opening: bytes = b""

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def feed(self, data: bytes) -> None:
        """Read every whole batch from bytes that start at `offset`; what is torn is counted and left."""
        if self.schema is None:
            data = self._begin(data)
        if self.schema is None:
            self.torn_bytes = len(data)
            return
        at = self._run(data)
        if at < len(data):
            at = self._scan(data, at)
        self.offset, self.torn_bytes = self.offset + at, len(data) - at

    def _begin(self, data: bytes) -> bytes:
        """Read the schema; the bytes behind it."""
        source = pa.BufferReader(data)
        try:
            schema = pa.ipc.open_stream(source).schema
            self.header = Header.of(schema)
        except _BAD:
            return data
        self.schema, self._opening = schema, schema.serialize().to_pybytes()
        self.offset = source.tell()
        return data[self.offset:]

    def _run(self, data: bytes) -> int:
        """Take in whole records from the start of `data`; the number of bytes that they have."""
        source, at = pa.BufferReader(self._opening + data), 0
        self.mismatch = False
        try:
            stream = pa.ipc.open_stream(source)
            while True:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                if not self._matches(batch, metadata):
                    self.mismatch = True
                    return at
                self._add(batch)
                at = source.tell() - len(self._opening)
        except (StopIteration, *_BAD):
            return at

    def _matches(self, batch: pa.RecordBatch, metadata: pa.KeyValueMetadata | None) -> bool:
        batch.validate()
        crc = zlib.crc32(batch.serialize(), zlib.crc32(self._opening))
        return batch.num_rows > 0 and metadata is not None and metadata.get(CRC_KEY) == str(crc).encode()

    def _scan(self, data: bytes, damaged: int) -> int:
        """Take in the whole records behind one that is damaged or torn; where the last whole one stops."""
        end = damaged
        for at, size in _messages(data, damaged + 8):
            found = self._record(data, at, size) if at >= end else None
            if found is None:
                continue
            batch, stop = found
            if at > end:
                last = self.batches[-1].column("step")[-1].as_py() if self.batches else None
                self.gaps.append(Gap(at - end, last, batch.column("step")[0].as_py()))
                self.mismatch = False
            self._add(batch)
            end = stop
        return end

    def _record(self, data: bytes, at: int, size: int) -> tuple[pa.RecordBatch, int] | None:
        """The rows of the record at `at`, whose prefix and metadata have `size` bytes, and where it stops."""
        try:
            body = pa.ipc.read_message(pa.py_buffer(data)[at:]).body
            stop = at + size + (body.size if body is not None else 0)
            stream = pa.ipc.open_stream(self._opening + data[at:stop])
            batch, metadata = stream.read_next_batch_with_custom_metadata()
            return (batch, stop) if self._matches(batch, metadata) else None
        except (StopIteration, *_BAD):
            return None

    def _add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        while len(self.batches) > 1 and self.batches[-2].num_rows <= 2 * self.batches[-1].num_rows:
            self.batches[-2:] = [pa.concat_batches(self.batches[-2:])]


def _messages(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Where a message may begin from `start` on, and the bytes of its prefix and metadata."""
    start += -start % 8
    if start >= len(data):
        return
    words = np.frombuffer(data, "<i4", (len(data) - start) // 8 * 2, start).reshape(-1, 2)
    likely = (words[:, 0] == -1) & (words[:, 1] > 0) & (words[:, 1] % 8 == 0) & (words[:, 1] < MOST_METADATA_BYTES)
    for index in np.flatnonzero(likely)[:MOST_TRIES]:
        at = start + 8 * int(index)
        size = 8 + struct.unpack_from("<i", data, at + 4)[0]
        if at + size <= len(data):
            yield at, size
