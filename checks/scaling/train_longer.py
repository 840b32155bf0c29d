"""scaling.train_longer: what ten percent more tokens would buy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.reading import has, scalar
from checks.registry import check
from checks.scaling._ladder import (
    Size,
    Yardstick,
    below_ladder,
    beyond_published,
    other_unit,
    refused,
    size_of,
    unknown_size,
    yardstick,
)
from checks.scaling.repetition import fresh_worth

if TYPE_CHECKING:
    from checks.scaling.fit import FitResult
    from checks.scaling.reference import Reference
    from trainvitals.store import Run

SOURCE = (
    "measured: seeds differ by .12 % of the loss at 124M parameters (38 repeats, "
    "https://github.com/KellerJordan/modded-nanogpt) and .04 to .07 % at 2.8B "
    "(https://github.com/huggingface/datablations)"
)


@check(
    "scaling.train_longer",
    area="scaling",
    reads=("data/tokens_seen",),
    uses=("throughput/step_time",),
    refs=("https://arxiv.org/abs/2203.15556", "https://arxiv.org/abs/2305.16264"),
)
def train_longer(
    run: Run,
    *,
    more: float = 0.1,
    seed_sd: float = 0.0012,
    worth_sd: float = 3.0,
    saturated_sd: float = 1.0,
    price_per_gpu_hour: float | None = None,
    ladder: str | FitResult | Reference | None = None,
) -> Iterator[Finding]:
    """Ten percent more tokens would lower the loss by so much, for so many GPU hours.

    Why it matters: the last tenth of a run is its dearest. How to read it: the law's gain from `more` of the planned
    tokens, in standard deviations between seeds (`seed_sd`, relative to the loss): three or more is worth it, less
    than one is saturated. An answer, not an alarm: the level is pass either way. Repeated tokens count as the fresh
    ones that they are worth.
    """
    size = size_of(run)
    if size is None:
        yield unknown_size(run)
        return
    stick = yardstick(run, ladder)
    reason = beyond_published(stick, size) if stick.fit is None else below_ladder(stick.fit, size)
    if stick.fit is not None and not stick.fit.identifiability.identifiable:
        reason = f"The ladder does not determine the gain: {stick.fit.identifiability.reasons[0]}"
    reason = reason or (other_unit(stick.fit) if stick.fit is not None else None)
    if reason:
        yield refused(reason, "The gain from more tokens is the slope of a law that is not known here.")
        return
    gain, loss = _gain(run, size, stick, more)
    deviations = gain / (seed_sd * loss)
    word = "worth it" if deviations >= worth_sd else "saturated" if deviations < saturated_sd else "a small gain"
    hours = _gpu_hours(run, size, more)
    cost = "" if hours is None else f", for {hours:,.3g} GPU hours"
    if hours is not None and price_per_gpu_hour is not None:
        cost += f" ({hours * price_per_gpu_hour:,.2f} at the price given)"
    yield Finding(
        level="pass",
        summary=f"{100 * more:.3g} % more tokens would lower the loss by {gain:.4f} nats, {deviations:.1f} seed "
        f"deviations{cost}: {word}.",
        n=len(stick.fit.ladder) if stick.fit else 0,
        statistic=Statistic("gain over the spread of seeds", deviations, "standard deviations"),
        threshold=Threshold(saturated_sd, None, "standard deviations", SOURCE),
        what_it_means=f"By the law of {stick.source}." + ("" if stick.own else " Its data and tokenizer are others."),
        what_to_do="Nothing; extend the plan before its learning rate is annealed if the gain is wanted."
        if deviations >= saturated_sd
        else "Spend the compute on a larger model or on better data.",
        details={"gain_nats": gain, "loss": loss, "gpu_hours": hours, "verdict": word, "law": stick.source},
    )


def _gain(run: Run, size: Size, stick: Yardstick, more: float) -> tuple[float, float]:
    """Loss that more tokens save, and the loss at the planned end; repeated tokens at their worth."""
    unique = float(sum(run.card.domain_tokens.values()))
    ends = [size.d_planned, size.d_planned * (1 + more)]
    if unique and size.d_planned > unique:
        ends = [unique * fresh_worth(d / unique) for d in ends]
    now, then = (float(stick.law.loss(size.n, d)) for d in ends)
    return now - then, now


def _gpu_hours(run: Run, size: Size, more: float) -> float | None:
    if run.card.hardware in ("", "unknown") or not has(run, "throughput/step_time"):
        return None
    times = scalar(run, "throughput/step_time").finite()
    if not len(times):
        return None
    steps = more * size.d_planned / size.d * int(run.last_step or 0)
    return float(np.median(times.values)) * steps * run.card.world_size / 3600
