"""The bytes of one segment: an Arrow IPC stream whose record batches each carry a CRC-32.

Arrow IPC has no checksum of its own, and a zero-filled tail, which a file system can leave after a power loss, reads
back as plausible zeros. The schema's metadata makes every segment, and the Parquet file that it becomes,
self-describing: which writer and attempt it belongs to, its fields, and the labels of their axes.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa

from trainvitals.catalogue import Field, Merge
from trainvitals.untrusted import MOST_RANKS, MOST_STEP, number, parse_json, shown, whole

MERGES = get_args(Merge)
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
          "bool")
MOST_HEADER_BYTES = 64 << 20
"""The ids of a vocabulary of half a million tokens, as labels, take a tenth of that."""
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
        """The header in a schema's metadata; keys that only newer versions know are passed over.

        Raises ValueError where there is none, where it is damaged, or where the schema lacks columns that it names.
        """
        raw = parse_json((schema.metadata or {}).get(METADATA_KEY, b"null"), MOST_HEADER_BYTES, finite=False)
        if not isinstance(raw, dict):
            raise ValueError("no trainvitals metadata in the schema")
        header = cls(
            frame=_text(raw, "frame"), writer=_text(raw, "writer"),
            rank=whole(raw.get("rank"), "rank", 0, MOST_RANKS),
            world_size=whole(raw.get("world_size"), "world_size", 1, MOST_RANKS),
            start_step=whole(raw.get("start_step"), "start_step", -MOST_STEP, MOST_STEP),
            started=number(raw.get("started"), "started"),
            sequence=whole(raw.get("sequence"), "sequence", 0, MOST_STEP),
            fields=tuple(_field(item) for item in _items(raw, "fields")),
            labels={axis: tuple(_label(name) for name in names) for axis, names in _labels(raw).items()},
            attempt=whole(raw.get("attempt", 0), "attempt", 0, MOST_STEP),
            rewind=whole(raw.get("rewind", 0), "rewind", 0, MOST_STEP), launch=str(raw.get("launch", "")))
        kinds = _kinds(header.fields, tuple(header.labels.items()), len(schema.names))
        found = dict(zip(schema.names, schema.types, strict=True))
        wrong = [name for name, kind in kinds.items() if not _same(found.get(name), kind)]
        if wrong or len(found) != len(schema.names):
            raise ValueError(f"the schema does not hold what its header says{f': {shown(wrong[0])}' if wrong else ''}")
        return header

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


@lru_cache(maxsize=64)  # a run has thousands of segments, and a few frames
def _kinds(fields: tuple[Field, ...], labels: tuple[tuple[str, tuple[str, ...]], ...], most: int
           ) -> dict[str, pa.DataType]:
    """Name and type of every column that fields need. Raises ValueError where that is more than `most` or nonsense."""
    header = Header("-", "-", 0, 1, 0, 0.0, 0, fields, dict(labels))
    kinds = {"step": pa.int64(), "time": pa.float64()}
    for item in fields:
        missing = [axis for axis in item.axes if not header.labels.get(axis)]
        if missing:
            raise ValueError(f"field {shown(item.name)} has no labels for the axis {shown(missing[0])}")
        if item.axes and math.prod(header.shape(item)[:-1]) > most:
            raise ValueError(f"field {shown(item.name)} has more columns than the schema")
        kind = pa.list_(pa.from_numpy_dtype(item.dtype), header.shape(item)[-1]) if item.axes else pa.float64()
        kinds |= dict.fromkeys(header.columns(item), kind)
    return kinds


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {shown(value)}, not a name")
    return value


def _items(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is {shown(value)}, not a list")
    return value


def _labels(raw: Mapping[str, Any]) -> dict[str, list[Any]]:
    value = raw.get("labels", {})
    if not isinstance(value, dict) or not all(isinstance(names, list) for names in value.values()):
        raise ValueError(f"labels is {shown(value)}, not lists by name")
    return value


def _label(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a label is {shown(value)}, not a text")
    return value


def _field(raw: Any) -> Field:
    if not isinstance(raw, dict):
        raise ValueError(f"a field is {shown(raw)}")
    merge, dtype = raw.get("merge"), raw.get("dtype", "float64")
    if merge not in MERGES:
        raise ValueError(f"field {shown(raw.get('name'))} merges by {shown(merge)}, which this version does not know")
    if dtype not in DTYPES:
        raise ValueError(f"field {shown(raw.get('name'))} is of type {shown(dtype)}, which this version does not know")
    axes = tuple(_label(axis) for axis in _items(raw, "axes"))
    return Field(_text(raw, "name"), _text(raw, "frame"), str(raw.get("unit", "")), cast(Merge, merge),
                 str(raw.get("meaning", "")), axes, dtype)


def _same(found: pa.DataType | None, kind: pa.DataType) -> bool:
    """Whether two types are the same but for the name of a list's elements."""
    if found is None or not pa.types.is_fixed_size_list(kind):
        return bool(found == kind)
    return bool(pa.types.is_fixed_size_list(found) and found.list_size == kind.list_size
                and found.value_type == kind.value_type)
