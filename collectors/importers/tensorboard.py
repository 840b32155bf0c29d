"""TensorBoard event files, as PyTorch's SummaryWriter, TensorFlow, JAX and what builds on them write.

A folder with event files is a run, in the order of their names, which begin with the time; folders in it are runs of
their own. The reader is checked against tensorboard's EventAccumulator, number by number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from collectors.importers._files.events import MOST_TAGS, Plain, Value, plain, values
from collectors.importers._files.tail import damaged, torn
from collectors.importers._files.tfrecord import Batch, batches, is_event_file
from collectors.importers._files.wire import NAN, NotAMessage
from collectors.importers.importer import BlindSpot, Facts, Gather, Importer, Item, Note, Replaced, Resumed, RunOf
from trainvitals.errors import UsageError
from trainvitals.store.own import MOST_NAMES, NAME_CHARACTERS
from trainvitals.untrusted import MOST_STEP

MARK = "tfevents"
"""In the name of every event file: the readers of TensorBoard look for it, too."""
MOST_FOLDERS = 10_000
MOST_TEXTS = 100
"""Texts of a run that become notes."""
MOST_CHARACTERS = 2_000
MOST_CELLS = 1 << 21
"""Rows times columns of a batch."""
_HPARAMS_FOLDER = re.compile(r"\d{9,}\.\d+")
"""Where SummaryWriter.add_hparams puts its session: a folder named after the time."""


class TensorBoard(Importer):
    """Event files."""

    format = "tensorboard"
    title = "TensorBoard event files"
    blind = (
        BlindSpot("rank", ("router/", "throughput/"),
                  "An event file does not say which rank wrote it, or whether a value was reduced over ranks",
                  "Reduce before add_scalar, or attach the tap, which writes every rank."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if head:
            return "its first record is a TensorFlow event with the right checksum" if is_event_file(head) else ""
        if not path.is_dir():
            return ""
        try:
            with os.scandir(path) as entries:
                found = next((entry.name for entry in entries if MARK in entry.name and entry.is_file()), "")
        except OSError:
            return ""
        return f"it holds the event file {found}" if found else ""

    def runs(self, path: Path) -> list[RunOf]:
        if path.is_file():
            return [RunOf(path, path.stem)]
        folders = [folder for folder, names in _folders(path) if names]
        known = set(folders)
        return [RunOf(folder, path.name if folder == path else folder.relative_to(path).as_posix())
                for folder in folders if not (folder.parent in known and _HPARAMS_FOLDER.fullmatch(folder.name))]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        log = _Log(state)
        try:
            for path in _files(run.path):
                name = path.relative_to(run.path).as_posix() if path != run.path else path.name
                yield from _read_file(path, name, log, state)
        except OSError as error:
            raise UsageError(f"{run.path} cannot be read ({error.strerror or error}). Give event files that can be."
                             ) from error


def _folders(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from this one on, with the names of its event files. Raises UsageError where they are too many."""
    for count, (folder, inner, names) in enumerate(os.walk(path)):
        if count >= MOST_FOLDERS:
            raise UsageError(f"{path} holds more than {MOST_FOLDERS:,} folders. Give one of them.")
        inner.sort()
        yield Path(folder), sorted(name for name in names if MARK in name)


def _files(path: Path) -> list[Path]:
    """The event files of a run: those of its hyperparameters first, then its own by name."""
    if path.is_file():
        return [path]
    sessions = sorted(folder for folder in path.iterdir() if _HPARAMS_FOLDER.fullmatch(folder.name))
    return [file for folder in (*sessions, path) if folder.is_dir() for file in sorted(folder.iterdir())
            if MARK in file.name and file.is_file()]


def _read_file(path: Path, name: str, log: _Log, state: dict[str, Any]) -> Iterator[Item]:
    known = state.setdefault("files", {}).setdefault(name, {"at": 0, "joins": bool(state["newest"])})
    size = path.stat().st_size
    if size < known["at"]:
        raise Replaced
    log.begin(name, known["joins"])
    with path.open("rb") as file:
        for batch in batches(file, known["at"], size):
            items = [*log.take(batch), *damaged(name, [*batch.damage, *log.broken], state)]
            yield from items[:-1]
            known |= {"at": batch.end, "joins": log.joins}
            yield from items[-1:]
    yield from torn(path, known["at"], size, state)


class _Log:
    """The events of a run so far, as items; what a later look needs is in `state`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.broken: list[str] = []
        """What is wrong with records of the last batch."""
        self._state = state
        self._newest: dict[str, int] = state.setdefault("newest", {})
        """Tag -> step of its last number."""
        self._plugins: dict[str, str] = state.setdefault("plugins", {})
        self._names: dict[bytes, str] = {}
        self._items: list[Item] = []
        self._gather = Gather()
        self._row: dict[str, float] = {}
        self._step, self._time = 0, NAN
        self._file, self.joins, self._before = "", True, NAN
        self._from: int = state.get("from", -MOST_STEP)
        """The last step before those that a resumed job went on with."""
        self._main = max([self._from, *self._newest.values()])
        """The newest step since then."""

    def begin(self, name: str, joins: bool) -> None:
        """The events that follow are of this file; `joins`: how it goes on from those before it is open."""
        self._file, self.joins = name, joins
        self._earlier = dict(self._newest) if joins else {}
        """Tag -> step of its last number in those."""
        self._before = self._state.get("last", NAN)
        """Time of the last number of those."""

    def take(self, batch: Batch) -> list[Item]:
        """What the records of a batch say, in their order."""
        self.broken = []
        found = plain(batch.data, batch.spans)
        begin = 0
        rest = np.setdiff1d(np.arange(len(batch.spans)), found.places, assume_unique=True)
        for place in rest.tolist():
            end = int(np.searchsorted(found.places, place))
            self._plain(found, begin, end)
            begin = end
            try:
                start, stop = batch.spans[place]
                for value in values(batch.data, start, stop, self._plugins):
                    self._say(value)
            except NotAMessage as error:
                self.broken.append(f"a whole record is no event ({error}) and is left out")
        self._plain(found, begin, len(found.places))
        self._flush()
        items, self._items = self._items, []
        return items

    def _plain(self, found: Plain, begin: int, end: int) -> None:
        names = self._names
        for step, time, raw, number in zip(found.steps[begin:end], found.times[begin:end], found.tags[begin:end],
                                           found.numbers[begin:end], strict=True):
            tag = names.get(raw)
            if tag is None:
                tag = raw.decode("utf-8", "replace")
                if len(names) < MOST_TAGS:
                    names[raw] = tag
            self._number(step, time, tag, number)

    def _number(self, step: int, time: float, tag: str, number: float) -> None:
        if step != self._step or tag in self._row:
            self._end_row()
        newest = self._newest.get(tag)
        if newest is None and not self._may_add(tag):
            return
        if self.joins and tag in self._earlier:
            self._join(step, time, self._earlier[tag])
        self._newest[tag] = step
        if step <= self._from:
            step = self._of_another_clock(step, tag)
        if not self._row:
            self._begin_row(step, time)
        self._row[tag] = number

    def _of_another_clock(self, step: int, tag: str) -> int:
        """Where a number goes that a resumed job logged for a step before those that it went on from.

        Its tag counts something else, as epochs. At its own step it would make a branch of all steps behind.
        """
        self._once("clock", f"After the job was resumed, {tag[:100]!r} goes on at {step}, which is no step: from there "
                   "on, what counts something else stands at the step at which it was logged", hides=True)
        at: int = max(self._main, self._from + 1)
        if at != self._step or tag in self._row:
            self._end_row()
        return at

    def _begin_row(self, step: int, time: float) -> None:
        self._step, self._time = step, time
        self._main = max(self._main, step)
        if "created" not in self._state and time == time:
            self._state["created"] = time
            host = re.match(r"(?:.*/)?events\.out\.tfevents\.\d+\.(.+?)(?:\.\d+)*(?:\.v2)?$", self._file)
            self._items.append(Facts({"created": time} | ({"notes": {"host": host[1]}} if host else {})))

    def _may_add(self, tag: str) -> bool:
        if len(tag) > NAME_CHARACTERS:
            self._once("long", f"Tags of more than {NAME_CHARACTERS:,} characters are left out", hides=True)
            return False
        if len(self._newest) < MOST_NAMES:
            return True
        self._once("names", f"Tags beyond the first {MOST_NAMES:,}, as {tag[:100]!r}, are left out", hides=True)
        return False

    def _join(self, step: int, time: float, newest: int) -> None:
        """Decide how a file goes on from those before it, once one of its tags was in them and tells.

        A process writes a file of its own, so that a file that begins at an earlier step is a job that was resumed.
        Tags may count different things (steps, epochs): one that is far below the newest step tells nothing. Files
        that were written at the same time are neither.
        """
        if 2 * newest < max(self._earlier.values()):
            return
        self.joins = False
        if time < self._before:
            self._once("concurrent", f"{self._file} was written at the same time as a file before it: several "
                       "processes wrote into one folder, and which rows are whose is not known", hides=True)
        elif step <= newest:
            self._resume(step, f"{self._file} begins at step {step}, and the file before it had reached {newest}")

    def _resume(self, step: int, message: str) -> None:
        self._flush()
        self._items.append(Resumed(step - 1, message))
        self._newest.update({tag: min(newest, step - 1) for tag, newest in self._newest.items()})
        self._from = self._main = self._state["from"] = step - 1

    def _say(self, value: Value) -> None:
        what, step, time, tag = value.what, value.step, value.time, value.tag
        if what == "number":
            self._number(step, time, tag, value.value)
        elif what == "histogram":
            for name, number in value.value.items():
                self._number(step, time, f"{tag}/{name}", number)
            self._once("histogram", f"Of histograms, as of {tag[:100]!r}, the count, the extremes and, where the file "
                       "has the sums, mean and deviation are read; the bins are not")
        elif what == "start":
            self.joins = False
            if any(newest >= step for newest in self._newest.values()):
                self._resume(step, f"{self._file} says that the job went on from step {step}")
        elif what == "checkpoint":
            self._add(Note("checkpoint", value.value[:MOST_CHARACTERS], step, time if time == time else None))
        elif what == "hparams":
            if value.value:
                self._add(Facts(config=value.value))
        elif what == "text":
            self._text(value)
        elif what == "version":
            if not self._state.get("begun"):
                # A job that has logged nothing yet is a run without rows.
                self._state["begun"] = True
                self._add(Facts())
        else:
            self._once(what, f"What is no number is left out: {what}, as under {tag[:100]!r}")

    def _text(self, value: Value) -> None:
        self._state["texts"] = count = self._state.get("texts", 0) + 1
        if count <= MOST_TEXTS:
            self._add(Note("text", f"{value.tag}: {value.value}"[:MOST_CHARACTERS], value.step,
                           value.time if value.time == value.time else None))
        else:
            self._once("texts", f"Of the texts, the first {MOST_TEXTS} are kept")

    def _once(self, kind: str, message: str, *, hides: bool = False) -> None:
        said: list[str] = self._state.setdefault("said", [])
        if kind not in said and len(said) < MOST_TEXTS:
            said.append(kind)
            self._add(Note("text" if kind == "texts" else "note", message, hides=hides))

    def _add(self, item: Item) -> None:
        self._flush()
        self._items.append(item)

    def _end_row(self) -> None:
        row, self._row = self._row, {}
        if not row:
            return
        if abs(self._step) < MOST_STEP:
            self._gather.add(self._step, row, self._time)
            if self._time > self._state.get("last", 0.0):
                self._state["last"] = self._time
        else:
            self._once("steps", f"Numbers at step {self._step} are left out: no step is as large", hides=True)
        if self._gather.full or len(self._gather) * len(self._newest) > MOST_CELLS:
            self._items.append(self._gather.take())

    def _flush(self) -> None:
        self._end_row()
        if len(self._gather):
            self._items.append(self._gather.take())
