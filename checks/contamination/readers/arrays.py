"""JSON files that are not lines: one array of records, or pretty-printed values one after another."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from checks.contamination.readers.batches import BATCH, batches, from_bytes, id_strings
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.fields import ALL_COLUMNS, ID_COLUMNS, NO_TEXT, record_text
from checks.contamination.readers.jsonl import utf8
from checks.contamination.readers.ledger import EVERY_COLUMN, Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import Documents, Slice

_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
NOT_OBJECT = "Not a JSON object but a bare value: it was skipped."
BROKEN = "The JSON is broken here, or one value is above the limit of a line: the rest of the file was not read."


def json_values(blocks: Iterator[bytes], limit: int) -> Iterator[Any]:
    """The values of a JSON array, or of values one after another, without holding more than `limit` of the text.

    Raises:
        ValueError: the text breaks off or is not JSON; the message holds the byte reached.
    """
    decoder, utf8_decoder = json.JSONDecoder(strict=False), codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text, read = "", 0
    for block in blocks:
        text += utf8_decoder.decode(block)
        read += len(block)
        at = 0
        while True:
            at = _end(text, at)
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                break
            yield value
        text = text[at:]
        if len(text) > limit:
            break
    if text[_end(text, 0) :]:
        raise ValueError(f"byte {read - len(text.encode('utf-8', 'surrogatepass'))}")


def _end(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def read_json(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """The records of the array.

    Raises:
        OSError: the shard cannot be read on.
    """
    texts: list[bytes] = []
    records: list[int] = []
    ids: list[str] = []
    size = 0
    try:
        for value in json_values(plain_blocks(part.shard, ledger), options.line_limit):
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
    except ValueError as error:
        ledger.tally.records += 1
        ledger.skip(BROKEN, f"element {ledger.tally.records}, about {error}")
    yield from _flush(texts, records, ids)


def _text(value: Any, place: str, ledger: Ledger, options: CorpusOptions) -> tuple[bytes, str]:
    if not isinstance(value, Mapping):
        ledger.skip(NOT_OBJECT, place)
        return b"", ""
    text, read, known = record_text(value, options.text_columns)
    if not text:
        ledger.skip(NO_TEXT, place, gap=False)
    elif not known:
        ledger.note(ALL_COLUMNS, place)
    ledger.read_from(read if known else [EVERY_COLUMN])
    name = options.id_column or next((name for name in ID_COLUMNS if name in value), "")
    return utf8(text), id_strings([value.get(name)])[0]


def _flush(texts: list[bytes], records: list[int], ids: list[str]) -> Iterator[Documents]:
    if texts:
        no_offsets = np.full(len(texts), -1, np.int64)
        yield from batches(from_bytes(texts, np.array(records, np.int64), no_offsets, list(ids) if any(ids) else None))
    texts.clear()
    records.clear()
    ids.clear()
