"""The disk half of a frame: blocks become record batches of a segment; a finished segment becomes history."""

from __future__ import annotations

import logging
from dataclasses import replace

import pyarrow as pa

from trainvitals.store.block import Block
from trainvitals.store.compact import ROWS_PER_FILE, compact, live_path
from trainvitals.store.folder import Folder
from trainvitals.store.levels import Levels
from trainvitals.store.segment import Header, encode

log = logging.getLogger("trainvitals")

SEGMENT_BATCHES = 512
SEGMENT_BYTES = 64 << 20


class Sink:
    """Appends one frame's blocks to its current segment. Used by one thread at a time."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._source: Header | None = None
        self._schema: pa.Schema | None = None
        self._sequence = 0
        self._history: str | None = None
        self._levels = Levels(folder)
        self._rows = self._batches = self._bytes = 0

    def write(self, block: Block) -> None:
        """Append a block, opening and ending segments as needed. Raises OSError; the block is then not stored."""
        if self._source != block.header:
            self._begin(block.header)
        if self._schema is None:
            self._schema = replace(block.header, sequence=self._sequence).schema()
        data = encode(self._schema, block.batch(self._schema), with_schema=not self._batches)
        if not self.folder.appends_cheaply:
            self._put(block, data)
            return
        try:
            self.folder.append(self._path(), data)
        except OSError:
            # A part of the batch may be on disk, and readers stop there: what follows needs a segment of its own.
            self._next_segment()
            raise
        self._rows, self._batches, self._bytes = self._rows + block.rows, self._batches + 1, self._bytes + len(data)
        if self._rows >= ROWS_PER_FILE or self._batches >= SEGMENT_BATCHES or self._bytes >= SEGMENT_BYTES:
            self.end()

    def _put(self, block: Block, data: bytes) -> None:
        """A segment of this block alone. One that fails is put again at the same place, whatever became of it there."""
        path = self._path()
        self.folder.replace(path, data)
        self._next_segment()
        self._levels.add(path, block.rows, block.rows * block.row_bytes)
        try:
            self._levels.settle()
        except OSError as error:
            log.debug("segments of %s stay as they are for now: %s", path, error)

    def end(self) -> None:
        """End the current segment and compact it; a disk that refuses leaves it as it is, readable."""
        if not self.folder.appends_cheaply:
            self._end_levels()
        if self._source is None or not self._batches:
            return
        path = self._path()
        self._next_segment()
        try:
            self._history = compact(self.folder, path, self._history) or self._history
        except OSError:
            self._history = None

    def _end_levels(self) -> None:
        levels, self._levels = self._levels, Levels(self.folder)
        try:
            levels.end()
        except OSError as error:
            log.debug("segments in %s stay as they are: %s", self.folder, error)

    def _begin(self, source: Header) -> None:
        self.end()
        if self._source is None or self._source.writer != source.writer:
            self._sequence, self._history = 0, None
        self._source, self._schema = source, None

    def _path(self) -> str:
        assert self._source is not None
        return live_path(self._source, self._sequence)

    def _next_segment(self) -> None:
        self.folder.finish(self._path())
        self._sequence, self._schema = self._sequence + 1, None
        self._rows = self._batches = self._bytes = 0
