"""W&B's own log of a run, `.wandb`: what `wandb.init(mode="offline")` leaves, and what an online run keeps beside.

It is read without wandb and without an account. A folder of runs (`wandb/`) is several runs; the folders that one run
left when it was resumed are one, in the order of their times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers._files import wandb_records as records
from collectors.importers._files.framed import HEAD, Damage
from collectors.importers._files.framed import records as framed
from collectors.importers._files.tail import damaged, torn
from collectors.importers._files.wire import NotAMessage
from collectors.importers.importer import BlindSpot, Facts, Gather, Importer, Item, Note, Replaced, Resumed, RunOf
from trainvitals.errors import UsageError
from trainvitals.store.own import MOST_NAMES
from trainvitals.untrusted import MOST_STEP

MAGIC = b":W&B\xe1\xbe\x00"
MOST_FOLDERS = 10_000
MOST_NOTES = 50
"""Of one kind, per run."""
MOST_CHARACTERS = 2_000
HALF_NAN_SINCE = (0, 28, 1)
"""Before this version a NaN in float16 or bfloat16 was left out of the history (wandb's CHANGELOG)."""
_HALF_NAN = BlindSpot(
    "nonfinite", ("loss/", "grad/"),
    "wandb before 0.28.1 left a NaN out of its history where it was logged in half precision",
    "Log float(value), or upgrade wandb.")


class Wandb(Importer):
    """`.wandb` files."""

    format = "wandb"
    title = "W&B's offline log"
    blind = (
        BlindSpot("rank", ("loss/", "grad/", "router/", "throughput/"),
                  "A W&B run is what one process logged, as a rule rank 0, reduced over ranks or not",
                  "Reduce before wandb.log, or attach the tap, which writes every rank."),
        BlindSpot("sampled", ("system/",), "wandb measures the machine every few seconds, and the last measurement before "
                  "a row is kept", "Attach the tap, which measures at every step."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if head:
            return "it begins with :W&B" if head.startswith(MAGIC[:6]) else ""
        if not path.is_dir():
            return ""
        found = next(iter(_files(path)), None)
        return "" if found is None else f"it holds {found.name}"

    def runs(self, path: Path) -> list[RunOf]:
        if path.is_file():
            return [RunOf(path, _id(path), _id(path))]
        names = dict.fromkeys(_id(file) for file in _files(path))
        return [RunOf(path, name, name) for name in names]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        try:
            files = [run.path] if run.path.is_file() else [file for file in _files(run.path) if _id(file) == run.key]
            for file in files:
                name = file.name if run.path.is_file() else file.relative_to(run.path).as_posix()
                yield from _read_file(file, name, state)
        except OSError as error:
            raise UsageError(f"{run.path} cannot be read ({error.strerror or error}). Give a file that can be.") from error


def _files(path: Path) -> list[Path]:
    """The `.wandb` files below a folder, by the time in their folder's name. Raises UsageError for too many."""
    found = []
    for count, (folder, inner, names) in enumerate(os.walk(path)):
        if count >= MOST_FOLDERS:
            raise UsageError(f"{path} holds more than {MOST_FOLDERS:,} folders. Give one of them.")
        inner.sort()
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".wandb")]
    return sorted(found, key=lambda file: (re.findall(r"\d{8}_\d{6}", file.parent.name), str(file)))


def _id(path: Path) -> str:
    return path.stem.removeprefix("run-")


def _read_file(path: Path, name: str, state: dict[str, Any]) -> Iterator[Item]:
    known = state.setdefault("files", {}).setdefault(name, {"at": 0})
    size = path.stat().st_size
    if size < known["at"]:
        raise Replaced
    log = _Log(state, fresh=not known["at"])
    with path.open("rb") as file:
        if not known["at"] and size < HEAD:
            return
        if file.read(HEAD)[:6] != MAGIC[:6]:
            raise UsageError(f"{path} is no .wandb file: it does not begin with :W&B. Give another, or another --format.")
        at = known["at"] or HEAD
        for record, at in framed(file, at, size):
            items = list(damaged(name, [record.message], state)) if isinstance(record, Damage) else log.take(record, name)
            if items:
                yield from items[:-1]
                known["at"] = at
                yield items[-1]
        yield from log.rest()
        known["at"] = at
    yield from torn(path, at, size, state)
