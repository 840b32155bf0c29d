"""grad.vanishing: layers that no gradient reaches any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, unexplained
from checks.masking import quiet
from checks.optimisation._layers import (
    LEAST_ROWS,
    TINY,
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
from checks.robust import excursions, held_level

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention, and measured: a healthy 19,560-step run never fell below a fifth of its running median "
    "once its first 32 steps were over"
)
UNIT = "of the running median"


@check(
    "grad.vanishing",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer",),
    needs=("rounded", "scaled"),
    refs=("https://proceedings.mlr.press/v9/glorot10a.html",),
)
def grad_vanishing(
    run: Run,
    *,
    warn_factor: float = 10.0,
    fail_factor: float = 100.0,
    window_rows: int = 512,
    at_most: int = 10,
) -> Iterator[Finding]:
    """A gradient norm, of the model or of one layer, falls to a small part of its running median and stays there.

    Why it matters: a layer without gradient does not learn, while the loss may look well for long. How to read it:
    norms before clipping; most of some twenty rows below a `warn_factor`-th (failure: a `fail_factor`-th, or zero).
    Layers whose norm was zero from the start are frozen on purpose and only counted.
    """
    tables = log_norms(run)
    ground = Ground(len(tables[0]), Threshold(1 / warn_factor, 1 / fail_factor, UNIT, SOURCE))
    if ground.n < LEAST_ROWS:
        yield too_few(ground)
        return
    rows = int(np.clip(ground.n // 20, 5, 20))
    most = max(4, int(0.8 * rows))
    norms = list(departures(run, window=window_rows, least=TINY / 2))
    fell = [e for d in norms for e in _falls(d, warn_factor, fail_factor, most, rows)]
    found, masked = unexplained(fell, quiet(run, "optimisation"), lambda e: (e.first, e.last))
    frozen = [label for t in tables for label in _frozen(t)]
    ground = replace(ground, masked=masked)
    if not found:
        held = float(np.fmin.reduce([np.exp(-held_level(-d.away, most, rows)) for d in norms]))
        yield ground.passed(
            "Every layer keeps its gradient." + (f" {len(frozen)} layers never had one: frozen." if frozen else ""),
            None if np.isnan(held) else Statistic(f"smallest norm held by {most} of {rows} rows", held, UNIT),
            "No layer has stopped learning." + excused(held < 1 / warn_factor),
            details={"frozen": frozen},
        )
    for group in grouped(found, apart=50)[:at_most]:
        yield _alarm(ground, group, frozen)


def _falls(d: Departure, warn_factor: float, fail_factor: float, most: int, n: int) -> Iterator[LayerExcursion]:
    values = d.table.values
    with np.errstate(invalid="ignore"):
        over = -d.away > np.log(warn_factor)
    for column in np.flatnonzero(over.any(axis=0)).tolist():
        calm = -(d.center[:, column] - np.log(warn_factor) / 2)
        for e in excursions(-values[:, column], over[:, column], calm, k=most, n=n):
            # The onset's baseline: a running one follows a lasting fault.
            depth = float(d.center[e.first, column] - np.median(values[e.first : e.last + 1, column]))
            yield of_layer(d.table, column, e, depth, failed=depth > np.log(fail_factor))


def _frozen(table: LogNorms) -> list[str]:
    alive = np.atleast_1d((table.values > TINY / 2).any(axis=0))
    return [label for label, lives in zip(table.labels, alive, strict=True) if not lives]


def _alarm(ground: Ground, group: list[LayerExcursion], frozen: list[str]) -> Finding:
    when, deepest = spell(group), max(group, key=lambda e: e.factor)
    share = 1 / deepest.factor
    return alarm(
        ground,
        group,
        f"Gradients vanished at step {when.first:,}, {order_text(group)}: {spoken(deepest.label)} fell to "
        f"{'nothing' if share < 1e-12 else f'{share:.2g} of its running median'}"
        f"{' and stays there' if when.ongoing else f', back after step {when.last:,}'}.",
        Statistic("median norm since", share, UNIT),
        side="below",
        means="These layers get no signal and stop learning.",
        do=f"Look for what changed at step {when.first:,}: a detached branch, saturated activations, a loss term "
        "that went away, an expert that gets no tokens.",
        details={"frozen": frozen},
    )
