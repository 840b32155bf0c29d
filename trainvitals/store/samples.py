"""Reading a run's texts, tables, histograms and images: one a line, in a file per writer.

    {"time": ..., "step": 100, "kind": "text", "name": "answers", ..., "crc32": "..."}<tab>payload<newline>

A listing reads the heads and passes over the payloads; a payload is read, and verified, when it is asked for.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainvitals.sealed import opened
from trainvitals.store.folder import Folder
from trainvitals.store.samplekinds import PAYLOAD_BYTES, unpacked
from trainvitals.untrusted import MOST_RANKS, MOST_STEP, number, whole

HEAD_BYTES = 32 << 10
LINE_BYTES = HEAD_BYTES + PAYLOAD_BYTES + 1
READ_BYTES = 4 * LINE_BYTES
MOST_FILE_BYTES = 4 << 30
MOST_LISTED, MOST_HEADS = 100_000, 256 << 20
"""Samples of one file that are listed, and bytes of their heads; a writer stores a fifth of that."""
MOST_TRIES = 64
"""Places in one damaged line at which a whole sample is looked for."""


def head_bytes(head: Mapping[str, Any]) -> bytes:
    """The sealed head of a sample as bytes. Raises ValueError where it is too long for a reader."""
    data = json.dumps(head).encode()
    if len(data) > HEAD_BYTES:
        raise ValueError(f"its description has {len(data):,} bytes, and at most {HEAD_BYTES:,} are stored")
    return data


@dataclass(frozen=True, slots=True)
class Sample:
    """A text, table, histogram or image that the training script logged."""

    step: int | None
    time: float
    """Unix, seconds."""
    kind: str
    """"text", "table", "histogram" or "image"; a later version may know more."""
    name: str
    rank: int
    data: dict[str, Any]
    """What is known without the payload: `caption`, `height`, `width`, `rows`, `columns`, `bins`; `cut_from`,
    `scaled_from` and `read_every` tell what was left out."""
    writer: str
    _file: SampleFile = field(repr=False)
    _start: int = field(repr=False)
    _size: int = field(repr=False)
    _checksum: str = field(repr=False)

    def read(self) -> Any:
        """What was logged: str for a text, DataFrame for a table, (counts, edges) for a histogram, the bytes of a PNG
        file for an image. None where it is damaged or cannot be read, which `run.problems()` then names.
        """
        return self._file.payload(self.kind, self._start, self._size, self._checksum)


class SampleFile:
    """The samples of one file so far; every `refresh` reads only what is new."""

    def __init__(self, folder: Folder, path: str) -> None:
        self.folder, self.path = folder, path
        self._begin()

    def _begin(self) -> None:
        self.samples: list[Sample] = []
        self.size = self._offset = 0
        self._damaged = self._heads = 0
        self._why = ""
        self._lost: dict[int, str] = {}
        """Where a payload begins -> why it cannot be shown."""

    @property
    def _full(self) -> bool:
        return len(self.samples) >= MOST_LISTED or self._heads > MOST_HEADS

    @property
    def torn_bytes(self) -> int:
        """Bytes at the end that are no whole sample (yet)."""
        return self.size - self._offset

    def refresh(self, size: int) -> None:
        """Read the heads up to `size` bytes. Raises OSError."""
        if size > MOST_FILE_BYTES:
            raise OSError(f"it has {size:,} bytes, more than any writer's samples")
        if size < self.size:  # another file of that name
            self._begin()
        while self._offset < size and not self._full:
            data = self.folder.read(self.path, self._offset, min(size, self._offset + READ_BYTES))
            taken = self._take(data, self._offset + len(data) < size)
            if not taken:
                break
            self._offset += taken
        self.size = size

    def _take(self, data: bytes, more: bool) -> int:
        """Take in the samples of a stretch of the file; how many of its bytes are done with."""
        at = 0
        while at < len(data) and not self._full:
            end = data.find(b"\n", at)
            found = self._sample(data, at)
            if found is not None:
                sample, stop = found
                self.samples.append(sample)
                self._heads += stop - at - sample._size
                if data[stop:stop + 1] in (b"\n", b""):
                    at = min(stop + 1, len(data))
                else:
                    self._note("its line has no end")
                    at = stop
            elif end < 0:
                # The rest of a line that is being written, or of one that is longer than any of ours.
                if not more or (at and len(data) - at < LINE_BYTES):
                    return at
                self._note("a line is longer than any of ours")
                return len(data)
            else:
                if data[at:end].strip():
                    at = self._next_whole(data, at, end)
                    continue
                at = end + 1
        return at

    def _next_whole(self, data: bytes, at: int, end: int) -> int:
        """Pass over a damaged line: to a whole sample that begins inside of it, or to the next line."""
        self._note("it is no sample, or does not match its checksum")
        begin = at
        for _ in range(MOST_TRIES):
            begin = data.find(b'{"', begin + 1, end)
            if begin < 0:
                break
            if self._sample(data, begin) is not None:
                return begin
        return end + 1

    def _note(self, why: str) -> None:
        self._damaged += 1
        self._why = why

    def _sample(self, data: bytes, at: int) -> tuple[Sample, int] | None:
        """The sample that begins here, and where its payload ends; None where there is no whole one."""
        tab = data.find(b"\t", at, at + HEAD_BYTES + 1)
        if tab < 0:
            return None
        try:
            raw, state = opened(data[at:tab], HEAD_BYTES)
            if state != "whole":
                return None
            size = whole(raw.get("bytes"), "bytes", 0, PAYLOAD_BYTES)
            start, stop = tab + 1, tab + 1 + size
            if stop > len(data) or b"\n" in data[start:stop]:
                return None
            return self._described(raw, self._offset + start, size), stop
        except ValueError:
            return None

    def _described(self, raw: Mapping[str, Any], start: int, size: int) -> Sample:
        step, kind, name, data = raw.get("step"), raw.get("kind"), raw.get("name"), raw.get("data")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(data, dict):
            raise ValueError("it has no kind or name")
        return Sample(None if step is None else whole(step, "step", -MOST_STEP, MOST_STEP),
                      number(raw.get("time"), "time"), kind, name, whole(raw.get("rank", 0), "rank", 0, MOST_RANKS),
                      data, str(raw.get("writer", "")), self, start, size, str(raw.get("payload_crc32")))

    def payload(self, kind: str, start: int, size: int, checksum: str) -> Any:
        """A payload as `Sample.read` gives it."""
        try:
            data = self.folder.read(self.path, start, start + size)
            if len(data) != size or f"{zlib.crc32(data):08x}" != checksum:
                raise ValueError("it does not match its checksum")
            return unpacked(kind, data) if kind in ("text", "table", "histogram", "image") else data
        except (OSError, ValueError) as error:
            self._lost[start] = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return None

    def problems(self, growing: bool) -> Iterator[str]:
        """What of the file is not shown, each as the rest of a sentence."""
        if self._damaged:
            yield f"has lost samples in {self._damaged:,} places ({self._why})"
        if self._lost:
            where, why = next(iter(self._lost.items()))
            yield f"has {len(self._lost):,} samples that cannot be shown, the first at byte {where:,} ({why})"
        if self._full and self.torn_bytes:
            yield f"holds more than the {len(self.samples):,} samples that are listed"
        elif self.torn_bytes and not growing:
            yield f"ends in {self.torn_bytes:,} bytes that are no whole sample"


class SampleFiles:
    """All samples of a run; nothing is read before they are asked for."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._files: dict[str, SampleFile] = {}
        self._wrong: dict[str, str] = {}

    def all(self, sizes: Mapping[str, int]) -> list[Sample]:
        """The samples in the files of a listing (path -> bytes), by step and time; those without a step last."""
        found = {path: size for path, size in sizes.items() if path.startswith("samples/") and path.endswith(".jsonl")}
        self._files = {path: self._files.get(path) or SampleFile(self.folder, path) for path in found}
        self._wrong = {}
        self.folder.prefetch({path: (0, size) for path, size in found.items()
                              if not self._files[path].size and size <= LINE_BYTES})
        for path, file in self._files.items():
            try:
                if found[path] != file.size:
                    file.refresh(found[path])
            except OSError as error:
                self._wrong[path] = f"cannot be read: {error.strerror or error}"
        self.folder.prefetch({})
        return sorted((sample for file in self._files.values() for sample in file.samples),
                      key=lambda sample: (sample.step is None, sample.step or 0, sample.time))

    def problems(self, growing: bool) -> list[str]:
        """What of the samples that were asked for is not shown, one sentence each."""
        return [f"{path} {wrong}." for path, wrong in self._wrong.items()] + [
            f"{path} {problem}." for path, file in self._files.items() for problem in file.problems(growing)]
