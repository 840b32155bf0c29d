"""What an importer is: it says whether a file is of its format, which runs lie there, and yields what they hold.

An importer reads and nothing else. Names are given their meaning in `names`, the run folder is written by the door;
so a format is one file here, and knows neither the store nor the checks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainvitals.blind import Blindness as Blindness
from trainvitals.blind import BlindSpot as BlindSpot
from trainvitals.formulas import MISSING

BATCH_ROWS = 4_096
"""Rows that an importer gathers before it yields them: memory stays bounded whatever the file's size."""

@dataclass(frozen=True, slots=True)
class RunOf:
    """One run in a source that may hold several."""

    path: Path
    """The file or folder that it is read from."""
    name: str
    key: str = ""
    """Which of the runs in it: whatever the importer knows them by."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the order of the log: column by column, so that a million of them cost no million objects."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    """Unix time, seconds; NaN where the log has none."""
    columns: Mapping[str, NDArray[np.float64]]
    """The log's own names -> one value per row; `formulas.MISSING` where the row has none, which a NaN is not."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something to mark on the time axis: a resume, a message of the user, a line that could not be read.

    The kind `closed` says that the log tells of an orderly end: the run is finished then, and only then.
    """

    kind: str
    message: str
    step: int | None = None
    time: float | None = None
    hides: bool = False
    """Whether it says that the record lacks something."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The job went on from `step`: rows after it that came before are another branch."""

    step: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What goes onto the run card. Later facts of one run are added to earlier ones."""

    card: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `trainvitals.card.RunCard`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The user's own configuration: plain data."""
    blind: tuple[BlindSpot, ...] = ()
    """Blind spots that this file has and others of its format do not: the version that wrote it, its settings."""


Item = Rows | Note | Resumed | Facts


class Replaced(Exception):  # noqa: N818 - it is no error
    """The source is no longer the one that `state` tells of: it has to be read from its beginning."""


class Importer(ABC):
    """One format. A subclass in a file of this folder is found by `registry`."""

    format: ClassVar[str]
    """Name for `--format`."""
    title: ClassVar[str]
    """As people call it: "Megatron-LM output"."""
    blind: ClassVar[tuple[BlindSpot, ...]] = ()
    """What every log of the format hides."""
    means: ClassVar[Mapping[str, str]] = {}
    """The log's names -> catalogue names, beside those that `names` knows of any format. What the unit of the signal is
    reached by goes behind a star, as in `--map`: `throughput/step_time*0.001`, `loss/train*bits`."""
    generic: ClassVar[bool] = False
    """Whether it takes any file of a kind (a CSV, say), so that an importer of a tool's own format goes first."""
    blanks: ClassVar[bool] = False
    """Whether a NaN may have been written as a blank or a null, as pandas does: where a loss or a norm has one, that is
    said."""
    rewritten: ClassVar[bool] = False
    """Whether the file is written anew as it grows (a JSON document, a database), and not appended to. Then the
    importer itself sees whether it still continues `state`, and raises `Replaced` where it does not."""

    @abstractmethod
    def recognises(self, path: Path, head: bytes) -> str:
        """Why this is of the format, in a few words; "" if it is not.

        Args:
            path: a file, or a folder.
            head: the first 64 KiB of a file; b"" of a folder.
        """

    def runs(self, path: Path) -> list[RunOf]:
        """The runs in it, at least one."""
        return [RunOf(path, path.stem)]

    @abstractmethod
    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """What the run holds beyond `state`, in the order of the log; then it ends, also where the log still grows.

        Args:
            run: one of `runs`.
            state: empty at first. The importer leaves there, as JSON, where it stands and what it needs to go on;
                it may change it whenever it is about to yield, and all that was yielded before then is stored.

        Raises:
            UsageError: nothing of it can be read: one sentence with the place and the remedy. A part that cannot be
                read is a `Note` that hides, and reading goes on behind it.
            Replaced: the source does not continue `state`.
        """


class Gather:
    """Rows one by one, as a text has them, into `Rows`."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._times: list[float] = []
        self._columns: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        """Whether it is time to take them."""
        return len(self._steps) >= BATCH_ROWS

    def add(self, step: int, values: Mapping[str, float], time: float = float("nan")) -> None:
        """Add a row: of the names that the log has there, and no others."""
        row = len(self._steps)
        self._steps.append(step)
        self._times.append(time)
        for name, value in values.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = []
            if len(column) < row:
                column.extend([MISSING] * (row - len(column)))
            column.append(value)

    def take(self) -> Rows:
        """The rows so far; the next ones begin a new batch."""
        n = len(self._steps)
        columns = {name: np.array(values + [MISSING] * (n - len(values)), np.float64)
                   for name, values in self._columns.items()}
        rows = Rows(np.array(self._steps, np.int64), np.array(self._times, np.float64), columns)
        self.__init__()  # type: ignore[misc]
        return rows
