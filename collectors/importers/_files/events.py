"""TensorFlow's event records: what a summary holds, as numbers and plain words.

Layouts: tensorflow/core/util/event.proto, tensorflow/core/framework/{summary,tensor,types,histogram}.proto and
tensorboard/plugins/hparams/plugin_data.proto, api.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectors.importers._files.wire import NAN, NotAMessage, fields, real, signed, text, varint

MOST_BINS = 1 << 16
"""Of a histogram."""
MOST_TEXT = 1 << 16
"""Characters of a text that are kept."""
MOST_TAGS, MOST_TAG = 1 << 16, 1_000
"""Tags whose plugin is remembered, and characters of one."""
MOST_DEPTH = 20
"""Of lists and objects in a hyperparameter."""

START = 1
"""SessionLog.SessionStatus."""
_DTYPES: Mapping[int, str] = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2",
                              19: "<f2", 22: "<u4", 23: "<u8"}
"""tensorflow.DataType -> numpy's; bfloat16 (14) and strings (7) apart."""
_STRING, _BFLOAT16, _HALF = 7, 14, 19
_LISTS = {5: "<f4", 6: "<f8"}
"""TensorProto's float_val and double_val; the other lists are varints."""


class Value(NamedTuple):
    """One thing that an event says."""

    step: int
    time: float
    """Unix seconds; NaN where the event has none."""
    tag: str
    what: str
    """`number`, `histogram`, `text`, `hparams`, `version` (of the file), `start` (of a session), `checkpoint`; else
    what it is that is no number: `image`, `audio`, `tensor`."""
    value: Any
    """A number; a text; a histogram's count, min, max and where they are exact mean and std; a configuration."""


def values(data: bytes, at: int, end: int, plugins: dict[str, str]) -> Iterator[Value]:
    """What the event in data[at:end] says.

    Args:
        data: holds the event.
        at: where it begins.
        end: where it ends.
        plugins: tag -> the plugin that its first value named, as later values may omit it; kept up to date.

    Raises:
        NotAMessage: it is no event.
    """
    step, time, version = 0, float("nan"), ""
    found: list[tuple[int, int, int]] = []
    for number, a, b in fields(data, at, end):
        if number == 1:
            time = real(data, a, b)
        elif number == 2:
            step = signed(a)
        elif number == 3:
            version = text(data, a, b)
        elif number in (5, 7):
            found.append((number, a, b))
    if version:
        yield Value(step, time, "", "version", version)
    for number, a, b in found:
        if b < 0:
            raise NotAMessage("a summary is a number")
        if number == 7:
            yield from _session(data, a, b, step, time)
            continue
        for inner, c, d in fields(data, a, b):
            if inner == 1:
                yield _value(data, c, d, step, time, plugins)


class Plain(NamedTuple):
    """Events that hold one number and nothing else, in the order of the file."""

    places: NDArray[np.int64]
    """Which of the records they are."""
    steps: list[int]
    times: list[float]
    tags: list[bytes]
    numbers: list[float]


def plain(data: bytes, spans: list[tuple[int, int]]) -> Plain:
    """Those among the records that are one number as writers log most: read side by side, field after field.

    The layout is wall_time, step unless 0, and a summary of one tag with a simple_value, lengths below 128 bytes. What
    is laid out otherwise is left to `values`.
    """
    raw = np.frombuffer(data + bytes(32), np.uint8)
    span = np.array(spans, np.int64).reshape(-1, 2)
    start, end = span[:, 0], span[:, 1]
    fits = (end - start >= 20) & (raw[start] == 0x09)
    at = np.where(fits, start + 9, start)
    step, at = _steps(raw, at, fits)
    size, inner = raw[at + 1].astype(np.int64), raw[at + 3].astype(np.int64)
    fits &= (raw[at] == 0x2A) & (size < 0x80) & (at + 2 + size == end)
    fits &= (raw[at + 2] == 0x0A) & (inner == size - 2) & (raw[at + 4] == 0x0A)
    tag = at + 6
    behind = np.where(fits, np.minimum(tag + raw[at + 5], end), tag)
    fits &= (behind + 5 == end) & (raw[behind] == 0x15)
    index = np.flatnonzero(fits)
    tag, behind = tag[index], behind[index]
    times = _gathered(raw, start[index] + 1, "<f8")
    numbers = _gathered(raw, behind + 1, "<f4").astype(np.float64)
    numbers[np.isnan(numbers)] = NAN
    tags = [data[a:b] for a, b in zip(tag.tolist(), behind.tolist(), strict=True)]
    return Plain(index, step[index].tolist(), times.tolist(), tags, numbers.tolist())


def _steps(raw: NDArray[np.uint8], at: NDArray[np.int64], fits: NDArray[np.bool_]
           ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The varint of field 2 at each place, 0 where there is none, and where it ends; below 2**56."""
    step = np.zeros(len(at), np.int64)
    more = fits & (raw[at] == 0x10)
    at = at + more
    for shift in range(0, 56, 7):
        if not more.any():
            break
        byte = raw[at].astype(np.int64)
        step |= np.where(more, (byte & 0x7F) << shift, 0)
        at = at + more
        more &= byte >= 0x80
    fits &= ~more
    return step, at


def _gathered(raw: NDArray[np.uint8], places: NDArray[np.int64], kind: str) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(raw[places[:, None] + np.arange(width)]).view(kind)[:, 0]


def _session(data: bytes, at: int, end: int, step: int, time: float) -> Iterator[Value]:
    status, path = 0, ""
    for number, a, b in fields(data, at, end):
        if number == 1:
            status = a
        elif number == 2:
            path = text(data, a, b)
    if status == START:
        yield Value(step, time, "", "start", None)
    elif status == 3:
        yield Value(step, time, "", "checkpoint", path)


def _value(data: bytes, at: int, end: int, step: int, time: float, plugins: dict[str, str]) -> Value:
    tag, plugin, number_, kind, c, d, content = "", "", None, 0, 0, 0, b""
    for number, a, b in fields(data, at, end):
        if number == 2:
            number_ = real(data, a, b)
        elif number == 1:
            tag = text(data, a, b)
        elif number == 7:
            tag = tag or text(data, a, b)
        elif number == 9:
            plugin, content = _plugin(data, a, b)
            if len(plugins) < MOST_TAGS and len(tag) <= MOST_TAG:
                plugins.setdefault(tag, plugin[:MOST_TAG])
        elif number in (4, 5, 6, 8):
            kind, c, d = number, a, b
    if number_ is not None:
        return Value(step, time, tag, "number", number_)
    plugin = plugins.get(tag, plugin)
    if plugin == "hparams":
        return Value(step, time, tag, "hparams", _hparams(content))
    if kind == 5:
        return Value(step, time, tag, "histogram", _histogram(data, c, d))
    if kind != 8:
        return Value(step, time, tag, {4: "image", 6: "audio"}.get(kind, "summary"), None)
    if plugin in ("", "scalars", "text", "histograms"):
        found = _tensor(data, c, d, 3 * MOST_BINS)
        if isinstance(found, str):
            return Value(step, time, tag, "text", found)
        if found is not None and plugin == "histograms" and found.size % 3 == 0:
            return Value(step, time, tag, "histogram", _buckets(found.reshape(-1, 3)))
        if found is not None and found.size == 1:
            number_ = float(found[0])
            return Value(step, time, tag, "number", number_ if number_ == number_ else NAN)
    return Value(step, time, tag, {"images": "image", "": "tensor", "scalars": "tensor"}.get(plugin, plugin), None)


def _plugin(data: bytes, at: int, end: int) -> tuple[str, bytes]:
    """Name and content of SummaryMetadata.plugin_data."""
    for number, a, b in fields(data, at, end):
        if number == 1:
            name, content = "", b""
            for inner, c, d in fields(data, a, b):
                if inner == 1:
                    name = text(data, c, d)
                elif inner == 2:
                    content = data[c:d]
            return name, content
    return "", b""


def _tensor(data: bytes, at: int, end: int, most: int) -> NDArray[np.float64] | str | None:
    """A TensorProto's elements, flat, or its first text; None where it holds neither, or more than `most`."""
    dtype, count, content, elements = 0, 1, b"", list[float]()
    for number, a, b in fields(data, at, end):
        if number == 1:
            dtype = a
        elif number == 2:
            count = _elements(data, a, b)
        elif number == 4 and b >= 0:
            content = data[a:b]
        elif number == 8 and b >= 0:
            return data[a:min(b, a + 4 * MOST_TEXT)].decode("utf-8", "replace")[:MOST_TEXT]
        elif number in (5, 6, 7, 10, 11, 13, 16, 17):
            if b - a > 8 * most:
                return None
            elements += _list(data, number, a, b)
            if len(elements) > most:
                return None
    if count > most or len(content) > 8 * most:
        return None
    if content and dtype == _BFLOAT16:
        words = np.frombuffer(content[: len(content) // 2 * 2], "<u2").astype(np.uint32) << 16
        return words.view(np.float32).astype(np.float64)
    if content and dtype in _DTYPES:
        whole = len(content) // np.dtype(_DTYPES[dtype]).itemsize * np.dtype(_DTYPES[dtype]).itemsize
        return np.frombuffer(content[:whole], _DTYPES[dtype]).astype(np.float64)
    if dtype in (_HALF, _BFLOAT16) and elements:
        bits = np.array(elements, np.int64).astype(np.uint16)
        wide = bits.view(np.float16) if dtype == _HALF else (bits.astype(np.uint32) << 16).view(np.float32)
        return wide.astype(np.float64)
    # A list that is shorter than the tensor repeats its last element, and an empty one stands for zero.
    if dtype in _DTYPES and count:
        elements = elements or [0.0]
        return np.array(elements + elements[-1:] * (count - len(elements)), np.float64)
    return None


def _elements(data: bytes, at: int, end: int) -> int:
    """How many elements a TensorShapeProto makes."""
    count = 1
    for number, a, b in fields(data, at, end):
        if number == 2:
            count *= max(next((signed(c) for inner, c, _ in fields(data, a, b) if inner == 1), 0), 0)
    return count


def _list(data: bytes, number: int, a: int, b: int) -> list[float]:
    """Elements of a typed list: packed, or a single one."""
    if number in _LISTS:
        width = 4 if number == 5 else 8
        return [float(x) for x in np.frombuffer(data[a:a + (b - a) // width * width], _LISTS[number])]
    wide = signed if number in (7, 10) else int
    if b < 0:
        return [wide(a)]
    found = list[float]()
    while a < b:
        value, a = varint(data, a)
        found.append(wide(value))
    if a > b:
        raise NotAMessage("a list ends within a number")
    return found


def _histogram(data: bytes, at: int, end: int) -> dict[str, float]:
    """A HistogramProto's count, min, max, mean and standard deviation; its sums are exact."""
    got = {number: real(data, a, b) for number, a, b in fields(data, at, end) if number in (1, 2, 3, 4, 5)}
    count, total, squares = got.get(3, 0.0), got.get(4, 0.0), got.get(5, 0.0)
    found = {"count": count, "min": got.get(1, 0.0), "max": got.get(2, 0.0)}
    if count > 0:
        mean = total / count
        found |= {"mean": mean, "std": max(squares / count - mean * mean, 0.0) ** 0.5}
    return found


def _buckets(buckets: NDArray[np.float64]) -> dict[str, float]:
    """Of rows (left edge, right edge, count)."""
    if not len(buckets):
        return {"count": 0.0}
    return {"count": float(buckets[:, 2].sum()), "min": float(buckets[0, 0]), "max": float(buckets[-1, 1])}


def _hparams(content: bytes) -> dict[str, Any]:
    """The hyperparameters of a session's start; {} of another record of that plugin."""
    found: dict[str, Any] = {}
    for number, a, b in fields(content, 0, len(content)):
        if number == 3 and b >= 0:
            for inner, c, d in fields(content, a, b):
                if inner == 1 and d >= 0:
                    key, value = _entry(content, c, d, 0)
                    found[key] = value
    return found


def _entry(data: bytes, at: int, end: int, depth: int) -> tuple[str, Any]:
    """An entry of a map from text to google.protobuf.Value."""
    key, value = "", None
    for number, a, b in fields(data, at, end):
        if number == 1:
            key = text(data, a, b)
        elif number == 2 and b >= 0:
            value = _json(data, a, b, depth)
    return key, value


def _json(data: bytes, at: int, end: int, depth: int) -> Any:
    """A google.protobuf.Value as plain data."""
    if depth > MOST_DEPTH:
        raise NotAMessage(f"it is nested more than {MOST_DEPTH} deep")
    for number, a, b in fields(data, at, end):
        if number == 2:
            return real(data, a, b)
        if number == 3:
            return text(data, a, b)
        if number == 4:
            return bool(a)
        if number == 5 and b >= 0:
            return dict(_entry(data, c, d, depth + 1) for inner, c, d in fields(data, a, b) if inner == 1)
        if number == 6 and b >= 0:
            return [_json(data, c, d, depth + 1) for inner, c, d in fields(data, a, b) if inner == 1]
    return None
