"""JSON Lines: blocks of lines through pyarrow's parser; a block it refuses goes line by line, each bad line named.

The two ways agree on every record (`fields.record_text` and `fields.table_text` say the same); only the speed differs:
about 500 MB/s and 100 MB/s per core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from checks.contamination.readers.batches import Ints, Texts, batches, from_bytes, id_strings, streamed, string_buffers
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.fields import (
    ALL_COLUMNS,
    ID_COLUMNS,
    NO_TEXT,
    TEXT_COLUMNS,
    Columns,
    record_text,
    table_text,
)  # fmt: skip
from checks.contamination.readers.keys import keys_in
from checks.contamination.readers.ledger import EVERY_COLUMN, Ledger
from checks.contamination.readers.lines import Block, LongLine, line_blocks, range_blocks, unescaped
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.readers.stored import stored_size
from checks.contamination.records import Documents, Slice

BOM = b"\xef\xbb\xbf"
NEWLINE, RETURN, BRACE = b"\n\r{"
_ALLOWED = bytes([13, *range(32, 256)])
_LENIENT = json.JSONDecoder(strict=False)
_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
"""Types of columns that hold no text by the first record; where a later one has text in them, the slow way reads it."""

BLANK = "Blank lines were skipped."
NOT_JSON = "Not valid JSON (a half line, or not JSON at all): the line was skipped."
NOT_OBJECT = "Not a JSON object but a bare value: the line was skipped."
NOT_UTF8 = "Invalid UTF-8: the bytes were kept, words end there."
CONTROL = "Raw NUL or control characters inside JSON strings: the text was kept, words end there."
LONG_LINE = "The line is above {:,} bytes: it was scanned as raw text in pieces, its keys included, not parsed."


@dataclass(frozen=True, slots=True)
class Layout:
    """What the first record of a slice says about its columns."""

    schema: pa.Schema | None
    """For pyarrow's parser; None where only the slow way can read such records."""
    columns: Columns

    def with_keys_of(self, block: bytes) -> Layout:
        """With the columns known to hold text that the first record had not, but a record of this block may have."""
        new = keys_in(block, [name for name in TEXT_COLUMNS if name not in self.columns.text])
        if self.schema is None or not new:
            return self
        text = tuple(name for name in TEXT_COLUMNS if name in (*self.columns.text, *new))
        fields = {name: pa.string() for name in text} | {field.name: field.type for field in self.schema}
        return Layout(pa.schema(list(fields.items())), replace(self.columns, text=text))


def read_jsonl(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Documents of the lines that begin in the slice.

    Raises:
        OSError: the shard cannot be read on.
    """
    lines = _Lines(ledger, options, numbered=part.start == 0)
    if part.start == 0 and part.stop is None:
        start, blocks = 0, plain_blocks(part.shard, ledger)
    else:
        stop = stored_size(part.shard) if part.stop is None else part.stop
        start, blocks = range_blocks(part.shard, ledger.tally, part.start, stop)
    for block in line_blocks(blocks, start, options.line_limit):
        if isinstance(block, LongLine):
            yield from lines.long(block)
        else:
            yield from batches(lines.texts(block))


class _Lines:
    """Where the reading of one slice stands."""

    def __init__(self, ledger: Ledger, options: CorpusOptions, numbered: bool) -> None:
        self.ledger, self.options, self.numbered = ledger, options, numbered
        self.layout: Layout | None = None

    def place(self, record: int, byte: int) -> str:
        """Of a line. Lines are numbered from the start of the shard, so a slice from its middle has bytes only."""
        return f"line {record + 1}, byte {byte}" if self.numbered else f"byte {byte}"

    def long(self, line: LongLine) -> Iterator[Documents]:
        """One line above the limit, as raw text."""
        record = self.ledger.tally.records
        self.ledger.tally.records += 1
        self.ledger.note(LONG_LINE.format(self.options.line_limit), self.place(record, line.start))
        yield from streamed(unescaped(line.parts), record, line.start)

    def texts(self, block: Block) -> Texts:
        """All texts of a block of lines; every line is counted."""
        data, start = block.data, block.start
        if start == 0 and data.startswith(BOM):
            data, start = data[len(BOM) :], len(BOM)
        starts, ends = line_bounds(data)
        filled = self._filled(data, starts, ends, start)
        records = self.ledger.tally.records + filled
        self.ledger.tally.records += len(starts)
        rows = _Rows(data, starts[filled], ends[filled], records, start + starts[filled])
        if self.layout is None:
            self.layout = next((_layout(row, self.options) for row in map(_parsed, rows.lines()) if row), None)
        return self._fast(rows) or self._slow(rows)

    def _filled(self, data: bytes, starts: Ints, ends: Ints, start: int) -> Ints:
        lengths = ends - starts
        array = np.frombuffer(data, np.uint8)
        blank = lengths == 0
        single = np.flatnonzero(lengths == 1)
        blank[single] = array[starts[single]] == RETURN
        for i in np.flatnonzero(blank):
            self.ledger.skip(BLANK, self.place(self.ledger.tally.records + int(i), start + int(starts[i])), gap=False)
        return np.flatnonzero(~blank).astype(np.int64)

    def _fast(self, rows: _Rows) -> Texts | None:
        if self.layout is None or self.layout.schema is None or not rows.all_objects():
            return None
        if not self.options.text_columns:
            self.layout = self.layout.with_keys_of(rows.data)
        try:
            table = _parse_block(rows.data, self.layout.schema)
            if table.num_rows != len(rows.starts):
                return None  # white space or two objects on one line: rows are no longer lines
            columns = {name: table[name].combine_chunks() for name in table.column_names}
            text, read = table_text(columns, self.layout.columns)
            text.validate(full=True)  # UTF-8: the parser lets any bytes through
        except pa.ArrowInvalid:
            return None
        self.ledger.read_from(read)
        text = text.view(pa.large_binary())
        if text.null_count:
            missing = np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False))
            found = pa.array([self._record_text(rows, int(i))[0] for i in missing], text.type)
            text = pc.replace_with_mask(text, text.is_null(), found)
        keep = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
        name = self.layout.columns.id
        ids = id_strings(columns[name].to_pylist()) if name else None
        if len(keep) < len(text):
            text, ids = text.drop_null(), ids and [ids[i] for i in keep]
        return Texts(*string_buffers(text), rows.records[keep], rows.byte_offsets[keep], ids)

    def _slow(self, rows: _Rows) -> Texts:
        found = [self._record_text(rows, i) for i in range(len(rows.starts))]
        keep = np.array([i for i, (text, _) in enumerate(found) if text is not None], np.int64)
        texts = [text for text, _ in found if text is not None]
        ids = [found[i][1] for i in keep] if self.layout is not None and self.layout.columns.id else None
        return from_bytes(texts, rows.records[keep], rows.byte_offsets[keep], ids)

    def _record_text(self, rows: _Rows, i: int) -> tuple[bytes | None, str]:
        """Text and id of one line; None for text where the line is skipped, which is then on the books."""
        place = self.place(int(rows.records[i]), int(rows.byte_offsets[i]))
        record = self._record(rows.line(i), place)
        if record is None:
            return None, ""
        text, read, known = record_text(record, self.options.text_columns)
        if not text:
            self.ledger.skip(NO_TEXT, place, gap=False)
            return None, ""
        if not known:
            self.ledger.note(ALL_COLUMNS, place)
        self.ledger.read_from(read if known else [EVERY_COLUMN])
        name = self.layout.columns.id if self.layout else ""
        return utf8(text), id_strings([record.get(name)])[0]

    def _record(self, line: bytes, place: str) -> Mapping[str, Any] | None:
        if not line.strip():
            self.ledger.skip(BLANK, place, gap=False)
            return None
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            value = self._lenient(line, place)
        if type(value) is dict:
            return value
        self.ledger.skip(NOT_JSON if value is None and line.strip() != b"null" else NOT_OBJECT, place)
        return None

    def _lenient(self, line: bytes, place: str) -> Any:
        """The value of a line with bytes that JSON forbids, which are named; None where that is not all."""
        value = _parsed(line)
        if type(value) is dict:
            for what, wrong in ((NOT_UTF8, not _is_utf8(line)), (CONTROL, bool(line.translate(None, _ALLOWED)))):
                if wrong:
                    self.ledger.note(what, place)
        return value


@dataclass(frozen=True, slots=True)
class _Rows:
    """The lines of a block that are not blank, with their numbers and places."""

    data: bytes
    starts: Ints
    ends: Ints
    records: Ints
    byte_offsets: Ints

    def all_objects(self) -> bool:
        """Whether every line opens an object. pyarrow 26 ends the process on a block that opens with a bare null."""
        return len(self.starts) > 0 and bool((np.frombuffer(self.data, np.uint8)[self.starts] == BRACE).all())

    def line(self, i: int) -> bytes:
        return self.data[self.starts[i] : self.ends[i]]

    def lines(self) -> Iterator[bytes]:
        return (self.line(i) for i in range(len(self.starts)))


def line_bounds(data: bytes) -> tuple[Ints, Ints]:
    """Where each line of a block starts and ends, line breaks left out."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE).astype(np.int64)
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    return starts, ends


def _parse_block(data: bytes, schema: pa.Schema) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _layout(record: Any, options: CorpusOptions) -> Layout | None:
    """Columns and types for the fast parser, by the first record of the slice."""
    if not isinstance(record, Mapping):
        return None
    columns = _columns(record, options)
    names = columns.all()
    present = [record[name] for name in names if record.get(name) is not None]
    types = {name: _TYPES.get(type(record.get(name)), pa.string()) for name in columns.text}
    if columns.id:
        types[columns.id] = pa.int64() if type(record.get(columns.id)) is int else pa.string()
    # Chat messages, lists of choices and unknown columns are the slow way's: their types may change on any line.
    fast = any(name in record for name in columns.text) and all(type(v) in (str, *_TYPES) for v in present)
    return Layout(pa.schema(list(types.items())) if fast else None, columns)


def _columns(record: Mapping[str, Any], options: CorpusOptions) -> Columns:
    guessed = next((name for name in ID_COLUMNS if type(record.get(name)) in (str, int)), "")
    document_id = options.id_column or guessed
    if options.text_columns:
        return Columns(options.text_columns, document_id)
    return Columns(tuple(name for name in TEXT_COLUMNS if name in record), document_id)


def _parsed(line: bytes) -> Any:
    """The line's value; None where it is not JSON. Control characters and NaN pass, as Python writes them."""
    try:
        return _LENIENT.decode(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def utf8(text: str) -> bytes:
    """The bytes that `text` was decoded from; lone surrogates that were escaped become invalid bytes: no word."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass") if _has_lone(text) else text.encode("utf-8", "surrogateescape")


def _has_lone(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" and not "\udc80" <= character <= "\udcff" for character in text)
