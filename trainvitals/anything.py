"""Opening whatever holds a run: a run folder, its URL, or the log of another tool.

A run folder is opened by the store alone; only another tool's log brings the importers in.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainvitals.store.listing import looks_like_run
from trainvitals.store.reader import open_run as open_stored

if TYPE_CHECKING:
    from trainvitals.store import Run
    from trainvitals.store.folder import Folder

DOOR = "collectors.importers.door"


def open_run(path: str | os.PathLike[str] | Folder) -> Run:
    """Open the run at a path: a run folder or its URL, or the log of another tool, which is imported first.

    What is imported lies in `runs/imported` below the current directory; only what is new is read at later calls.

    Raises:
        RunNotFound: there is no run, and no log.
        UsageError: a log is of no known format, or holds several runs: the message names them.
    """
    return open_stored(path) if is_run(path) else _door().open_run(path)


def is_run(path: str | os.PathLike[str] | Folder) -> bool:
    """Whether this is the store's own to open: a run folder, or an address of one."""
    if not isinstance(path, str | os.PathLike) or "://" in os.fspath(path):
        return True
    place = Path(path)
    try:
        return place.is_dir() and looks_like_run({e.name: e.is_dir() for e in os.scandir(place)})
    except (OSError, ValueError):
        return False


def _door() -> Any:
    return importlib.import_module(DOOR)
