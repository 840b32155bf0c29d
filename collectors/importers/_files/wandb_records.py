"""The records of a `.wandb` file as plain data: wandb/proto/wandb_internal.proto, read by field number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

from collectors.importers._files.wire import NAN, fields, real, signed, text, timestamp

HISTORY, CONFIG, STATS, ALERT, METRIC, RUN, EXIT, HEADER, PREEMPTING, ENVIRONMENT = 2, 5, 7, 10, 12, 17, 18, 21, 23, 26
READ = frozenset((HISTORY, CONFIG, STATS, ALERT, METRIC, RUN, EXIT, HEADER, PREEMPTING, ENVIRONMENT))
MOST_DEPTH = 8
"""Of objects inside a value."""
MOST_DIGITS = 400
"""Characters of a number."""
MOST_JSON = 1 << 20
"""Characters of a value that is taken apart."""
MOST_WORDS = 2_000
"""Characters of a fact about the run."""
_WORDS = {"true": 1.0, "false": 0.0, '"NaN"': NAN, '"Infinity"': math.inf, '"-Infinity"': -math.inf}


class Row(NamedTuple):
    """What one `wandb.log` step holds."""

    step: int
    time: float
    values: dict[str, float]
    others: dict[str, str]
    """Name -> kind, of what is no number."""


def kind_of(record: bytes) -> tuple[int, int, int]:
    """Which record it is, by its field number in `Record`, and where its content begins and ends; 0 if none we read.

    Raises NotAMessage.
    """
    for number, a, b in fields(record, 0, len(record)):
        if number in READ and b >= 0:
            return number, a, b
    return 0, 0, 0


def history(data: bytes, at: int, end: int) -> Row:
    """A HistoryRecord. Raises NotAMessage."""
    step, time, values, raws = 0, NAN, dict[str, float](), dict[str, str]()
    told = False
    for number, a, b in fields(data, at, end):
        if number == 2:
            told = True
            step = next((signed(c) for inner, c, _ in fields(data, a, b) if inner == 1), 0)
        elif number == 1:
            name, raw = item(data, a, b)
            if name == "_timestamp":
                time = number_of(raw, NAN)
            elif name == "_step":
                found = number_of(raw, NAN)
                step = int(found) if not told and math.isfinite(found) else step
            elif name not in ("_runtime", "_wandb"):
                value = number_of(raw, None)
                if value is None:
                    raws[name] = raw
                else:
                    values[name] = value
    return Row(step, time, values, _objects(values, raws) if raws else {})


def stats(data: bytes, at: int, end: int) -> dict[str, float]:
    """A StatsRecord's values, named as on the system page. Raises NotAMessage."""
    found = {}
    for number, a, b in fields(data, at, end):
        if number == 3:
            name, raw = item(data, a, b)
            value = number_of(raw, None)
            if value is not None:
                found[f"system/{name}"] = value
    return found


def config(data: bytes, at: int, end: int) -> dict[str, Any]:
    """A ConfigRecord's updates; a key inside another is joined to it by a dot. Raises NotAMessage."""
    found = {}
    for number, a, b in fields(data, at, end):
        if number == 1:
            name, raw = item(data, a, b)
            found[name] = _json(raw)
    return found


def run(data: bytes, at: int, end: int) -> dict[str, Any]:
    """A RunRecord's facts. Raises NotAMessage."""
    names = {1: "id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "name", 9: "notes", 12: "sweep",
             13: "host"}
    found: dict[str, Any] = {}
    for number, a, b in fields(data, at, end):
        if number in names:
            found[names[number]] = text(data, a, b)[:MOST_WORDS]
        elif number == 10 and len(found.setdefault("tags", [])) < MOST_WORDS:
            found["tags"].append(text(data, a, b)[:MOST_WORDS])
        elif number == 4:
            found["config"] = config(data, a, b)
        elif number == 14:
            found["starting_step"] = signed(a)
        elif number == 17:
            found["start_time"] = timestamp(data, a, b)
        elif number == 21:
            found["commit"] = _texts(data, a, b).get(2, "")
        elif number == 23:
            found["branch"] = {"run" if inner == 1 else "step": text(data, c, d) if inner == 1 else real(data, c, d)
                               for inner, c, d in fields(data, a, b) if inner in (1, 2)}
    return found


def environment(data: bytes, at: int, end: int) -> dict[str, Any]:
    """An EnvironmentRecord's facts. Raises NotAMessage."""
    names = {1: "os", 2: "python", 6: "program", 12: "host", 18: "gpu", 25: "cuda"}
    found: dict[str, Any] = {}
    for number, a, b in fields(data, at, end):
        if number in names:
            found[names[number]] = text(data, a, b)[:MOST_WORDS]
        elif number == 5 and len(found.setdefault("args", [])) < MOST_WORDS:
            found["args"].append(text(data, a, b)[:MOST_WORDS])
        elif number == 19:
            found["gpu_count"] = a
        elif number == 9:
            found["commit"] = _texts(data, a, b).get(2, "")
    return found


def version(data: bytes, at: int, end: int) -> str:
    """The version of wandb that a HeaderRecord names, as 0.31.0. Raises NotAMessage."""
    for number, a, b in fields(data, at, end):
        if number == 1:
            return _texts(data, a, b).get(1, "").partition("+")[0]
    return ""


def alert(data: bytes, at: int, end: int) -> str:
    """An AlertRecord in words. Raises NotAMessage."""
    found = _texts(data, at, end)
    return ": ".join(found[number] for number in (1, 2) if found.get(number))


def metric(data: bytes, at: int, end: int) -> tuple[str, str]:
    """A MetricRecord: the name or pattern, and what it is drawn over, "" if the step. Raises NotAMessage."""
    found = _texts(data, at, end)
    return found.get(1) or found.get(2, ""), found.get(4, "")


def exit_code(data: bytes, at: int, end: int) -> int:
    """A RunExitRecord's. Raises NotAMessage."""
    return next((signed(a) for number, a, _ in fields(data, at, end) if number == 1), 0)


def item(data: bytes, at: int, end: int) -> tuple[str, str]:
    """Name and JSON text of a HistoryItem, StatsItem or ConfigItem. Raises NotAMessage."""
    name, raw = "", ""
    for number, a, b in fields(data, at, end):
        if number == 16:
            raw = text(data, a, b)
        elif number == 2:
            name = f"{name}.{text(data, a, b)}" if name else text(data, a, b)
        elif number == 1:
            name = text(data, a, b)
    return name, raw


def number_of(raw: str, otherwise: Any) -> Any:
    """The number that a JSON text is, as it is or quoted (NaN and infinities); true is 1."""
    if len(raw) > MOST_DIGITS:
        return otherwise
    try:
        return float(raw)
    except ValueError:
        return _WORDS.get(raw, otherwise)


def _objects(values: dict[str, float], raws: dict[str, str]) -> dict[str, str]:
    """Name -> kind of what is no number; numbers inside objects are added to `values`, under names joined by dots.

    An object of wandb's own (a histogram, an image) has a `_type`. It comes as one JSON text, or part by part.
    """
    others: dict[str, str] = {}
    for name in [name for name in raws if name.endswith("._type")]:
        stem = name.removesuffix("_type")
        parts: dict[str, Any] = {key.removeprefix(stem): values.pop(key) for key in [*values] if key.startswith(stem)}
        parts |= {key.removeprefix(stem): _json(raws.pop(key)) for key in [*raws] if key.startswith(stem)}
        _object(stem[:-1], parts, values, others, 0)
    for name, raw in raws.items():
        if raw[:1] == "{":
            _object(name, _json(raw), values, others, 0)
        elif raw != "null":
            others[name] = {'"': "text", "[": "list"}.get(raw[:1], "value")
    return others


def _object(name: str, found: Any, values: dict[str, float], others: dict[str, str], depth: int) -> None:
    if isinstance(found, bool | int | float):
        values[name] = _float(found)
    elif not isinstance(found, dict) or depth > MOST_DEPTH:
        others[name] = "text"
    elif "_type" in found:
        others[name] = str(found["_type"])[:100]
        if found["_type"] == "histogram":
            values |= {f"{name}/{key}": value for key, value in _histogram(found)}
    else:
        for key, inner in found.items():
            _object(f"{name}.{key}", inner, values, others, depth + 1)


def _histogram(found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Of wandb.Histogram: `values` are counts, `bins` edges, or `packedBins` {min, size, count}."""
    counts, bins, packed = found.get("values"), found.get("bins"), found.get("packedBins")
    if _are_numbers(counts):
        yield "count", _float(math.fsum(counts)) if all(map(math.isfinite, counts)) else NAN
    if _are_numbers(bins) and bins:
        yield "min", _float(bins[0])
        yield "max", _float(bins[-1])
        return
    names = ("min", "size", "count")
    packed = packed if isinstance(packed, dict) else {key: found.get(f"packedBins.{key}") for key in names}
    if _are_numbers([packed.get(key) for key in names]):
        yield "min", _float(packed["min"])
        yield "max", _float(packed["min"]) + _float(packed["size"]) * _float(packed["count"])


def _are_numbers(found: Any) -> TypeGuard[list[float]]:
    return isinstance(found, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in found)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _json(raw: str) -> Any:
    try:
        return json.loads(raw) if len(raw) < MOST_JSON else raw[:1_000]
    except (ValueError, RecursionError):
        return raw[:1_000]


def _texts(data: bytes, at: int, end: int) -> dict[int, str]:
    """Field number -> text, of the fields that are bytes."""
    return {number: text(data, a, b)[:MOST_WORDS] for number, a, b in fields(data, at, end) if b >= 0}
