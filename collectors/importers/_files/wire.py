"""Protobuf's wire format, read in place and without a schema (https://protobuf.dev/programming-guides/encoding).

A message is walked field by field: nothing is built of a field that nobody asks for, so that a hostile message costs
no more memory than its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MOST_VARINT_BYTES = 10
MOST_FIELDS = 1_000_000
"""Of one message: there is no telemetry in a longer one, and walking it takes time."""
MOST_TEXT = 1 << 20
"""Bytes of a text that are read."""
NAN = float("nan")
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")

Field = tuple[int, int, int]
"""Field number, then where its bytes begin and end; of a varint its value, and -1."""


class NotAMessage(ValueError):
    """Bytes that are no protobuf message."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint at `at`, and where it ends. Raises NotAMessage, IndexError."""
    value = shift = 0
    for end in range(at, at + MOST_VARINT_BYTES):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, end + 1
        shift += 7
    raise NotAMessage("a number has more than 10 bytes")


def fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[at:end], in the order of the bytes. Raises NotAMessage."""
    left = MOST_FIELDS
    try:
        while at < end:
            key = data[at]
            at += 1
            left -= 1
            if not left:
                raise NotAMessage(f"it has more than {MOST_FIELDS:,} fields")
            if key >= 0x80:
                key, at = varint(data, at - 1)
            kind = key & 7
            if kind == 2:
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = varint(data, at - 1)
                start, at = at, at + size
                if at > end:
                    raise NotAMessage("a field is longer than its message")
                yield key >> 3, start, at
            elif kind == 0:
                value, at = varint(data, at)
                if at > end:
                    raise NotAMessage("a number is longer than its message")
                yield key >> 3, value, -1
            elif kind in (1, 5):
                start, at = at, at + (8 if kind == 1 else 4)
                if at > end:
                    raise NotAMessage("a number is longer than its message")
                yield key >> 3, start, at
            else:
                raise NotAMessage(f"a field has wire type {kind}")
    except IndexError:
        raise NotAMessage("it ends within a field") from None


def signed(value: int) -> int:
    """An int32 or int64 from its varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(data: bytes, at: int, end: int) -> str:
    """A string; what is not UTF-8 is replaced. Raises NotAMessage where the field is a number."""
    if end < 0:
        raise NotAMessage("a text is a number")
    return data[at : min(end, at + MOST_TEXT)].decode("utf-8", "replace")


def real(data: bytes, at: int, end: int) -> float:
    """A double or a float; every NaN is the same one, so that none can be `formulas.MISSING`. Raises NotAMessage."""
    if end - at not in (4, 8):
        raise NotAMessage("a number has neither 4 nor 8 bytes")
    value: float = (_DOUBLE if end - at == 8 else _FLOAT).unpack_from(data, at)[0]
    return value if value == value else NAN


def timestamp(data: bytes, at: int, end: int) -> float:
    """Unix seconds of a google.protobuf.Timestamp."""
    seconds = nanos = 0
    for number, value, _ in fields(data, at, end):
        if number == 1:
            seconds = signed(value)
        elif number == 2:
            nanos = value
    return seconds + nanos / 1e9
