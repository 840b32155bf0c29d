"""Rows of one frame in memory: preallocated columns that become one Arrow record batch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainvitals.formulas import MISSING
from trainvitals.store.segment import Header

BLOCK_ROWS = 256
BLOCK_BYTES = 4 << 20
COLUMNAR_ROWS = 4_096
"""Rows of a block that is filled column by column."""


class Block:
    """Rows of one frame on their way to disk; columns are numpy arrays of fixed capacity."""

    def __init__(self, header: Header, keys: Mapping[str, str] | None = None, rows: int = BLOCK_ROWS) -> None:
        """`keys` maps a scalar field to the name that its values come under, where that differs; `rows`: at most."""
        self.header = header
        self.scalars = [item for item in header.fields if not item.axes]
        self.vectors = [item for item in header.fields if item.axes]
        widths = [math.prod(header.shape(item)) * np.dtype(item.dtype).itemsize for item in self.vectors]
        self.row_bytes = 16 + 8 * len(self.scalars) + sum(widths)
        self.capacity = max(1, min(rows, BLOCK_BYTES // self.row_bytes))
        self.names = [keys.get(item.name, item.name) if keys else item.name for item in self.scalars]
        """What the values of the scalar fields come under, in their order."""
        self.steps = np.empty(self.capacity, np.int64)
        self.times = np.empty(self.capacity, np.float64)
        self.numbers = np.empty((self.capacity, len(self.scalars)), np.float64)
        self.arrays = {item.name: np.empty((self.capacity, *header.shape(item)), item.dtype) for item in self.vectors}
        self.rows = 0
        self.born = 0.0
        """When the first row came, on the monotonic clock."""

    @property
    def columns(self) -> set[str]:
        """Names of all columns."""
        return {"step", "time", *(name for item in self.header.fields for name in self.header.columns(item))}

    def unknown(self, values: Mapping[str, Any]) -> list[str]:
        """Names that this block has no column for."""
        known = {*self.names, *self.arrays}
        return [name for name in values if name not in known]

    def put(self, step: int, now: float, values: Mapping[str, Any]) -> bool:
        """Add a row; False, and nothing added, if it holds a name without a column."""
        row, get = self.rows, values.get
        numbers = [get(name) for name in self.names]
        found = len(numbers) - numbers.count(None)
        for name, array in self.arrays.items():
            value = get(name)
            if value is None:
                array[row] = np.nan if array.dtype.kind == "f" else 0
            else:
                if np.shape(value) != array.shape[1:]:
                    raise ValueError(f"{name} has shape {np.shape(value)}, not {array.shape[1:]}")
                array[row] = value
                found += 1
        if found != len(values) and self.unknown(values):
            return False
        self.numbers[row] = numbers if found == len(values) == len(self.names) else \
            [MISSING if number is None else number for number in numbers]
        self.steps[row], self.times[row] = step, now
        if not row:
            self.born = time.monotonic()
        self.rows = row + 1
        return True

    def fill(self, steps: NDArray[np.int64], times: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]) -> None:
        """Set all rows of an empty block, at most `capacity`; a column that is not given is missing in each.

        Raises ValueError for a column whose shape does not fit.
        """
        n = len(steps)
        self.steps[:n], self.times[:n] = steps, times
        for i, name in enumerate(self.names):
            self.numbers[:n, i] = columns.get(name, MISSING)
        for name, array in self.arrays.items():
            array[:n] = columns.get(name, MISSING if array.dtype.kind == "f" else 0)
        self.born, self.rows = time.monotonic(), n

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """The rows as an Arrow record batch; `schema` is that of the header, whatever its sequence number."""
        n = self.rows
        columns = [_flat(self.steps[:n], pa.int64()), _flat(self.times[:n], pa.float64())]
        numbers = {item.name: self.numbers[:n, i] for i, item in enumerate(self.scalars)}
        for item in self.header.fields:
            if not item.axes:
                columns.append(_flat(np.ascontiguousarray(numbers[item.name]), pa.float64()))
                continue
            table = self.arrays[item.name][:n].reshape(n, -1, self.header.shape(item)[-1])
            for i in range(table.shape[1]):
                values = np.ascontiguousarray(table[:, i])
                inner = _flat(values.reshape(-1), pa.from_numpy_dtype(values.dtype))
                columns.append(pa.FixedSizeListArray.from_arrays(inner, values.shape[1]))
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _flat(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    # pa.array(numpy) would import pandas at its first call: two seconds inside somebody's training loop.
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
