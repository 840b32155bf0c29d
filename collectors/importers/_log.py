"""Rows, notes and facts in the order of a text: ranks that print the same, resumes, printed digits, tracebacks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collectors.importers._tokens import number, significant_digits, time_of, unmarked, writer_of
from collectors.importers.importer import Blindness, BlindSpot, Facts, Gather, Item, Note, Resumed, Rows
from trainvitals.formulas import MISSING
from trainvitals.untrusted import MOST_STEP

if TYPE_CHECKING:
    from collectors.importers._text import TextImporter

FEW_DIGITS_OF_LOSS, FEW_DIGITS = 4, 2
"""A number printed with at most so many significant digits is called rounded: a loss moves by a per mille where a norm
moves by a third."""
DIGIT_SAMPLES, FEWEST_SAMPLES = 32, 4
STEPS_AHEAD, MOST_ASIDE = 4, 64
"""Steps by which another rank must be ahead of the one that is read to be read in its place: ranks of one job go in
step. Until then its rows are kept, so many at most."""
MOST_NOTES = 200
"""Of one kind in one file; one more says that there are more."""
MOST_MESSAGE = 300
MOST_NAMES = 1_000
"""Names in one log; more of them are left out and said."""
TRACEBACK_LINES = 400

_BETWEEN: Mapping[Blindness, str] = {
    "averaged": "is the mean over the {gap} steps between two lines: a jump of one step is {gap} times smaller there",
    "last": "is that of the last of the {gap} steps between two lines: the others are nowhere",
    "sampled": "is that of every {gap}th step alone: the others are nowhere",
}


class Log:
    """What was read so far, in the order of the text.

    Args:
        memory: what an earlier look knew, as JSON; kept up to date.
        of: the importer, for its names and title.
    """

    def __init__(self, memory: dict[str, Any], of: TextImporter) -> None:
        self.memory = memory
        self.file = ""
        """Name of the file that is read."""
        self._of = of
        self._gather = Gather()
        self._row: tuple[int, dict[str, float], float] | None = None
        """The newest row: what follows of its step belongs to it."""
        self._items: list[Item] = []

    @property
    def last(self) -> int | None:
        """The last step of which a row was read."""
        step: int | None = self.memory.get("last")
        return step

    def row(self, step: int, values: Mapping[str, bytes | float], prefix: bytes = b"", *, leads: bool = True,
            time: float | None = None) -> None:
        """Add a row, with numbers as printed or as they are.

        Args:
            step: of the row.
            values: by the log's names. What is no number is left out.
            prefix: what stands before the row in its line: the rank and the time are in it.
            leads: whether it is the training's own row, and not a validation, which may come late or seldom.
            time: Unix time, where the prefix does not hold it.
        """
        if not -MOST_STEP < step < MOST_STEP:
            self.note("step", f"A row of step {step} is left out: no step is as large", hides=True)
            return
        row = {name: value for name, token in values.items() if (value := self._value(name, token)) is not None}
        if not row:
            return
        writer = writer_of(prefix) if prefix else ""
        if time is None:
            time = time_of(prefix) if prefix else float("nan")
        if self._is_read(writer, step, row, time):
            self._add(step, row, time, leads)

    def columns(self, steps: NDArray[np.int64], times: NDArray[np.float64],
                columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Add many rows of the rank that is read."""
        self._flush()
        self._put_resume()
        self._between(steps)
        self._items.append(Rows(steps, times, columns))
        self.memory["last"] = int(steps[-1])
        self.memory["read"] = self.memory.get("read", 0) + len(steps)

    def reads(self, writer: str) -> bool:
        """Whether the rows of this rank are the ones that are read."""
        return bool(self.memory.setdefault("writer", writer) == writer)

    def note(self, kind: str, message: str, step: int | None = None, *, hides: bool = False,
             time: float | None = None) -> None:
        """Mark something; of one kind at most `MOST_NOTES`."""
        counts = self.memory.setdefault("notes", {})
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] == MOST_NOTES:
            message = f"There are more notes of this kind, {kind}, than {MOST_NOTES}: no more are kept"
        if counts[kind] <= MOST_NOTES:
            self._flush()
            message = " ".join(message.split())[:MOST_MESSAGE]
            time = None if time is None or time != time else time
            self._items.append(Note(kind, message, self.last if step is None else step, time, hides))

    def resumed(self, step: int, message: str = "") -> None:
        """The rows behind go on from `step`."""
        self.memory["resume"] = [step, message]
        # Another rank may print from here on.
        self.memory.pop("writer", None)
        self.memory.pop("aside", None)

    def facts(self, *, card: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None,
              blind: tuple[BlindSpot, ...] = ()) -> None:
        """Add what is not yet known: a fact of the card or of the configuration once only."""
        told = self.memory.setdefault("card", {})
        fresh = {name: value for name, value in (card or {}).items() if told.get(name) != value}
        if fresh or config or blind:
            told |= fresh
            self._flush()
            self._items.append(Facts(fresh, config or {}, blind))

    def measure(self, name: str, tokens: Sequence[bytes]) -> None:
        """Count the significant digits of the first numbers of a name as they are printed."""
        if name not in self._of.means:
            return
        kept = self.memory.setdefault("digits", {}).setdefault(name, [])
        for token in tokens[: DIGIT_SAMPLES - len(kept)]:
            # Whole numbers are counts: nothing of them was cut off.
            kept.append(0 if token.strip().isdigit() else significant_digits(token))

    def end_of_look(self) -> None:
        """Say what the rows so far show of the log itself: rounding, and what lies between two rows."""
        aside = self.memory.get("aside", [])
        if len(aside) > self.memory.get("read", 0):
            # A line of one rank, before all the others came from another.
            self._hand_over(aside[-1][0])
        told: list[str] = self.memory.setdefault("told", [
            f"rounded {signal}" for spot in self._of.blind if spot.kind == "rounded" for signal in spot.signals])
        blind: list[BlindSpot] = []
        for name, all_digits in self.memory.get("digits", {}).items():
            signal, digits = self._of.means.get(name, "").partition("*")[0], [some for some in all_digits if some]
            if signal and len(digits) >= FEWEST_SAMPLES and f"rounded {signal}" not in told:
                told.append(f"rounded {signal}")
                few = FEW_DIGITS_OF_LOSS if signal.startswith("loss/") else FEW_DIGITS
                if (shown := statistics.median_low(digits)) <= few:
                    blind.append(BlindSpot("rounded", (signal,), f"{self._of.title} prints {name} with {shown} "
                                           "significant digits here: smaller changes are not in the log",
                                           "Log it to a tracker or with tap.log as well, which keep every digit."))
        gap = self.memory.get("gap", 0)
        for signal, kind in self._of.between.items():
            if gap > 1 and signal not in told:
                told.append(signal)
                blind.append(BlindSpot(kind, (signal,), f"{signal} of {self._of.title} "
                                       + _BETWEEN[kind].format(gap=gap), "Log every step (a log interval of 1)."))
        if blind:
            self.facts(blind=tuple(blind))

    def other(self, line: bytes) -> None:
        """Look at a line that holds no row: of a traceback, its last line is kept."""
        open_, name = self.memory.get("traceback", 0), writer_of(line)
        if self._of.ended is not None and (found := self._of.ended.search(line)):
            self.note("closed", f"the job says that training ended: {found[0].decode('utf-8', 'replace')}",
                      time=time_of(line[:80]))
        elif b"Traceback (most recent call last)" in line:
            self.memory |= {"traceback": TRACEBACK_LINES, "traceback_of": name}
        elif open_ and name == self.memory.get("traceback_of", ""):
            text = unmarked(line)
            self.memory["traceback"] = open_ - 1
            if text.strip() and not text.removeprefix(b" ").startswith((b" ", b"\t")):
                self.memory["traceback"] = 0
                self.note("error", f"{name} {text[:2_000].decode('utf-8', 'replace')}", time=time_of(line[:80]))

    def take(self) -> list[Item]:
        """What was found since it was taken last; rows that nothing parts are one batch."""
        self._flush()
        items, self._items = self._items, []
        merged: list[Item] = []
        for _, group in groupby(items, lambda item: isinstance(item, Rows)):
            some = list(group)
            batches = [item for item in some if isinstance(item, Rows)]
            merged.extend([_joined(batches)] if batches else some)
        return merged

    def _value(self, name: str, token: bytes | float) -> float | None:
        if not isinstance(token, bytes):
            return float(token)
        if name in self._of.means:
            self.measure(name, [token])
        return number(token)

    def _add(self, step: int, row: Mapping[str, float], time: float, leads: bool) -> None:
        if self._too_many(row):
            return
        self._put_resume()
        if leads:
            self._between(np.array([step]))
            self.memory["last"] = step
        if self._row is not None and self._row[0] == step and self._row[1].keys().isdisjoint(row):
            self._row[1].update(row)
            return
        self._gather_row()
        self._row = step, dict(row), time
        if self._gather.full:
            self._flush()

    def _too_many(self, row: Mapping[str, float]) -> bool:
        """Whether a row brings names beyond the most: each of them is a column of every batch."""
        names = self.memory.setdefault("names", {})
        fresh = [name for name in row if name not in names]
        if len(names) + len(fresh) > MOST_NAMES:
            self.note("names", f"A row with {len(fresh)} names beyond the first {MOST_NAMES:,} is left out", hides=True)
            return True
        names.update(dict.fromkeys(fresh, 1))
        return False

    def _is_read(self, writer: str, step: int, row: dict[str, float], time: float) -> bool:
        """Whether a row is of the rank that is read; rows of others wait for it, and then are left aside.

        Ranks print the same numbers, or numbers of their own: of one step only one rank's are taken. Where the rank
        that is read falls silent while another goes on, the other one is read.
        """
        memory = self.memory
        aside: list[list[Any]] = memory.get("aside", [])
        if self.reads(writer):
            memory["read"] = memory.get("read", 0) + 1
            if aside:
                memory["aside"] = [row for row in aside if row[1] > step]
            return True
        if self.last is None or step > self.last:
            aside.append([writer, step, row, time])
            memory["aside"] = aside
        if not memory.get("ranks_said"):
            memory["ranks_said"] = True
            self.note("ranks", "Several ranks print the same rows: those of "
                      f"{memory['writer'] or 'the unmarked lines'} are read, the others are not")
        if len({row[1] for row in aside if row[0] == writer}) >= STEPS_AHEAD or len(aside) >= MOST_ASIDE:
            self._hand_over(writer)
        return False

    def _hand_over(self, writer: str) -> None:
        """Read another rank from here on, beginning with its rows that were kept."""
        aside = self.memory.get("aside", [])
        self.memory |= {"writer": writer, "aside": []}
        self.note("ranks", "The rank whose rows were read fell silent; those of "
                  f"{writer or 'the unmarked lines'} are read from here on", hides=True)
        for of, at, values, when in aside:
            if of == writer:
                self._add(at, values, when, leads=True)

    def _put_resume(self) -> None:
        """Put a resume that was announced before the next row; without a row before it, it needs no word."""
        announced = self.memory.pop("resume", None)
        if announced is not None and (announced[0] or self.last is not None):
            self._flush()
            self._items.append(Resumed(*announced))
            self.memory.pop("last", None)

    def _between(self, steps: NDArray[np.int64]) -> None:
        """Learn how many steps lie between two rows: the smallest gap that was seen."""
        last = self.last
        gaps = np.diff(steps if last is None else np.concatenate([[last], steps]))
        if (gaps > 0).any():
            gap = int(gaps[gaps > 0].min())
            self.memory["gap"] = min(gap, self.memory.get("gap") or gap)

    def _gather_row(self) -> None:
        if self._row is not None:
            self._gather.add(*self._row)
            self._row = None

    def _flush(self) -> None:
        self._gather_row()
        if len(self._gather):
            self._items.append(self._gather.take())


def _joined(batches: list[Rows]) -> Rows:
    """Batches in their order as one; what a validation adds to the newest step becomes part of that row."""
    if len(batches) == 1:
        return batches[0]
    begins, size = [], 0
    for before, batch in zip([None, *batches], batches, strict=False):
        same = before is not None and before.steps[-1] == batch.steps[0]
        adds = same and before is not None and before.columns.keys().isdisjoint(batch.columns)
        begins.append(size - adds)
        size += len(batch.steps) - adds
    steps, times = np.empty(size, np.int64), np.empty(size)
    columns: dict[str, NDArray[np.float64]] = {}
    for batch, begin in zip(reversed(batches), reversed(begins), strict=True):
        # Backwards, so that a row that is added to keeps its own time.
        end = begin + len(batch.steps)
        steps[begin:end], times[begin:end] = batch.steps, batch.times
        for name, column in batch.columns.items():
            if name not in columns:
                columns[name] = np.full(size, MISSING)
            columns[name][begin:end] = column
    return Rows(steps, times, columns)
