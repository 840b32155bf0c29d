"""Opening whatever holds a run: a run folder, its URL, or the log of another tool.

A run folder is opened by the store alone; only another tool's log brings the importers in.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainvitals.errors import RunNotFound, TrainVitalsError
from trainvitals.store.listing import list_runs, looks_like_run
from trainvitals.store.reader import open_run as open_stored

if TYPE_CHECKING:
    from trainvitals.store import Run
    from trainvitals.store.folder import Folder

DOOR, COMMAND = "collectors.importers.door", "collectors.importers.command"


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


def runs_at(
    path: str, told: Callable[[str], None], refused: Callable[[str], None]
) -> tuple[list[Run], int]:
    """The runs that a path holds, and the exit code of those among several that cannot be read; 0: all can.

    Args:
        path: a run folder, another tool's log, or a folder of either.
        told: takes what a log was taken for, in words.
        refused: takes why one of several logs cannot be read.

    Raises:
        TrainVitalsError: nothing there can be read.
    """
    if is_run(path):
        return [open_stored(path)], 0
    below = list_runs(path) if os.path.isdir(path) else []
    return ([open_stored(run) for run in below], 0) if below else _imported(path, told, refused)


def _imported(path: str, told: Callable[[str], None], refused: Callable[[str], None]) -> tuple[list[Run], int]:
    found, code = [], 0
    every = _door().sessions(path)
    for one in every:
        try:
            one.look()
            one.close()
            told(importlib.import_module(COMMAND).told(one))
            found.append(open_stored(one.folder))
        except TrainVitalsError as error:
            if len(every) == 1:
                raise
            refused(str(error))
            code = error.exit_code
    if not found:
        raise RunNotFound(f"None of the {len(every)} logs at {path} can be read. Each is named above.")
    return found, code


def _door() -> Any:
    return importlib.import_module(DOOR)
