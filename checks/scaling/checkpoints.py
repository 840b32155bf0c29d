"""Rows that are checkpoints of one run: a ladder counts runs, and only their last rows.

Ten checkpoints of a run share its seed, its data order and its schedule: they are one observation, and all but the last
are not annealed (https://arxiv.org/abs/2410.11840). A fit to 22 runs of 10 rows each looks like one to 220 runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from checks.scaling._files import clip
from checks.scaling.levenberg import Floats
from trainvitals.errors import UsageError

RUN_COLUMNS = frozenset({"run", "run_name", "run_id", "id", "experiment", "experiment_name"})
"""Names of columns that tell runs apart; a column `name` may as well hold the name of a model size."""
STEP_IN_NAME = re.compile(
    r"[\s\-_/.:@]*(?:global_?)?(?:step|iter|iteration|ckpt|checkpoint)s?[\-_=:]?[0-9]+[km]?$", re.IGNORECASE
)
FEWEST_EQUAL_STEPS = 5
"""Rows of one size whose tokens rise in equal steps from which they are taken for checkpoints."""
EQUAL = 0.02


def finals(
    n: Floats, d: Floats, names: Sequence[str] | None, named_by: str, where: str, places: Sequence[str]
) -> tuple[NDArray[np.bool_], str]:
    """The last row of every run, and one sentence on the rows left out; all rows where none are checkpoints.

    names: of the runs, None where the table has no such column; named_by: that column, in lower case.

    Raises:
        UsageError: rows without names look like checkpoints.
    """
    keep = np.ones(len(n), bool)
    if names is None:
        _refuse_equal_steps(n, d, where, places)
        return keep, ""
    runs = [STEP_IN_NAME.sub("", name) for name in names]
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(run, []).append(i)
    certain = named_by in RUN_COLUMNS or list(runs) != list(names)
    for run, rows in groups.items():
        same_size = np.ptp(np.log(n[rows])) < 0.01
        if run and len(rows) > 1 and same_size and (certain or _equal_steps(d[rows]) or not _is_size(run, runs, n)):
            keep[rows] = False
            keep[rows[int(np.argmax(d[rows]))]] = True
    left = int((~keep).sum())
    if not left:
        return keep, ""
    return keep, (
        f"{left:,} rows are taken for earlier checkpoints of the {int(keep.sum()):,} runs that they name: only the row "
        "with the most tokens of each is fitted."
    )


def _is_size(run: str, runs: Sequence[str], n: Floats) -> bool:
    """Whether a name stands for a model size: all rows of that size, and no others, have it."""
    named = np.array([name == run for name in runs])
    return bool((np.abs(np.log(n / n[named][0])) < 0.01).sum() == named.sum() and len(set(runs)) > 1)


def _equal_steps(d: Floats) -> bool:
    """Whether tokens rise in equal steps, or hold one, two, three, ... times the fewest among those of another run."""
    steps = np.diff(np.unique(d))
    if len(steps) + 1 < FEWEST_EQUAL_STEPS:
        return False
    times = d / d.min()
    counted = all((np.abs(times - k) < EQUAL * k).any() for k in range(1, FEWEST_EQUAL_STEPS + 1))
    return counted or bool(np.ptp(steps) <= EQUAL * steps.mean())


def _refuse_equal_steps(n: Floats, d: Floats, where: str, places: Sequence[str]) -> None:
    size = np.round(np.log(n), 3)
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(size) != 0) | (np.diff(d) <= 0)]))
    blocks = [rows for rows in np.split(np.arange(len(n)), begins[1:]) if len(rows) >= FEWEST_EQUAL_STEPS]
    blocks += [np.flatnonzero(size == value) for value in np.unique(size)]
    found = [rows for rows in blocks if _equal_steps(d[rows])]
    if not found or len(np.unique(np.concatenate(found))) < len(n) / 2:
        return
    rows = found[0]
    raise UsageError(
        f"{where} holds checkpoints, it seems, where a ladder has one row per finished run: from {places[rows[0]]} to "
        f"{places[rows[-1]]} {clip(f'{n[rows[0]]:.3g}')} parameters are trained on tokens that rise in equal steps. "
        "Keep the last row of each run, or add a column `run` that names the run of every row."
    )
