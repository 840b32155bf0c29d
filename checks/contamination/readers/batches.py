"""From texts to `Documents`: bounded batches, long documents in overlapping pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.records import OVERLAP, Documents

BATCH = 2 << 20
"""Bytes of text in a batch, more or less."""
PIECE = 4 << 20
"""Bytes above which a document comes in pieces."""

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts with where they came from, not yet cut into batches; the fields are those of `Documents`."""

    text: Bytes
    offsets: Ints
    records: Ints
    byte_offsets: Ints
    ids: Sequence[str] | None


def string_buffers(array: pa.Array) -> tuple[Bytes, Ints]:
    """An Arrow string or binary array without nulls as (text uint8[bytes], offsets int64[n + 1]), without a copy."""
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    if not (wide or pa.types.is_string(array.type) or pa.types.is_binary(array.type)):
        array, wide = array.cast(pa.large_binary()), True  # string views, fixed-size binary
    _, offset_buffer, data = array.buffers()
    if not len(array) or data is None:
        return np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
    text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    return text, offsets.astype(np.int64) - int(offsets[0])


def batches(texts: Texts) -> Iterator[Documents]:
    """Cut into batches of about `BATCH` bytes; a text above `PIECE` comes alone, in pieces."""
    offsets, count = texts.offsets, len(texts.offsets) - 1
    first = 0
    while first < count:
        if offsets[first + 1] - offsets[first] > PIECE:
            yield from _pieces(texts, first)
            first += 1
            continue
        stop = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BATCH, side="right")) - 1)
        yield _part(texts, first, stop)
        first = stop


def _part(texts: Texts, first: int, stop: int) -> Documents:
    offsets = texts.offsets[first : stop + 1]
    return Documents(
        text=texts.text[offsets[0] : offsets[-1]],
        offsets=offsets - offsets[0],
        records=texts.records[first:stop],
        byte_offsets=texts.byte_offsets[first:stop],
        piece_starts=np.zeros(stop - first, np.int64),
        ids=None if texts.ids is None else texts.ids[first:stop],
    )


def _pieces(texts: Texts, i: int) -> Iterator[Documents]:
    text = texts.text[texts.offsets[i] : texts.offsets[i + 1]]
    document_id = None if texts.ids is None else texts.ids[i]
    for start in range(0, max(1, len(text) - OVERLAP), PIECE - OVERLAP):
        piece = text[start : start + PIECE]
        yield one_piece(piece, start, int(texts.records[i]), int(texts.byte_offsets[i]), document_id)


def one_piece(text: Bytes, start: int, record: int, byte_offset: int, document_id: str | None = None) -> Documents:
    """A batch of a single piece."""
    return Documents(
        text=text,
        offsets=np.array([0, len(text)], np.int64),
        records=np.array([record], np.int64),
        byte_offsets=np.array([byte_offset], np.int64),
        piece_starts=np.array([start], np.int64),
        ids=None if document_id is None else [document_id],
    )


class Growing:
    """A document of any length whose text comes in blocks: full pieces leave at once."""

    def __init__(self, record: int, byte_offset: int) -> None:
        self.record, self.byte_offset = record, byte_offset
        self._held, self._start = bytearray(), 0

    def add(self, block: bytes | memoryview) -> Iterator[Documents]:
        """Take a block; yield the pieces that it fills."""
        self._held += block
        while len(self._held) > PIECE:
            yield self._piece(bytes(self._held[:PIECE]))
            del self._held[: PIECE - OVERLAP]
            self._start += PIECE - OVERLAP

    def finish(self) -> Iterator[Documents]:
        """Yield the last piece, if there was any text."""
        if self._held:
            yield self._piece(bytes(self._held))

    def _piece(self, text: bytes) -> Documents:
        return one_piece(np.frombuffer(text, np.uint8), self._start, self.record, self.byte_offset)


def streamed(blocks: Iterable[bytes], record: int, byte_offset: int) -> Iterator[Documents]:
    """One document of any length, from blocks of its text."""
    document = Growing(record, byte_offset)
    for block in blocks:
        yield from document.add(block)
    yield from document.finish()


def from_bytes(texts: Sequence[bytes], records: Ints, byte_offsets: Ints, ids: Sequence[str] | None) -> Texts:
    """Texts that are Python objects already."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return Texts(np.frombuffer(b"".join(texts), np.uint8), offsets, records, byte_offsets, ids)


def id_strings(values: Sequence[Any]) -> list[str]:
    """Ids as text; a missing one is empty."""
    return ["" if value is None else str(value) for value in values]
