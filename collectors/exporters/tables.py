"""A run as one long table: name, label, step, time, value; as Parquet, or as CSV for everything else."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.exporters.lines import Line
from trainvitals.spreadsheet import safe_cell

HEADER = ("name", "label", "unit", "step", "time", "value")
_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema([("name", _TEXT), ("label", _TEXT), ("unit", _TEXT), ("step", pa.int64()), ("time", pa.float64()),
                    ("value", pa.float64())])
"""`time` in Unix seconds, null where nobody knows; a NaN in `value` is one that was logged."""


def write_parquet(path: Path, lines: Iterable[Line]) -> int:
    """Write a Parquet file, a row group per line; how many values it holds. Raises OSError."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for line in lines:
            n = len(line.steps)
            texts = [pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text], pa.string()))
                     for text in (line.name, line.label, line.unit)]
            writer.write_table(pa.table([*texts, pa.array(line.steps), pa.array(line.times, from_pandas=True),
                                         pa.array(line.values)], SCHEMA))
            count += n
    return count


def write_csv(path: Path, lines: Iterable[Line]) -> int:
    """Write a CSV file; how many values it holds.

    Numbers have the digits that give back the same double; NaN and infinities are NaN, Infinity and -Infinity. Names
    that a spreadsheet would run begin with an apostrophe (`trainvitals.spreadsheet`). Raises OSError.
    """
    count = 0
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(HEADER)
        for line in lines:
            texts = [safe_cell(text) for text in (line.name, line.label, line.unit)]
            for step, time, value in zip(line.steps.tolist(), line.times.tolist(), line.values.tolist(), strict=True):
                writer.writerow([*texts, step, "" if time != time else repr(time), _NAMES.get(value) or repr(value)]
                                if value == value else [*texts, step, "" if time != time else repr(time), "NaN"])
            count += len(line.steps)
    return count


_NAMES = {float("inf"): "Infinity", float("-inf"): "-Infinity"}
