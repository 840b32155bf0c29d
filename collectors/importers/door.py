"""One door for logs of any tool: recognised by content, converted into a run folder, followed while they grow.

    run = open_run("wandb/offline-run-20261130_120000-abc")
    for one in sessions("mlflow.db"):
        one.look()

Nothing is written beside the log: imported runs lie in `runs/imported` below the current directory, or in a temporary
folder where that cannot be written, or where `run` says.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from collectors.importers import cache
from collectors.importers.importer import Importer, RunOf
from collectors.importers.registry import all_importers
from collectors.importers.session import Session
from trainvitals.anything import is_run
from trainvitals.errors import RunNotFound, TrainVitalsError, UsageError
from trainvitals.store import Run
from trainvitals.store.reader import open_run as open_stored

log = logging.getLogger("trainvitals")

HEAD_BYTES = 64 << 10
DEPTH, MOST_ENTRIES, MOST_RUNS = 4, 5_000, 500
"""How far a folder of logs is looked through, and how many runs are taken from it."""
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder, and the format that it has."""

    path: Path
    importer: Importer
    why: str
    """What the format was told by."""


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the run of another tool's log, once what it has more than at the last look is imported.

    Raises:
        RunNotFound: there is nothing.
        UsageError: no format is recognised, or there are several runs: the message names them.
    """
    found = sessions(path)
    for one in found:
        one.look()
        one.close()
    if len(found) > 1:
        names = ", ".join(str(one.folder) for one in found[:20])
        raise UsageError(f"{path} holds {len(found)} runs. Open one of those that were imported: {names}.")
    return open_stored(found[0].folder)


def sessions(path: str | os.PathLike[str], *, run: str | os.PathLike[str] | None = None, format: str | None = None,
             maps: Sequence[str] | None = None) -> list[Session]:
    """The runs at a path, each ready to be imported.

    Args:
        path: a file or folder.
        run: the run folder to write, or the folder of run folders where there are several.
        format: name of a format, in place of what is recognised.
        maps: SIGNAL=COLUMN, as in `names`; None for those of an earlier import.

    Raises:
        RunNotFound: there is nothing at the path.
        UsageError: no format is recognised.
    """
    place = Path(path)
    sources = recognise(place, format)
    found = [(source, one) for source in sources for one in _runs(source)][:MOST_RUNS]
    if not found:
        raise RunNotFound(f"{place} holds no run. Give a log with a row in it.")
    root = Path(run) if run is not None else cache.place_of(place)
    told = None if maps is None else list(maps)
    if len(found) == 1:
        return [_session(found[0][0], found[0][1], root, told)]
    return [_session(source, one, root / name, told) for (source, one), name in zip(found, _names(found), strict=True)]


def _session(source: Source, run: RunOf, folder: Path, maps: list[str] | None) -> Session:
    return Session(run, source.importer, source.why, folder, maps)


def _runs(source: Source) -> list[RunOf]:
    try:
        return source.importer.runs(source.path)
    except TrainVitalsError:
        raise
    except Exception as error:  # as in Session: whatever a file holds must cost a sentence
        raise UsageError(f"{source.path} cannot be read as {source.importer.title} ({type(error).__name__}: {error}). "
                         "Please report it with the file.") from error


def _names(found: Sequence[tuple[Source, RunOf]]) -> Iterator[str]:
    """A folder name for each of several runs: its own, with a number behind it where two have the same."""
    used: dict[str, int] = {}
    for _, run in found:
        name = re.sub(r"[^\w.-]+", "_", run.name)[:80].strip("._") or "run"
        used[name] = used.get(name, 0) + 1
        yield name if used[name] == 1 else f"{name}-{used[name]}"


def recognise(path: Path, format: str | None = None) -> list[Source]:
    """What is at a path: one source, or those in a folder that is none itself.

    Raises:
        RunNotFound: there is nothing at the path, or no log in the folder.
        UsageError: the file is of no known format, or of two at once.
    """
    kind = _kind(path)
    if kind == "nothing":
        raise RunNotFound(f"{path} holds no run: there is nothing. Give a run folder, a log, or a folder of logs.")
    if kind == "other":
        raise UsageError(f"{path} is neither a file nor a folder. Give a run folder, a log, or a folder of logs.")
    if format is not None:
        return [Source(path, _by_name(format), "--format says so")]
    if (found := _claimed(path)) is not None:
        return [found]
    if kind == "folder" and (inside := _inside(path)):
        return inside
    raise (RunNotFound if kind == "folder" else UsageError)(_not_known(path, kind))


def formats() -> dict[str, Importer]:
    """Every format by name."""
    return {importer.format: importer for importer in all_importers()}


def _by_name(format: str) -> Importer:
    if format not in formats():
        raise UsageError(f"There is no format {format!r}. Choose one of {', '.join(formats())}.")
    return formats()[format]


def _kind(path: Path) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "nothing"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def _claimed(path: Path) -> Source | None:
    """The source that a file or folder is by itself; None if it is of no format. Raises UsageError if of two."""
    head = _head(path)
    claims = [(importer, why) for importer in all_importers() if (why := _why(importer, path, head))]
    claims = [claim for claim in claims if not claim[0].generic] or claims
    if len(claims) > 1:
        told = "; ".join(f"{importer.title} ({why})" for importer, why in claims)
        names = " or ".join(f"--format {importer.format}" for importer, _ in claims)
        raise UsageError(f"{path} could be of several formats: {told}. Choose with {names}.")
    return Source(path, *claims[0]) if claims else None


def _why(importer: Importer, path: Path, head: bytes) -> str:
    try:
        return importer.recognises(path, head)
    except Exception:  # one that stumbles over a file does not know it, and the others may
        log.debug("%s stumbled over %s", importer.format, path, exc_info=True)
        return ""


def _head(path: Path) -> bytes:
    """The beginning of a file; b"" of a folder. Raises UsageError where it cannot be read."""
    if path.is_dir():
        return b""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Give a file that you may read.") from error


def _inside(folder: Path) -> list[Source]:
    """The logs in a folder: those of a tool's own format, and only without any of those, tables of any kind."""
    own: list[Source] = []
    generic: list[Source] = []
    pending, seen, looked = deque([(folder, 0)]), set[str](), 0
    while pending and looked < MOST_ENTRIES and len(own) < MOST_RUNS:
        place, depth = pending.popleft()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            looked += 1
            path = Path(entry.path)
            if entry.name.startswith(".") or (kind := _kind(path)) in ("other", "nothing") or is_run(path):
                continue
            try:
                found = _claimed(path)
            except UsageError:
                continue
            if found is not None:
                (generic if found.importer.generic else own).append(found)
            elif kind == "folder" and depth < DEPTH:
                pending.append((path, depth + 1))
    return (own or generic)[:MOST_RUNS]


def _not_known(path: Path, kind: str) -> str:
    if kind == "file":
        if not (head := _head(path)):
            return f"{path} is empty. Give a log with a row in it."
        if packed := next((name for mark, name in PACKED.items() if head.startswith(mark)), ""):
            return f"{path} is packed ({packed}), and what is packed is not opened. Unpack it first."
    what = "No log was found in it" if kind == "folder" else "It is of no format that is known"
    tried = ", ".join(importer.title for importer in all_importers())
    return f"{path} cannot be imported. {what}; tried: {tried}. Name one with --format, or give another path."
