"""grad.explosion: gradient norms far above their running median, by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Masked, Statistic, Threshold
from checks.masking import Quiet, quiet
from checks.optimisation._layers import (
    LEAST_ROWS,
    LayerExcursion,
    LogNorms,
    evidence,
    excused,
    grouped,
    log_norms,
    order_details,
    order_text,
    spoken,
    too_few,
)
from checks.registry import check
from checks.robust import Excursion, Floats, excursions, held_level, segmented_baseline

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "z of the log norm after ZClip https://github.com/bluorion-com/ZClip; factors measured: BLOOM-176B rose 3.9, 9.9 "
    "and 66 times before its loss did, a healthy 19,560-step run never 3 times for two rows, once 7.5 times for one"
)


@check(
    "grad.explosion",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer",),
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
    n = len(tables[0])
    threshold = Threshold(warn_factor, fail_factor, "times the running median", SOURCE)
    if n < LEAST_ROWS:
        yield too_few(n, threshold)
        return
    mask = quiet(run, "optimisation")
    found, held, masked = _search(tables, mask, warn_factor, fail_factor, lone_factor, z, window_rows)
    if not found:
        yield Finding(
            level="pass",
            n=n,
            summary="No gradient norm left its range.",
            threshold=threshold,
            masked=masked,
            statistic=None
            if np.isnan(held)
            else Statistic("largest norm held by 3 of 5 rows", held, "times the running median"),
            what_it_means="Gradients are in proportion to their recent past." + excused(held > warn_factor),
            what_to_do="Nothing.",
            details={"layers": len(tables[-1].labels) if len(tables) > 1 else 0},
        )
        return
    groups = grouped(found, apart=max(20, 5 * _row_steps(tables[0])))
    worst = sorted(groups, key=lambda g: (not any(e.failed for e in g), -max(e.factor for e in g)))[:at_most]
    for group in sorted(worst, key=lambda g: g[0].first):
        yield _finding(group, n, threshold, masked, len(groups))


def _search(
    tables: list[LogNorms],
    mask: Quiet,
    warn_factor: float,
    fail_factor: float,
    lone_factor: float,
    z: float,
    window_rows: int,
) -> tuple[list[LayerExcursion], float, tuple[Masked, ...]]:
    found: list[LayerExcursion] = []
    masked: dict[Masked, None] = {}
    held = float("nan")
    for t in tables:
        center, sigma = segmented_baseline(t.values, mask.level_rows(t.steps), window=window_rows)
        sigma = np.fmax(sigma, 0.05)
        with np.errstate(invalid="ignore", over="ignore"):
            jump = np.where(center > -60, t.values - center, np.nan)
            held = float(np.fmax(held, np.exp(min(held_level(jump, 3, 5), 700.0))))
            warn = (jump > np.log(warn_factor)) & (jump > z * sigma)
            fail = jump > np.log(fail_factor)
            lone = jump > np.log(lone_factor)
        # Most layers never come near: only columns with a candidate are walked.
        for column in np.flatnonzero(warn.any(axis=0)):
            for rows, failed in _of_layer(
                t.values[:, column],
                center[:, column],
                sigma[:, column],
                warn[:, column],
                fail[:, column],
                lone[:, column],
            ):
                first, last = int(t.steps[rows.first]), int(t.steps[rows.last])
                if not failed and (events := mask.explains(first, last)):
                    masked |= dict.fromkeys(events)
                    continue
                factor = float(np.exp(min(jump[rows.first : rows.last + 1, column].max(initial=0.0), 700.0)))
                found.append(
                    LayerExcursion(t.signal, t.labels[column], first, last, rows.recovered, factor, failed, rows)
                )
    return found, held, tuple(masked)


def _of_layer(
    values: Floats, center: Floats, sigma: Floats, warn: np.ndarray, fail: np.ndarray, lone: np.ndarray
) -> Iterator[tuple[Excursion, bool]]:
    calm = center + np.fmax(2 * sigma, np.log(1.5))
    seen = {e.first: e for e in excursions(values, lone, calm)}
    seen |= {e.first: e for e in excursions(values, warn, calm, k=3, n=5)}
    fails = excursions(values, fail & warn, calm, k=2, n=5)
    ends = -1
    for first in sorted(seen.keys() | {f.first for f in fails}):
        rows = seen.get(first) or next(f for f in fails if f.first == first)
        if rows.first <= ends:
            continue
        ends = rows.last
        yield rows, any(rows.first <= f.first <= rows.last for f in fails)


def _row_steps(table: LogNorms) -> int:
    return int(np.median(np.diff(table.steps))) if len(table) > 1 else 1


def _finding(
    group: list[LayerExcursion], n: int, threshold: Threshold, masked: tuple[Masked, ...], total: int
) -> Finding:
    onset, last = group[0].first, max(e.last for e in group)
    ongoing = any(not e.recovered for e in group)
    top = max(group, key=lambda e: e.factor)
    return Finding(
        level="fail" if any(e.failed for e in group) else "warn",
        n=n,
        steps=(onset, last),
        ongoing=ongoing,
        summary=f"Gradient norms rose at step {onset:,}, {order_text(group)}, up to {top.factor:.3g} times "
        f"the running median "
        f"({spoken(top.label)})" + (", and are still up." if ongoing else f", back after step {last:,}."),
        statistic=Statistic("largest norm", top.factor, "times the running median"),
        threshold=threshold,
        masked=masked,
        evidence=evidence(group),
        what_it_means="The model is being pushed hard by a batch or is leaving the region where its learning "
        "rate is stable.",
        what_to_do=f"Look at the batches just before step {onset:,} and at the first layer's weights and "
        f"activations; if it "
        "does not come back, restart before it with a lower rate or tighter clipping.",
        details={
            "order": order_details(group),
            "explosions": total,
            "onset": {"method": "first row above the warning factor among those that raised the alarm"},
        },
    )
