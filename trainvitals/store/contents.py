"""What a run folder holds right now: its parts, its card, its events, and what of them could not be read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from trainvitals.card import RunCard, read_card
from trainvitals.errors import RunDamaged, RunNotFound
from trainvitals.sealed import MOST_BYTES, opened
from trainvitals.store.compact import SegmentName
from trainvitals.store.events import Event, EventFile
from trainvitals.store.folder import Folder
from trainvitals.store.history import TAIL_BYTES
from trainvitals.store.parts import ColumnCache, HistoryPart, LivePart, Part

Key = tuple[str, str]
"""Frame and writer."""
Group = list[tuple[str, SegmentName]]
AHEAD_FILES, AHEAD_BYTES = 256, 32 << 20
"""What a distant store is asked for at once."""
RELIST_SECONDS = 60.0
"""A folder whose pulse stands still is listed so often all the same: somebody may have copied or deleted files."""
LISTINGS = 3
"""A folder whose files vanish while they are read, because they are compacted, is listed so often."""
MOST_DOCUMENTS = 1_000
"""Earlier cards and forecasts that are looked at, each kind."""


class Contents:
    """Follows a run folder; every `refresh` reads only what is new."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.version = ""
        self.sizes: dict[str, int] = {}
        self.parts: dict[str, Part] = {}
        self.writers: dict[str, set[str]] = {}
        """Frame -> the writers that have a file in it, be it readable or not."""
        self.card = RunCard()
        self.events: list[Event] = []
        self.wrong: dict[str, str] = {}
        """Path -> what is wrong with it, as the rest of a sentence."""
        self._event_files: dict[str, EventFile] = {}
        self._documents: dict[str, tuple[int, str]] = {}
        """Path of a sealed document -> its size, and what is wrong with it."""
        self._unreached: set[str] = set()
        """Paths that could not be read at the last look, by no fault of what they hold: they are tried again."""
        self._listing = ""
        self._pulse: str | None = None
        self._listed = 0.0
        self._cache = ColumnCache()

    def refresh(self) -> bool:
        """List the folder and read what is new; True if anything but the findings changed.

        Raises RunNotFound where there is no run.
        """
        pulse = self.folder.pulse()
        quiet = pulse is not None and pulse == self._pulse and not self._unreached
        if quiet and time.monotonic() - self._listed < RELIST_SECONDS:
            return False
        changed = self._look()
        self._pulse, self._listed = pulse, time.monotonic()
        return changed

    def _look(self) -> bool:
        for _ in range(LISTINGS):
            listing = self._list()
            if listing == self._listing and not self._unreached:
                return False
            self.wrong = {path: f"cannot be read: {why}" for path, why in self.folder.unlisted.items()}
            self._unreached = set()
            self.parts, vanished = self._read_parts()
            if not vanished:
                break
        self.card = self._read_card()
        self.events = self._read_events()
        before, self._listing = self.version, listing
        self.version = _hash([listing, *sorted(self._unreached)])
        return self.version != before

    def document_problems(self) -> Iterator[str]:
        """What is wrong with the findings, the earlier cards and the forecasts; each is read once per size."""
        kinds = [sorted(path for path in self.sizes if path.startswith(kind) and path.endswith(".json"))
                 for kind in ("findings/latest", "cards/", "forecasts/")]
        for path in (path for kind in kinds for path in kind[-MOST_DOCUMENTS:]):
            size = self.sizes[path]
            if self._documents.get(path, (-1, ""))[0] != size:
                self._documents[path] = size, _wrong_document(self.folder, path, size)
            if wrong := self._documents[path][1]:
                yield f"{path} {wrong}"

    def torn_events(self) -> dict[str, int]:
        """Files of events -> bytes at their ends that are no whole line."""
        return {path: file.torn_bytes for path, file in self._event_files.items() if file.torn_bytes}

    def _list(self) -> str:
        """Take in what files there are; a hash that changes if and only if the data does."""
        self.sizes = {path: size for path, size in self.folder.sizes().items() if not path.endswith(".tmp")}
        found: Mapping[str, int | str] = {**self.folder.unlisted, **self.sizes}
        data = sorted((path, size) for path, size in found.items() if _is_data(path))
        if not data:
            why = self.folder.unlisted.get(".")
            raise RunNotFound(f"{self.folder} holds no run{f': {why}' if why else ''}. Give the folder that has "
                              "`run.json` and `frames/` in it.")
        return _hash(data)

    def _read_parts(self) -> tuple[dict[str, Part], bool]:
        """The parts, and whether a file vanished since the folder was listed."""
        parts: dict[str, Part] = {}
        vanished = False
        self.writers = {}
        for (frame, writer), group in self._read_ahead(_by_writer(self.sizes)):
            self.writers.setdefault(frame, set()).add(writer)
            held = -1
            for path, name in group:
                if name.last <= held:
                    continue  # a wider history file holds it, or the history file that it became
                if name.first <= held:
                    self.wrong[path] = "overlaps another history file in part; its rows are left out"
                    continue
                try:
                    parts[path] = self._part(path, name)
                    held = name.last
                except FileNotFoundError:
                    vanished = True
                    held = self._keep(parts, path, held)
                except (OSError, ValueError, pa.ArrowException) as error:
                    self._failed(path, error)
                    held = self._keep(parts, path, held)
        return parts, vanished

    def _read_ahead(self, groups: Mapping[Key, Group]) -> Iterator[tuple[Key, Group]]:
        """The groups, after the new bytes of some hundred files at a time were asked for side by side."""
        waiting: list[tuple[Key, Group]] = []
        wanted: dict[str, tuple[int, int]] = {}
        total = 0
        for key, group in groups.items():
            waiting.append((key, group))
            held = -1
            for path, name in group:
                if name.last > held:
                    held = name.last
                    wanted[path] = start, stop = self._new_bytes(path, name)
                    total += stop - start
            if len(wanted) >= AHEAD_FILES or total >= AHEAD_BYTES:
                self.folder.prefetch(wanted)
                yield from waiting
                waiting, wanted, total = [], {}, 0
        self.folder.prefetch(wanted)
        yield from waiting
        self.folder.prefetch({})

    def _new_bytes(self, path: str, name: SegmentName) -> tuple[int, int]:
        """Where what will be read of a file begins and ends; nothing of one that is known or large."""
        size, known = self.sizes[path], self.parts.get(path)
        start = known.tail.offset if isinstance(known, LivePart) else 0 if name.live else max(0, size - TAIL_BYTES)
        return (start, size) if isinstance(known, LivePart | None) and size - start <= AHEAD_BYTES // 8 else (0, 0)

    def _keep(self, parts: dict[str, Part], path: str, held: int) -> int:
        """What was read of a file before stays known while it cannot be reached; the last segment that is held then."""
        if path not in self.parts:
            return held
        parts[path] = self.parts[path]
        return parts[path].name.last

    def _part(self, path: str, name: SegmentName) -> Part:
        size, known = self.sizes[path], self.parts.get(path)
        if not name.live:
            same = isinstance(known, HistoryPart) and known.file.size == size
            return known if same and known else HistoryPart(self.folder, path, name, size, self._cache)
        part = known if isinstance(known, LivePart) else LivePart(self.folder, path, name)
        part.refresh(size)
        return part

    def _read_card(self) -> RunCard:
        size = self.sizes.get("run.json")
        if size is None:
            return RunCard()
        try:
            if size > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, more than any card")
            card, wrong = read_card(self.folder.read("run.json", 0, size), f"{self.folder}/run.json")
        except (RunDamaged, OSError, ValueError) as error:
            self._failed("run.json", error)
            return RunCard()
        if wrong:
            self.wrong["run.json"] = "; ".join(wrong)
        return card

    def _read_events(self) -> list[Event]:
        files: dict[str, EventFile] = {}
        sizes = {path: size for path, size in self.sizes.items()
                 if path.startswith("events/") and path.endswith(".jsonl")}
        known = self._event_files
        self.folder.prefetch({path: (0, size) for path, size in sizes.items()
                              if path not in known and size <= TAIL_BYTES})
        for path, size in sizes.items():
            files[path] = file = known.get(path) or EventFile(self.folder, path)
            try:
                if size != file.size:
                    file.refresh(size)
            except OSError as error:
                self._failed(path, error)
            if file.damaged:
                self.wrong[path] = f"has lost {len(file.damaged)} lines, which are no events ({file.damaged[-1]})"
            elif file.unsealed:
                self.wrong[path] = (f"has {file.unsealed} lines without a checksum (written by an older version): they "
                                    "cannot be verified")
        self.folder.prefetch({})
        self._event_files = files
        return sorted((event for file in files.values() for event in file.events), key=lambda event: event.time)

    def _failed(self, path: str, error: Exception) -> None:
        self.wrong[path] = f"cannot be read: {_reason(error)}"
        if isinstance(error, OSError):
            self._unreached.add(path)


def _is_data(path: str) -> bool:
    return path == "run.json" or path.startswith(("frames/", "events/", "samples/")) or \
        path in ("frames", "events")


def _hash(facts: Sequence[object]) -> str:
    return hashlib.sha1(repr(facts).encode(), usedforsecurity=False).hexdigest()[:16]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _by_writer(sizes: Mapping[str, int]) -> dict[Key, Group]:
    """Files of rows, per frame and writer: history before the segments that it may hold, wide before narrow."""
    groups: dict[Key, Group] = {}
    for path in sorted(sizes):
        name = SegmentName.parse(path)
        if name is not None:
            groups.setdefault((name.frame, name.writer), []).append((path, name))
    for group in groups.values():
        group.sort(key=lambda item: (item[1].first, -item[1].last, item[1].live))
    return groups


def _wrong_document(folder: Folder, path: str, size: int) -> str:
    """What is wrong with a sealed document; empty where nothing is."""
    try:
        if size > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        _, state = opened(folder.read(path, 0, size))
    except (OSError, ValueError) as error:
        return f"cannot be read: {_reason(error)}"
    return {"whole": "", "unsealed": "has no checksum (written by hand or by an older version): it cannot be verified",
            "broken": "does not match its checksum: edited or damaged"}[state]
