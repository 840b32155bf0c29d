"""Whether a run is being written: told by its growth while we watch, not by comparing clocks of two machines.

A single look can only compare when the files last changed with the time on the same clock, that of the file system;
and it believes that only if the times in the rows say the same. Where they do not, the answer is "unknown" until the
folder was watched long enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from trainvitals.store.claims import Claim, all_claims
from trainvitals.store.folder import Folder

SILENT_SECONDS = 60.0
"""A run without an orderly end that did not grow for so long is called silent."""
TOLERANCE_SECONDS = 5.0
"""Ages may be negative by so much: file systems round times, and clocks drift."""

RECENT_SECONDS = 10.0
"""A writer whose files changed so lately is watched before another one may take its place."""
WATCH_SECONDS = 4.5
"""So long: more than two flush intervals of a training job."""
GUARD_SECONDS = 10.0
"""The look before training takes no longer, whatever the disk does."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Liveness:
    """What was seen of a run's growth."""

    status: Literal["live", "finished", "silent", "unknown"]
    reason: str
    """What it was told by, in words."""


def grows(path: str) -> bool:
    """Whether a file is one that only a writer at work lets grow: segments, events and samples."""
    return "/live/" in path or path.startswith(("events/", "samples/"))


class Watch:
    """Looks at file sizes again and again, and keeps when they last grew on this process's monotonic clock."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] | None = None
        self._began = self._looked = 0.0
        self._grew: float | None = None
        self._ages: tuple[float, ...] | None = None

    def look(self, sizes: Mapping[str, int]) -> None:
        """Take note of a listing (path -> bytes)."""
        now, before = time.monotonic(), self._sizes
        found = {path: size for path, size in sizes.items() if grows(path)}
        if before is None:
            self._began = now
        elif any(size > before.get(path, -1) for path, size in found.items()):
            if now - self._looked > SILENT_SECONDS:
                self._began, self._grew, self._ages = now, None, None  # it grew, but who knows how long ago
            else:
                self._grew = now
        self._sizes, self._looked = found, now

    def judge(self, ages: Callable[[], tuple[float, ...]]) -> Liveness:
        """Live, silent or unknown. `ages` tells in seconds how old the newest change and the newest row are, each by
        a clock of its own; it is asked at most once, when growth alone cannot tell yet.
        """
        now = time.monotonic()
        if self._grew is not None and now - self._grew <= SILENT_SECONDS:
            return Liveness("live", f"it grew {now - self._grew:.0f} s ago, as watched")
        still = now - (self._began if self._grew is None else self._grew)
        if still > SILENT_SECONDS:
            return Liveness("silent", f"it has not grown in {_span(still)} of watching")
        if self._ages is None:
            self._ages = ages()
        since = [age + now - self._began for age in self._ages]
        if since and all(age > SILENT_SECONDS for age in since):
            return Liveness("silent", f"its files last changed {_span(min(since))} ago by the folder's clock")
        if since and all(-TOLERANCE_SECONDS <= age <= SILENT_SECONDS for age in since):
            return Liveness("live", f"its files last changed {max(0.0, min(since)):.0f} s ago by the folder's clock")
        return Liveness("unknown", "it was not watched long enough, and the clocks of its writer, its file system and "
                        "this machine do not tell the same" if since else
                        "it was not watched long enough, and its folder has no clock to ask")


def of_import(changed: float | None, ended: bool) -> Liveness:
    """What a foreign log tells of its job: when it last grew, and seldom that it ended.

    `changed`: when the source last changed at the last look, Unix seconds; `ended`: the log tells of an orderly end.
    """
    if ended:
        return Liveness("finished", "the log that it was imported from tells of an orderly end")
    since = None if changed is None else time.time() - changed
    if since is not None and -TOLERANCE_SECONDS <= since <= SILENT_SECONDS:
        return Liveness("live", f"the log that it was imported from changed {max(0.0, since):.0f} s ago")
    when = f"last changed {_span(since)} ago" if since is not None and since > 0 else "has no time that can be used"
    return Liveness("unknown", f"the log that it was imported from {when}, and does not tell of an end")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else \
        f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def ages(folder: Folder, newest_row: float | None) -> tuple[float, ...]:
    """How old a run's newest growth is by its folder's clock, and by the rows' own times; () where it cannot be known.

    `newest_row` is in Unix seconds by the folder's clock (the writer's offset taken out), None without a row.
    """
    try:
        changed = max((at for path, at in folder.times().items() if grows(path)), default=None)
        now = folder.now()
    except OSError:
        return ()
    if now is None or changed is None:
        return ()
    return tuple(now - at for at in (changed, newest_row) if at is not None)


def live_rival(folder: Folder, rank: int, launch: str, seconds: float = WATCH_SECONDS) -> Claim | None:
    """A writer of this rank, of another launch, whose files grow while we watch; None if there is none."""
    rivals = [claim for claim in all_claims(folder) if claim.rank == rank and not (launch and claim.launch == launch)]
    rivals = [rival for rival in rivals if _recent(folder, rival) and not _closed(folder, rival)] if rivals else []
    if not rivals:
        return None
    before, deadline = folder.sizes(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = folder.sizes()
        for rival in rivals:
            if any(size > before.get(path, -1) for path, size in after.items() if _written_by(rival, path)):
                return rival
    return None


def _written_by(rival: Claim, path: str) -> bool:
    """Whether a growing file belongs to the process of a claim, whatever it was called after a rollback."""
    return grows(path) and f"/{rival.host}-{rival.rank}-{rival.process}-" in path


def _recent(folder: Folder, rival: Claim) -> bool:
    now = folder.now()
    times = [at for path, at in folder.times().items() if _written_by(rival, path)]
    return bool(times) and (now is None or now - max(times) < RECENT_SECONDS)


def _closed(folder: Folder, rival: Claim) -> bool:
    lines = [path for path in folder.sizes("events") if _written_by(rival, path)]
    return bool(lines) and b'"kind": "closed"' in folder.read(max(lines))[-2_000:]


def within(seconds: float, look: Callable[[], Answer]) -> Answer | None:
    """What `look` answers, in a thread that nobody waits for longer than this; None if it does not, or raises."""
    found: list[Answer] = []

    def run() -> None:
        try:
            found.append(look())
        except Exception:  # noqa: BLE001 - a look that fails says nothing
            return

    thread = threading.Thread(target=run, name="trainvitals-look", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
