"""The listener beside a command that `trainvitals run` started: a process of its own, so that the job never waits.

    python -m collectors.launch.listen FOLDER/001 RUN PID

It takes what lies in FOLDER into the run folder RUN, look by look, until the launch 001 has an end or its starter, PID,
is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from collectors.importers._launch import END

LOOK_SECONDS = 2.0
MOST_SHARE = 0.02
"""Of a processor that looking may take."""


def main(launch: Path, run: Path, starter: int) -> None:
    """Listen to the end. Raises what the last look raises."""
    from collectors.importers.door import sessions

    with contextlib.suppress(OSError):
        os.nice(10)
    [session] = sessions(launch.parent, run=run, format="heard")
    while True:
        over = (launch / END).exists() or not _lives(starter)
        began = time.process_time()
        try:
            session.look()
        except Exception:
            # Nobody waits for this process, and the job is not its own.
            # A full disk may get room again; what fails at the end is said.
            if over:
                raise
        if over:
            session.close()
            return
        _wait(max(LOOK_SECONDS, (time.process_time() - began) / MOST_SHARE), launch / END, starter)


def _wait(seconds: float, end: Path, starter: int) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not end.exists() and _lives(starter):
        time.sleep(0.05)


def _lives(process: int) -> bool:
    return os.getppid() == process


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
