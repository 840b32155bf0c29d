"""Which runs are known as twins of a run: a small file in its folder, and the attempts that its restarts left.

    {"twins": ["../seed-b", "../seed-c"]}

Paths are relative to the run, so that a folder of runs can be moved. How the steps line up is found anew at every look,
because both runs may have grown.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from checks.reading import remember
from checks.twins.pair import Pair
from checks.twins.recognise import recognise
from checks.twins.rows import LossRows, loss_rows
from trainvitals.errors import TrainVitalsError
from trainvitals.store import open_run
from trainvitals.untrusted import parse_json

if TYPE_CHECKING:
    from trainvitals.store import Run

FILE, MOST_BYTES, MOST_TWINS = "twins.json", 1 << 16, 8
LEAST_BRANCH_ROWS = 90


def find_twins(runs: Sequence[Run]) -> tuple[dict[str, LossRows], list[Pair]]:
    """The losses of runs by path, and every pair of them."""
    rows = {run.path: loss_rows(run) for run in runs}
    return rows, [recognise(a, b) for a, b in combinations(rows.values(), 2)]


def note_twins(runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Note the usable twins of every run beside it; a folder that cannot be written is judged without them."""
    for run in runs:
        mine = [p.b if p.a == run.path else p.a for p in pairs if p.usable and run.path in (p.a, p.b)]
        with contextlib.suppress(OSError, TrainVitalsError, ValueError):
            if mine:
                keep_twins(run, mine)


def keep_twins(run: Run, paths: Iterable[str]) -> None:
    """Note a run's twins beside it. Raises OSError where the folder cannot be written."""
    own = os.path.abspath(run.path)
    relative = sorted({os.path.relpath(os.path.abspath(path), own) for path in paths})
    run.keep(FILE, json.dumps({"twins": relative[:MOST_TWINS]}).encode())


def twin_paths(run: Run) -> list[str]:
    """Where a run's noted twins lie; none where nothing is noted, or the note is damaged."""
    if "://" in str(run.path):
        return []
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = parse_json(run.kept(FILE, MOST_BYTES) or b'{"twins": []}', MOST_BYTES)["twins"]
        return [os.path.normpath(os.path.join(run.path, path)) for path in noted[:MOST_TWINS]
                if isinstance(path, str) and "://" not in path]
    return []


def known_twins(run: Run) -> list[tuple[LossRows, Pair]]:
    """The runs that are known as twins and still are, with how they line up; each pair as seen from the run."""
    return remember(run, "twins", lambda: list(_known(run)))


def own_rows(run: Run) -> LossRows:
    """The run's own loss."""
    return remember(run, "twin rows", lambda: loss_rows(run))


def _known(run: Run) -> Iterator[tuple[LossRows, Pair]]:
    for other in [*_others(run), *_left(run)]:
        pair = recognise(own_rows(run), other)
        if pair.twin:
            yield other, pair


def _others(run: Run) -> Iterator[LossRows]:
    for path in twin_paths(run):
        # A twin that was moved or damaged is one fewer; the check names how many it used.
        with contextlib.suppress(TrainVitalsError, OSError):
            yield loss_rows(open_run(path))


def opened(name: str) -> tuple[Run, int | None]:
    """The run of a `LossRows.name`, and the branch where it is one that a restart left.

    Raises:
        TrainVitalsError: it is there no more.
    """
    path, _, branch = name.rpartition("#")
    return (open_run(path), int(branch)) if path and branch.isdecimal() else (open_run(name), None)


def _left(run: Run) -> Iterator[LossRows]:
    """Attempts that a restart left for the same steps: the same data, where the loader was set back too."""
    for branch in run.branches()["branch"]:
        rows = loss_rows(run, int(branch))
        if len(rows.steps) >= LEAST_BRANCH_ROWS:
            yield rows
