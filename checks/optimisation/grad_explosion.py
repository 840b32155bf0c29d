"""grad.explosion: gradient norms far above their running median, by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, unexplained
from checks.masking import quiet
from checks.optimisation._layers import (
    LARGEST,
    LEAST_ROWS,
    Departure,
    LayerExcursion,
    LogNorms,
    alarm,
    departures,
    excused,
    grouped,
    log_norms,
    of_layer,
    order_text,
    spell,
    spoken,
    too_few,
)
from checks.registry import check
from checks.robust import Bools, Excursion, Floats, excursions, held_level

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "z of the log norm after ZClip https://github.com/bluorion-com/ZClip; factors measured: BLOOM-176B rose 3.9, 9.9 "
    "and 66 times before its loss did, a healthy 19,560-step run never 3 times for two rows, once 7.5 times for one"
)
UNIT = "times the running median"


@check(
    "grad.explosion",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer",),
    needs=("nonfinite", "sampled", "last", "averaged", "scaled", "rank"),
    refs=(
        "https://github.com/bluorion-com/ZClip",
        "https://github.com/bigscience-workshop/bigscience/blob/master/train/tr11-176B-ml/chronicles.md",
    ),
)
def grad_explosion(
    run: Run,
    *,
    warn_factor: float = 3.0,
    fail_factor: float = 10.0,
    lone_factor: float = 30.0,
    z: float = 6.0,
    window_rows: int = 128,
    at_most: int = 10,
) -> Iterator[Finding]:
    """A gradient norm, of the model or of one layer, is many times its running median.

    Why it matters: gradients move a few steps before the loss does, and the layer that moves first says where to
    look. How to read it: norms before clipping; a warning needs 3 of 5 rows above `warn_factor` and `z` robust
    deviations, or one row above `lone_factor`; a failure 2 of 5 rows above `fail_factor`. Planned events excuse
    warnings, not failures.
    """
    tables = log_norms(run)
    ground = Ground(len(tables[0]), Threshold(warn_factor, fail_factor, UNIT, SOURCE))
    if ground.n < LEAST_ROWS:
        yield too_few(ground)
        return
    norms = list(departures(run, window=window_rows, least=-60.0))
    rose = [e for d in norms for e in _rises(d, warn_factor, fail_factor, lone_factor, z)]
    found, masked = unexplained(rose, quiet(run, "optimisation"), lambda e: None if e.failed else (e.first, e.last))
    ground = replace(ground, masked=masked)
    if not found:
        held = float(np.exp(min(np.fmax.reduce([held_level(d.away, 3, 5) for d in norms]), LARGEST)))
        yield ground.passed(
            "No gradient norm left its range.",
            None if np.isnan(held) else Statistic("largest norm held by 3 of 5 rows", held, UNIT),
            "Gradients are in proportion to their recent past." + excused(held > warn_factor),
            details={"layers": len(tables[-1].labels) if len(tables) > 1 else 0},
        )
        return
    groups = grouped(found, apart=max(20, 5 * _row_steps(tables[0])))
    worst = sorted(groups, key=lambda g: (not any(e.failed for e in g), -max(e.factor for e in g)))[:at_most]
    for group in sorted(worst, key=lambda g: g[0].first):
        yield _alarm(ground, group, len(groups))


def _rises(
    d: Departure, warn_factor: float, fail_factor: float, lone_factor: float, z: float
) -> Iterator[LayerExcursion]:
    sigma = np.fmax(d.sigma, 0.05)
    with np.errstate(invalid="ignore"):
        warn = (d.away > np.log(warn_factor)) & (d.away > z * sigma)
        fail = d.away > np.log(fail_factor)
        lone = d.away > np.log(lone_factor)
    calm = d.center + np.fmax(2 * sigma, np.log(1.5))
    # Most layers never come near: only columns with a candidate are walked.
    for column in np.flatnonzero(warn.any(axis=0)).tolist():
        rises = _of_column(
            d.table.values[:, column], calm[:, column], warn[:, column], fail[:, column], lone[:, column]
        )
        for rows, failed in rises:
            top = float(d.away[rows.first : rows.last + 1, column].max(initial=0.0))
            yield of_layer(d.table, column, rows, top, failed)


def _of_column(values: Floats, calm: Floats, warn: Bools, fail: Bools, lone: Bools) -> Iterator[tuple[Excursion, bool]]:
    seen = {e.first: e for e in excursions(values, lone, calm)}
    seen |= {e.first: e for e in excursions(values, warn, calm, k=3, n=5)}
    fails = {e.first: e for e in excursions(values, fail & warn, calm, k=2, n=5)}
    ends = -1
    for first, rows in sorted((fails | seen).items()):
        if first <= ends:
            continue
        ends = rows.last
        yield rows, any(first <= f <= rows.last for f in fails)


def _row_steps(table: LogNorms) -> int:
    return int(np.median(np.diff(table.steps))) if len(table) > 1 else 1


def _alarm(ground: Ground, group: list[LayerExcursion], total: int) -> Finding:
    when, top = spell(group), max(group, key=lambda e: e.factor)
    return alarm(
        ground,
        group,
        f"Gradient norms rose at step {when.first:,}, {order_text(group)}, up to {top.factor:.3g} {UNIT} "
        f"({spoken(top.label)}), {'and are still up' if when.ongoing else f'back after step {when.last:,}'}.",
        Statistic("largest norm", top.factor, UNIT),
        side="above",
        means="The model is being pushed hard by a batch or is leaving the region where its learning rate is stable.",
        do=f"Look at the batches just before step {when.first:,} and at the first layer's weights and activations; "
        "if it does not come back, restart before it with a lower rate or tighter clipping.",
        details={"explosions": total},
    )
