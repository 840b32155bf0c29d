"""Text files: one document each, of any length."""

from __future__ import annotations

from collections.abc import Iterator

from checks.contamination.readers.batches import streamed
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.encodings import utf8_blocks
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import Documents, Slice

EMPTY = "The file is empty."


def read_text(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """The file as one document.

    Raises:
        OSError: the file cannot be read on.
    """
    ledger.tally.records += 1
    empty = True
    for documents in streamed(utf8_blocks(plain_blocks(part.shard, ledger), ledger), 0, 0):
        empty = False
        yield documents
    if empty:
        ledger.skip(EMPTY, "byte 0", gap=False)
