"""SwanLab's own log of a run, `.swanlab`, as version 0.8 and later keep it: read without swanlab and an account.

Layout: swanlab/proto/swanlab/{record,run,metric}/v1/*.proto, in the framing of sdk/internal/core_python/store. Files of
earlier versions (`backup.swanlab`, JSON) are of another layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from collectors.importers._blind import of_one_process
from collectors.importers._files.framed_log import MOST_CHARACTERS, FramedImporter, FramedLog
from collectors.importers._files.wire import NAN, fields, real, signed, text, timestamp
from collectors.importers._settings import read_settings
from collectors.importers.importer import Facts, Note

START, FINISH, COLUMN, SCALAR, MEDIA, SAVE = 10, 11, 12, 13, 14, 20
STATES = {0: "running", 1: "finished", 2: "crashed", 3: "aborted"}
SYSTEM = 2
"""ColumnClass: a column of the machine's, which counts steps of its own."""
OWN = "__swanlab__."
"""What the names of such columns begin with."""
MOST_SYSTEM = 1_000


class SwanLab(FramedImporter):
    """`.swanlab` files."""

    format = "swanlab"
    title = "SwanLab's log"
    magic = b":SWL\xd6\xe1\x02"
    suffix = ".swanlab"
    blind = of_one_process("SwanLab", "swanlab")

    def log(self, path: Path, name: str, state: dict[str, Any], joins: bool) -> FramedLog:
        return _Log(path, name, state, joins)


class _Log(FramedLog):
    """Scalars come one by one; those of one step that follow one another are a row."""

    def __init__(self, path: Path, name: str, state: dict[str, Any], joins: bool) -> None:
        super().__init__(name, state, joins)
        self._path = path
        self._system: list[str] = state.setdefault("system", [])
        self._at, self._time = 0, NAN
        self._values: dict[str, float] = {}

    def end_row(self) -> None:
        values, self._values = self._values, {}
        if values:
            self.row(self._at, values, self._time)

    def record(self, data: bytes) -> None:
        for number, a, b in fields(data, 0, len(data)):
            if b < 0:
                continue
            if number == SCALAR:
                self._scalar(data, a, b)
            elif number == COLUMN:
                self._column(data, a, b)
            elif number == START:
                self._begin(data, a, b)
            elif number == FINISH:
                self._end(data, a, b)
            elif number == SAVE:
                self._saved(data, a, b)
            elif number == MEDIA:
                key = next((text(data, c, d) for inner, c, d in fields(data, a, b) if inner == 1), "")
                self.once("media", f"{key[:100]!r} and what is like it is no number and is left out")

    def _scalar(self, data: bytes, a: int, b: int) -> None:
        key, step, time, value = "", 0, NAN, 0.0
        for number, c, d in fields(data, a, b):
            if number == 1:
                key = text(data, c, d)
            elif number == 2:
                step = signed(c)
            elif number == 4:
                time = timestamp(data, c, d)
            elif number == 5:
                value = next((real(data, e, f) for inner, e, f in fields(data, c, d) if inner == 1), 0.0)
        if key in self._system or key.startswith(OWN):
            self.machine[f"system/{key.removeprefix(OWN)}"] = value
            return
        if step != self._at or key in self._values:
            self.end_row()
        if not self._values:
            self._at, self._time = step, time
        self._values[key] = value

    def _column(self, data: bytes, a: int, b: int) -> None:
        found = {number: c if d < 0 else text(data, c, d) for number, c, d in fields(data, a, b)}
        key, over = str(found.get(3, "")), found.get(13)
        if found.get(1) == SYSTEM and key not in self._system and len(self._system) < MOST_SYSTEM:
            self._system.append(key)
        if over:
            self.counted("axis", f"SwanLab draws {key} over {over}; here it is over the step")

    def _begin(self, data: bytes, a: int, b: int) -> None:
        names = {1: "project", 2: "workspace", 5: "notes", 7: "group", 8: "job_type", 10: "id"}
        card: dict[str, Any] = {"notes": {}}
        for number, c, d in fields(data, a, b):
            if number in names and d > c:
                card["notes"][names[number]] = text(data, c, d)[:MOST_CHARACTERS]
            elif number == 6 and len(card["notes"].setdefault("tags", [])) < MOST_SYSTEM:
                card["notes"]["tags"].append(text(data, c, d)[:MOST_CHARACTERS])
            elif number == 4:
                card["name"] = text(data, c, d)[:MOST_CHARACTERS]
            elif number == 12 and "created" not in self.state:
                card["created"] = self.state["created"] = timestamp(data, c, d)
        self.say(Facts(card))

    def _end(self, data: bytes, a: int, b: int) -> None:
        found = {number: c if d < 0 else text(data, c, d) for number, c, d in fields(data, a, b)}
        state, error = STATES.get(found.get(1, 0), "ended"), found.get(2, "")  # type: ignore[arg-type]
        if error or state in ("crashed", "aborted"):
            self.counted("error", f"the run {state}: {error}" if error else f"the run {state}")
        self.end_row()
        self.say(Note("closed", state, self.step))

    def _saved(self, data: bytes, a: int, b: int) -> None:
        """The configuration lies beside the log, where `files/config.yaml` was saved."""
        name = next((text(data, c, d) for number, c, d in fields(data, a, b) if number == 1), "")
        if name != "config":
            return
        place = self._path.parent / "files" / "config.yaml"
        if not place.is_file():
            self.once("config", "the configuration, files/config.yaml, does not lie beside the log")
            return
        found = read_settings(place)
        self.say(Facts(config={key: entry["value"] for key, entry in found.items()
                               if isinstance(entry, dict) and "value" in entry}))
