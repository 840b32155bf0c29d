"""The bytes of one segment: an Arrow IPC stream whose record batches each carry a CRC-32.

Arrow IPC has no checksum of its own, and a zero-filled tail, which a file system can leave after a power loss, reads
back as plausible zeros. The schema's metadata makes every segment, and the Parquet file that it becomes,
self-describing: which writer and attempt it belongs to, its fields, and the labels of their axes.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from trainvitals.catalogue import Field

METADATA_KEY = b"trainvitals"
CRC_KEY = b"crc32"
RESERVED = frozenset({"step", "time"})
"""Columns that every frame has before its own."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself."""

    frame: str
    writer: str
    """Unique id of the writing process and its attempt: host-rank-pid-start."""
    rank: int
    world_size: int
    start_step: int
    """The last step done before this attempt: its rows are at later steps."""
    started: float
    """Unix time at which the writer began, seconds."""
    sequence: int
    fields: tuple[Field, ...]
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Axis name -> labels."""
    attempt: int = 0
    """Number of the attempt, rising from 1 (`trainvitals/store/claims.py`); 0 in folders of earlier versions."""
    rewind: int = 0
    """How often the process had gone back to an earlier step."""
    launch: str = ""
    """What all ranks of one job launch share; "" where nothing tells."""

    def shape(self, item: Field) -> tuple[int, ...]:
        """Shape of one row's value of a field."""
        return tuple(len(self.labels[axis]) for axis in item.axes)

    def columns(self, item: Field) -> list[str]:
        """Names of the field's columns: one per combination of all axes but the last."""
        count = int(np.prod(self.shape(item)[:-1], dtype=int))
        return [f"{item.name}#{i}" for i in range(count)] if item.axes else [item.name]

    def schema(self) -> pa.Schema:
        """The Arrow schema: step, time, then the columns of every field."""
        columns = [pa.field("step", pa.int64()), pa.field("time", pa.float64())]
        for item in self.fields:
            kind = pa.list_(pa.from_numpy_dtype(item.dtype), self.shape(item)[-1]) if item.axes else pa.float64()
            columns += [pa.field(name, kind, nullable=False) for name in self.columns(item)]
        return pa.schema(columns, metadata={METADATA_KEY: json.dumps(asdict(self)).encode()})

    @classmethod
    def of(cls, schema: pa.Schema) -> Header:
        """The header in a schema's metadata. Raises ValueError where there is none."""
        raw: dict[str, Any] = json.loads((schema.metadata or {}).get(METADATA_KEY, b"null")) or {}
        if not raw:
            raise ValueError("no trainvitals metadata in the schema")
        fields = tuple(Field(**f | {"axes": tuple(f["axes"])}) for f in raw.pop("fields"))
        labels = {axis: tuple(names) for axis, names in raw.pop("labels").items()}
        return cls(**raw, fields=fields, labels=labels)

    def next_sequence(self) -> Header:
        """The header of the segment that follows."""
        return replace(self, sequence=self.sequence + 1)


def encode(schema: pa.Schema, batch: pa.RecordBatch, *, with_schema: bool) -> bytes:
    """One record batch as stream bytes, preceded by the schema if it opens the segment."""
    sink = pa.BufferOutputStream()
    stream = pa.ipc.new_stream(sink, schema)
    stream.write_batch(batch, custom_metadata={CRC_KEY: str(crc_of(batch)).encode()})
    opening = 0 if with_schema else schema.serialize().size
    return bytes(sink.getvalue()[opening:])


def crc_of(batch: pa.RecordBatch) -> int:
    """CRC-32 of a batch's schema, its rows, and the Arrow metadata that describes them."""
    return zlib.crc32(batch.serialize(), zlib.crc32(batch.schema.serialize()))


@dataclass(slots=True)
class Tail:
    """The readable part of a segment so far; `feed` it the new bytes of each poll."""

    schema: pa.Schema | None = None
    batches: list[pa.RecordBatch] = field(default_factory=list)
    """Whole rows in order; neighbours of similar length are joined, so the list stays short."""
    offset: int = 0
    """Bytes understood; everything before is final."""
    torn_bytes: int = 0
    """Bytes behind `offset` that do not form a whole record (yet)."""
    damaged_batches: int = 0
    """Whole records whose CRC did not match: skipped."""

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def feed(self, data: bytes) -> None:
        """Read every whole batch from bytes that start at `offset`; what is torn is counted and left."""
        opening = self.schema.serialize().to_pybytes() if self.schema is not None else b""
        source, start = pa.BufferReader(opening + data), self.offset
        try:
            stream = pa.ipc.open_stream(source)
            if self.schema is None:
                Header.of(stream.schema)
                self.schema, self.offset = stream.schema, source.tell()
            while True:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                if metadata is not None and metadata.get(CRC_KEY) == str(crc_of(batch)).encode():
                    self._add(batch)
                else:
                    self.damaged_batches += 1
                self.offset = start + source.tell() - len(opening)
        except (StopIteration, pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError):
            # Whatever a killed writer or a broken disk left there: the rest is the torn tail.
            self.torn_bytes = len(data) - (self.offset - start)

    def _add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        while len(self.batches) > 1 and self.batches[-2].num_rows <= 2 * self.batches[-1].num_rows:
            self.batches[-2:] = [pa.concat_batches(self.batches[-2:])]
