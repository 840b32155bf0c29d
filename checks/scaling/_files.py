"""Files that a command names, read only where that has an end: regular files, of a bounded size."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainvitals import untrusted
from trainvitals.errors import UsageError

MOST_BYTES = 256 * 2**20
"""A million rows of a tracker's export take some 50 MB."""


def read_file(path: str | Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file, unpacked where it is gzip.

    Raises:
        UsageError: it is missing, no regular file (a pipe, a device), too large, or damaged.
    """
    try:
        # A pipe without a writer would hold open() up.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path} is no regular file, and may have no end. Save its content as a file.")
            content = file.read(most_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"There is no file {path}. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read ({reason}). Give the path of a file.") from error
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(content, path, most_bytes)
    if len(content) > most_bytes:
        raise UsageError(f"{path} has more than {most_bytes / 2**20:,.0f} MB. Give a table of fewer rows.")
    return content


def _unpacked(content: bytes, path: str | Path, most_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise UsageError(f"{path} is damaged: {error}. Write it again.") from error


def parse_json(text: str, where: str, remedy: str) -> Any:
    """JSON from elsewhere; UsageError where it is none, or nested too deeply to be what is asked for.

    NaN and enormous numbers stay: the reader of a column says which one it is.
    """
    try:
        return untrusted.parse_json(text, MOST_BYTES, finite=False)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON that can be read ({clip(str(error), 80)}). {remedy}") from error


def clip(text: str, most: int = 40) -> str:
    """The text on one line, its middle left out where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 10]}...{line[-7:]}"


def listed(items: Iterable[str], most: int = 3, *, between: str = ", ") -> str:
    """The first few of a list of any length, and how many more there are."""
    every = list(items)
    more = f"{between}and {len(every) - most:,} more" if len(every) > most else ""
    return between.join(every[:most]) + more
