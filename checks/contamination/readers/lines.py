"""Lines of a byte stream in big blocks, and lines too long to be held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from checks.contamination.readers.stored import byte_at, stored_blocks
from checks.contamination.records import Tally

TAIL_BLOCK = 1 << 16
"""Bytes per read of a line that began in this range and ends behind it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, the last one perhaps without its line break."""

    start: int
    """Offset of the first byte in the (decompressed) shard."""
    data: bytes


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line above the limit; `parts` has to be read to its end before the next block is asked for."""

    start: int
    parts: Iterator[bytes]


def range_blocks(shard: str, tally: Tally, start: int, stop: int) -> tuple[int, Iterator[bytes]]:
    """The lines that begin in [start, stop) of a plain shard, and where the first of them begins.

    The range itself is what is hashed: the tail of a line that began before it is read and passed over, the tail of
    its own last line is read from behind it.
    """
    blocks = stored_blocks(shard, tally, start, stop)
    first, position = b"", start
    if start and byte_at(shard, start - 1) != b"\n":
        for block in blocks:
            cut = block.find(b"\n") + 1
            position += cut or len(block)
            if cut:
                first = block[cut:]
                break

    def lines() -> Iterator[bytes]:
        last = first
        if first:
            yield first
        for block in blocks:
            last = block
            yield block
        if last and not last.endswith(b"\n"):
            yield from _line_tail(shard, stop)

    return position, lines()


def _line_tail(shard: str, start: int) -> Iterator[bytes]:
    for block in stored_blocks(shard, Tally(), start, size=TAIL_BLOCK):
        cut = block.find(b"\n") + 1
        yield block[: cut or len(block)]
        if cut:
            return


def line_blocks(blocks: Iterator[bytes], start: int, limit: int) -> Iterator[Block | LongLine]:
    """Cut a stream at line ends; what is held in memory stays below `limit` plus a block."""
    held: list[bytes] = []
    size = 0
    left: list[bytes] = []  # what the blocks of a long line leave behind it

    def long_line(parts: list[bytes]) -> Iterator[bytes]:
        while parts:
            yield parts.pop(0)
        for more in blocks:
            end = more.find(b"\n") + 1
            yield more[: end or len(more)]
            if end:
                left.append(more[end:])
                return

    for block in blocks:
        while block:
            cut = block.rfind(b"\n") + 1
            if not cut:
                held.append(block)
                size += len(block)
                block = b""
                if size > limit:
                    length = _Counted(long_line(held))
                    yield LongLine(start, iter(length))
                    start += length.bytes
                    held, size = [], 0
                    block = left.pop() if left else b""
                continue
            data = b"".join([*held, block[:cut]])
            yield Block(start, data)
            start += len(data)
            held, size, block = [block[cut:]], len(block) - cut, b""
    data = b"".join(held)
    if data:
        yield Block(start, data)


class _Counted:
    """Counts the bytes that pass through."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.bytes = parts, 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.bytes += len(part)
            yield part


_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_OPEN_ESCAPE = re.compile(rb"(?:\\+(?:u[0-9a-fA-F]{0,4})?){1,2}\Z")
_PLAIN = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b" ", b"f": b" "}
_LONGEST_ESCAPE = 12


def unescaped(parts: Iterator[bytes]) -> Iterator[bytes]:
    """JSON text with the escapes of its strings undone; an escape may lie across two parts."""
    held = b""
    for part in parts:
        data = held + part
        found = _OPEN_ESCAPE.search(data, max(0, len(data) - 2 * _LONGEST_ESCAPE))
        cut = found.start() if found else len(data)
        yield _ESCAPE.sub(lambda match: _character(match[0]), data[:cut])
        held = data[cut:]
    yield _ESCAPE.sub(lambda match: _character(match[0]), held)


@lru_cache(maxsize=1 << 16)
def _character(escape: bytes) -> bytes:
    escape = escape[1:]
    if escape[:1] != b"u":
        return _PLAIN.get(escape, escape)
    units = bytes.fromhex(escape.replace(b"\\u", b"").replace(b"u", b"").decode("ascii"))
    return units.decode("utf-16-be", "replace").encode()

