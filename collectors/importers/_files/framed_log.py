"""What the importers of framed logs share: finding the files of a run, and reading one into rows and notes."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from collectors.importers._files.framed import HEAD, Damage, records
from collectors.importers._files.tail import damaged, torn
from collectors.importers._files.wire import NotAMessage
from collectors.importers.importer import Facts, Gather, Importer, Item, Note, Replaced, Resumed, RunOf
from trainvitals.errors import UsageError
from trainvitals.store.own import MOST_NAMES, NAME_CHARACTERS
from trainvitals.untrusted import MOST_STEP

MOST_NOTES = 50
"""Of one kind, per run."""
MOST_CHARACTERS = 2_000
MOST_CELLS = 1 << 21
"""Rows times columns of a batch."""


class FramedImporter(Importer):
    """A format of framed files, one per process of a run: `run-20261130_120000-ID/run-ID.SUFFIX`.

    A folder of such folders is several runs; the folders that one run left when it was resumed are one, in the order of
    their times.
    """

    magic: ClassVar[bytes]
    """The first seven bytes."""
    suffix: ClassVar[str]

    def recognises(self, path: Path, head: bytes) -> str:
        if head:
            return f"it begins with {self.magic[:4].decode()}" if head.startswith(self.magic[:6]) else ""
        found = self._files(path) if path.is_dir() else []
        return f"it holds {found[0].name}" if found else ""

    def runs(self, path: Path) -> list[RunOf]:
        if path.is_file():
            return [RunOf(path, _id(path), _id(path))]
        names = dict.fromkeys(_id(file) for file in self._files(path))
        return [RunOf(path, name, name) for name in names]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        try:
            if run.path.is_file():
                yield from self._read_file(run.path, run.path.name, state)
            else:
                for file in self._files(run.path):
                    if _id(file) == run.key:
                        yield from self._read_file(file, file.relative_to(run.path).as_posix(), state)
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"{run.path} cannot be read ({why}). Give a file that can be.") from error

    @abstractmethod
    def log(self, path: Path, name: str, state: dict[str, Any], joins: bool) -> FramedLog:
        """What takes the records of a file."""

    def _files(self, path: Path) -> list[Path]:
        """The files in a folder and in the folders in it, by the time in their folder's name."""
        folders = [path, *(Path(entry.path) for entry in _entries(path) if entry.is_dir(follow_symlinks=False))]
        found = [Path(entry.path) for folder in folders for entry in _entries(folder)
                 if entry.name.endswith(self.suffix) and entry.is_file()]
        return sorted(found, key=lambda file: (re.findall(r"\d{8}_\d{6}", file.parent.name), str(file)))

    def _read_file(self, path: Path, name: str, state: dict[str, Any]) -> Iterator[Item]:
        known = state.setdefault("files", {}).setdefault(name, {"at": 0, "joins": True})
        size = path.stat().st_size
        if size < known["at"]:
            raise Replaced
        log = self.log(path, name, state, joins=known["joins"])
        with path.open("rb") as file:
            if size < HEAD:
                return
            if file.read(HEAD) != self.magic:
                raise UsageError(f"{path} does not begin as the {self.suffix} files that are known do. Give another "
                                 "file, or another --format.")
            at = known["at"] or HEAD
            if not known["at"]:
                # A job that has logged nothing yet is a run without rows.
                known["at"] = HEAD
                yield Facts()
            for record, end in records(file, at, size):
                items = log.take(record)
                yield from items[:-1]
                if items:
                    known |= {"at": end, "joins": log.joins}
                yield from items[-1:]
                at = end
            rest = log.rest()
            known |= {"at": at, "joins": log.joins}
            yield from rest
        yield from torn(path, at, size, state)


class FramedLog(ABC):
    """The records of one file as items; what a later look or file needs is in `state`, as JSON."""

    def __init__(self, name: str, state: dict[str, Any], joins: bool) -> None:
        """`joins`: the file's first row tells how it goes on from the files before it."""
        self.name, self.state = name, state
        self.joins = joins
        self._gather = Gather()
        self._items: list[Item] = []
        self._names: set[str] = set(state.setdefault("names", []))
        self.machine: dict[str, float] = state.setdefault("machine", {})
        """What was measured of the machine since the last row: it goes into the next one."""

    @abstractmethod
    def record(self, data: bytes) -> None:
        """Take a record: rows by `row`, all else by `say` and what uses it. Raises NotAMessage."""

    def end_row(self) -> None:  # noqa: B027 - most records are whole rows
        """Close a row that is still open."""

    def take(self, record: bytes | Damage) -> list[Item]:
        """The items up to this record, where it is time for them."""
        try:
            if isinstance(record, Damage):
                self.say(*damaged(self.name, [record.message], self.state))
            else:
                self.record(record)
        except NotAMessage as error:
            why = f"a whole record is none of this format ({error}) and is left out"
            self.say(*damaged(self.name, [why], self.state))
        full = self._gather.full or len(self._gather) * len(self._names) > MOST_CELLS
        return self.rest() if self._items or full else []

    def rest(self) -> list[Item]:
        """All items so far."""
        self.say()
        items, self._items = self._items, []
        return items

    def say(self, *items: Item) -> None:
        """Add items behind the rows so far."""
        self.end_row()
        if len(self._gather):
            self._items.append(self._gather.take())
        self._items += items

    @property
    def step(self) -> int | None:
        """Of the last row."""
        step: int | None = self.state.get("step")
        return step

    def row(self, step: int, values: Mapping[str, float], time: float) -> None:
        """Add a row."""
        if not -MOST_STEP < step < MOST_STEP:
            self.once("steps", f"A row of step {step} is left out: no step is as large", hides=True)
            return
        if self.joins and self.step is not None and step <= self.step:
            self.say(Resumed(step - 1, f"{self.name} begins at step {step}, and the run had reached {self.step}"))
        self.joins = False
        values = {**values, **self.machine} if self.machine else values
        self.machine.clear()
        if not values.keys() <= self._names:
            self._add_names(values)
            values = {name: value for name, value in values.items() if name in self._names}
        if values:
            self._gather.add(step, values, time)
            self.state["step"] = step

    def _add_names(self, values: Mapping[str, float]) -> None:
        fresh = [name for name in values if name not in self._names and len(name) <= NAME_CHARACTERS]
        room = MOST_NAMES - len(self._names)
        self._names.update(fresh[:room])
        self.state["names"].extend(fresh[:room])
        if any(len(name) > NAME_CHARACTERS for name in values):
            self.once("long", f"Names of more than {NAME_CHARACTERS:,} characters are left out", hides=True)
        if len(fresh) > room:
            self.once("names", f"Names beyond the first {MOST_NAMES:,}, as {fresh[room][:100]!r}, are left out",
                      hides=True)

    def once(self, kind: str, message: str, *, hides: bool = False) -> None:
        """Say something once per run and kind."""
        said: list[str] = self.state.setdefault("said", [])
        if kind not in said and len(said) < MOST_NOTES:
            said.append(kind)
            self.say(Note("note", message[:MOST_CHARACTERS], self.step, hides=hides))

    def counted(self, kind: str, message: str) -> None:
        """Say something, at most `MOST_NOTES` times of its kind per run."""
        counts: dict[str, int] = self.state.setdefault("notes", {})
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] == MOST_NOTES:
            message = f"There are more notes of this kind, {kind}, than {MOST_NOTES}: no more are kept"
        if counts[kind] <= MOST_NOTES:
            self.end_row()
            self.say(Note(kind, message[:MOST_CHARACTERS], self.step))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _id(path: Path) -> str:
    return path.stem.removeprefix("run-")
