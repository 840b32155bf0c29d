"""update.jump: updates that are suddenly much larger, though neither the rate nor the gradients are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.optimisation._layers import Moved, alarm, grouped, moved, norms, order_text, spell, spoken
from checks.reading import has, vector
from checks.registry import check
from checks.stream.book import open_book
from checks.stream.excuse import masked_words
from checks.stream.layout import LEAST_ROWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "closed form: with its moments at zero Adam's first update is (1 - b1) / sqrt(1 - b2) of the rate in every weight, "
    "3.2 times for b = 0.9, 0.999, where a usual one is 0.2 to 1 times it"
)
UNIT = "times its trend"
AT_MOST = 10
BLIND = 3.0
"""Ratios in which a rise of this factor could hide allow no pass: it is what lost moments make of an update."""
EXPLAINED = 0.6
"""Part of a rise, in logarithms, that a rising learning rate must make up to explain it: Adam's updates follow it."""


@check("update.jump", area="optimisation", reads=("update/ratio_by_layer",), uses=("lr/used", "grad/norm"),
       instead={"update/ratio_by_layer": "update/ratio"}, refs=("https://arxiv.org/abs/1412.6980",))  # fmt: skip
def update_jump(run: Run) -> Iterator[Finding]:
    """Updates grow against their weights, at once, without a cause in the learning rate.

    Why it matters: an optimizer whose moments were lost, in a resume from weights alone, takes steps several times too
    large until it has new ones, and nothing else shows it. How to read it: the scan of logarithms of update over
    weight, of the model and of each layer; x1.5 over eight rows or x10 in one warn, x3 fails. Ratios that are logged
    every 50th step may miss it altogether: moments are back after some ten steps.
    """
    known = norms(run, "update/ratio", "update/ratio_by_layer")
    rows = max((of.series.rows for of in known), default=0)
    ground = Ground(rows, Threshold(1.5, 3.0, UNIT, SOURCE))
    found, excused, events = moved(run, known, 1)
    kept = [m for m in found if not _by_rate(run, m)]
    ground = Ground(rows, ground.threshold, events, {"by_rate": len(found) - len(kept), "series": len(known)})
    if not kept:
        yield _calm(ground, known[0].series.resolution() if known else None, masked_words(excused, events))
    for group in grouped(kept)[:AT_MOST]:
        when, top = spell(group), max(group, key=lambda m: m.factor)
        gradients = _gradients(run, group)
        yield alarm(
            ground,
            group,
            f"Updates grew at step {when.first:,}, {order_text(group).replace('norm of', 'updates of')}: up to "
            f"{top.factor:.3g} {UNIT} ({spoken(top.of.label)}), "
            f"{'and are still up' if when.ongoing else f'back after step {when.last:,}'}; {gradients}.",
            Statistic("largest update", top.factor, UNIT),
            failed=any(m.episode.failed is not None for m in group),
            means="The optimizer takes larger steps than its rate and its gradients call for, as one does that lost "
            "its "
            "moments." if gradients.startswith("neither") else "Gradients and updates left their trends together.",
            do=f"Look whether the optimizer's state was restored before step {when.first:,}, and at what else touches "
            "its moments or the weights.",
            details={},
        )


def _calm(ground: Ground, seen: tuple[float, int] | None, explained: str) -> Finding:
    if ground.n < LEAST_ROWS or seen is None or 1 + seen[0] > BLIND:
        shown = "no rise" if seen is None else f"only one of {1 + seen[0]:.3g} times over {seen[1]} rows"
        return ground.unknown(
            f"Updates show no jump in {ground.n:,} rows, but {shown} would have shown nine times in ten.{explained}",
            f"Lost moments make updates some {BLIND:g} times as large.",
            "Wait for more rows, or log update/* more often.",
        )
    return ground.passed(
        f"Updates kept their size against the weights in {ground.n:,} rows.{explained}",
        Statistic(f"smallest rise of {seen[1]} rows that would show", 1 + seen[0], UNIT),
        "The optimizer steps as far as it did. What came and went between two logged rows is not seen.",
    )


def _by_rate(run: Run, m: Moved) -> bool:
    """Whether the learning rate rose by most of it meanwhile: `lr.jump` and `lr.plan` tell whether it may."""
    if not has(run, "lr/used"):
        return False
    rows = vector(run, "lr/used")
    rates = rows.values[:, 0] if rows.values.ndim == 2 and rows.values.shape[1] else np.zeros(0)
    e = m.episode
    before = rates[(rows.steps < e.onset_low) & np.isfinite(rates)][-1:] if len(rates) else rates
    inside = rates[(rows.steps >= e.onset_low) & (rows.steps <= e.last) & np.isfinite(rates)] if len(rates) else rates
    if not len(before) or not len(inside) or before[0] <= 0 or inside.max() <= 0:
        return False
    return bool(np.log(inside.max() / before[0]) >= EXPLAINED * abs(e.effect))


def _gradients(run: Run, group: list[Moved]) -> str:
    first, last = group[0].episode.onset_low, max(m.episode.last for m in group)
    series = open_book(run).one("grad/norm")
    if series is None or not series.rows:
        return "gradient norms were not logged"
    near = any(e.side > 0 and e.onset_low <= last and first <= e.last for e in series.episodes())
    return "the gradient norm rose, too" if near else "neither the learning rate nor the gradient norm rose"
