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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS, SIGNALS, Field, Signal, signal_of
from trainvitals.errors import UnknownSignal
from trainvitals.formulas import Masked
from trainvitals.store.attempts import ENDLESS, Attempt, Writer, group
from trainvitals.store.contents import Contents
from trainvitals.store.decimate import decimate
from trainvitals.store.folder import Folder, open_folder
from trainvitals.store.merge import Rows, common_labels, gather
from trainvitals.store.parts import LivePart, Part

if TYPE_CHECKING:
    import pandas as pd

SILENT_SECONDS = 60.0
"""A run without an orderly end and without data for so long is called silent."""
PATIENCE_SECONDS = 30.0
"""How long a step waits for the ranks that have not reported it before it is shown without them."""


@dataclass(frozen=True, slots=True)
class Series:
    """A signal at full resolution: ranks merged, one branch or the main line."""

    signal: Signal
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    """[n, *axes]"""
    present: NDArray[np.bool_] | None
    """Where a value exists at all (None: everywhere). A NaN that is present is data."""
    labels: tuple[tuple[str, ...], ...]
    """Labels of every axis."""

    def __len__(self) -> int:
        return len(self.steps)


class Run:
    """A run folder, as of the last `refresh()`. Made by `open_run`."""

    def __init__(self, folder: Folder) -> None:
        self.path = str(folder)
        self.name = self.path.rstrip("/").rsplit("/", 1)[-1]
        self.attempts: tuple[Attempt, ...] = ()
        """Oldest first."""
        self._contents = Contents(folder)
        self._frames: dict[str, dict[str, list[Part]]] = {}
        self._rows: dict[tuple[str, int], Rows | None] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Look for new data; True if there was any. Raises RunNotFound if the folder is no longer a run."""
        if not self._contents.refresh():
            return False
        self._rows.clear()
        self._frames = {}
        writers, first_rows = {}, dict[str, int]()
        for event in self._contents.events:
            if event.kind == "started":
                writers[event.writer] = Writer(event.writer, event.rank, event.world_size, event.start_step,
                                               event.started)
        for part in self._contents.parts.values():
            if part.rows:
                name = part.name.writer
                self._frames.setdefault(part.name.frame, {}).setdefault(name, []).append(part)
                writers[name] = Writer.of(part.header)
                first_rows[name] = min(first_rows.get(name, ENDLESS), part.steps[0])
        for by_writer in self._frames.values():
            for parts in by_writer.values():
                parts.sort(key=lambda part: part.name.first)
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
        signal = SIGNALS.get(name)
        fields = signal.reads if signal else (name,)
        return all(any(field == f.name for part in self._frame_parts(self._frame_of(field)) for f in part.header.fields)
                   for field in fields)

    def array(self, name: str, *, steps: tuple[int, int] | None = None, branch: int | None = None) -> Series:
        """A signal at full resolution.

        Args:
            name: a signal of the catalogue, a stored field, or a name that the user logged.
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
        at = np.concatenate([piece[0] for piece in pieces])
        columns = [np.concatenate([piece[1][i] for piece in pieces]) for i in range(len(fields))]
        with np.errstate(over="ignore", invalid="ignore"):
            result: Masked = signal.formula(*columns, *([self.card] if signal.needs_card else []))
        values, present = result.values, result.present
        if steps is not None:
            inside = (at >= steps[0]) & (at <= steps[1])
            at, values = at[inside], values[inside]
            present = None if present is None else present[inside]
        return Series(signal, at, values, present, labels)

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
        known += [signal_of(self._field(name)) for name in sorted(stored - {s.name for s in known})]
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
        """Unix time in seconds of the newest row; None without data."""
        newest = [float(parts[-1].column("time")[-1]) for by_writer in self._frames.values()
                  for parts in by_writer.values()]
        return max(newest, default=None)

    @property
    def status(self) -> Literal["live", "finished", "silent"]:
        """Finished: its last attempt ended in order. Silent: it did not, and no data came for a minute."""
        closed = {event.writer for event in self._contents.events if event.kind == "closed"}
        if self.attempts and {writer.name for writer in self.attempts[-1].writers} <= closed:
            return "finished"
        newest = max([self.last_time or 0.0, *(event.time for event in self._contents.events)])
        return "silent" if time.time() - newest > SILENT_SECONDS else "live"

    def events(self) -> pd.DataFrame:
        """Events in order of time: time (unix s), step, kind, message, rank, attempt, data."""
        import pandas as pd

        attempt = {writer.name: i for i, team in enumerate(self.attempts) for writer in team.writers}
        rows = [[e.time, e.step, e.kind, e.message, e.rank, attempt.get(e.writer, 0), e.data]
                for e in self._contents.events]
        table = pd.DataFrame(rows, columns=["time", "step", "kind", "message", "rank", "attempt", "data"])
        return table.astype({"step": "Int64"})

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
        """The last findings with the store `version` and `time` they were made at; empty before that."""
        try:
            raw = json.loads(self._contents.folder.read("findings/latest.json"))
            return raw if isinstance(raw, dict) else {}
        except (OSError, ValueError, RecursionError):
            return {}

    def save_findings(self, findings: Sequence[dict[str, Any]]) -> None:
        """Store findings for readers, and keep them in the folder's history. Raises OSError."""
        record = {"version": self.version, "time": time.time(), "step": self.last_step, "findings": list(findings)}
        text = json.dumps(record, indent=1, allow_nan=False).encode()
        self._contents.folder.replace(f"findings/{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.json", text)
        self._contents.folder.replace("findings/latest.json", text)

    def problems(self) -> list[str]:
        """What of this run could not be read or was not written, one sentence each."""
        found = [f"{path} cannot be read: {why}." for path, why in self._contents.unreadable.items()]
        live = self.status == "live"
        newest = {(part.name.frame, part.name.writer): part.name.last for part in self._contents.parts.values()}
        for path, part in self._contents.parts.items():
            if not isinstance(part, LivePart):
                continue
            growing = live and newest[part.name.frame, part.name.writer] == part.name.last
            if part.tail.torn_bytes and not growing:
                found.append(f"{path} ends in {part.tail.torn_bytes} bytes that are no whole record: its writer was "
                             "killed or the disk was full.")
            if part.tail.damaged_batches:
                found.append(f"{path} has {part.tail.damaged_batches} damaged records (CRC mismatch); their rows are "
                             "left out.")
        for event in self._contents.events:
            if event.kind == "rows_dropped":
                found.append(f"Rank {event.rank}: {event.message}.")
        for attempt in self.attempts[-1:]:
            missing = sorted(set(range(attempt.world_size)) - set(attempt.ranks))
            if missing:
                found.append(f"Ranks {', '.join(map(str, missing))} of {attempt.world_size} have written nothing: sums "
                             "are over the others.")
        return found

    # -- inside ---------------------------------------------------------------------------------------------------

    def _signal(self, name: str) -> Signal:
        return SIGNALS.get(name) or signal_of(self._field(name))

    def _field(self, name: str) -> Field:
        for by_writer in self._frames.values():
            for parts in by_writer.values():
                for field in parts[-1].header.fields:
                    if field.name == name:
                        return field
        if name in FIELDS:
            return FIELDS[name]
        raise UnknownSignal(f"{self.path} has no signal {name!r}. `run.signals()` lists those it has.")

    def _frame_of(self, field: str) -> str:
        for frame, by_writer in self._frames.items():
            if any(field == f.name for parts in by_writer.values() for f in parts[-1].header.fields):
                return frame
        return FIELDS[field].frame if field in FIELDS else ""

    def _frame_parts(self, frame: str) -> list[Part]:
        return [part for parts in self._frames.get(frame, {}).values() for part in parts]

    def _labels(self, signal: Signal, fields: Sequence[Field]) -> tuple[tuple[str, ...], ...]:
        if signal.by_rank:
            return (tuple(str(rank) for rank in self._ranks()),)
        known: dict[str, tuple[str, ...]] = {}
        for field in fields:
            known |= common_labels(self._frame_parts(self._frame_of(field.name)), field)
        return tuple(known[axis] for axis in signal.axes)

    def _ranks(self) -> list[int]:
        return sorted({rank for attempt in self.attempts for rank in attempt.ranks})

    def _attempts_on(self, branch: int | None) -> list[int]:
        return list(range(len(self.attempts))) if branch is None else [branch]

    def _gathered(self, frame: str, index: int, steps: tuple[int, int] | None) -> Rows | None:
        """Rows of one frame in one attempt, of the parts that overlap `steps`."""
        if steps is None and (frame, index) in self._rows:
            return self._rows[frame, index]
        parts = [part for writer in self.attempts[index].writers
                 for part in self._frames.get(frame, {}).get(writer.name, ())
                 if steps is None or (part.steps[0] <= steps[1] and part.steps[1] >= steps[0])]
        rows = gather(parts) if parts else None
        if steps is None:
            self._rows[frame, index] = rows
        return rows

    def _main_steps(self, frame: str, index: int) -> NDArray[np.int64]:
        rows = self._gathered(frame, index, None)
        return np.empty(0, np.int64) if rows is None else rows.steps[self._kept(frame, index, rows, False)]

    def _piece(self, signal: Signal, fields: Sequence[Field], index: int, steps: tuple[int, int] | None,
               branch: bool) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]] | None:
        frame = self._frame_of(fields[0].name)
        rows = self._gathered(frame, index, steps)
        if rows is None:
            return None
        keep = self._kept(frame, index, rows, branch)
        steps_kept = rows.steps[keep]
        if signal.by_rank:
            return steps_kept, [rows.by_rank(field, self._ranks())[keep] for field in fields]
        labels = [common_labels(self._frame_parts(frame), field) for field in fields]
        if signal.windows and len(steps_kept) > signal.windows:
            ends = steps_kept[np.linspace(0, len(steps_kept), signal.windows + 1)[1:].astype(int) - 1]
            edges = np.append(steps_kept[0] - 1, ends)
            return ends, [rows.summed(field, names, edges) for field, names in zip(fields, labels, strict=True)]
        return steps_kept, [rows.merged(field, names)[keep] for field, names in zip(fields, labels, strict=True)]

    def _kept(self, frame: str, index: int, rows: Rows, branch: bool) -> slice:
        """Which of an attempt's steps are on the main line (or on its branch)."""
        attempt = self.attempts[index]
        cut = int(np.searchsorted(rows.steps, attempt.kept_until, side="right"))
        if branch:
            return slice(cut, None)
        if attempt.world_size > 1 and index == len(self.attempts) - 1 and self.status == "live":
            cut = min(cut, int(np.searchsorted(rows.steps, self._reported_by_all(frame, index), side="right")))
        return slice(0, cut)

    def _reported_by_all(self, frame: str, index: int) -> int:
        """The last step that every rank still writing has reported."""
        newest = {writer.name: self._frames[frame][writer.name][-1] for writer in self.attempts[index].writers
                  if writer.name in self._frames.get(frame, {})}
        times = {name: float(part.column("time")[-1]) for name, part in newest.items()}
        fresh = [part.steps[1] for name, part in newest.items()
                 if times[name] > max(times.values()) - PATIENCE_SECONDS]
        return min(fresh, default=ENDLESS)


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


def list_runs(path: str | os.PathLike[str]) -> list[str]:
    """Paths of the runs in a folder, or of the folder itself if it is one; empty where there is none."""
    folder = open_folder(path)
    root = str(folder).rstrip("/")

    def is_run(place: Folder) -> bool:
        return "run.json" in place.sizes() or any(name in place.child_names() for name in ("frames", "events"))

    if is_run(folder):
        return [root]
    children = [f"{root}/{name}" for name in folder.child_names()]
    return [child for child in children if is_run(open_folder(child))]
