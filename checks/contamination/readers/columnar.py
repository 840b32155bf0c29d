"""Parquet, Arrow and streamed data sets: batches of columns straight from their buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.readers.batches import BATCH, Texts, batches, id_strings, string_buffers
from checks.contamination.readers.fields import ID_COLUMNS, NO_TEXT, ONLY_TOKENS, table_text, text_columns_of
from checks.contamination.readers.ledger import PLACES, Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.readers.stored import local_path, stored_size
from checks.contamination.readers.tokens import TOKEN_COLUMN, TokenTable, token_table
from checks.contamination.records import Documents, Slice

ROWS = 1024
"""Rows per batch where their size is not known beforehand."""
NOT_UTF8 = "Invalid UTF-8: the bytes were kept, words end there."
NO_COLUMN = "No column holds text: the records were skipped."
UNREAD_TOKENS = "Token ids beside little text: they were not searched. Name their tokenizer.json with --tokenizer."
BROKEN = "Not readable as {}: what is named here was lost. ({})"
ARROW_MAGIC = b"ARROW1"


class Rows:
    """Turns batches of columns, in their order, into documents."""

    def __init__(self, schema: pa.Schema, ledger: Ledger, options: CorpusOptions) -> None:
        self.ledger, self.only = ledger, options.text_columns
        self.text = text_columns_of(schema)
        self.has_tokens = TOKEN_COLUMN in schema.names
        known = self.has_tokens and options.tokenizer
        self.tokens: TokenTable | None = token_table(options.tokenizer) if known else None
        names = [options.id_column] if options.id_column else ID_COLUMNS
        self.id = next((name for name in names if name in schema.names), "")

    def all(self) -> list[str]:
        """The columns that have to be read."""
        tokens = [TOKEN_COLUMN] if self.has_tokens else []
        return list(dict.fromkeys([*self.text, *tokens, *([self.id] if self.id else [])]))

    def documents(self, batch: pa.RecordBatch | pa.Table) -> Iterator[Documents]:
        """The documents of a batch; every row is counted."""
        first = self.ledger.tally.records
        self.ledger.tally.records += batch.num_rows
        where = f"rows {first + 1} to {first + batch.num_rows}"
        text, read = self._text(batch, where)
        if text is None:
            what = ONLY_TOKENS if self.has_tokens else NO_COLUMN
            self.ledger.skip(what, where, batch.num_rows)
            return
        self.ledger.read_from(read)
        try:
            text.view(pa.large_string()).validate(full=True)
        except pa.ArrowInvalid:
            self.ledger.note(NOT_UTF8, f"in {where}")
        missing = text.is_null().to_numpy(zero_copy_only=False)
        without = np.flatnonzero(missing)
        places = [f"row {first + int(i) + 1}" for i in without[:PLACES]]
        self.ledger.skip_many(NO_TEXT, places, len(without), gap=False)
        rows = np.flatnonzero(~missing).astype(np.int64)
        ids = _one_array(batch.column(self.id)).filter(pa.array(~missing)).to_pylist() if self.id else None
        texts = string_buffers(text.drop_null())
        no_offsets = np.full(len(rows), -1, np.int64)
        yield from batches(Texts(*texts, first + rows, no_offsets, None if ids is None else id_strings(ids)))

    def _text(self, batch: pa.RecordBatch | pa.Table, where: str) -> tuple[pa.Array | None, list[str]]:
        """The text of each row and the columns it is from; None where there is none to be had from any row."""
        arrays = {name: _one_array(batch.column(name)) for name in self.text}
        text, read = table_text(arrays, batch.num_rows, self.ledger.left, self.only) if arrays else (None, [])
        if not self.has_tokens:
            return text, read
        ids = _one_array(batch.column(TOKEN_COLUMN))
        size = 0 if text is None else pa.compute.sum(pa.compute.binary_length(text)).as_py() or 0
        if size >= len(ids.flatten()):
            return text, read  # the ids of the text that lies beside them
        if self.tokens is None:
            if size:
                self.ledger.note(UNREAD_TOKENS, where, gap=True)
            return (text, read) if size else (None, [])
        decoded = self.tokens.texts(ids)
        parts = {TOKEN_COLUMN: decoded} if text is None else {TOKEN_COLUMN: decoded, "text": text}
        return table_text(parts, batch.num_rows, self.ledger.left)[0], [*read, TOKEN_COLUMN]


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """The file, with column chunks read in small buffers and not as a whole."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield file


def group_starts(file: pq.ParquetFile) -> list[int]:
    """Byte at which each row group starts."""
    starts = []
    for group in range(file.num_row_groups):
        columns = file.metadata.row_group(group)
        chunks = [columns.column(i) for i in range(columns.num_columns)]
        starts.append(min(_chunk_start(chunk) for chunk in chunks) if chunks else 0)
    return starts


def _chunk_start(chunk: pq.ColumnChunkMetaData) -> int:
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        return int(min(chunk.dictionary_page_offset, chunk.data_page_offset))
    return int(chunk.data_page_offset)


def read_parquet(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Rows of the row groups [start, stop).

    Raises:
        OSError: the shard cannot be read on.
    """
    start, stop = _byte_range(part)
    with local_path(part.shard, ledger.tally, start, stop) as path:
        try:
            with open_parquet(path) as file:
                rows = Rows(file.schema_arrow, ledger, options)
                for group in range(part.start, file.num_row_groups if part.stop is None else part.stop):
                    yield from _group(file, group, rows, ledger)
                    if ledger.is_bomb():
                        return
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            ledger.note(BROKEN.format("Parquet", _first_line(error)), "the whole shard", gap=True)


def _byte_range(part: Slice) -> tuple[int, int | None]:
    """A slice of row groups reaches to the next one; the last includes the footer."""
    if part.start == 0 and part.stop is None:
        return 0, None
    with open_parquet(part.shard) as file:
        starts = [*group_starts(file), stored_size(part.shard)]
    starts[0] = 0
    return starts[part.start], starts[-1 if part.stop is None else part.stop]


def _group(file: pq.ParquetFile, group: int, rows: Rows, ledger: Ledger) -> Iterator[Documents]:
    about = file.metadata.row_group(group)
    size = max(1, about.total_byte_size // max(1, about.num_rows))
    before = ledger.tally.records
    size = max(1, min(1 << 16, BATCH // size))
    batches_read = file.iter_batches(size, row_groups=[group], columns=rows.all(), use_threads=False)
    while True:
        try:
            batch = next(batches_read, None)
        except (pa.ArrowInvalid, OSError) as error:
            lost = about.num_rows - (ledger.tally.records - before)
            ledger.tally.records += lost
            place = f"the last {lost} rows of row group {group}"
            ledger.skip(BROKEN.format("Parquet", _first_line(error)), place, lost)
            return
        if batch is None:
            return
        yield from rows.documents(batch)
        if ledger.is_bomb():
            return


def read_arrow(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Rows of an Arrow IPC file or stream.

    Raises:
        OSError: the shard cannot be read on.
    """
    with local_path(part.shard, ledger.tally) as path:
        try:
            with pa.OSFile(path) as source:
                yield from _record_batches(source, ledger, options)
        except (pa.ArrowInvalid, OSError) as error:
            place = f"from record {ledger.tally.records + 1} on"
            ledger.note(BROKEN.format("Arrow", _first_line(error)), place, gap=True)


def _record_batches(source: pa.NativeFile, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    is_file = source.read(len(ARROW_MAGIC)) == ARROW_MAGIC
    source.seek(0)
    reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    rows = Rows(reader.schema, ledger, options)
    if is_file:
        for i in range(reader.num_record_batches):
            try:
                batch = reader.get_batch(i)
            except (pa.ArrowInvalid, OSError) as error:
                ledger.note(BROKEN.format("Arrow", _first_line(error)), f"record batch {i}", gap=True)
                continue
            yield from _sliced(batch, rows)
    else:
        for batch in reader:
            yield from _sliced(batch, rows)


def _sliced(batch: pa.RecordBatch, rows: Rows) -> Iterator[Documents]:
    for first in range(0, batch.num_rows, ROWS):
        yield from rows.documents(batch.slice(first, ROWS))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

