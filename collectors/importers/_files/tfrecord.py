"""TFRecord files: length (u64), its masked CRC-32C, the record, its masked CRC-32C; all little-endian.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. The length has a checksum of its own,
so that a damaged record costs one record, and a damaged length what lies before the next length that fits its
checksum; TensorFlow's readers end there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from collectors.importers._files.crc32c import crc32c, masked

HEAD, TAIL = 12, 4
WINDOW = 4 << 20
"""Bytes that are read and checked at once."""
MOST_RECORD = 64 << 20
"""Records with more bytes are passed over: a graph or a video, not a number."""
_LOOK = 1 << 18
"""Places at once where a length is looked for behind a damaged one."""
_SIZE = struct.Struct("<Q")


@dataclass(slots=True)
class Batch:
    """Neighbouring records."""

    data: bytes
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Where whole records begin and end in `data`."""
    end: int = 0
    """Place in the file up to which everything was read, or given up."""
    damage: list[str] = field(default_factory=list)
    """What could not be read, one sentence each."""


def is_event_file(head: bytes) -> bool:
    """Whether a file begins with a TFRecord that holds a TensorFlow event (or the beginning of a long one)."""
    if len(head) < HEAD + 1 or not _lengths_fit(np.frombuffer(head, np.uint8), np.zeros(1, np.int64))[0]:
        return False
    # wall_time, step, file_version and what else an Event can begin with (tensorflow/core/util/event.proto).
    return head[HEAD] in (0x09, 0x10, 0x1A, 0x2A)


def batches(file: BinaryIO, at: int, size: int) -> Iterator[Batch]:
    """The records from `at` to `size` bytes of the file; a record that is not whole yet ends them.

    Memory: a window, or the longest record. Raises OSError.
    """
    while size - at >= HEAD:
        file.seek(at)
        data = file.read(min(WINDOW, size - at))
        if len(data) < HEAD:
            return
        length = _SIZE.unpack_from(data)[0]
        trusted = bool(_lengths_fit(np.frombuffer(data, np.uint8), np.zeros(1, np.int64))[0])
        whole = HEAD + length + TAIL
        if trusted and whole > size - at:
            return
        if trusted and length > MOST_RECORD:
            at += whole
            yield Batch(b"", end=at, damage=[f"a record of {length:,} bytes before byte {at:,} is passed over"])
            continue
        if trusted and whole > len(data):
            data += file.read(whole - len(data))
        batch = _checked(data, at) if trusted else _behind(data, at)
        at = batch.end
        yield batch


def _checked(data: bytes, base: int) -> Batch:
    """The records of a window that begins with one."""
    starts, sizes, at = [], [], 0
    while at + HEAD <= len(data):
        length = _SIZE.unpack_from(data, at)[0]
        if length > len(data) - at - HEAD - TAIL:
            break
        starts.append(at)
        sizes.append(length)
        at += HEAD + length + TAIL
    place, length = np.array(starts, np.int64), np.array(sizes, np.int64)
    raw = np.frombuffer(data, np.uint8)
    fit = _lengths_fit(raw, place)
    count = len(fit) if fit.all() else int(fit.argmin())
    place, length = place[:count], length[:count]
    body = place + HEAD
    good = masked(crc32c(raw, body, length)) == _words(raw, body + length)
    ends = body + length
    spans = list(zip(body[good].tolist(), ends[good].tolist(), strict=True))
    damage = [f"the record at byte {base + int(begin):,} does not match its checksum" for begin in place[~good]]
    return Batch(data, spans, base + int(ends[-1]) + TAIL, damage)


def _behind(data: bytes, base: int) -> Batch:
    """Pass over what lies before the next length that fits its checksum, or the window."""
    raw = np.frombuffer(data, np.uint8)
    last = len(data) - HEAD + 1
    found = max(last, 1)
    for begin in range(1, last, _LOOK):
        places = _likely(raw, begin, min(begin + _LOOK, last))
        if (fit := _lengths_fit(raw, places)).any():
            found = int(places[fit.argmax()])
            break
    return Batch(b"", end=base + found, damage=[f"{found:,} bytes at byte {base:,} are no records"])


def _likely(raw: NDArray[np.uint8], begin: int, end: int) -> NDArray[np.int64]:
    """Places from `begin` to `end` where a length could be: more than zero, and less than a terabyte."""
    small = raw[begin : end + 7] != 0
    low = np.asarray(np.lib.stride_tricks.sliding_window_view(small[:-3], 5).any(axis=1))
    high = np.asarray(np.lib.stride_tricks.sliding_window_view(small[5:], 3).any(axis=1))
    return begin + np.flatnonzero(low & ~high)


def _lengths_fit(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the lengths at these places have the checksum that follows them."""
    return np.asarray(masked(crc32c(raw, places, np.full(len(places), 8, np.int64))) == _words(raw, places + 8))


def _words(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint32]:
    four = raw[places[:, None] + np.arange(4)]
    return np.ascontiguousarray(four).view("<u4")[:, 0]
