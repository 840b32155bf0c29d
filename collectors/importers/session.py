"""One run of a foreign source on its way into its run folder, look by look.

What the source holds beyond the last look is stored, then how far that was: a process that is killed at any moment
leaves rows that it could not tell of, and the next one counts them and passes over as many. Two processes that import
one source take turns. The run that readers see has one writer, however many looks there were.
"""

from __future__ import annotations

import copy
import math
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from collectors.importers import cache
from collectors.importers.cache import Record
from collectors.importers.importer import Facts, Importer, Item, Note, Replaced, Resumed, Rows, RunOf
from collectors.importers.intake import Intake
from collectors.importers.names import Names, roles_told
from collectors.importers.order import Back, Order
from trainvitals import __version__
from trainvitals.blind import from_json, to_json
from trainvitals.card import RunCard, fits, read_card
from trainvitals.catalogue import UNKNOWN
from trainvitals.errors import RunDamaged, TrainVitalsError, UsageError
from trainvitals.imported import FILE, Imported, all_hidden
from trainvitals.store import RunWriter, open_run
from trainvitals.store.eventlog import plain
from trainvitals.store.writer import STEP_LIMIT, Continued, whole_step

SAVE_SECONDS = 2.0
"""A long import says so often how far it is."""
MOST_NOTES = 1_000
"""Notes of an importer that become events; more are counted."""


class Session:
    """Imports one run, and goes on importing it."""

    def __init__(self, run: RunOf, importer: Importer, why: str, folder: Path, maps: list[str] | None = None) -> None:
        """`maps`: None for those of the earlier import, if there was one. Raises UsageError for a bad one."""
        self.run, self.importer, self.folder, self.why = run, importer, folder, why
        self._maps = maps
        if maps:
            Names(importer.means, maps)
        self._writer: RunWriter | None = None
        self._stamp: object = None
        self._record: Record | None = None
        self._lost = ""
        self._skip: dict[str, int] = {}
        """Frame -> rows of a killed import that its record does not tell of."""
        self.afresh = ""
        """Why the last look read everything again; "" where it did not."""

    @property
    def about(self) -> Imported:
        """What is known of the import after a look."""
        assert self._record is not None
        return self._record.about

    def look(self) -> bool:
        """Take in what is new; whether there was anything.

        Raises:
            UsageError: nothing can be read of the source, or the run folder is no place for it.
            TrainVitalsError: the disk does not take the run.
        """
        self.afresh = ""
        if not cache.usable(self.folder):
            raise UsageError(f"{self.folder} holds something else than an import. Give another --run.")
        with cache.locked(self.folder):
            self._catch_up()
            record = self._record
            settled = record is not None and not record.busy and not self._lost
            if settled and cache.unchanged(self.run.path, record.identity):  # type: ignore[union-attr]
                return False
            why = self._why_afresh(record)
            if record is None or why:
                self.afresh = why
                self._begin_afresh()
            try:
                return self._take()
            except Replaced as error:
                self.afresh = str(error) or "its source was replaced"
                self._begin_afresh()
                return self._take_afresh()
            except BaseException:
                self._stamp = None  # how much of it is in the folder is counted before the next look
                raise

    def close(self) -> None:
        """End this process's part; the run may go on."""
        if self._writer is not None:
            self._writer.close(run_ended=False)
            self._writer = None

    # ---- before a look --------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Load what another process may have done since our last look."""
        stamp = _stamp(self.folder / FILE)
        if self._record is None or stamp != self._stamp:
            self.close()
            self._record = Record.load(self.folder)
            self._stamp = stamp
            self._lost = self._recount(self._record) if self._record is not None else ""

    def _why_afresh(self, record: Record | None) -> str:
        if record is None:
            return ""
        if record.about.format != self.importer.format or (self._maps is not None and self._maps != record.maps):
            return "its columns or its format were told anew"
        if record.made_by != _mark(self.importer):
            return "another version of the importer made it"
        if (record.about.source, record.key) != (_absolute(self.run.path), self.run.key):
            return "the folder held another import"
        if not self.importer.rewritten and (wrong := cache.continues(self.run.path, record.identity)):
            return f"the source was replaced ({wrong})"
        return self._lost

    def _recount(self, record: Record) -> str:
        """How many rows the folder has that the record does not tell of, after a kill; why it cannot go on, if so."""
        self._skip = {}
        if not record.rows and not record.busy:
            return ""
        try:
            counts, writers = open_run(self.folder).rows_by_frame()
        except TrainVitalsError:
            counts, writers = {}, set()
        if not writers <= set(record.writers) or any(counts.get(f, 0) < n for f, n in record.rows.items()):
            return "the folder does not hold the rows that it should, after a kill or a crash"
        self._skip = {frame: n - record.rows.get(frame, 0) for frame, n in counts.items()}
        return ""

    def _begin_afresh(self) -> None:
        self.close()
        maps = self._maps if self._maps is not None else self._record.maps if self._record else []
        about = Imported(_absolute(self.run.path), self.importer.format, self.importer.title, self.why,
                         blind=self.importer.blind)
        self._record = Record(about, self.run.name, self.run.key, maps, _mark(self.importer))
        self._skip, self._lost = {}, ""
        # Busy and without a row of its own: a kill from here on leaves a folder that the next look empties again.
        self._record.busy = True
        self._record.identity = cache.identity(self.run.path)
        self._save()
        cache.empty(self.folder)

    # ---- a look ---------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        record = self._record
        assert record is not None
        before = cache.identity(self.run.path)
        changed = cache.changed_at(self.run.path)
        intake = Intake(Names(self.importer.means, record.maps), record.targets, record.counts,
                        self.importer.blanks)
        intake.rows, intake.skip = dict(record.rows), self._skip
        # A copy: what the importer says there is true once its rows are in the folder, and is saved then.
        state = copy.deepcopy(record.state)
        look = _Look(self, record, intake, Order(record.order), state)
        if told := roles_told(record.maps):
            state["map"] = told
        try:
            for item in self.importer.read(self.run, state):
                look.take(item)
        except (TrainVitalsError, Replaced):
            raise
        except Exception as error:  # whatever a file holds must cost a sentence, and not the runs beside it
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a disk, and not what is on it
            raise self._stopped(error) from error
        look.end()
        self._skip = {}
        new = look.any or record.identity != before or record.about.changed != changed
        record.identity, record.busy = before, False
        record.about = replace(record.about, changed=changed)
        if new:
            self._save()
        return look.any

    def _stopped(self, error: Exception) -> UsageError:
        """Says in the run, too, that it is not all of the log, until a later look gets through."""
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        message = f"{self.run.path} cannot be read on as {self.importer.title} ({' '.join(why.split())[:300]})"
        record = self._record
        if record is not None:
            hidden = all_hidden(message, "Report it with the file")
            record.about = replace(record.about, notes=(*record.about.notes, f"{message}."),
                                   blind=(*record.about.blind, *hidden))
            record.busy = True
            self.close()
            self._save()
        return UsageError(f"{message}. Please report it with the file; what came before is in {self.folder}.")

    def _take_afresh(self) -> bool:
        try:
            return self._take()
        except Replaced as error:
            self._stamp = None
            raise UsageError(f"{self.run.path} changes while it is read ({error}). Try again once it is whole."
                             ) from error

    def writer(self) -> RunWriter:
        """The open writer of the run; told first that a look is under way."""
        record = self._record
        assert record is not None
        if not record.busy:
            record.busy = True
            self._save()
        if self._writer is None:
            goes_on = Continued(**record.writer) if record.writer else None
            self._writer = RunWriter(self.folder, when_full="wait", goes_on=goes_on)
            if goes_on is None:
                record.writers.append(self._writer.writer)
        return self._writer

    def flush(self) -> None:
        """Have all rows in the folder. Raises TrainVitalsError where it does not take them."""
        if self._writer is not None:
            while not self._writer.flush():
                if not self._writer.disk.takes():
                    raise TrainVitalsError(f"{self.folder} does not take the run. Free the disk, or give another "
                                           "--run.")
            record = self._record
            assert record is not None
            if (at := self._writer.continued) is not None:
                record.writer = asdict(at)
                if at.writer not in record.writers:
                    record.writers.append(at.writer)

    def rewind(self, step: int, message: str) -> None:
        """Go on as another attempt from `step`; told at once, because rows of an unknown writer cannot be counted."""
        writer = self.writer()
        self.flush()
        writer.rewind(step, message)
        self.flush()
        self._save()

    def save(self, intake: Intake, order: Order, state: dict[str, Any]) -> None:
        """Tell how far the import is, once its rows are in the folder."""
        record = self._record
        assert record is not None
        self.flush()
        record.state = copy.deepcopy(state)
        record.rows, record.targets, record.order = dict(intake.rows), intake.state(), order.state()
        record.counts = {signal: list(found) for signal, found in intake.counts.items()}
        record.rewinds = record.writer["rewinds"] if record.writer else 0
        told = [*self.importer.blind, *from_json(record.spots)]
        # What the importer says of what lies between two rows is more than that rows are missing.
        between = {spot.kind for spot in told if spot.kind in ("averaged", "last", "sampled")}
        seen = [spot for spot in intake.blind if spot.kind != "sampled" or not any(
            other.kind in between and other.concerns(spot.signals) for other in told)]
        known = dict.fromkeys([*told, *seen])
        record.said = list(dict.fromkeys([*record.said, *intake.notes]))[:MOST_NOTES]
        record.about = replace(record.about, taken=tuple(intake.taken), blind=tuple(known),
                               notes=(*record.said, *intake.missing, *order.notes()))
        self._save()

    def _save(self) -> None:
        assert self._record is not None
        self._record.save(self.folder)
        self._stamp = _stamp(self.folder / FILE)


class _Look:
    """What one look does with what the importer yields."""

    def __init__(self, session: Session, record: Record, intake: Intake, order: Order, state: dict[str, Any]
                 ) -> None:
        self._session, self._record, self._intake, self._order = session, record, intake, order
        self._state = state
        self.any = False
        self._card: RunCard | None = None
        self._saved = time.monotonic()
        self._told = _told(session.folder) if record.busy else set()
        self._notes = 0
        self._done_before = (record.writer["rewinds"] if record.writer else 0) - record.rewinds

    def take(self, item: Item) -> None:
        """Store one thing that the importer yielded."""
        self.any = True
        if isinstance(item, Rows):
            for part in self._order.sorted_out(self._within(item)):
                if isinstance(part, Back):
                    self._go_back(part.step, f"the log goes back to step {part.step + 1:,} without a word")
                else:
                    self._intake.store(self._session.writer(), part)
        elif isinstance(item, Resumed):
            self._order.resumed(item.step)
            self._go_back(item.step, item.message or f"the job went on from step {item.step:,}")
        elif isinstance(item, Note):
            self._note(item)
        else:
            self._facts(item)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._session.save(self._intake, self._order, self._state)
            self._saved = time.monotonic()

    def end(self) -> None:
        """All was taken."""
        if self._notes > MOST_NOTES:
            self._session.writer().past_event("import", None, f"{self._notes - MOST_NOTES:,} more notes of the log are "
                                              "not named", None, {UNKNOWN: True})
        if self._card is not None or (self.any and not (self._session.folder / "run.json").exists()):
            self._write_card()
        if self.any:
            self._session.save(self._intake, self._order, self._state)

    def _within(self, rows: Rows) -> Rows:
        inside = (rows.steps > -STEP_LIMIT) & (rows.steps < STEP_LIMIT)
        if inside.all():
            return rows
        self._intake.notes.append("Rows at steps beyond 2**62 are left out.")
        return Rows(rows.steps[inside], rows.times[inside], {n: v[inside] for n, v in rows.columns.items()})

    def _go_back(self, step: int, message: str) -> None:
        if self._done_before:
            self._done_before -= 1  # by the process that was killed before it could say that its rows are stored
        else:
            self._session.rewind(step, message)

    def _note(self, note: Note) -> None:
        self._notes += 1
        step = whole_step(note.step)
        if self._notes > MOST_NOTES or (note.kind, step, note.message) in self._told:
            return
        data: Mapping[str, Any] = {UNKNOWN: True} if note.hides else {}
        time = note.time if note.time is not None and math.isfinite(note.time) else None
        self._session.writer().past_event(note.kind, step, note.message, time, data)

    def _facts(self, facts: Facts) -> None:
        card = self._card = self._card or _card_in(self._session.folder)
        for name, value in facts.card.items():
            if fits(name, value) and name != "format":
                setattr(card, name, {**getattr(card, name), **value} if isinstance(value, dict) else value)
            else:
                self._intake.notes.append(f"What the log says as {str(name)[:60]} does not fit a run card: it is left "
                                          "out.")
        if facts.config:
            card.notes["config"] = plain({**card.notes.get("config", {}), **facts.config})
        if facts.blind:
            known = dict.fromkeys([*from_json(self._record.spots), *facts.blind])
            self._record.spots = to_json(known)

    def _write_card(self) -> None:
        card = self._card or _card_in(self._session.folder)
        card.name = card.name or self._record.name
        about = self._record.about
        card.notes["imported"] = {"source": about.source, "format": about.title, "told by": about.why,
                                  "taken as": [t.words for t in self._intake.taken][:100]}
        self._session.writer().write_card(card)


def _mark(importer: Importer) -> str:
    told = repr((__version__, importer.format, sorted(importer.means.items()), importer.blind))
    return f"{zlib.crc32(told.encode()):08x}"


def _card_in(folder: Path) -> RunCard:
    try:
        return read_card((folder / "run.json").read_bytes(), str(folder))[0]
    except (OSError, RunDamaged):
        return RunCard()


def _told(folder: Path) -> set[tuple[str, int | None, str]]:
    """Events that a killed import left."""
    try:
        events = open_run(folder).events()
    except TrainVitalsError:
        return set()
    steps = [None if known else int(step) for step, known in zip(events["step"], events["step"].isna(), strict=True)]
    return set(zip(events["kind"].astype(str), steps, events["message"].astype(str), strict=True))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
