"""What a watcher knows, in sealed files of a folder of its own, so that a restart neither repeats nor forgets.

    DIR/watch.json    what was told of each run
    DIR/outbox.json   what is still to be sent, and what was sent last (`checks.watch.outbox`)
    DIR/lock          held while a watcher works: a second one on the same folder is refused

The lock is the operating system's (`flock`): it ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checks.triage.identity import Known
from checks.watch.alarms import Told
from checks.watch.message import Message
from checks.watch.progress import Seen
from trainvitals.errors import UsageError
from trainvitals.sealed import opened, seal
from trainvitals.store.folder import LocalFolder
from trainvitals.untrusted import number, whole

FILE, VERSION = "watch.json", 1
MOST_BYTES = 64 << 20


@dataclass
class Watched:
    """What is known of one run."""

    known: list[Known] = field(default_factory=list)
    """Incidents by which later looks recognise theirs."""
    told: list[Told] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    judged: str = ""
    """Store version that was judged last; "" before the first."""
    unread: str = ""
    """Why it could not be read, as it was said last."""
    ended: bool = False
    """Whether it had ended in order at the last look."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return {"known": [k.to_json() for k in self.known], "told": [t.to_json() for t in self.told],
                "seen": asdict(self.seen), "judged": self.judged, "unread": self.unread,
                "ended": self.ended}  # fmt: skip

    @classmethod
    def from_json(cls, raw: Any) -> Watched:
        """What `to_json` gave. Raises ValueError, TypeError or LookupError."""
        s = raw["seen"]
        seen = Seen(whole(s["step"], "step", -(2**62), 2**62), number(s["moved"], "moved"),
                    number(s["reported"], "reported"), number(s["newest"], "newest"),
                    whole(s["attempts"], "attempts", 0, 10**9), number(s["began"], "began"),
                    bool(s["alive"]))  # fmt: skip
        return cls([Known.from_json(k) for k in raw["known"]], [Told.from_json(t) for t in raw["told"]], seen,
                   str(raw["judged"]), str(raw["unread"]), bool(raw["ended"]))  # fmt: skip


@dataclass
class State:
    """Everything a watcher keeps."""

    runs: dict[str, Watched] = field(default_factory=dict)
    """By path or URL."""
    held: list[Message] = field(default_factory=list)
    """Warnings that quiet hours hold back."""
    digested: float = 0.0
    """When the last daily digest was made, Unix seconds."""


class StateFile:
    """The file of a state. Raises UsageError where the folder cannot be used, or another watcher holds it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._lock = -1

    @contextlib.contextmanager
    def held(self) -> Iterator[StateFile]:
        """Keep other watchers out while the body runs."""
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"{self.place} cannot be written: {error.strerror}. Give another --state DIR.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(f"Another watcher works on {self.place}. Stop it, or give a --state DIR of your own.") \
                from error
        try:
            yield self
        finally:
            os.close(self._lock)

    def read(self) -> tuple[State, str]:
        """The state, an empty one where there is none, and what is to be said of a file that cannot be read."""
        path = self.place / FILE
        try:
            raw, seal_says = opened(LocalFolder(self.place).read(FILE, 0, MOST_BYTES), MOST_BYTES)
            if seal_says != "whole" or raw.get("version") != VERSION:
                raise ValueError("it does not match its checksum, or is of another version")
            return State({path: Watched.from_json(w) for path, w in raw["runs"].items()},
                         [Message.from_json(m) for m in raw["held"]],
                         number(raw["digested"], "digested")), ""  # fmt: skip
        except FileNotFoundError:
            return State(), ""
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".damaged"))
            return State(), (f"{path} cannot be read ({error}): it is kept as watch.damaged, what is wrong now is told "
                             "anew.")

    def write(self, state: State) -> None:
        """Store a state whole. Raises OSError."""
        record = {"version": VERSION, "runs": {path: w.to_json() for path, w in state.runs.items()},
                  "held": [m.to_json() for m in state.held], "digested": state.digested}  # fmt: skip
        LocalFolder(self.place).replace(FILE, json.dumps(seal(record)).encode())
