"""Folders of small growing text files: which there are, and the whole lines behind a place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MOST_FILES = 4_096
BLOCK_BYTES = 16 << 10
"""Of each file that are read at once: thousands of them are open side by side."""
MOST_LINE_BYTES = 4_096


def files_below(folder: Path, most: int = MOST_FILES) -> tuple[dict[str, Path], bool]:
    """Files below a folder by their path in it, links left out; whether there are more than `most`."""
    found: dict[str, Path] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                if len(found) >= most:
                    return found, True
                found[path.relative_to(folder).as_posix()] = path
    return found, False


def lines_of(file: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines behind `start`, and where each ends; b"" in place of a line that is too long."""
    at, rest, skipping = start, b"", False
    while True:
        try:
            with file.open("rb") as opened:
                opened.seek(at + len(rest))
                fresh = opened.read(BLOCK_BYTES)
        except OSError:
            return
        if not fresh:
            return
        *lines, rest = (rest + fresh).split(b"\n")
        for line in lines:
            at += len(line) + 1
            if skipping or line.strip():
                yield (b"" if skipping else line), at
            skipping = False
        if len(rest) > MOST_LINE_BYTES:
            at, rest, skipping = at + len(rest), b"", True


def text_of(file: Path, most: int) -> str:
    """The first `most` bytes as text; "" where there are none."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            return opened.read(most).decode("utf-8", "replace")
    except OSError:
        return ""
