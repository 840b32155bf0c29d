"""Pre-tokenised shards: token ids back to bytes through one table, without the tokenizer's own decoder.

Byte-level BPE (GPT-2, Llama 3, OLMo, Qwen) writes each byte as a printable character; SentencePiece models (Llama 2,
Mistral, Gemma) write a space as U+2581 and odd bytes as <0xNN>. Both make a token's bytes independent of its
neighbours, so decoding is a gather. The map of bytes to characters is GPT-2's:
https://github.com/openai/gpt-2/blob/master/src/encoder.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.readers.batches import Bytes, Growing, Ints, Texts, batches
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.readers.stored import open_stored, stored_blocks
from checks.contamination.records import Documents, Slice
from trainvitals.errors import UsageError

TOKEN_COLUMN = "input_ids"
EOS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>", "<|eot_id|>")
"""Tokens that end a document, most specific use first."""
STORED_BLOCK = 1 << 20
"""Bytes of ids per step: the gather needs about 20 times as much."""
NPY_MAGIC = b"\x93NUMPY"

NO_EOS = "The tokenizer has no known end-of-document token: the shard was scanned as one document. Name it with --eos."
BEYOND = "Token ids beyond the tokenizer's vocabulary were left out: are tokenizer and --token-dtype right?"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The bytes of every token id."""

    text: Bytes
    """The bytes of all tokens, one after another."""
    starts: NDArray[np.int32]
    """int32[vocabulary + 1]: where each token's bytes begin; the last entry is a token without bytes."""
    lengths: NDArray[np.int32]
    """int32[vocabulary + 1]."""
    ids: Mapping[str, int]
    """Ids of the tokens that could end a document."""

    def decode(self, ids: NDArray[Any]) -> tuple[Bytes, Ints]:
        """Text uint8[bytes] of ids [n], and int64[n + 1]: where each token's text begins. Unknown ids have none."""
        last = len(self.lengths) - 1
        known = np.where((ids < 0) | (ids > last), last, ids).astype(np.int64)
        lengths = self.lengths[known]
        ends = np.zeros(len(known) + 1, np.int64)
        np.cumsum(lengths, out=ends[1:])
        shift = self.starts[known] - ends[:-1].astype(np.int32)
        return self.text[np.arange(ends[-1], dtype=np.int32) + np.repeat(shift, lengths)], ends

    def texts(self, lists: pa.Array) -> pa.Array:
        """The text of each row of a column of lists of ids, as large binary; null where it has none."""
        lengths = np.nan_to_num(pa.compute.list_value_length(lists).to_numpy(zero_copy_only=False)).astype(np.int64)
        ids = pa.compute.fill_null(lists.flatten(), -1).to_numpy(zero_copy_only=False)
        text, ends = self.decode(ids)
        offsets = ends[np.concatenate([[0], np.cumsum(lengths)])]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        rows = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lists), buffers)
        return pa.compute.if_else(pa.array(np.diff(offsets) > 0), rows, None)


@lru_cache(maxsize=4)
def token_table(tokenizer: str) -> TokenTable:
    """The table of a tokenizer.json, or of the one in this folder.

    Raises:
        UsageError: no such file, or a tokenizer whose tokens have no bytes of their own (WordPiece).
    """
    path = os.path.join(tokenizer, "tokenizer.json") if os.path.isdir(tokenizer) else tokenizer
    try:
        with open_stored(path) as file:
            spec = json.load(file)
        model = spec["model"]
        vocabulary = model["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a readable tokenizer.json ({error}). Name the right file.") from error
    if model.get("type") not in ("BPE", "Unigram", None):
        raise UsageError(f"{path} is a {model['type']} tokenizer: its text cannot be restored from ids.")
    pieces = vocabulary if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}
    byte_level = '"ByteLevel"' in json.dumps([spec.get("decoder"), spec.get("pre_tokenizer")])
    added = {token["content"]: int(token["id"]) for token in spec.get("added_tokens", [])}
    pieces_bytes = {int(i): _byte_level(piece) if byte_level else _sentencepiece(piece) for piece, i in pieces.items()}
    pieces_bytes |= {i: content.encode() for content, i in added.items()}
    ends = {name: int(i) for name, i in {**pieces, **added}.items() if name in EOS or name in added}
    return _table(pieces_bytes, ends)


def _table(pieces: Mapping[int, bytes], ends: Mapping[str, int]) -> TokenTable:
    ordered = [pieces.get(i, b"") for i in range(max(pieces, default=-1) + 1)] + [b""]
    lengths = np.array([len(piece) for piece in ordered], np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int32)
    return TokenTable(np.frombuffer(b"".join(ordered), np.uint8), starts, lengths, dict(ends))


def _byte_characters() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_CHARACTERS = _byte_characters()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(_CHARACTERS[character] for character in piece)
    except KeyError:
        return piece.encode()


def _sentencepiece(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte.group(1), 16)]) if byte else piece.replace("\u2581", " ").encode()


def eos_id(table: TokenTable, options: CorpusOptions) -> int | None:
    """The id that ends a document; None where the tokenizer has none that is known.

    Raises:
        UsageError: the named token is not in the vocabulary.
    """
    if not options.eos:
        return next((table.ids[name] for name in EOS if name in table.ids), None)
    if options.eos.isdecimal():
        return int(options.eos)
    if options.eos not in table.ids:
        known = ", ".join(sorted(table.ids)[:8])
        raise UsageError(f"Token {options.eos!r} is not in {options.tokenizer}. Use one of: {known}; or its id.")
    return table.ids[options.eos]


def check_tokenizer(options: CorpusOptions) -> None:
    """Refuse a tokenizer or an end-of-document token that cannot be used, before anything is read with them.

    Raises:
        UsageError: no such file, a tokenizer whose tokens have no bytes of their own, or a token it does not have.
    """
    if options.tokenizer:
        eos_id(token_table(options.tokenizer), options)


def read_tokens(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Documents of a .npy or raw .bin shard: what lies between two end-of-document tokens, empty runs left out.

    Raises:
        OSError: the shard cannot be read on.
        UsageError: the tokenizer cannot be used.
    """
    table = token_table(options.tokenizer)
    eos = eos_id(table, options)
    if eos is None:
        ledger.note(NO_EOS, "byte 0")
    dtype, header = _storage(part.shard, table, options)
    reader = _Shard(table, -1 if eos is None else eos, ledger, dtype.itemsize)
    held, skip, at = b"", header, header
    for block in stored_blocks(part.shard, ledger.tally, size=STORED_BLOCK):
        data = held + block[skip:]
        skip = max(0, skip - len(block))
        whole = len(data) - len(data) % dtype.itemsize
        held = data[whole:]
        yield from reader.add(np.frombuffer(data[:whole], dtype), at)
        at += whole
    if held:
        ledger.note("The file ends in the middle of a token: the odd bytes were left out.", f"byte {at}")
    yield from reader.finish()


def _storage(shard: str, table: TokenTable, options: CorpusOptions) -> tuple[np.dtype[Any], int]:
    """Type of the stored ids, and where they begin."""
    with open_stored(shard) as file:
        if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            file.seek(0)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            dtype = read(file)[2]
            if dtype.kind not in "iu":
                raise UsageError(f"{shard} holds {dtype}, not token ids. Give integer arrays.")
            return dtype, file.tell()
    smallest = "uint16" if len(table.lengths) <= 1 << 16 else "uint32"
    return np.dtype(f"<{np.dtype(options.token_dtype or smallest).str[1:]}"), 0


class _Shard:
    """Where the reading of one shard of ids stands."""

    def __init__(self, table: TokenTable, eos: int, ledger: Ledger, item_bytes: int) -> None:
        self.table, self.eos, self.ledger, self.item_bytes = table, eos, ledger, item_bytes
        self.open: Growing | None = None

    def add(self, ids: NDArray[Any], at: int) -> Iterator[Documents]:
        """Documents that end in this block of ids, which begins at byte `at`."""
        beyond = int(np.count_nonzero(ids >= len(self.table.lengths) - 1))
        if beyond:
            self.ledger.note(BEYOND, f"from byte {at}", times=beyond, gap=True)
        is_end = ids == self.eos
        cuts = np.flatnonzero(is_end).astype(np.int64)
        text, ends = self.table.decode(np.where(is_end, -1, ids.astype(np.int64)))
        yield from self._grow(text[: ends[cuts[0]] if len(cuts) else len(text)], at)
        if len(cuts):
            yield from self.finish()
            yield from self._between(text, ends[cuts], at + (cuts + 1) * self.item_bytes)
            yield from self._grow(text[ends[cuts[-1]] :], at + int(cuts[-1] + 1) * self.item_bytes)

    def finish(self) -> Iterator[Documents]:
        """End the open document."""
        if self.open is not None:
            yield from self.open.finish()
        self.open = None

    def _grow(self, text: Bytes, at: int) -> Iterator[Documents]:
        if not len(text):
            return
        if self.open is None:
            self.open = Growing(self.ledger.tally.records, at)
            self.ledger.tally.records += 1
        yield from self.open.add(text.data)

    def _between(self, text: Bytes, bounds: Ints, byte_offsets: Ints) -> Iterator[Documents]:
        """The documents that lie between two ends in the same block; the ends themselves have no text."""
        filled = np.diff(bounds) > 0
        offsets = np.append(bounds[:-1][filled], bounds[-1])
        records = self.ledger.tally.records + np.arange(len(offsets) - 1)
        self.ledger.tally.records += len(records)
        inside = text[offsets[0] : offsets[-1]]
        yield from batches(Texts(inside, offsets - offsets[0], records, byte_offsets[:-1][filled], None))
