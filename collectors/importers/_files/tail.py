"""What is said of a log that cannot be read to its last byte."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from collectors.importers.importer import Note

UNREADABLE = "unreadable"
MOST_NOTES = 20
"""Of damage, per run."""
QUIET_SECONDS = 600.0
"""A file that did not change for so long is not about to get the rest of its last record."""


def damaged(name: str, sentences: Iterable[str], memory: dict[str, Any]) -> Iterator[Note]:
    """A note per damaged place of the file `name`, and one that there are more; `memory` is JSON and counts them."""
    for sentence in sentences:
        memory["damaged"] = count = memory.get("damaged", 0) + 1
        if count <= MOST_NOTES:
            yield Note(UNREADABLE, f"{name}: {sentence}", hides=True)
        elif count == MOST_NOTES + 1:
            yield Note(UNREADABLE, f"{name}: more places than these {MOST_NOTES} are damaged", hides=True)


def torn(path: Path, at: int, size: int, memory: dict[str, Any]) -> Iterator[Note]:
    """A note that the file's last record is not whole, once, and not while a job may still be writing it.

    Args:
        path: of the file.
        at: its byte behind the last whole record.
        size: of the file, in bytes.
        memory: JSON; knows what was said.
    """
    if size <= at or memory.get("torn") == [path.name, at] or time.time() - path.stat().st_mtime < QUIET_SECONDS:
        return
    memory["torn"] = [path.name, at]
    yield Note(UNREADABLE, f"{path.name}: its last {size - at:,} bytes are no whole record, as of a writer that was "
               "killed; what they held is lost", hides=True)
