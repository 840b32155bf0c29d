"""What an importer itself gives, before the door sorts it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.importers.importer import Facts, Importer, Note, Rows, RunOf
from trainvitals.formulas import given


@dataclass
class Log:
    """All items of one run, side by side."""

    values: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    """Name -> (step, bits of the value) in the order of the log; a NaN is b"nan"."""
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)

    def take(self, importer: Importer, run: RunOf, state: dict[str, Any]) -> Log:
        """Read what is new; the state is JSON before and after."""
        state |= json.loads(json.dumps(state))
        for item in importer.read(run, state):
            if isinstance(item, Rows):
                for name, column in item.columns.items():
                    has = given(column)
                    for step, value in zip(item.steps[has].tolist(), column[has].tolist(), strict=True):
                        self.values.setdefault(name, []).append((step, bits(value)))
            elif isinstance(item, Facts):
                self.config |= item.config
                self.card |= item.card
                self.blind += [spot.kind for spot in item.blind]
            elif isinstance(item, Note):
                self.notes.append(item)
        return self


def bits(value: float) -> bytes:
    """A value to compare bit by bit, but one NaN is like another."""
    return b"nan" if value != value else struct.pack("<d", value)


def head(path: Path) -> bytes:
    """What `recognises` is given."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(64 << 10)


def read_all(importer: Importer, path: Path) -> dict[str, Log]:
    """Every run by its name; the importer must know the log for its own."""
    assert importer.recognises(path, head(path))
    return {run.name: Log().take(importer, run, {}) for run in importer.runs(path)}
