"""Following logs that other processes write: look by look, each costing what is new."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from collectors.importers.session import Session
from trainvitals.errors import TrainVitalsError

log = logging.getLogger("trainvitals")

LOOK_SECONDS = 1.0
MOST_SHARE = 0.05
"""Of a processor that looking may take: a source whose look is slow is looked at less often."""


def follow(sessions: Sequence[Session], stop: threading.Event, seconds: float = LOOK_SECONDS) -> Iterator[Session]:
    """Every session that got something new, as it does, until `stop` is set.

    A source that cannot be read is named once in the log, and tried again.
    """
    failed: set[str] = set()
    while not stop.is_set():
        began = time.process_time()
        for one in sessions:
            name = str(one.run.path)
            try:
                if one.look():
                    yield one
                failed.discard(name)
            except (TrainVitalsError, OSError) as error:
                if name not in failed:
                    log.warning("trainvitals: %s cannot be read for now: %s", name, error)
                failed.add(name)
        stop.wait(max(seconds, (time.process_time() - began) / MOST_SHARE))
    for one in sessions:
        one.close()


class Follower:
    """Follows in a thread of its own, beside a board."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Looks at all of them once. Raises what the first look raises."""
        self._sessions = sessions
        for one in sessions:
            one.look()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainvitals-follow", daemon=True)

    @property
    def folder(self) -> Path:
        """The run folder, or the folder of the run folders."""
        first = self._sessions[0].folder
        return first if len(self._sessions) == 1 else first.parent

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with everything so far in the run folders."""
        self._stop.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        for _ in follow(self._sessions, self._stop):
            continue
