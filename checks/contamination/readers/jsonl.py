"""JSON Lines: blocks of lines through pyarrow's parser; a block it refuses goes line by line, each bad line named.

The two ways agree on every record (`fields.record_text` and `fields.table_text` say the same); only the speed differs:
about 500 MB/s and 100 MB/s per core.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from checks.contamination.readers.batches import Ints, Texts, batches, from_bytes, id_strings, streamed, string_buffers
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.encodings import WESTERN, as_western, utf8_blocks
from checks.contamination.readers.fields import (
    ID_COLUMNS,
    NO_TEXT,
    ONLY_TOKENS,
    SENTENCE_SPACES,
    LeftOut,
    holds_text,
    holds_tokens,
    record_text,
    table_text,
)
from checks.contamination.readers.keys import is_plain
from checks.contamination.readers.ledger import PLACES, Ledger
from checks.contamination.readers.lines import Block, LongLine, line_blocks, range_blocks, unescaped
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.readers.stored import stored_size
from checks.contamination.records import Documents, Slice

BOM = b"\xef\xbb\xbf"
NEWLINE, RETURN, BRACE = b"\n\r{"
_ALLOWED = bytes([13, *range(32, 256)])
_LENIENT = json.JSONDecoder(strict=False)

BLANK = "Blank lines were skipped."
NOT_JSON = "Not valid JSON (a half line, or not JSON at all): the line was skipped."
NOT_OBJECT = "A bare value without text: the line was skipped."
NOT_UTF8 = "Invalid UTF-8: the bytes were kept, words end there."
CONTROL = "Raw NUL or control characters inside JSON strings: the text was kept, words end there."
LONG_LINE = "The line is above {:,} bytes: it was scanned as raw text in pieces, its keys included, not parsed."


def read_jsonl(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Documents of the lines that begin in the slice.

    Raises:
        OSError: the shard cannot be read on.
    """
    lines = _Lines(ledger, options, numbered=part.start == 0)
    if part.start == 0 and part.stop is None:
        start, blocks = 0, utf8_blocks(plain_blocks(part.shard, ledger), ledger, whole=False)
    else:
        stop = stored_size(part.shard) if part.stop is None else part.stop
        start, blocks = range_blocks(part.shard, ledger.tally, part.start, stop)
    for block in line_blocks(blocks, start, options.line_limit):
        if isinstance(block, LongLine):
            yield from lines.long(block)
        else:
            yield from batches(lines.texts(block))
        if ledger.is_bomb():
            return


class _Lines:
    """Where the reading of one slice stands."""

    def __init__(self, ledger: Ledger, options: CorpusOptions, numbered: bool) -> None:
        self.ledger, self.options, self.numbered = ledger, options, numbered
        self.id_column = options.id_column
        self.strings: dict[str, pa.DataType] = {}  # columns that the parser would take for points in time

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
        if not self.id_column:
            first = next((row for row in map(_parsed, rows.lines()) if type(row) is dict), {})
            self.id_column = next((name for name in ID_COLUMNS if type(first.get(name)) in (str, int)), "")
        return self._fast(rows) or self._slow(rows)

    def _filled(self, data: bytes, starts: Ints, ends: Ints, start: int) -> Ints:
        lengths = ends - starts
        array = np.frombuffer(data, np.uint8)
        blank = lengths == 0
        single = np.flatnonzero(lengths == 1)
        blank[single] = array[starts[single]] == RETURN
        if len(found := np.flatnonzero(blank)):
            places = [self.place(self.ledger.tally.records + int(i), start + int(starts[i])) for i in found[:PLACES]]
            self.ledger.skip_many(BLANK, places, len(found), gap=False)
        return np.flatnonzero(~blank).astype(np.int64)

    def _fast(self, rows: _Rows) -> Texts | None:
        if not rows.all_objects() or not is_plain(rows.data):
            return None
        left = LeftOut()
        try:
            table = self._parsed_block(rows.data)
            table.validate()  # pyarrow 26 loses the nulls of a list before its first value
            if table.num_rows != len(rows.starts) or _has_sentences(table.schema):
                return None  # white space or two objects on one line: rows are no longer lines
            columns = {
                name: table[name].combine_chunks() for name in table.column_names if holds_text(table[name].type)
            }
            text, read = table_text(columns, table.num_rows, left, self.options.text_columns)
            text.view(pa.large_string()).validate(full=True)  # UTF-8: the parser lets any bytes through
        except pa.ArrowException:
            return None
        missing = text.is_null().to_numpy(zero_copy_only=False) if text.null_count else None
        if missing is not None and _holds_lists(table.schema):
            return None  # token ids, perhaps: the slow way looks
        self.ledger.left.add(left)
        self.ledger.read_from(read)
        ids = self._ids(table)
        if missing is None:
            return Texts(*string_buffers(text), rows.records, rows.byte_offsets, ids)
        where = np.flatnonzero(missing)
        places = [self.place(int(rows.records[i]), int(rows.byte_offsets[i])) for i in where[:PLACES]]
        self.ledger.skip_many(NO_TEXT, places, len(where), gap=False)
        keep = np.flatnonzero(~missing)
        ids = ids and [ids[i] for i in keep]
        return Texts(*string_buffers(text.drop_null()), rows.records[keep], rows.byte_offsets[keep], ids)

    def _parsed_block(self, data: bytes) -> pa.Table:
        table = _parse_block(data, self.strings)
        if timed := {part.name: _without_times(part.type) for part in table.schema if _holds_time(part.type)}:
            self.strings |= timed
            table = _parse_block(data, self.strings)
        return table

    def _ids(self, table: pa.Table) -> list[str] | None:
        if not self.id_column:
            return None
        if self.id_column not in table.column_names:
            return [""] * table.num_rows
        return id_strings(table[self.id_column].to_pylist())

    def _slow(self, rows: _Rows) -> Texts:
        found = [self._record_text(rows, i) for i in range(len(rows.starts))]
        keep = np.array([i for i, (text, _) in enumerate(found) if text is not None], np.int64)
        texts = [text for text, _ in found if text is not None]
        ids = [found[i][1] for i in keep] if self.id_column else None
        return from_bytes(texts, rows.records[keep], rows.byte_offsets[keep], ids)

    def _record_text(self, rows: _Rows, i: int) -> tuple[bytes | None, str]:
        """Text and id of one line; None for text where the line is skipped, which is then on the books."""
        place = self.place(int(rows.records[i]), int(rows.byte_offsets[i]))
        record = self._record(rows.line(i), place)
        if record is None:
            return None, ""
        text, read = record_text(record, self.ledger.left, self.options.text_columns)
        if not text:
            if type(record) is not dict:
                self.ledger.skip(NOT_OBJECT, place, gap=False)
            elif holds_tokens(record):
                self.ledger.skip(ONLY_TOKENS, place)
            else:
                self.ledger.skip(NO_TEXT, place, gap=False)
            return None, ""
        self.ledger.read_from(read)
        document_id = record.get(self.id_column) if type(record) is dict else None
        return utf8(text), id_strings([document_id])[0]

    def _record(self, line: bytes, place: str) -> Any:
        """The value of a line; None where there is none, which is then on the books."""
        if not line.strip():
            self.ledger.skip(BLANK, place, gap=False)
            return None
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            value = self._lenient(line, place)
        if value is None:
            empty = line.strip() == b"null"
            self.ledger.skip(NOT_OBJECT if empty else NOT_JSON, place, gap=not empty, size=len(line))
        return value

    def _lenient(self, line: bytes, place: str) -> Any:
        """The value of a line with bytes that JSON forbids, which are named; None where that is not all."""
        if not _is_utf8(line) and (recoded := as_western(line)) is not None:
            line = recoded
            self.ledger.note(WESTERN, place)
        value = _parsed(line)
        if value is not None:
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


def _parse_block(data: bytes, strings: Mapping[str, pa.DataType]) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=pa.schema(list(strings.items())) if strings else None),
    )


def _holds_time(kind: pa.DataType) -> bool:
    """Whether the parser took strings for points in time, at any depth."""
    return not kind.equals(_without_times(kind))


def _without_times(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(part.name, _without_times(part.type)) for part in kind])
    return kind


def _has_sentences(parts: Iterable[pa.Field]) -> bool:
    """Whether a key is text itself."""
    return any(part.name.count(" ") >= SENTENCE_SPACES or _has_sentences(_inside(part.type)) for part in parts)


def _inside(kind: pa.DataType) -> Sequence[pa.Field]:
    if pa.types.is_list(kind):
        return _inside(kind.value_type)
    return list(kind) if pa.types.is_struct(kind) else []


def _holds_lists(schema: pa.Schema) -> bool:
    return any(pa.types.is_list(part.type) and pa.types.is_integer(part.type.value_type) for part in schema)


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
