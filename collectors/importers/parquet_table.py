"""A table of any tool as Parquet: numbers by column, nulls are blanks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.importer import BATCH_ROWS, BlindSpot, Facts, Importer, Item, Note, Replaced, Rows, RunOf
from collectors.importers.roles import SCALARS_ONLY, Steps, roles_of, seconds
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING, Array

MAGIC = b"PAR1"
MOST_ROWS, MOST_GROUP_BYTES = 50_000_000, 2 << 30
_BAD = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


class ParquetTable(Importer):
    """Any Parquet file with a number in it."""

    format = "parquet"
    title = "Parquet"
    generic = True
    blanks = True
    blind: ClassVar[tuple[BlindSpot, ...]] = (SCALARS_ONLY,)

    def recognises(self, path: Path, head: bytes) -> str:
        """By its first bytes."""
        return "it begins with PAR1" if head.startswith(MAGIC) else ""

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """All rows, once: a Parquet file is written whole."""
        if "rows" in state:
            raise Replaced("a Parquet file is written anew as a whole")
        try:
            file = pq.ParquetFile(run.path)
            schema = file.schema_arrow
        except _BAD as error:
            raise UsageError(f"{run.path} cannot be read as Parquet ({_short(error)}). Give a whole file.") from error
        names = [f.name for f in schema if _is_number(f.type) or _is_time(f.type)]
        roles = roles_of(schema.names, state.get("map", {}))
        if roles.step and roles.step not in names:
            raise UsageError(f"{run.path} has no column of numbers {roles.step!r}. It has {', '.join(names)[:300]}.")
        if len(set(schema.names)) < len(schema.names):
            raise UsageError(f"{run.path} has two columns of one name. Rename one.")
        yield Facts(blind=roles.blind)
        steps = Steps(roles.counted)
        for group in range(file.num_row_groups):
            size, count = file.metadata.row_group(group).total_byte_size, file.metadata.row_group(group).num_rows
            if size > MOST_GROUP_BYTES or steps.rows + count > MOST_ROWS:
                yield Note("import", f"Row group {group} claims {count:,} rows and {size / 1e6:,.0f} MB, which are "
                           "more than are read: what follows is left out", hides=True)
                break
            try:
                for batch in file.iter_batches(BATCH_ROWS, [group], names):
                    yield from _rows(batch, roles.step, roles.time, steps)
            except _BAD as error:
                yield Note("import", f"Row group {group} cannot be read ({_short(error)}): what follows is left out",
                           hides=True)
                break
        state["rows"] = steps.rows


def _rows(batch: pa.RecordBatch, step: str, time: str, steps: Steps) -> Iterator[Item]:
    columns = {name: _numbers(batch.column(name)) for name in batch.schema.names
               if name != time and not _is_time(batch.schema.field(name).type)}
    at, has = steps.of(columns.get(step), batch.num_rows)
    if steps.counted not in ("epochs", "rows"):
        columns.pop(step, None)
    if (lost := int((~has).sum())):
        yield Note("import", f"{lost:,} rows without a whole step are left out", hides=True)
    when = _times(batch.column(time)) if time in batch.schema.names else None
    times = np.full(batch.num_rows, np.nan) if when is None else when
    yield Rows(at[has], times[has], {name: values[has] for name, values in columns.items()})


def _numbers(column: pa.Array) -> Array:
    values = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    if column.null_count:
        values[np.asarray(column.is_null())] = MISSING
    return values


def _times(column: pa.Array) -> Array | None:
    if pa.types.is_timestamp(column.type):
        whole = np.array(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False),
                         np.float64)
        return whole / 1e6
    return seconds(column.to_pylist())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
