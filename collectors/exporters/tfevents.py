"""A run as a TensorBoard event file: scalars in double precision, as TensorFlow 2 writes tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from collectors.exporters.lines import Line
from collectors.importers._files.crc32c import crc32c, masked

BATCH = 4_096
"""Records whose checksums are taken at once."""
DOUBLE, SCALAR_CLASS = 2, 1
"""tensorflow.DataType.DT_DOUBLE and tensorflow.DataClass.DATA_CLASS_SCALAR."""


def write(folder: Path, lines: Iterable[Line], created: float) -> int:
    """Write an event file into a folder; how many values it holds. A value without a time gets `created`.

    Raises OSError.
    """
    folder.mkdir()
    count = 0
    with (folder / f"events.out.tfevents.{int(created):010d}.trainvitals").open("wb") as file:
        head = b"\x09" + struct.pack("<d", created) + _field(3, b"brain.Event:2")
        file.write(_framed([head]))
        for line in lines:
            for begin in range(0, len(line.steps), BATCH):
                file.write(_framed(list(_events(line, begin, created))))
            count += len(line.steps)
    return count


def _events(line: Line, begin: int, created: float) -> Iterator[bytes]:
    """The events of a part of a line, as Event messages (tensorflow/core/util/event.proto)."""
    plugin = _field(1, _field(1, b"scalars"))
    about = _field(3, f"{line.meaning} [{line.unit}]".encode())
    metadata = _field(9, plugin + about + bytes([4 << 3, SCALAR_CLASS])) if begin == 0 else _field(9, plugin)
    tag = _field(1, line.path.encode(errors="replace"))
    part = slice(begin, begin + BATCH)
    times = np.where(np.isnan(line.times[part]), created, line.times[part])
    for step, time, value in zip(line.steps[part].tolist(), times.tolist(), line.values[part], strict=True):
        tensor = _field(8, bytes([1 << 3, DOUBLE]) + _field(2, b"") + _field(4, value.tobytes()))
        summary = _field(5, _field(1, tag + tensor + metadata))
        yield b"\x09" + struct.pack("<d", time) + (b"\x10" + _varint(step) if step else b"") + summary


def _framed(records: list[bytes]) -> bytes:
    """Records as TFRecords."""
    sizes = np.array([len(record) for record in records], np.int64)
    heads = sizes.astype("<u8").tobytes()
    raw = np.frombuffer(heads + b"".join(records), np.uint8)
    n = len(records)
    at = np.concatenate([np.arange(n) * 8, 8 * n + np.cumsum(sizes) - sizes])
    sums = masked(crc32c(raw, at, np.concatenate([np.full(n, 8), sizes]))).astype("<u4").tobytes()
    return b"".join(part for i, record in enumerate(records)
                    for part in (heads[8 * i : 8 * i + 8], sums[4 * i : 4 * i + 4], record, sums[4 * (n + i) :
                                                                                              4 * (n + i) + 4]))


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
