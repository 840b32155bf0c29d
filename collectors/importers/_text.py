"""What every importer of a text log shares: rows out of lines, resumes, ranks that print the same, printed digits.

A format is a subclass with the pattern of its lines and a method that reads one of them. All of them read from a byte
offset on and remember what the next look needs, so that a job that still prints is followed at the cost of its news.
"""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from collectors.importers._lines import blocks, clean
from collectors.importers._log import Log
from collectors.importers.importer import Blindness, Importer, Item, RunOf
from trainvitals.errors import UsageError

TAIL_BYTES = 256 << 10


def sample(path: Path, head: bytes) -> Sequence[bytes]:
    """Lines from the beginning and the end of a text file; none of a folder, or of a file that is no text."""
    return () if not head or path.is_dir() else _sample(path, head, path.stat().st_size)


@lru_cache(2)
def _sample(path: Path, head: bytes, size: int) -> tuple[bytes, ...]:
    tail = b""
    if size > len(head):
        with path.open("rb") as file:
            file.seek(max(len(head), size - TAIL_BYTES))
            tail = b"\n" + file.read(TAIL_BYTES)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head, tail = (head + tail[1:]).decode("utf-16", "replace").encode(), b""
    if head.count(b"\0") * 20 > len(head):
        return ()
    return tuple(line for line in clean(head + tail).split(b"\n") if len(line) < 65_536)


class TextImporter(Importer):
    """A log of lines. What a subclass has on top is `pattern`, `line`, and what its numbers are."""

    pattern: ClassVar[re.Pattern[bytes]]
    """Found in a line that only this tool writes."""
    ended: ClassVar[re.Pattern[bytes] | None] = None
    """Found in the line that tells of the orderly end of training."""
    between: ClassVar[Mapping[str, Blindness]] = {}
    """Catalogue name -> what a row stands for where rows are several steps apart."""

    def recognises(self, path: Path, head: bytes) -> str:
        found = next((line for line in sample(path, head) if self.pattern.search(line)), None)
        return "" if found is None else f"a line of it reads {found.strip()[:80].decode('utf-8', 'replace')!r}"

    @abstractmethod
    def line(self, line: bytes, log: Log) -> bool:
        """Read a line into the log; False if it is none of this tool's."""

    def lines(self, lines: Sequence[bytes], log: Log) -> None:
        """Read many lines."""
        for line in lines:
            if line and not self.line(line, log):
                log.other(line)

    def files(self, path: Path) -> list[Path]:
        """The files of a run, in the order in which they are read."""
        return [path]

    def end(self, log: Log) -> None:
        """Read what waited for the line behind it, at the end of a look."""

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        memory, places = copy.deepcopy(state.get("memory", {})), dict(state.get("places", {}))
        log = Log(memory, self)
        for path in self.files(run.path):
            log.file = path.name
            try:
                for block in blocks(path, places.get(path.name, {})):
                    for message in block.left_out:
                        log.note("unread", message, hides=True)
                    self.lines(block.lines, log)
                    yield from log.take()
                    places[path.name] = block.place
                    state |= {"places": dict(places), "memory": copy.deepcopy(memory)}
            except OSError as error:
                why = error.strerror or error
                raise UsageError(f"{path} cannot be read ({why}). Give a file that can be.") from error
        self.end(log)
        log.end_of_look()
        yield from log.take()
        state["memory"] = memory
