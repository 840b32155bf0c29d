"""What a run folder knows of the log that it was imported from (`import.json`): read by checks and the board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from trainvitals import blind
from trainvitals.blind import BLINDNESS, Blindness, BlindSpot

FILE = "import.json"
FORMAT_VERSION = 1
MOST_RECORD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Taken:
    """One column of the log, and what it was taken for."""

    column: str
    signal: str
    """Name in the run."""
    factor: float = 1.0
    """What the log's numbers were multiplied by to be in the unit of the signal."""
    why: str = ""
    """What it was told by, in a few words."""

    @property
    def words(self) -> str:
        """One line for people."""
        times = "" if self.factor == 1.0 else f" x {self.factor:.12g}"
        return f"{self.signal} <- {self.column}{times} ({self.why})"


@dataclass(frozen=True, slots=True)
class Imported:
    """Where an imported run comes from, how it was read, and what its log hides."""

    source: str
    """Absolute path of the file or folder."""
    format: str
    """Name for `--format`."""
    title: str
    """The format as people call it."""
    why: str = ""
    """What the format was told by."""
    taken: tuple[Taken, ...] = ()
    blind: tuple[BlindSpot, ...] = ()
    changed: float | None = None
    """When the source last changed, Unix seconds by its file system's clock; None where nobody knows."""
    notes: tuple[str, ...] = field(default=())
    """What the import has to say of itself: rows that were dropped, branches that were made."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "version": FORMAT_VERSION, "source": self.source, "format": self.format, "title": self.title,
            "why": self.why, "changed": self.changed, "notes": list(self.notes), "blind": blind.to_json(self.blind),
            "taken": [[t.column, t.signal, t.factor, t.why] for t in self.taken],
        }  # fmt: skip

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Imported:
        """What `to_json` gave. Raises ValueError for anything else."""
        taken, changed, notes = raw.get("taken"), raw.get("changed"), raw.get("notes")
        texts = [raw.get(key) for key in ("source", "format", "title", "why")]
        if raw.get("version") != FORMAT_VERSION or not isinstance(taken, list) or not isinstance(notes, list) \
                or not all(isinstance(text, str) for text in texts) or not isinstance(changed, int | float | None):
            raise ValueError("it does not tell of an import that this version knows")
        source, name, title, why = map(str, texts)
        return cls(source, name, title, why, tuple(_taken(item) for item in taken), blind.from_json(raw.get("blind")),
                   changed, tuple(str(note) for note in notes))


def all_hidden(says: str, remedy: str) -> tuple[BlindSpot, ...]:
    """Blind spots of every kind: nobody knows what is missing."""
    families = ("loss/", "grad/", "lr/", "data/", "router/", "throughput/", "tokens/")
    return tuple(BlindSpot(cast(Blindness, kind), families, says, remedy) for kind in BLINDNESS)


UNREADABLE = Imported("", "", "a log that nobody knows", blind=all_hidden(
    f"{FILE} of the run folder cannot be read, so nobody knows what the log hides", "Import the log again"))
"""In place of a record that is damaged: the run may hide anything."""


def _taken(raw: Any) -> Taken:
    if not isinstance(raw, list) or len(raw) != 4 or not isinstance(raw[2], int | float):
        raise ValueError("a column is not told of as four values")
    return Taken(str(raw[0]), str(raw[1]), float(raw[2]), str(raw[3]))
