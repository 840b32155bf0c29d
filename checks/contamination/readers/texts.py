"""Text files: one document each, of any length."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from checks.contamination.readers.batches import streamed
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import Documents, Slice

EMPTY = "The file is empty."
NUL = "The file holds NUL bytes (UTF-16, or not text at all): it was scanned as it is, words end there."
NOT_UTF8 = "The file is not valid UTF-8: it was scanned as it is, words end at the invalid bytes."


def read_text(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """The file as one document.

    Raises:
        OSError: the file cannot be read on.
    """
    ledger.tally.records += 1
    empty = True
    for documents in streamed(_checked(plain_blocks(part.shard, ledger), ledger), 0, 0):
        empty = False
        yield documents
    if empty:
        ledger.skip(EMPTY, "byte 0", gap=False)


def _checked(blocks: Iterator[bytes], ledger: Ledger) -> Iterator[bytes]:
    """Name the first NUL and the first invalid byte."""
    decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
    start, nul = 0, False
    for block in blocks:
        if not nul and b"\0" in block:
            nul = True
            ledger.note(NUL, f"byte {start + block.index(0)}")
        if decoder is not None:
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                decoder = None
                ledger.note(NOT_UTF8, f"byte {start - held + error.start}")
        start += len(block)
        yield block
