"""Tiny writers of binary formats, byte by byte, so that samples need no client and checksums come from elsewhere."""

import struct
import zlib


def crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial (RFC 3720)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


def tfrecord(data: bytes) -> bytes:
    """A record with its length and masked checksums."""
    size = struct.pack("<Q", len(data))
    return size + _masked(size) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282_EAD8) & 0xFFFF_FFFF)


def framed(magic: bytes, records: list[bytes]) -> bytes:
    """A log in LevelDB's framing, CRC-32."""
    out = bytearray(magic)
    for record in records:
        first = True
        while True:
            left = 32_768 - len(out) % 32_768
            if left < 7:
                out += bytes(left)
                continue
            piece, record = record[: left - 7], record[left - 7 :]
            kind = (1 if not record else 2) if first else (4 if not record else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
            if not record:
                break
    return bytes(out)


def varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """A field: a varint, a double, or text, bytes and messages."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def single(number: int, value: float) -> bytes:
    """A field that is a float."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def event(step: int, time: float, *values: bytes) -> bytes:
    """A TensorFlow event with a summary of these values."""
    summary = b"".join(field(1, value) for value in values)
    return field(1, float(time)) + (field(2, step) if step else b"") + field(5, summary)


def scalar(tag: str, value: float) -> bytes:
    """A summary value as SummaryWriter writes it."""
    return field(1, tag) + single(2, value)
