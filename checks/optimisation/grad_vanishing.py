"""grad.vanishing: layers that no gradient reaches any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Masked, Statistic, Threshold
from checks.masking import quiet
from checks.optimisation._layers import (
    LEAST_ROWS,
    TINY,
    LayerExcursion,
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
from checks.robust import excursions, held_level, segmented_baseline

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention, and measured: a healthy 19,560-step run never fell below a fifth of its running median "
    "once its first 32 steps were over"
)


@check(
    "grad.vanishing",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer",),
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
    n = len(tables[0])
    threshold = Threshold(1 / warn_factor, 1 / fail_factor, "of the running median", SOURCE)
    if n < LEAST_ROWS:
        yield too_few(n, threshold)
        return
    rows = int(np.clip(n // 20, 5, 20))
    most = max(4, int(0.8 * rows))
    mask = quiet(run, "optimisation")
    found: list[LayerExcursion] = []
    masked: dict[Masked, None] = {}
    frozen: list[str] = []
    held = float("nan")
    for t in tables:
        center, _ = segmented_baseline(t.values, mask.level_rows(t.steps), window=window_rows)
        known = center > TINY / 2
        frozen += [
            label
            for label, alive in zip(t.labels, np.atleast_1d((t.values > TINY / 2).any(axis=0)), strict=True)
            if not alive
        ]
        drop = np.where(known, center - t.values, np.nan)
        held = float(np.fmin(held, np.exp(-held_level(drop, most, rows))))
        with np.errstate(invalid="ignore"):
            over = drop > np.log(warn_factor)
        for column in np.flatnonzero(over.any(axis=0)):
            calm = -(center[:, column] - np.log(warn_factor) / 2)
            for e in excursions(-t.values[:, column], over[:, column], calm, k=most, n=rows):
                first, last = int(t.steps[e.first]), int(t.steps[e.last])
                if events := mask.explains(first, last):
                    masked |= dict.fromkeys(events)
                    continue
                # The onset's baseline: a running one follows a lasting fault.
                depth = float(center[e.first, column] - np.median(t.values[e.first : e.last + 1, column]))
                found.append(
                    LayerExcursion(
                        t.signal,
                        t.labels[column],
                        first,
                        last,
                        e.recovered,
                        float(np.exp(min(depth, 700.0))),
                        depth > np.log(fail_factor),
                        e,
                    )
                )
    name = f"smallest norm held by {most} of {rows} rows"
    smallest = None if np.isnan(held) else Statistic(name, held, "of the running median")
    yield from _report(found, n, threshold, tuple(masked), frozen, smallest, at_most)


def _report(
    found: list[LayerExcursion],
    n: int,
    threshold: Threshold,
    masked: tuple[Masked, ...],
    frozen: list[str],
    smallest: Statistic | None,
    at_most: int,
) -> Iterator[Finding]:
    note = f" {len(frozen)} layers never had one: frozen." if frozen else ""
    if not found:
        yield Finding(
            level="pass",
            n=n,
            summary=f"Every layer keeps its gradient.{note}",
            threshold=threshold,
            masked=masked,
            statistic=smallest,
            what_it_means="No layer has stopped learning."
            + excused(bool(smallest and threshold.warn and smallest.value < threshold.warn)),
            what_to_do="Nothing.",
            details={"frozen": frozen},
        )
        return
    for group in grouped(found, apart=50)[:at_most]:
        onset, last = group[0].first, max(e.last for e in group)
        ongoing = any(not e.recovered for e in group)
        deepest = max(group, key=lambda e: e.factor)
        share = 1 / deepest.factor
        yield Finding(
            level="fail" if any(e.failed for e in group) else "warn",
            n=n,
            steps=(onset, last),
            ongoing=ongoing,
            summary=f"Gradients vanished at step {onset:,}, {order_text(group)}: {spoken(deepest.label)} fell to "
            f"{'nothing' if share < 1e-12 else f'{share:.2g} of its running median'}"
            + (" and stays there." if ongoing else f", back after step {last:,}."),
            statistic=Statistic("median norm since", share, "of the running median"),
            threshold=threshold,
            masked=masked,
            evidence=evidence(group),
            what_it_means="These layers get no signal and stop learning.",
            what_to_do=f"Look for what changed at step {onset:,}: a detached branch, saturated activations, a "
            f"loss term "
            "that went away, an expert that gets no tokens.",
            details={
                "order": order_details(group),
                "frozen": frozen,
                "onset": {"method": "first row below the warning factor among those that raised the alarm"},
            },
        )
