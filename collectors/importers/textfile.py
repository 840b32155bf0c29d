"""Whole lines of a text file that may still grow, in bounded memory and in whatever encoding it begins with."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainvitals.errors import UsageError

CHUNK_BYTES = 4 << 20
MOST_LINE_BYTES = 1 << 20
"""A longer line is no row of a log: it is passed over, counted, and never held."""
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Lines:
    """Some whole lines, without their ends."""

    lines: list[str]
    end: int
    """Offset behind them, bytes."""
    too_long: int = 0
    """Lines before them that were passed over."""
    loose: bool = False
    """It is what stands behind the last line end: a line that is being written, or was cut, or has no end."""


def encoding_of(head: bytes) -> tuple[str, int]:
    """Encoding of a text by its first bytes, and how many of those are a mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return "utf-8", 0
    except UnicodeDecodeError:
        return "cp1252", 0


def text_of(head: bytes) -> str:
    """The beginning of a file as text; "" where it is none."""
    name, mark = encoding_of(head)
    text = head[mark:].decode(name, "replace")
    strange = sum(c < " " and c not in "\t\r\n\f\x1b" for c in text[:4096])
    return "" if strange > len(text[:4096]) // 50 else text


def whole_lines(path: Path, offset: int, encoding: str, *, open_end: bool = False) -> Iterator[Lines]:
    """Lines that end, from an offset on.

    With `open_end`, what stands behind the last line end comes last, as a batch whose `end` lies before it, so that the
    next look reads it again.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            file.seek(offset)
            yield from _lines(iter(lambda: file.read(CHUNK_BYTES), b""), offset, encoding, open_end)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Give a file that you may read.") from error


def _lines(chunks: Iterator[bytes], offset: int, encoding: str, open_end: bool) -> Iterator[Lines]:
    end_mark = "\n".encode(encoding)
    width = len(end_mark)
    rest, skipping, too_long = b"", False, 0
    for chunk in chunks:
        data = rest + chunk
        cut = _last(data, end_mark, width)
        if skipping:
            first = _first(data, end_mark, width)
            if first < 0:
                keep = len(data) % width
                offset, rest = offset + len(data) - keep, data[len(data) - keep :]
                continue
            offset, data, skipping = offset + first, data[first:], False
            cut = _last(data, end_mark, width)
        if cut:
            offset += cut
            yield Lines(data[:cut].decode(encoding, "replace").split("\n")[:-1], offset, too_long)
            too_long = 0
        rest = data[cut:]
        if len(rest) > MOST_LINE_BYTES:
            skipping, too_long = True, too_long + 1
            keep = len(rest) % width
            offset, rest = offset + len(rest) - keep, rest[len(rest) - keep :]
    loose = [rest.decode(encoding, "replace")] if open_end and rest and not skipping else []
    if loose or too_long:
        yield Lines(loose, offset, too_long, bool(loose))


def _last(data: bytes, mark: bytes, width: int) -> int:
    """Where the last line ends; 0 where none does."""
    at = data.rfind(mark)
    while at >= 0 and at % width:
        at = data.rfind(mark, 0, at + width - 1)
    return at + width if at >= 0 else 0


def _first(data: bytes, mark: bytes, width: int) -> int:
    """Behind the first line end; -1 where there is none."""
    at = data.find(mark)
    while at >= 0 and at % width:
        at = data.find(mark, at + 1)
    return at + width if at >= 0 else -1
