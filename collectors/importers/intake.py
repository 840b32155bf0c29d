"""Rows of a log into the frames of a run folder: each column under the name, in the unit, that it was found to have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import Rows
from collectors.importers.names import BY_NAME, LR, Meaning, Names
from trainvitals.blind import BlindSpot
from trainvitals.catalogue import FIELDS, own_name, stated_field
from trainvitals.formulas import MISSING, given
from trainvitals.imported import Taken
from trainvitals.store import FrameWriter, RunWriter
from trainvitals.store.own import MOST_NAMES, NAME_CHARACTERS

CUSTOM = "custom"
MFU = "throughput/mfu"
PERCENT_ABOVE = 1.5
"""Utilisation is a share of at most 1, and larger numbers are per cent."""
WATCHED = ("loss/train", "grad/norm", "grad/norm_clipped", LR)
SPARSE = 1.5
"""Steps per row from which on rows are called missing between the logged ones."""
UNCLIPPED_UNKNOWN = BlindSpot(
    "scaled", ("grad/norm",), "The log does not say whether its gradient norm was taken before or after clipping",
    "Say which by --map grad/norm=COLUMN or --map grad/norm_clipped=COLUMN, where the training code tells.")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a column goes."""

    frame: str
    field: str
    taken: Taken
    label: str = ""

    def values(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        """In the unit of the signal; bit by bit the log's where that is its own."""
        factor = self.taken.factor
        return column if factor == 1.0 else np.where(given(column), column * factor, MISSING)


class Intake:
    """Gives columns their places, and rows to the writer."""

    def __init__(self, names: Names, targets: Iterable[tuple[str, str, float, str, str]] = (),
                 counts: Mapping[str, list[int]] | None = None, blanks: bool = False) -> None:
        """`targets` and `counts`: as `state` and `counts` gave them; `blanks`: see `Importer.blanks`."""
        self._names, self._blanks = names, blanks
        self.counts: dict[str, list[int]] = {signal: list(found) for signal, found in (counts or {}).items()}
        """Signal -> its first and last step, how many rows have it, and how many lack it."""
        self._targets: dict[str, Target | None] = {}
        self.notes: list[str] = []
        self.rows: dict[str, int] = {}
        """Frame -> rows handed over so far."""
        self.skip: dict[str, int] = {}
        """Frame -> rows that the folder has already, of a process that was killed before it could say so."""
        self._frames: dict[str, tuple[tuple[str, ...], FrameWriter]] = {}
        for column, signal, factor, label, why in targets:
            self._targets[column] = _target(column, Meaning(signal, factor, label, why))

    def state(self) -> list[tuple[str, str, float, str, str]]:
        """The columns and their places, as JSON."""
        return [(column, t.taken.signal, t.taken.factor, t.label, t.taken.why)
                for column, t in self._targets.items() if t is not None]

    @property
    def taken(self) -> list[Taken]:
        """What every column was taken for, catalogue names first."""
        found = [t.taken for t in self._targets.values() if t is not None]
        return sorted(found, key=lambda t: (t.why == _OWN, t.signal))

    @property
    def blind(self) -> list[BlindSpot]:
        """What neither the names nor the rows say."""
        guessed = any(t.signal == "grad/norm" and t.why == BY_NAME for t in self.taken)
        found = [UNCLIPPED_UNKNOWN] if guessed else []
        for signal, (first, last, rows, blank) in self.counts.items():
            if rows > 2 and (last - first) >= SPARSE * (rows - 1):
                found.append(BlindSpot("sampled", (signal,), f"The log has fewer rows of {signal} than steps, and does "
                                       "not say what lies between two of them", "Log every step"))
            if self._blanks and blank:
                found.append(BlindSpot("nonfinite", (signal,), f"{signal} is blank in some rows, and a blank may be a "
                                       "NaN (as pandas writes it) or no value at all", "Write NaN as the text NaN: "
                                       "to_csv(na_rep=\"NaN\")"))
        return found

    @property
    def missing(self) -> list[str]:
        """Columns that the user named and that the log has not had so far, one sentence each."""
        return [f"The log has no column {column!r}, which --map names." for column in self._names.unused(self._targets)]

    def restart(self) -> None:
        """The frames of a writer are no longer open."""
        self._frames = {}

    def store(self, writer: RunWriter, rows: Rows) -> None:
        """Hand rows to the writer, each frame those that have a value in it."""
        self._place(rows)
        by_frame: dict[str, list[tuple[str, Target]]] = {}
        for column in rows.columns:
            target = self._targets.get(column)
            if target is not None:
                by_frame.setdefault(target.frame, []).append((column, target))
        for frame, columns in by_frame.items():
            self._store_frame(writer, frame, columns, rows)

    def _store_frame(self, writer: RunWriter, frame: str, columns: list[tuple[str, Target]], rows: Rows) -> None:
        there = np.zeros(len(rows.steps), bool)
        for column, target in columns:
            has = given(rows.columns[column])
            there |= has
            if target.taken.signal in WATCHED:
                self._count(target.taken.signal, rows.steps, has)
        at = np.flatnonzero(there)
        skipped = min(self.skip.get(frame, 0), len(at))
        self.skip[frame] = self.skip.get(frame, 0) - skipped
        self.rows[frame] = self.rows.get(frame, 0) + len(at)
        at = at[skipped:]
        if not len(at):
            return
        values: dict[str, NDArray[Any]] = {}
        if frame == FIELDS[LR].frame:
            labels = self._groups()
            table = np.full((len(at), len(labels)), MISSING)
            for column, target in columns:
                table[:, labels.index(target.label)] = target.values(rows.columns[column])[at]
            values[LR] = table
        else:
            values = {target.field: target.values(rows.columns[column])[at] for column, target in columns}
        self._frame(writer, frame).extend(rows.steps[at], rows.times[at], values)

    def _count(self, signal: str, steps: NDArray[np.int64], has: NDArray[np.bool_]) -> None:
        if has.any():
            first, last, rows, blank = self.counts.get(signal, [int(steps[has][0]), 0, 0, 0])
            self.counts[signal] = [first, int(steps[has][-1]), rows + int(has.sum()), blank + int((~has).sum())]

    def _groups(self) -> tuple[str, ...]:
        return tuple(t.label for t in self._targets.values() if t is not None and t.field == LR)

    def _frame(self, writer: RunWriter, frame: str) -> FrameWriter:
        """The open frame, with all fields that are known by now."""
        fields = tuple(dict.fromkeys(t.field for t in self._targets.values() if t is not None and t.frame == frame))
        if frame == CUSTOM:
            shape: tuple[str, ...] = ()
        else:
            shape = (*fields, *(self._groups() if frame == FIELDS[LR].frame else ()))
        known = self._frames.get(frame)
        if known is None or known[0] != shape:
            wanted = [] if frame == CUSTOM else [stated_field(t.taken.signal) for name in fields for t in
                                                 [next(t for t in self._targets.values() if t and t.field == name)]]
            known = self._frames[frame] = shape, writer.frame(frame, wanted, {"group": self._groups()})
        return known[1]

    def _place(self, rows: Rows) -> None:
        """Find places for the columns that are new."""
        new = [column for column in rows.columns if column not in self._targets
               and bool(given(rows.columns[column]).any())]
        if not new:
            return
        meanings = {column: meaning for column in new if (meaning := self._names.meaning(column)) is not None}
        taken = {(t.taken.signal, t.label): t.taken.column for t in self._targets.values() if t is not None}
        by_signal: dict[tuple[str, str], list[str]] = {}
        for column, meaning in meanings.items():
            by_signal.setdefault((meaning.signal, meaning.label), []).append(column)
        chosen: dict[str, Meaning] = {}
        for key, columns in by_signal.items():
            best = min(meanings[column].rank for column in columns)
            first = [column for column in columns if meanings[column].rank == best]
            if key in taken:
                self.notes.append(f"{_list(columns)} could be {key[0]} too, which {taken[key]} is: kept under its own "
                                  f"name. Say --map {key[0]}=COLUMN for another choice.")
            elif len(first) > 1:
                self.notes.append(f"{_list(first)} could each be {key[0]}: kept under their own names. Say --map "
                                  f"{key[0]}=COLUMN.")
            else:
                chosen[first[0]] = _shared(meanings[first[0]], rows.columns[first[0]])
        for column in new:
            self._targets[column] = self._own(column) if column not in chosen else _target(column, chosen[column])

    def _own(self, column: str) -> Target | None:
        own = sum(t is not None and t.frame == CUSTOM for t in self._targets.values())
        bad = not column.strip() or any("\ud800" <= c <= "\udfff" or c == "\0" for c in column)
        if bad or len(column) > NAME_CHARACTERS or own >= MOST_NAMES:
            why = f"a run has at most {MOST_NAMES:,} names of its own" if own >= MOST_NAMES else "its name is no text"
            self.notes.append(f"The column {ascii(column)[:60]} is left out: {why}.")
            return None
        return _target(column, Meaning(own_name(column), why=_OWN))


_OWN = "kept under its own name"


def _target(column: str, meaning: Meaning) -> Target:
    taken = Taken(column, meaning.signal, meaning.factor, meaning.why)
    if meaning.why == _OWN:
        return Target(CUSTOM, column, taken)
    field = stated_field(meaning.signal)
    return Target(field.frame, field.name, taken, meaning.label)


def _shared(meaning: Meaning, values: NDArray[np.float64]) -> Meaning:
    """A utilisation as a share: nothing but its size tells whether it is in per cent."""
    finite = values[np.isfinite(values)]
    if meaning.signal == MFU and meaning.factor == 1.0 and len(finite) and float(np.median(finite)) > PERCENT_ABOVE:
        return replace(meaning, factor=0.01, why=f"{meaning.why}; in per cent, by its size")
    return meaning


def _list(columns: list[str]) -> str:
    return " and ".join(ascii(column)[:60] for column in columns[:4])


