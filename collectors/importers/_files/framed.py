"""Logs in the framing of LevelDB's write-ahead log, with a plain CRC-32: W&B's `.wandb` and SwanLab's `.swanlab`.

https://github.com/google/leveldb/blob/main/doc/log_format.md: blocks of 32 KiB; a piece is its CRC-32 (over type and
payload), length (u16), type (whole, first, middle, last) and payload, and fewer than 7 bytes at the end of a block are
padding. Seven bytes of magic precede the first piece, inside the first block.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK, HEAD = 32_768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MOST_RECORD = 64 << 20
"""Longer records are passed over."""
_HEAD = struct.Struct("<IHB")
_KINDS = re.compile(rb"[\x01-\x04]")
_CRC = {kind: zlib.crc32(bytes([kind])) for kind in (WHOLE, FIRST, MIDDLE, LAST)}


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record."""

    message: str


def records(file: BinaryIO, at: int, size: int) -> Iterator[tuple[bytes | Damage, int]]:
    """The records from `at` to `size` bytes of the file, or what is damaged, each with the place behind it.

    A damaged piece costs its record where its length leads to the next piece, else the rest of its block. A record
    that is not whole yet ends them. Memory: a block and a record. Raises OSError.

    Args:
        file: open for reading.
        at: where a record begins; `HEAD` at first.
        size: of the file, in bytes.
    """
    parts: list[bytes] = []
    held, lost = 0, False
    while at < size:
        begin = at - at % BLOCK
        file.seek(begin)
        block = file.read(min(BLOCK, size - begin))
        place = at - begin
        while len(block) - place >= HEAD:
            kind, end = _piece(block, place)
            if not kind:
                found = _next(block, place + 1) or (end if len(block) < BLOCK else BLOCK)
                if not found:
                    return
                wrong = f"{found - place:,} bytes at byte {begin + place:,} do not match their checksum"
                yield Damage(wrong), begin + found
                parts, lost, place = [], True, found
                continue
            if kind in (MIDDLE, LAST) and not parts:
                # The rest of a record whose beginning was damaged.
                if not lost:
                    yield Damage(f"the record before byte {begin + end:,} has no beginning"), begin + end
                lost, place = True, end
                continue
            if kind in (WHOLE, FIRST):
                if parts:
                    yield Damage(f"the record before byte {begin + place:,} has no end"), begin + place
                parts, held = [], 0
            parts.append(block[place + HEAD : end])
            held, place = held + end - place - HEAD, end
            if held > MOST_RECORD:
                yield Damage(f"the record before byte {begin + place:,} is longer than any should be"), begin + place
                parts, lost = [], True
            elif kind in (WHOLE, LAST):
                yield b"".join(parts), begin + place
                parts, lost = [], False
        if len(block) < BLOCK:
            return
        at = begin + BLOCK


def _piece(block: bytes, place: int) -> tuple[int, int]:
    """Type of the piece at a place, 0 if it is damaged, and where it ends; 0 if not in this block."""
    crc, length, kind = _HEAD.unpack_from(block, place)
    end = place + HEAD + length
    if kind not in _CRC or end > len(block):
        return 0, 0
    return (kind if zlib.crc32(memoryview(block)[place + HEAD : end], _CRC[kind]) == crc else 0), end


def _next(block: bytes, place: int) -> int:
    """Where the next whole piece begins; 0 if there is none in this block."""
    kinds = _KINDS.finditer(block, place + HEAD - 1)
    return next((at for found in kinds if _piece(block, at := found.start() - HEAD + 1)[0]), 0)
