"""JSON files that are not lines: one array of records, or pretty-printed values one after another.

A value too large to be held (a whole data set in one object) is scanned as raw text instead, its keys included.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from checks.contamination.readers.batches import BATCH, batches, from_bytes, id_strings, streamed
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.encodings import utf8_blocks
from checks.contamination.readers.fields import ID_COLUMNS, NO_TEXT, ONLY_TOKENS, holds_tokens, record_text
from checks.contamination.readers.jsonl import utf8
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.lines import unescaped
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import Documents, Slice

_BETWEEN = re.compile(r"[\s,\ufeff]*")
NOT_OBJECT = "A bare value without text: it was skipped."
BROKEN = "The JSON is broken here: from here on the file was scanned as raw text, its keys included."
LARGE = "A value above {:,} bytes: from here on the file was scanned as raw text, its keys included."


class Values:
    """The values of a JSON array, or of values one after another, without holding more than `limit` of the text."""

    def __init__(self, blocks: Iterator[bytes], limit: int) -> None:
        self._blocks, self._limit = blocks, limit
        self._text, self._inside = "", False
        self.broken = False
        """Whether the text is not JSON from `place` on; False where a value is merely above the limit."""
        self.place = 0
        """Byte reached."""

    def __iter__(self) -> Iterator[Any]:
        decoder, utf8_decoder = json.JSONDecoder(strict=False), codecs.getincrementaldecoder("utf-8")("surrogateescape")
        for block in self._blocks:
            self._text += utf8_decoder.decode(block)
            self.place += len(block)
            at = 0
            while (at := self._next(at)) < len(self._text):
                try:
                    value, at = decoder.raw_decode(self._text, at)
                except (ValueError, RecursionError):
                    break
                yield value
            self._text = self._text[at:]
            if len(self._text) > self._limit:
                return
        self.broken = bool(self._text)

    def _next(self, at: int) -> int:
        """Where the next value begins: behind white space, commas, and the brackets of the outermost array."""
        while True:
            match = _BETWEEN.match(self._text, at)
            at = match.end() if match else at
            bracket = self._text[at : at + 1]
            if bracket != ("]" if self._inside else "["):
                return at
            self._inside = not self._inside
            at += 1

    def rest(self) -> Iterator[bytes]:
        """What was not read as values: empty where all was."""
        held, self._text = self._text.encode("utf-8", "surrogateescape"), ""
        self.place -= len(held)
        if held:
            yield held
            yield from self._blocks


def read_json(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """The records of the array.

    Raises:
        OSError: the shard cannot be read on.
    """
    texts: list[bytes] = []
    records: list[int] = []
    ids: list[str] = []
    size = 0
    blocks = utf8_blocks(plain_blocks(part.shard, ledger), ledger)
    values = Values(blocks, options.line_limit)
    for value in values:
        number = ledger.tally.records
        ledger.tally.records += 1
        text, document_id = _text(value, f"element {number + 1}", ledger, options)
        if text:
            texts.append(text)
            records.append(number)
            ids.append(document_id)
            size += len(text)
        if size > BATCH:
            yield from _flush(texts, records, ids)
            size = 0
    yield from _flush(texts, records, ids)
    yield from _raw(values, ledger, options)


def _raw(values: Values, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """What is no value, or too large a one, as one document of raw text."""
    broken = values.broken
    rest = values.rest()
    first = next(rest, b"")
    if not first:
        return
    number = ledger.tally.records
    ledger.tally.records += 1
    what = BROKEN if broken else LARGE.format(options.line_limit)
    ledger.note(what, f"element {number + 1}, byte {values.place}", gap=broken)

    def parts() -> Iterator[bytes]:
        yield first
        yield from rest

    yield from streamed(unescaped(parts()), number, values.place)


def _text(value: Any, place: str, ledger: Ledger, options: CorpusOptions) -> tuple[bytes, str]:
    text, read = record_text(value, ledger.left, options.text_columns)
    if not text:
        if type(value) is not dict:
            ledger.skip(NOT_OBJECT, place, gap=False)
        elif holds_tokens(value):
            ledger.skip(ONLY_TOKENS, place)
        else:
            ledger.skip(NO_TEXT, place, gap=False)
        return b"", ""
    ledger.read_from(name for name in read if name)
    record = value if type(value) is dict else {}
    name = options.id_column or next((name for name in ID_COLUMNS if name in record), "")
    return utf8(text), id_strings([record.get(name)])[0]


def _flush(texts: list[bytes], records: list[int], ids: list[str]) -> Iterator[Documents]:
    if texts:
        no_offsets = np.full(len(texts), -1, np.int64)
        yield from batches(from_bytes(texts, np.array(records, np.int64), no_offsets, list(ids) if any(ids) else None))
    texts.clear()
    records.clear()
    ids.clear()
