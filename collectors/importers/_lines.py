"""Whole lines of a text file that may still grow, from a byte offset on, in bounded memory.

A progress bar's carriage return ends a line as a newline does; colour codes and NUL bytes (which a crash leaves on
some file systems) are taken out; UTF-16, which PowerShell's `>` writes, is read as such. A last line without its end
waits for the next look. Whether a file was replaced since the last look is for `session` to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from collectors.importers.importer import Replaced

BLOCK_BYTES = 4 << 20
MOST_LINE_BYTES = 1 << 20
"""A longer line is left out and said: no training log has one, and every pattern is tried on all of a line."""

_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[@-Z\\-_])")
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(slots=True)
class Block:
    """Lines that lie one behind the other, without their ends."""

    lines: list[bytes]
    place: dict[str, Any]
    """Where the file is read on: JSON, for `blocks`."""
    left_out: list[str] = field(default_factory=list)
    """What is not among the lines, one sentence each."""


def blocks(path: Path, place: dict[str, Any]) -> Iterator[Block]:
    """The lines behind `place`.

    Args:
        path: the file.
        place: of the last block of the last reading; {} to begin.

    Raises:
        Replaced: the file is shorter than what was read of it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        place = dict(place) or {"at": 0}
        if file.seek(0, 2) < place["at"]:
            raise Replaced(f"{path.name} is shorter than what was read of it")
        file.seek(0)
        encoding = _UTF16.get(file.read(2), "")
        file.seek(place["at"])
        yield from _read(file, place, encoding)


def clean(text: bytes) -> bytes:
    """Without colour codes and NUL bytes, every line end a newline."""
    if b"\x1b" in text:
        text = _ANSI.sub(b"", text)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.replace(b"\0", b"") if b"\0" in text else text


def _read(file: BinaryIO, place: dict[str, Any], encoding: str) -> Iterator[Block]:
    pending = b""
    while data := file.read(BLOCK_BYTES):
        pending += data
        cut = _end_of_last_line(pending, encoding)
        if not cut and len(pending) > MOST_LINE_BYTES:
            # Of UTF-16 both bytes of a character go, so that the next one begins where it does.
            gone = len(pending) - len(pending) % 2 if encoding else len(pending)
            place["skipped"] = place.get("skipped", 0) + gone
            place["at"] += gone
            pending = pending[gone:]
        elif cut:
            text, pending = pending[:cut], pending[cut:]
            begin, place["at"] = place["at"], place["at"] + cut
            if encoding:
                text = text.decode(encoding, "replace").encode()
            lines = clean(text).split(b"\n")
            said = _leave_out_long(lines, begin, place)
            if begin == 0:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            yield Block(lines, dict(place), said)


def _leave_out_long(lines: list[bytes], begin: int, place: dict[str, Any]) -> list[str]:
    """Take lines that are too long out of the list, and say so."""
    said = []
    if skipped := place.pop("skipped", 0):
        said.append(_too_long(skipped + len(lines[0]), begin - skipped))
        lines[0] = b""
    if len(lines) > 0 and max(map(len, lines)) > MOST_LINE_BYTES:
        for i, line in enumerate(lines):
            if len(line) > MOST_LINE_BYTES:
                said.append(_too_long(len(line), begin))
                lines[i] = b""
    return said


def _too_long(length: int, at: int) -> str:
    return (f"A line of {length / 1e6:,.0f} MB near byte {at:,} is left out: lines of at most "
            f"{MOST_LINE_BYTES / 1e6:,.0f} MB are read")


def _end_of_last_line(data: bytes, encoding: str) -> int:
    """How many bytes whole lines have."""
    if not encoding:
        return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    text = data[: len(data) // 2 * 2].decode(encoding, "replace")
    cut = max(text.rfind("\n"), text.rfind("\r")) + 1
    return len(text[:cut].encode(encoding, "surrogatepass"))

