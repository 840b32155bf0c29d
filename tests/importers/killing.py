"""Kill an import at its touches of the disk, one per EVERY of them, go on, and compare with one that nobody killed.

    python -m tests.importers.killing LOG FOLDER EVERY [EARLIER]

With EARLIER, that is what was at the log's place and was imported before: the import that is killed is one afresh.

Every case is a fork of a process that has imported all there is, so that hundreds are cheap. Prints one line of JSON:
how many were killed, how many of those went on where they were, and what differed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd  # noqa: F401 - which pyarrow would import in every fork

from collectors.importers import session, textfile
from collectors.importers.door import sessions
from collectors.importers.registry import all_importers
from trainvitals.store.folder import LocalFolder
from trainvitals.store.reader import open_run


def main(log: Path, folder: Path, every: int, earlier: Path | None = None) -> None:
    textfile.CHUNK_BYTES = 600
    session.SAVE_SECONDS = 0.0
    all_importers()
    _in_child(lambda: _import(log, folder / "whole"))
    expected = _read(folder / "whole", folder / "whole.json")
    killed, afresh, wrong = 0, 0, list[str]()
    for n in range(1, 2_000, every):
        run = folder / f"killed-{n}"
        source = log
        if earlier is not None:
            source = folder / f"log-{n}.csv"
            shutil.copy(earlier, source)
            _in_child(lambda: _import(source, run))  # noqa: B023 - called before the next round
            os.replace(shutil.copy(log, folder / "new"), source)
        code = _in_child(lambda: _import(source, run, n))  # noqa: B023
        if code == 0:
            break
        killed += 1
        said = folder / f"said-{n}"
        code = _in_child(lambda: said.write_text(_import(source, run)))  # noqa: B023
        afresh += bool(said.exists() and said.read_text())
        if code or _read(run, folder / f"{n}.json") != expected:
            wrong.append(f"touch {n}: exit code {code}")
    print(json.dumps({"killed": killed, "afresh": afresh, "wrong": wrong}))


def _in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the parent counts it
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _import(log: Path, run: Path, die_at: int = 0) -> str:
    if die_at:
        _die_at(die_at)
    [one] = sessions(log, run=run)
    one.look()
    one.close()
    return one.afresh


def _die_at(n: int) -> None:
    left = [n]

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def touch(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*args)
        return touch

    LocalFolder.append = counted(LocalFolder.append)  # type: ignore[method-assign]
    os.replace = counted(os.replace)


def _read(run: Path, into: Path) -> Any:
    """What a reader sees of a run: read in a child, because a process with threads must not fork."""

    def look() -> None:
        found = open_run(run)
        names = ("loss/train", "lr/used", "acc")
        series = {}
        for name in names:
            for branch in [None, *range(len(found.attempts))]:
                data = found.array(name, branch=branch)
                series[f"{name}@{branch}"] = [data.steps.tolist(), data.values.tobytes().hex()]
        rows = {frame: count for frame, count in sorted(found.rows_by_frame()[0].items())}
        # A kill between the mark of a branch and its first row makes the next process mark it again.
        events = [[e.kind, e.message] for e in found._contents.events if e.kind != "started"]
        events = [event for i, event in enumerate(events) if event not in events[:i]]
        into.write_text(json.dumps([rows, series, events, found.problems()]))

    code = _in_child(look)
    return json.loads(into.read_text()) if code == 0 else f"unreadable: {code}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
