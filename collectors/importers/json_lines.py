"""A JSON object per line, of any tool; or a list of such objects. Names in objects within are joined by slashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from collectors.importers.importer import BATCH_ROWS, BlindSpot, Facts, Importer, Item, Note, Replaced, Rows, RunOf
from collectors.importers.numbers import number
from collectors.importers.roles import SCALARS_ONLY, Roles, Steps, of_training, roles_of, seconds
from collectors.importers.textfile import encoding_of, text_of, whole_lines
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING
from trainvitals.untrusted import parse_json

MOST_DEPTH, MOST_NAMES = 4, 4_000
LIST_BYTES = 256 << 20
SNIFFED = 200


class JsonLines(Importer):
    """Any log of JSON objects."""

    format = "jsonl"
    title = "JSON lines"
    generic = True
    blanks = True
    blind: ClassVar[tuple[BlindSpot, ...]] = (SCALARS_ONLY,)

    def recognises(self, path: Path, head: bytes) -> str:
        """By objects with a number in them, one per line or in a list."""
        if _is_list(head):
            return "a JSON list of objects"
        found = [row for line in text_of(head).split("\n")[:SNIFFED] if (row := _object(line))]
        lines = [line for line in text_of(head).split("\n")[:SNIFFED] if line.strip()]
        numbers = any(isinstance(value, int | float) for row in found for value in row.values())
        if not numbers or len(found) < 0.8 * (len(lines) - 1) or not found:
            return ""
        return "a JSON object per line" if of_training(name for row in found for name in row) else ""

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Objects behind the last one that was read."""
        with run.path.open("rb") as file:
            head = file.read(64 << 10)
        reader = _Reader(state)
        if _is_list(head):
            yield from _from_list(run.path, state, reader)
        else:
            encoding, mark = encoding_of(head)
            for batch in whole_lines(run.path, max(mark, state.get("at", 0)), encoding, open_end=True):
                reader.say("lines of more than a megabyte", batch.too_long)
                lines = batch.lines
                if batch.loose:
                    if _object(lines[0]) is None or state.get("loose") == lines[0]:
                        continue  # it is being written, or is known
                    state["loose"] = lines[0]
                else:
                    lines = lines[1:] if lines and lines[0] == state.pop("loose", None) else lines
                    state["at"] = batch.end
                yield from reader.rows(lines)
        yield from reader.notes()


class _Reader:
    """Objects into rows, some thousand at a time."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._left_out: dict[str, int] = {}

    def rows(self, lines: Iterable[str]) -> Iterator[Item]:
        """The rows of some lines."""
        found = []
        for line in lines:
            if line.strip():
                row = _object(line)
                if row is None:
                    self.say("lines that are no JSON object", 1)
                else:
                    found.append(row)
            if len(found) >= BATCH_ROWS:
                yield from self.of(found)
                found = []
        yield from self.of(found)

    def of(self, objects: list[dict[str, Any]]) -> Iterator[Item]:
        """Some objects as rows; what stands in rows without a number is passed over."""
        if not objects:
            return
        names = list(dict.fromkeys(name for row in objects for name in row))[:MOST_NAMES]
        roles = roles_of(names, self._state.get("map", {}))
        if "roles" in self._state and not self._state["roles"][0] and roles.step and self._state["rows"] < BATCH_ROWS:
            raise Replaced(f"its first objects had no step, and {roles.step!r} came later")
        if "roles" not in self._state:
            self._state["roles"] = [roles.step, roles.counted, roles.time]
            yield Facts(blind=roles.blind)
        step, counted, time = self._state["roles"]
        roles = Roles(step, counted, time)
        steps = Steps(roles.counted, self._state.get("rows", 0))
        at, has = steps.of(_column(objects, roles.step) if roles.step else None, len(objects))
        self._state["rows"] = steps.rows
        self.say("objects without a whole step", int((~has).sum()))
        times = seconds(row.get(roles.time) for row in objects) if roles.time else None
        gone = {roles.step if roles.counted != "epochs" else "", roles.time if times is not None else ""}
        columns = {name: _column(objects, name)[has] for name in names if name not in gone
                   and any(_number(row.get(name)) is not None for row in objects)}
        yield Rows(at[has], (np.full(len(objects), np.nan) if times is None else times)[has], columns)

    def say(self, what: str, count: int) -> None:
        """Count what is left out."""
        if count:
            self._left_out[what] = self._left_out.get(what, 0) + count

    def notes(self) -> Iterator[Note]:
        """What was left out."""
        for what, count in self._left_out.items():
            yield Note("import", f"{count:,} {what} are left out", hides=True)


def _from_list(path: Path, state: dict[str, Any], reader: _Reader) -> Iterator[Item]:
    if os.stat(path).st_size > LIST_BYTES:
        raise UsageError(f"{path} is a JSON list of more than {LIST_BYTES >> 20} MB. Give one object per line.")
    try:
        found = parse_json(path.read_bytes(), LIST_BYTES, finite=False)
    except ValueError as error:
        raise UsageError(f"{path} is no whole JSON list ({error}). Give one object per line.") from error
    objects = [_flat(row) for row in found if isinstance(row, dict)]
    done = int(state.get("objects", 0))
    mark = hashlib.sha256(json.dumps(objects[:done], sort_keys=True).encode()).hexdigest()[:16]
    if done > len(objects) or (done and state.get("mark") != mark):
        raise Replaced("its earlier objects changed")
    yield from reader.of(objects[done:])
    state["objects"] = len(objects)
    state["mark"] = hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest()[:16]


def _is_list(head: bytes) -> bool:
    text = text_of(head).lstrip()
    return text.startswith("[") and text[1:].lstrip().startswith("{")


def _object(line: str) -> dict[str, Any] | None:
    """The object in a line, names within it joined; None where it is none."""
    line = line.strip()
    if not line.startswith("{") or not line.endswith("}"):
        return None
    try:
        return _flat(parse_json(line, 1 << 20, finite=False))
    except ValueError:
        return None


def _flat(raw: Mapping[str, Any], depth: int = MOST_DEPTH) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if isinstance(value, Mapping) and depth:
            found |= {f"{name}/{inner}": v for inner, v in _flat(value, depth - 1).items()}
        else:
            found[str(name)] = value
    return found


def _number(value: Any) -> float | None:
    """A JSON value as a number; None for what is none."""
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if value.bit_length() < 1000 else None
    if isinstance(value, str) and (found := number(value)) is not None and not found == found:
        return None if not value.strip() else found  # "NaN", as writers of strict JSON spell it
    return float(value) if value in ("Infinity", "-Infinity", "inf", "-inf") else None


def _column(objects: list[dict[str, Any]], name: str) -> Any:
    found = (_number(row.get(name)) for row in objects)
    return np.array([MISSING if value is None else value for value in found], np.float64)
