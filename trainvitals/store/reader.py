"""Reading a run: one object that serves a live, a finished and an imported run alike.

    run = open_run("runs/olmoe-1b7b")
    run.series("loss/train", max_points=2000)

Whatever a killed writer left is read as far as it goes; what could not be read is listed by `problems()`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainvitals.card import RunCard
from trainvitals.catalogue import (
    FIELDS,
    MANY_ROWS,
    OWN,
    SIGNALS,
    SPARSE,
    STATED,
    Field,
    Signal,
    signal_of,
    stated_signal,
)
from trainvitals.errors import UnknownSignal
from trainvitals.formulas import Masked
from trainvitals.imported import FILE as IMPORT_FILE
from trainvitals.imported import MOST_RECORD_BYTES, UNREADABLE, Imported
from trainvitals.sealed import MOST_BYTES, opened, seal
from trainvitals.store.attempts import ENDLESS, Attempt, Writer, clock_notes, group
from trainvitals.store.contents import Contents
from trainvitals.store.decimate import decimate
from trainvitals.store.events import Event
from trainvitals.store.folder import Folder, open_folder
from trainvitals.store.liveness import Liveness, Watch, ages, of_import
from trainvitals.store.merge import Piece
from trainvitals.store.parts import Part
from trainvitals.store.problems import (
    damage,
    few,
    lacking_sentence,
    losses,
    overlap_sentences,
    printable,
    silent_ranks,
)
from trainvitals.store.remarks import Remark, RemarkFiles
from trainvitals.store.rows import Rows, common_labels, gather
from trainvitals.store.samples import Sample, SampleFiles
from trainvitals.store.series import Extent, Logged, Series

if TYPE_CHECKING:
    import pandas as pd

PATIENCE_SECONDS = 30.0
"""How long a step of a live run waits for the ranks that have not reported it."""


class Run:
    """A run folder, as of the last `refresh()`. Made by `open_run`."""

    def __init__(self, folder: Folder) -> None:
        self.path = str(folder)
        self.name = self.path.rstrip("/").rsplit("/", 1)[-1]
        self.attempts: tuple[Attempt, ...] = ()
        """Oldest first."""
        self._contents = Contents(folder)
        self._watch = Watch()
        self._samples = SampleFiles(folder)
        self._remarks = RemarkFiles(folder)
        self._frames: dict[str, dict[str, list[Part]]] = {}
        self._homes: dict[str, tuple[str, Field]] = {}
        """Field -> its frame, and what the newest rows say of it."""
        self._rows: dict[tuple[str, int], Rows | None] = {}
        self._known_labels: dict[str, dict[str, tuple[str, ...]]] = {}
        self._lacking: dict[tuple[str, int], list[str]] = {}
        """Frame and attempt -> the ranks without rows that were met when it was last read, a sentence each."""
        self.refresh()

    def refresh(self) -> bool:
        """Look for new data; True if there was any. Raises RunNotFound if the folder is no longer a run."""
        changed = self._contents.refresh()
        self._watch.look(self._contents.sizes)
        if not changed:
            return False
        self._rows.clear()
        self._known_labels.clear()
        self._frames = {}
        writers, first_rows = {}, dict[str, int]()
        for event in self._contents.events:
            if event.kind == "started":
                writers[event.writer] = _introduced(event)
        for part in self._contents.parts.values():
            if part.rows:
                name = part.name.writer
                self._frames.setdefault(part.name.frame, {}).setdefault(name, []).append(part)
                known = writers.get(name)
                writers[name] = Writer.of(part.header, known.clock_ahead if known else 0.0)
                first_rows[name] = min(first_rows.get(name, ENDLESS), part.steps[0])
        for by_writer in self._frames.values():
            for parts in by_writer.values():
                parts.sort(key=lambda part: part.name.first)
        self._homes = {}
        for frame, by_writer in self._frames.items():
            # The newest of each writer has them all, unless a frame was opened anew with fewer.
            newest = {id(part.header.fields): part.header.fields
                      for parts in by_writer.values() for part in reversed(parts)
                      if part is parts[-1] or part.header.fields != parts[-1].header.fields}
            for field in (field for fields in newest.values() for field in fields):
                if field.name not in self._homes or FIELDS.get(field.name, field).frame == frame:
                    self._homes[field.name] = frame, field
        self.attempts = group(writers.values(), first_rows)
        return True

    @property
    def version(self) -> str:
        """Changes if and only if the data did."""
        return self._contents.version

    @property
    def card(self) -> RunCard:
        """The run card; one that knows nothing where `run.json` is missing or damaged."""
        return self._contents.card

    # -- series -------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether a signal has at least one row."""
        return all(any(field == f.name for part in self._frame_parts(self._frame_of(field)) for f in part.header.fields)
                   for field in self.reads(name))

    def reads(self, name: str) -> tuple[str, ...]:
        """The stored fields that a signal is made of in this run: its sums, or what a log states in their place."""
        signal = SIGNALS.get(name)
        fields = signal.reads if signal else (name,)
        stated = STATED + name
        return (stated,) if stated in self._homes and not all(field in self._homes for field in fields) else fields

    def array(self, name: str, *, steps: tuple[int, int] | None = None, branch: int | None = None) -> Series:
        """A signal at full resolution.

        Args:
            name: a signal of the catalogue, a stored field, or a name that the user logged. Ours win: a number that
                the user logged as `loss/train` is `custom/loss/train`. Of an imported run, a signal is what the log
                states (`Series.signal.stated`).
            steps: first and last step; None for all.
            branch: number of a branch (see `branches()`); None for the main line.

        Raises:
            UnknownSignal: no such name, here or in the catalogue.
        """
        signal = self._signal(name)
        whole = None if signal.running else steps
        fields = [self._field(name) for name in signal.reads]
        pieces = [piece for index in self._attempts_on(branch) if (piece := self._piece(signal, fields, index, whole,
                                                                                        branch is not None))]
        labels = self._labels(signal, fields)
        if not pieces:
            shape = (0, *(len(axis) for axis in labels))
            return Series(signal, np.empty(0, np.int64), np.empty(shape), None, labels)
        piece = pieces[0] if len(pieces) == 1 else Piece.join(pieces)
        with np.errstate(over="ignore", invalid="ignore"):
            result: Masked = signal.formula(*piece.columns, *([self.card] if signal.needs_card else []))
        at, partial = piece.steps, piece.partial
        values, present = _without(result, piece.unknown, signal)
        if steps is not None:
            inside = (at >= steps[0]) & (at <= steps[1])
            at, values = at[inside], values[inside]
            present = None if present is None else present[inside]
            partial = None if partial is None else partial[inside]
        return Series(signal, at, values, present, labels, partial)

    def times(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """When the steps of a signal's frame were written, or logged by the tool that wrote them: main line only.

        Returns the steps [n] and Unix seconds [n]: of the first rank, NaN where nobody knows. Raises UnknownSignal.
        """
        frame = self._frame_of(self._signal(name).reads[0])
        steps, times = [np.empty(0, np.int64)], [np.empty(0)]
        for index in range(len(self.attempts)):
            rows = self._gathered(frame, index, None)
            if rows is None:
                continue
            first = np.full(len(rows.steps), np.nan)
            for part, place in zip(rows.parts, rows.places, strict=True):
                first[place.at] = np.fmin(first[place.at], place.reduced(part.column("time"), np.fmin))
            keep = self._kept(frame, index, rows, False)
            steps.append(rows.steps[keep])
            times.append(first[keep])
        return np.concatenate(steps), np.concatenate(times)

    def series(self, name: str, *, steps: tuple[int, int] | None = None, max_points: int | None = None,
               branch: int | None = None) -> pd.DataFrame:
        """A signal as a table: step, label (where it has axes), value.

        With `max_points`, at most so many rows per label: each stands for the steps `step` to `last_step`, with the
        mean, `lo` and `hi` of its finite values and the number of `nonfinite` ones. Labels of two axes are joined by
        a dot. Arguments and errors as in `array`.
        """
        import pandas as pd

        data = self.array(name, steps=steps, branch=branch)
        labels = _joined(data.labels)
        flat = data.values.reshape(len(data), max(len(labels), 1))
        exists = None if data.present is None else data.present.reshape(flat.shape)
        if max_points is None:
            keep = np.ones(flat.shape, bool).ravel() if exists is None else exists.ravel()
            table = {"step": np.repeat(data.steps, flat.shape[1])[keep], "value": flat.ravel()[keep]}
        else:
            buckets = decimate(data.steps, flat, exists, max_points)
            keep = (buckets.count > 0).ravel()
            width = flat.shape[1]
            table = {"step": np.repeat(buckets.first_step, width)[keep],
                     "last_step": np.repeat(buckets.last_step, width)[keep],
                     "value": buckets.mean.ravel()[keep], "lo": buckets.lo.ravel()[keep],
                     "hi": buckets.hi.ravel()[keep], "nonfinite": buckets.nonfinite.ravel()[keep]}
        frame = pd.DataFrame(table)
        if data.labels:
            rows = len(keep) // max(len(labels), 1)
            frame.insert(1, "label", pd.Categorical.from_codes(np.tile(np.arange(len(labels)), rows)[keep],
                                                               pd.Index(labels, dtype=object)))
        return frame

    def signals(self) -> pd.DataFrame:
        """Every signal that has data: name, unit, axis, reduction, cadence, points, first_step, last_step, meaning."""
        import pandas as pd

        columns = ["name", "unit", "axis", "reduction", "cadence", "points", "first_step", "last_step", "meaning"]
        stored = {f.name for by_writer in self._frames.values() for parts in by_writer.values()
                  for part in parts for f in part.header.fields}
        known = [s for s in SIGNALS.values() if set(s.reads) <= stored]
        names = {s.name for s in known}
        known += [stated_signal(self._field(name)) for name in sorted(stored)
                  if name.startswith(STATED) and name.removeprefix(STATED) not in names]
        known += [signal_of(self._field(name)) for name in sorted(stored - names) if not name.startswith(STATED)]
        rows = []
        spans: dict[str, tuple[NDArray[np.int64], float]] = {}
        for signal in known:
            frame = self._frame_of(signal.reads[0])
            if frame not in spans:
                steps = np.concatenate([self._main_steps(frame, i) for i in range(len(self.attempts))])
                spans[frame] = steps, float(np.median(np.diff(steps))) if len(steps) > 1 else float("nan")
            steps, cadence = spans[frame]
            if len(steps):
                rows.append([signal.name, signal.unit, ".".join(signal.axes), self._field(signal.reads[0]).merge,
                             cadence, len(steps), int(steps[0]), int(steps[-1]), signal.meaning])
        return pd.DataFrame(rows, columns=columns)

    # -- what happened --------------------------------------------------------------------------------------------

    @property
    def first_step(self) -> int | None:
        """Oldest step on the main line; None without data."""
        begins = [part.steps[0] for attempt in self.attempts for writer in attempt.writers
                  for by_writer in self._frames.values() for part in by_writer.get(writer.name, ())
                  if part.steps[0] <= attempt.kept_until]
        return min(begins, default=None)

    @property
    def last_step(self) -> int | None:
        """Newest step on the main line; None without data."""
        ends = [min(part.steps[1], attempt.kept_until) for attempt in self.attempts for writer in attempt.writers
                for by_writer in self._frames.values() for part in by_writer.get(writer.name, ())
                if part.steps[0] <= attempt.kept_until]
        return max(ends, default=None)

    @property
    def last_time(self) -> float | None:
        """Unix time in seconds of the newest row, by the folder's clock as far as its writer knew it; None without
        data.
        """
        ahead = self._clocks_ahead()
        names = {name for by_writer in self._frames.values() for name in by_writer}
        times = {name: self._last_row(name) for name in names}
        return max((at - ahead.get(name, 0.0) for name, at in times.items() if at), default=None)

    @property
    def status(self) -> Literal["live", "finished", "silent", "unknown"]:
        """Finished: its last attempt ended in order. Live or silent: it grew, or did not, within the last minute.

        Unknown: this is an early look, and clocks that disagree are all there is to tell by.
        """
        return self.liveness.status

    @property
    def liveness(self) -> Liveness:
        """The status, and what it was told by."""
        if (imported := self.imported) is not None:
            return of_import(imported.changed, self._ended)
        if self._ended:
            return Liveness("finished", "every writer of its last attempt ended in order")
        return self._watch.judge(lambda: ages(self._contents.folder, self._newest()))

    @property
    def imported(self) -> Imported | None:
        """The log that the run was imported from, and what that hides; None of a run that was not imported."""
        if IMPORT_FILE not in self._contents.sizes:
            return None
        try:
            raw, state = opened(self._contents.folder.read(IMPORT_FILE, 0, MOST_RECORD_BYTES), MOST_RECORD_BYTES)
            return Imported.from_json(raw) if state == "whole" else UNREADABLE
        except (OSError, ValueError):
            return UNREADABLE

    @property
    def _ended(self) -> bool:
        """Whether the writers of the last attempt ended in order."""
        closed = {event.writer for event in self._contents.events if event.kind == "closed"}
        return bool(self.attempts) and {writer.name for writer in self.attempts[-1].writers} <= closed

    def _newest(self) -> float | None:
        """Time of the newest row or event by the file system's clock, as far as its writers knew that."""
        ahead, rows = self._clocks_ahead(), self.last_time
        times = [event.time - ahead.get(event.writer, 0.0) for event in self._contents.events]
        return max([*times, *([] if rows is None else [rows])], default=None)

    def _clocks_ahead(self) -> dict[str, float]:
        """Writer -> seconds by which its clock was ahead of the file system's; none of an import, whose times are the
        log's.
        """
        if IMPORT_FILE in self._contents.sizes:
            return {}
        return {writer.name: writer.clock_ahead for attempt in self.attempts for writer in attempt.writers}

    def _last_row(self, writer: str) -> float:
        """Time of a writer's newest row, Unix seconds by its own clock; 0 without one."""
        times = [newest_time(by_writer[writer]) for by_writer in self._frames.values() if writer in by_writer]
        return max((at for at in times if at is not None), default=0.0)

    def rows_by_frame(self) -> tuple[dict[str, int], set[str]]:
        """How many rows of each frame can be read, all branches together, and the names of those who wrote them."""
        counts = {frame: sum(part.rows for part in self._frame_parts(frame)) for frame in self._frames}
        return counts, {writer.name for attempt in self.attempts for writer in attempt.writers}

    def extent(self) -> Extent:
        """How much there is on the main line and off it: what a sentence about the record can have looked at."""
        parts = [part for by_writer in self._frames.values() for parts in by_writer.values() for part in parts]
        ranks = {part.header.rank for part in parts}
        first = min((part.steps[0] for part in parts), default=None)
        return Extent(sum(part.rows for part in parts), len(ranks), len(self._frames), len(self.attempts), first)

    def logged(self) -> list[Logged]:
        """Which steps have rows on the main line, of every frame and attempt, oldest attempt first in each frame."""
        found = []
        for frame in sorted(self._frames):
            for index in range(len(self.attempts)):
                rows = self._gathered(frame, index, None)
                if rows is None:
                    continue
                keep = self._kept(frame, index, rows, False)
                steps = rows.steps[keep]
                last = int(steps[-1]) if len(steps) else -1
                ranks = sorted({writer.rank for writer in self._taking_part(frame, index)})
                repeats = {rank: twice[twice <= last] for rank, twice in rows.repeats.items()}
                found.append(Logged(frame, index, steps, {rank: twice for rank, twice in repeats.items() if len(twice)},
                                    dict(rows.lacking(ranks, keep))))
        return found

    def overlaps(self) -> list[str]:
        """Jobs that wrote the same rank at once, one sentence each."""
        return overlap_sentences(self.attempts, self._last_row, self._contents.events)

    def clock_notes(self) -> list[str]:
        """What shows that clocks of writers or file systems disagree, one sentence each."""
        told = [f"{event.message}." for event in self._contents.events if event.kind == "clock_offset"]
        return few(told) + few(clock_notes(self.attempts))

    def events(self) -> pd.DataFrame:
        """Events in order of time: time (unix s), step, kind, message, rank, attempt, data."""
        import pandas as pd

        attempt = {writer.name: i for i, team in enumerate(self.attempts) for writer in team.writers}
        rows = [[e.time, e.step, e.kind, e.message, e.rank, attempt.get(e.writer, 0), e.data]
                for e in self._contents.events]
        table = pd.DataFrame(rows, columns=["time", "step", "kind", "message", "rank", "attempt", "data"])
        return table.astype({"step": "Int64"})

    def samples(self, name: str | None = None, kind: str | None = None, steps: tuple[int, int] | None = None, *,
                branch: int | None = None) -> list[Sample]:
        """Texts, tables, histograms and images that the script logged, by step; `Sample.read()` loads one.

        Args:
            name: only those logged under this name; None for all.
            kind: "text", "table", "histogram" or "image"; None for all.
            steps: first and last step; None for all.
            branch: number of a branch (see `branches()`); None for the main line.
        """
        attempts = {writer.name: i for i, attempt in enumerate(self.attempts) for writer in attempt.writers}

        def wanted(sample: Sample) -> bool:
            at, index = sample.step, attempts.get(sample.writer)
            left = index is not None and at is not None and at > self.attempts[index].kept_until
            return (name in (None, sample.name) and kind in (None, sample.kind)
                    and (steps is None or (at is not None and steps[0] <= at <= steps[1]))
                    and (not left if branch is None else left and index == branch))

        return [sample for sample in self._samples.all(self._contents.sizes) if wanted(sample)]

    def remarks(self) -> list[Remark]:
        """What people said of this run, oldest first: of this moment, as remarks change no version. Raises OSError."""
        return self._remarks.all()

    def branches(self) -> pd.DataFrame:
        """Attempts that were left for an earlier step: branch, from_step, to_step, kept_until, started (unix s)."""
        import pandas as pd

        rows = []
        for i, attempt in enumerate(self.attempts):
            last = max((part.steps[1] for by_writer in self._frames.values() for writer in attempt.writers
                        for part in by_writer.get(writer.name, ())), default=-1)
            if last > attempt.kept_until:
                rows.append([i, max(attempt.kept_until, attempt.start_step) + 1, last, attempt.kept_until,
                             attempt.started])
        return pd.DataFrame(rows, columns=["branch", "from_step", "to_step", "kept_until", "started"])

    def findings(self) -> list[dict[str, Any]]:
        """What the checks last said of this run; empty before they did."""
        stored = self.stored_findings().get("findings")
        return [item for item in stored if isinstance(item, dict)] if isinstance(stored, list) else []

    def stored_findings(self) -> dict[str, Any]:
        """The last findings with the store `version` and `time` they were made at and the `judge` that made them.

        Empty before that, or if damaged.
        """
        try:
            raw, state = opened(self._contents.folder.read("findings/latest.json", 0, MOST_BYTES))
        except (OSError, ValueError):
            return {}
        return {} if state == "broken" else raw

    def save_findings(self, findings: Sequence[dict[str, Any]], judge: str = "") -> None:
        """Store findings for readers, and keep them in the folder's history. Raises OSError.

        `judge` tells the code and settings that made them (`checks.judged_by`): of another one they are out of date.
        """
        record = {"version": self.version, "judge": judge, "time": time.time(), "step": self.last_step,
                  "findings": list(findings)}
        text = json.dumps(seal(record), indent=1, allow_nan=False).encode()
        self._contents.folder.replace(f"findings/{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.json", text)
        self._contents.folder.replace("findings/latest.json", text)

    def kept(self, name: str, most: int) -> bytes:
        """What `keep` stored under this name; empty where nothing is, or more than `most` bytes. Raises OSError."""
        path = f"judge/{name}"
        size = self._contents.folder.sizes("judge").get(path, 0)
        return self._contents.folder.read(path, 0, size) if 0 < size <= most else b""

    def keep(self, name: str, data: bytes) -> None:
        """Store what a judge wants to find again at its next look, beside the run. Raises OSError."""
        self._contents.folder.replace(f"judge/{name}", data)

    def problems(self) -> list[str]:
        """What of this run could not be read or was not written, one sentence each.

        Rows are verified when they are read, so damage in a column or a missing rank's row is named once the signal
        has been asked for.
        """
        found = [*self.damage(), *losses(self._contents.events), *self.silent_ranks()]
        found += self.overlaps() + self.clock_notes()
        found += few(sentence for sentences in self._lacking.values() for sentence in sentences)
        return [printable(sentence) for sentence in found]

    def damage(self) -> list[str]:
        """Files that cannot be read whole, as far as they were read, one sentence each."""
        live = self.status == "live"
        found = damage(self._contents, live) + self._samples.problems(live) + self._remarks.problems()
        return [printable(sentence) for sentence in found]

    def silent_ranks(self) -> list[str]:
        """Ranks that belong to the last attempt and have written nothing, in one sentence; none where all have."""
        return list(silent_ranks(self.attempts[-1:]))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _signal(self, name: str) -> Signal:
        stated = STATED + name
        if self.reads(name) == (stated,):
            return stated_signal(self._homes[stated][1])
        return SIGNALS.get(name) or signal_of(self._field(name))

    def _field(self, name: str) -> Field:
        if name in self._homes:
            return self._homes[name][1]
        if name in FIELDS:
            return FIELDS[name]
        if OWN + name in self._homes:  # a script's own `step`, say
            return self._homes[OWN + name][1]
        raise UnknownSignal(f"{self.path} has no signal {name!r}. `run.signals()` lists those it has.")

    def _frame_of(self, field: str) -> str:
        if field in self._homes:
            return self._homes[field][0]
        return FIELDS[field].frame if field in FIELDS else ""

    def _frame_parts(self, frame: str) -> list[Part]:
        return [part for parts in self._frames.get(frame, {}).values() for part in parts]

    def _labels(self, signal: Signal, fields: Sequence[Field]) -> tuple[tuple[str, ...], ...]:
        if signal.by_rank:
            return (tuple(str(rank) for rank in self._ranks()),)
        known: dict[str, tuple[str, ...]] = {}
        for field in fields:
            known |= self._labels_of(field)
        return tuple(known[axis] for axis in signal.axes)

    def _labels_of(self, field: Field) -> dict[str, tuple[str, ...]]:
        if field.name not in self._known_labels:
            self._known_labels[field.name] = common_labels(self._frame_parts(self._frame_of(field.name)), field)
        return self._known_labels[field.name]

    def _ranks(self) -> list[int]:
        return sorted({rank for attempt in self.attempts for rank in attempt.ranks})

    def _attempts_on(self, branch: int | None) -> list[int]:
        return list(range(len(self.attempts))) if branch is None else [branch]

    def _taking_part(self, frame: str, index: int) -> list[Writer]:
        """The writers of an attempt that have a file in a frame, be it readable or not."""
        known = self._contents.writers.get(frame, set())
        return [writer for writer in self.attempts[index].writers if writer.name in known]

    def _gathered(self, frame: str, index: int, steps: tuple[int, int] | None) -> Rows | None:
        """Rows of one frame in one attempt, of the parts that overlap `steps`."""
        if steps is None and (frame, index) in self._rows:
            return self._rows[frame, index]
        writers = self._taking_part(frame, index)
        parts = [part for writer in writers for part in self._frames.get(frame, {}).get(writer.name, ())
                 if steps is None or (part.steps[0] <= steps[1] and part.steps[1] >= steps[0])]
        expected = 1 if frame in SPARSE else len({writer.rank for writer in writers})
        rows = gather(parts, expected, frame in MANY_ROWS) if parts else None
        if steps is None:
            self._rows[frame, index] = rows
        return rows

    def _main_steps(self, frame: str, index: int) -> NDArray[np.int64]:
        rows = self._gathered(frame, index, None)
        return np.empty(0, np.int64) if rows is None else rows.steps[self._kept(frame, index, rows, False)]

    def _piece(self, signal: Signal, fields: Sequence[Field], index: int, steps: tuple[int, int] | None,
               branch: bool) -> Piece | None:
        frame = self._frame_of(fields[0].name)
        rows = self._gathered(frame, index, steps)
        if rows is None:
            return None
        keep = self._kept(frame, index, rows, branch)
        if steps is None or (frame, index) not in self._lacking:
            self._note_lacking(frame, index, rows, keep)
        steps_kept = rows.steps[keep]
        if signal.by_rank:
            return Piece.by_rank(steps_kept, [rows.by_rank(field, self._ranks()) for field in fields], keep)
        labels = [self._labels_of(field) for field in fields]
        alone = len(self.attempts[index].ranks) < self.attempts[index].world_size
        if signal.windows and len(steps_kept) > signal.windows:
            ends = steps_kept[np.linspace(0, len(steps_kept), signal.windows + 1)[1:].astype(int) - 1]
            edges = np.append(steps_kept[0] - 1, ends)
            sums = [rows.summed(field, names, edges) for field, names in zip(fields, labels, strict=True)]
            return Piece.of(ends, sums, slice(None), fields, signal.mean, alone)
        merged = [rows.merged(field, names) for field, names in zip(fields, labels, strict=True)]
        return Piece.of(steps_kept, merged, keep, fields, signal.mean, alone)

    def _note_lacking(self, frame: str, index: int, rows: Rows, keep: slice) -> None:
        ranks = sorted({writer.rank for writer in self._taking_part(frame, index)})
        found = [lacking_sentence(frame, rank, steps) for rank, steps in rows.lacking(ranks, keep)]
        if found:
            self._lacking[frame, index] = found
        else:
            self._lacking.pop((frame, index), None)

    def _kept(self, frame: str, index: int, rows: Rows, branch: bool) -> slice:
        """Which of an attempt's steps are on the main line (or on its branch)."""
        attempt = self.attempts[index]
        cut = int(np.searchsorted(rows.steps, attempt.kept_until, side="right"))
        if branch:
            return slice(cut, None)
        if rows.missing is not None and index == len(self.attempts) - 1 and self.status in ("live", "unknown"):
            cut = min(cut, int(np.searchsorted(rows.steps, self._reported_by_all(frame, index), side="right")))
        return slice(0, cut)

    def _reported_by_all(self, frame: str, index: int) -> int:
        """The last step that all ranks have reported but those that are overdue.

        A rank is overdue once another one, by its own clock, is `PATIENCE_SECONDS` past the step that the rank lacks.
        """
        newest = {writer.name: parts for writer in self._taking_part(frame, index)
                  if (parts := self._frames.get(frame, {}).get(writer.name))}
        ends = {name: parts[-1].steps[1] for name, parts in newest.items()}
        first = max(ends, key=ends.__getitem__)
        behind = sorted({end for end in ends.values() if end < ends[first]}, reverse=True)
        if len(newest) < len(self._taking_part(frame, index)):
            behind.append(-ENDLESS)
        kept = ends[first]
        for end in behind:
            if seconds_since(newest[first], end) > PATIENCE_SECONDS:
                break
            kept = end
        return kept


def newest_time(parts: Sequence[Part]) -> float | None:
    """Unix time in seconds of a writer's newest row whose time can be read."""
    return next((found for part in reversed(parts) if (found := part.last_time) is not None), None)


def seconds_since(parts: Sequence[Part], step: int) -> float:
    """Seconds from a writer's first row after a step to its newest row, by its own clock."""
    newest = first = newest_time(parts)
    for part in reversed(parts):
        times = part.column("time")[part.column("step") > step]
        times = times[np.isfinite(times)]
        first = float(times[0]) if len(times) else first
        if part.steps[0] <= step:
            break
    return 0.0 if newest is None or first is None else newest - first


def _without(result: Masked, unknown: NDArray[np.bool_] | None, signal: Signal
             ) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Values and where they exist, without those of unknown steps; a running value stays unknown from there on."""
    if unknown is None:
        return result.values, result.present
    if signal.running and not signal.windows:
        unknown = np.logical_or.accumulate(unknown)
    known = np.broadcast_to(~unknown.reshape(-1, *[1] * (result.values.ndim - unknown.ndim))
                            if unknown.ndim == 1 else ~unknown, result.values.shape)
    present = known if result.present is None else result.present & known
    return np.where(known, result.values, np.nan), present


def _introduced(event: Event) -> Writer:
    """The writer that an event of the kind "started" introduces."""
    numbers = [event.data.get(key) for key in ("attempt", "rewind", "clock_ahead")]
    attempt, rewind, ahead = (n if isinstance(n, int | float) and abs(n) < ENDLESS else 0 for n in numbers)
    return Writer(event.writer, event.rank, event.world_size, event.start_step, event.started, int(attempt),
                  int(rewind), str(event.data.get("launch") or ""), float(ahead))


def _joined(labels: tuple[tuple[str, ...], ...]) -> list[str]:
    joined = [""]
    for i, axis in enumerate(labels):
        joined = [f"{left}.{right}" if i else right for left in joined for right in axis]
    return joined


def open_run(path: str | os.PathLike[str] | Folder) -> Run:
    """Open the run in a folder (a path or an fsspec URL).

    Raises:
        RunNotFound: there is no run.
    """
    return Run(open_folder(path))
