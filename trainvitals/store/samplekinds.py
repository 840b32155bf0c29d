"""Texts, tables, histograms and images: taken from a training script within bounds, and made into what is stored.

Taking is cheap and copies what may change (`take_...`, in the training thread); it gives a function that does the work
(`Content`, in the disk's thread). Both raise UsageError for what cannot be stored.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainvitals.errors import UsageError
from trainvitals.store.eventlog import cut, plain
from trainvitals.store.png import COLOUR_TYPES, png

PAYLOAD_BYTES = 4 << 20
"""No sample is stored with more; tables and texts stop at a quarter."""
TEXT_CHARACTERS = 100_000
TABLE_ROWS, TABLE_COLUMNS, CELL_CHARACTERS = 1_000, 100, 2_000
HISTOGRAM_VALUES = 1 << 20
"""A larger array is read at so many evenly spaced places."""
HISTOGRAM_BINS = 512
IMAGE_PIXELS = 1 << 20
"""A larger image loses whole rows and columns."""


@dataclass(frozen=True, slots=True)
class Content:
    """One object as it is stored."""

    payload: bytes
    """ASCII without line ends."""
    data: dict[str, Any] = field(default_factory=dict)
    """What a listing shows without the payload."""


Make = Callable[[], Content]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was handed over, with the work that is left."""

    make: Make
    nbytes: int
    """What it keeps in memory until then, about."""


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# ---- text ------------------------------------------------------------------------------------------------------


def take_text(text: Any) -> Taken:
    """A text of up to `TEXT_CHARACTERS`; the rest is cut off, with a mark."""
    if not isinstance(text, str):
        raise UsageError(f"a text must be a string, not {type(text).__name__}")
    kept = text[:TEXT_CHARACTERS]
    data = {"characters": len(text)} | ({"cut_from": len(text)} if len(kept) < len(text) else {})
    return Taken(lambda: Content(_json(cut(kept, TEXT_CHARACTERS)), data), len(kept))


# ---- table -----------------------------------------------------------------------------------------------------


def take_table(table: Any = None, columns: Iterable[Any] | None = None, rows: Iterable[Any] | None = None) -> Taken:
    """A table from a pandas DataFrame, from rows that are mappings, or from columns and rows.

    Of more rows or columns than `TABLE_ROWS` and `TABLE_COLUMNS`, the first are kept.
    """
    if table is not None and hasattr(table, "iloc") and hasattr(table, "columns"):
        columns, total = [str(name) for name in islice(table.columns, TABLE_COLUMNS)], len(table)
        part = table.iloc[:TABLE_ROWS, :TABLE_COLUMNS]
        kept = [list(row) for row in part.itertuples(index=False, name=None)]
        return _table(columns, kept, total, len(table.columns))
    rows = table if rows is None else rows
    if not isinstance(rows, Sequence | np.ndarray) or isinstance(rows, str | bytes):
        raise UsageError("a table is a pandas DataFrame, columns=[names] with rows=[[cells]], or rows=[{name: cell}]")
    some = list(islice(rows, TABLE_ROWS))
    if columns is None:
        if not all(isinstance(row, Mapping) for row in some):
            raise UsageError("a table without columns=[names] needs rows that are mappings of names to cells")
        columns = list(dict.fromkeys(name for row in some for name in islice(row, TABLE_COLUMNS)))
    names = list(columns)
    return _table([str(name) for name in names[:TABLE_COLUMNS]],
                  [_cells(row, names[:TABLE_COLUMNS]) for row in some], len(rows), len(names))


def _cells(row: Any, names: Sequence[Any]) -> list[Any]:
    if isinstance(row, Mapping):
        return [row.get(name) for name in names]
    if isinstance(row, str | bytes) or not isinstance(row, Iterable):
        raise UsageError(f"a row of a table must be a list of cells, not {type(row).__name__}")
    cells = list(islice(row, len(names) + 1))
    if len(cells) != len(names) and len(names) < TABLE_COLUMNS:
        raise UsageError(f"a row of the table has {len(cells)} cells or more, and there are {len(names)} columns")
    return cells[:len(names)]


def _table(columns: list[str], rows: list[list[Any]], total_rows: int, total_columns: int) -> Taken:
    columns = [cut(name, CELL_CHARACTERS) for name in columns]
    return Taken(lambda: _table_content(columns, rows, total_rows, total_columns), 100 * len(columns) * (1 + len(rows)))


def _table_content(columns: list[str], rows: list[list[Any]], total_rows: int, total_columns: int) -> Content:
    size, kept = 0, []
    for row in rows:
        line = _json([_cell(value) for value in row])
        size += len(line) + 1
        if size > PAYLOAD_BYTES // 4:
            break
        kept.append(line)
    data: dict[str, Any] = {"rows": len(kept), "columns": [cut(name, 100) for name in columns[:20]]}
    if len(kept) < total_rows or len(columns) < total_columns:
        data["cut_from"] = [total_rows, total_columns]
    return Content(b'{"columns":' + _json(columns) + b',"rows":[' + b",".join(kept) + b"]}", data)


def _cell(value: Any) -> Any:
    """A cell as JSON holds it. Python's words for numbers that are not finite stay: NaN, Infinity."""
    if type(value) in (float, int, bool) or value is None:
        return value if not isinstance(value, int) or abs(value) < 2**63 else plain(value)
    if isinstance(value, str):
        return cut(value, CELL_CHARACTERS)
    if isinstance(value, np.floating):
        return float(value)
    if hasattr(value, "isoformat"):
        return str(value)
    if getattr(value, "ndim", None) == 0 and str(getattr(value, "device", "cpu")) == "cpu" and hasattr(value, "item"):
        return _cell(value.item()) if not isinstance(value.item(), type(value)) else plain(value)
    return plain(value, 2)


# ---- histogram -------------------------------------------------------------------------------------------------


def take_histogram(values: Any, bins: int = 64, *, of: int = 0) -> Taken:
    """A histogram of an array's values, or one that is counted already: a pair (counts, edges), one more edge.

    NaN and infinities are left out, and counted. `of` tells how many values there were where they were thinned out
    before.
    """
    if isinstance(values, tuple) and len(values) == 2 and all(np.ndim(part) == 1 for part in values) and \
            len(values[1]) == len(values[0]) + 1:
        return _counted(*(np.array(part, np.float64) for part in values))
    if not isinstance(bins, int) or not 1 <= bins <= HISTOGRAM_BINS:
        raise UsageError(f"a histogram has 1 to {HISTOGRAM_BINS} bins, not {bins!r}")
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or not array.size:
        raise UsageError(f"a histogram needs numbers, not {_words(array)}")
    every = math.ceil((of or array.size) / HISTOGRAM_VALUES)
    flat = array.reshape(-1)[::1 if of else every].astype(np.float64)
    return Taken(lambda: _histogram(flat, bins, of or array.size, every), flat.nbytes)


def _histogram(values: NDArray[np.float64], bins: int, of: int, every: int) -> Content:
    finite = values[np.isfinite(values)]
    data: dict[str, Any] = {"values": of, "nonfinite": len(values) - len(finite)}
    if every > 1:
        data["read_every"] = every
    if not len(finite):
        return _edges(np.zeros(1), np.array([0.0, 1.0]), data)
    low, high = float(finite.min()), float(finite.max())
    if not math.isfinite(high - low):
        raise UsageError("its values lie further apart than a number of 64 bits can say")
    try:
        counts, edges = np.histogram(finite, bins)
    except ValueError:  # so close together that there are no edges in between
        counts, edges = np.array([len(finite)]), np.array([low, np.nextafter(high, np.inf)])
    return _edges(counts.astype(np.float64), edges, data | {"low": low, "high": high})


def _counted(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> Taken:
    if len(counts) > HISTOGRAM_BINS or not len(counts):
        raise UsageError(f"a histogram has 1 to {HISTOGRAM_BINS} bins, not {len(counts):,}")
    if not (np.isfinite(edges).all() and np.isfinite(counts).all() and (np.diff(edges) >= 0).all()
            and (counts >= 0).all()):
        raise UsageError("counts must be finite and not negative, and edges must be finite and rise")
    return Taken(lambda: _edges(counts, edges, {"low": float(edges[0]), "high": float(edges[-1])}), counts.nbytes * 2)


def _edges(counts: NDArray[np.float64], edges: NDArray[np.float64], data: dict[str, Any]) -> Content:
    return Content(_json({"counts": counts.tolist(), "edges": edges.tolist()}),
                   data | {"bins": len(counts), "counted": float(counts.sum())})


# ---- image -----------------------------------------------------------------------------------------------------


def take_image(image: Any, caption: str = "") -> Taken:
    """An image from an array [height, width], [height, width, channels] or [channels, height, width], a PIL image or a
    matplotlib figure.

    Floating point values are brightness from 0 to 1, whole numbers from 0 to 255, as in TensorBoard.
    """
    array = _pixels(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] not in COLOUR_TYPES and array.shape[0] in COLOUR_TYPES:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in COLOUR_TYPES or not array.size or array.dtype.kind not in "fiub":
        raise UsageError(f"an image is an array [height, width] or with 1, 3 or 4 channels, not {_words(array)}")
    height, width, _ = array.shape
    every = math.ceil(math.sqrt(height * width / IMAGE_PIXELS))
    if height * width > IMAGE_PIXELS:  # long and thin, it keeps its short side
        rows, columns = min(every, height), min(every, width)
        while math.ceil(height / rows) * math.ceil(width / columns) > IMAGE_PIXELS:
            rows, columns = (rows, columns + 1) if width / columns > height / rows else (rows + 1, columns)
        array = array[::rows, ::columns]
    pixels = np.array(array)
    data: dict[str, Any] = {"height": pixels.shape[0], "width": pixels.shape[1]}
    if pixels.shape[:2] != (height, width):
        data["scaled_from"] = [height, width]
    if caption:
        data["caption"] = cut(str(caption), 1_000)
    return Taken(lambda: _image(pixels, data), pixels.nbytes)


def _pixels(image: Any) -> NDArray[Any]:
    """An array of what may be an image, or a figure that can be drawn."""
    if hasattr(image, "canvas") and hasattr(image.canvas, "buffer_rgba"):
        image.canvas.draw()
        return np.asarray(image.canvas.buffer_rgba())
    if hasattr(image, "convert") and hasattr(image, "mode") and image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGBA" if "A" in image.mode or image.mode == "P" else "RGB")
    if isinstance(image, str | bytes):
        raise UsageError("an image must be pixels (an array, a PIL image, a figure), not the name or bytes of a file")
    return np.asarray(image)


def _image(pixels: NDArray[Any], data: dict[str, Any]) -> Content:
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            pixels = np.nan_to_num(np.clip(pixels.astype(np.float32), 0.0, 1.0), nan=0.0) * np.float32(255) + \
                np.float32(0.5)
    elif pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    else:
        pixels = np.clip(pixels, 0, 255)
    payload = base64.b64encode(png(np.ascontiguousarray(pixels.astype(np.uint8))))
    if len(payload) > PAYLOAD_BYTES:
        small = _image(pixels[::2, ::2].astype(np.uint8), data)
        return Content(small.payload, {"scaled_from": [data["height"], data["width"]]} | data | {
            "height": -(-pixels.shape[0] // 2), "width": -(-pixels.shape[1] // 2)})
    return Content(payload, data)


def _words(array: NDArray[Any]) -> str:
    return f"an array {list(array.shape)} of {array.dtype}"[:200]


# ---- reading ----------------------------------------------------------------------------------------------------


def unpacked(kind: str, payload: bytes) -> Any:
    """What a payload holds: str, DataFrame, (counts, edges), or the bytes of a PNG file. Raises ValueError."""
    from trainvitals.untrusted import parse_json

    if kind == "image":
        return base64.b64decode(payload, validate=True)
    value = parse_json(payload, PAYLOAD_BYTES, finite=False)
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "table" and isinstance(value, dict):
        import pandas as pd

        columns, rows = value.get("columns"), value.get("rows")
        if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
            names = [str(name) for name in columns]
            return pd.DataFrame([row[:len(names)] + [None] * (len(names) - len(row)) for row in rows], columns=names)
    if kind == "histogram" and isinstance(value, dict):
        counts, edges = (np.asarray(value.get(key), np.float64) for key in ("counts", "edges"))
        if counts.ndim == edges.ndim == 1 and len(edges) == len(counts) + 1:
            return counts, edges
    raise ValueError(f"it holds no {kind}")
