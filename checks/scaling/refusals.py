"""When a run's final loss cannot be forecast: the reason in one sentence, and what would change it.

A forecast that is not identifiable is worse than none: before its decay, a WSD run's own curve says nothing about what
the decay will buy (error .08 to .09 nats on MultiPowerLaw's curves, with every law), and a bootstrap of the parameters
does not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from checks.robust import difference_sigma
from checks.scaling._curve import Curve
from checks.scaling._curve_law import Floats
from checks.scaling._rates import FLAT, SEEN_LAG, answered, drop_share, is_gradual, phase, rises_again, warmup_end
from checks.scaling.backtest import TESTED_PARAMS

FEWEST_ROWS, FEWEST_ROWS_BESIDE_SIBLINGS = 12, 5
GRADUAL_SHARE = 0.3
"""A cosine's own curve forecasts to .044 nats at 30 % of it, .007 at 50 % (three sizes of MultiPowerLaw)."""
FLAT_SHARE = 0.25
"""A constant rate extrapolates a power law: errors up to .08 nats at 20 % of the run, below .012 from 25 %."""
SEEN_SHARE = 0.15
"""Least share of the planned drop that the curve, or a sibling, must have answered to: below it, forecasts of WSD runs
were off by .05 to .10 nats, three to four times their band, and above it within it (MultiPowerLaw, 25M)."""
SIBLING_DROP = 0.5
"""Least drop of a sibling's rate, as a share of the drop that is planned, to stand in for an anneal not yet seen."""
CLIMB = 1.02
"""Ratio to the best block that counts as diverged: loss.divergence's threshold."""
SPIKE = 1.1
NOISE_DEVIATIONS = 4.0
"""Of the rows' own scatter, added to both."""
NONFINITE_SHARE = 0.01
SIZE_MARGIN = 2.0
"""Sizes within this factor of the tested ones count as tested."""
RAMP = 0.05
"""Change of tokens per step that counts as a batch ramp."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no forecast."""

    reason: str
    remedy: str


def refuse(raw: Curve, usable: Curve, plan: Floats, siblings: Sequence[Curve]) -> Refusal | None:
    """The first reason against a forecast; None where there is none.

    Args:
        raw: the curve as logged.
        usable: its finite rows after warm-up.
        plan: rates of the whole run, [T].
        siblings: usable curves of other runs of the same model.
    """
    return (
        _restart(plan)
        or _not_finite(raw)
        or _too_short(raw, usable, plan, bool(siblings))
        or _batch_ramp(raw)
        or _diverged(usable)
        or _anneal_unseen(usable, plan, siblings)
    )


def refuse_size(plan: Floats, now: int, params: float | None) -> Refusal | None:
    """Refuse a decay at a model size at which no band was ever tested through one.

    What a decay buys, and what the law misses of it, grows with the model: .003 nats at 25M and 100M parameters, .017
    at 400M (MultiPowerLaw).
    """
    low, high = TESTED_PARAMS[0] / SIZE_MARGIN, TESTED_PARAMS[1] * SIZE_MARGIN
    if params is None or low <= params <= high or phase(plan, now) not in ("decay not seen", "decay under way"):
        return None
    return Refusal(
        f"Bands through a late decay were tested on {TESTED_PARAMS[0]:.3g} to {TESTED_PARAMS[1]:.3g} parameters, and "
        f"this model has {params:.3g}: what the law misses of a decay grows with the model.",
        "Take the law's value from a smaller model's decay as a guide only, or wait for the end of the decay.",
    )


def refuse_other(raw: Curve, usable: Curve, plan: Floats, siblings: Sequence[Curve]) -> Refusal | None:
    """The first reason against a forecast of another run, one under `plan`; None where there is none.

    Nothing of that run is there: the curve is a sibling beside the others, and must be one that can be used.
    """
    return (
        refuse(raw, usable, usable.rates, [usable])
        or _restart(plan)
        or _shorter_than_warmup(raw, plan)
        or _anneal_of_another_unseen(plan, [usable, *siblings])
    )


def _restart(plan: Floats) -> Refusal | None:
    step = rises_again(plan)
    if step is None:
        return None
    return Refusal(
        f"The learning rate rises again at step {step:,}: the laws are not tested across a restart.",
        "Give the curve and the plan from the restart on as a run of their own, once its warm-up is over.",
    )


def _not_finite(raw: Curve) -> Refusal | None:
    bad = ~np.isfinite(raw.losses) | (raw.losses <= 0)
    tail = max(len(raw.losses) // 20, 3)
    if bad[-tail:].any() or bad.sum() > NONFINITE_SHARE * len(bad):
        step = int(raw.steps[np.flatnonzero(bad)[0]])
        return Refusal(
            f"{int(bad.sum()):,} losses are not finite and positive, the first at step {step:,}.",
            "Mend the run first: see the check loss.nonfinite. A lone row may be deleted from the file.",
        )
    return None


def _too_short(raw: Curve, usable: Curve, plan: Floats, helped: bool) -> Refusal | None:
    warm = warmup_end(plan)
    if raw.last_step <= warm:
        return Refusal(
            f"The run is still in its warm-up, which ends at step {warm:,}.", f"Ask again well after step {warm:,}."
        )
    need = FEWEST_ROWS_BESIDE_SIBLINGS if helped else FEWEST_ROWS
    if len(usable.steps) < need:
        return Refusal(
            f"Only {len(usable.steps)} usable rows after warm-up; at least {need} are needed.",
            "Wait, or log the loss more often.",
        )
    if not helped and not is_gradual(plan) and usable.last_step < FLAT_SHARE * len(plan):
        return Refusal(
            f"Only {100 * usable.last_step / len(plan):.1f} % of the run is done; without siblings a curve tells its "
            f"end from {100 * FLAT_SHARE:.0f} % on.",
            f"Ask again after step {int(FLAT_SHARE * len(plan)):,}, or give finished shorter runs with --siblings.",
        )
    return None


def _batch_ramp(raw: Curve) -> Refusal | None:
    if raw.tokens is None or len(raw.steps) < 4 or not np.isfinite(raw.tokens).all():
        return None
    per_step = np.diff(raw.tokens) / np.diff(raw.steps)
    usual = float(np.median(per_step))
    quarter = max(len(per_step) // 4, 1)
    ends = [float(np.median(part)) for part in (per_step[:quarter], per_step[-quarter:])]
    if usual > 0 and max(abs(e / usual - 1) for e in ends) <= RAMP:
        return None
    return Refusal(
        f"The batch grows from {ends[0]:,.0f} to {ends[1]:,.0f} tokens per step: the laws hold for one batch size.",
        "Give the rows from the end of the ramp on as a run of its own.",
    )


def _diverged(usable: Curve) -> Refusal | None:
    losses = usable.losses
    n = len(losses)
    block = max(n // 20, 3)
    if n < 3 * block:
        return None
    medians = [float(np.median(losses[a : a + block])) for a in range(n % block, n - block + 1, block)]
    # As loss.divergence does: small batches scatter by more than a climb of 2 %.
    noise = NOISE_DEVIATIONS * difference_sigma(losses) / float(np.median(losses))
    if medians[-1] > (CLIMB + 1.25 * noise / block**0.5) * min(medians):
        return Refusal(
            f"The loss has climbed to {medians[-1] / min(medians):.3f} times its best: the run is diverging.",
            "See the check loss.divergence; a forecast is possible again once the loss is back at its best.",
        )
    if max(losses[-2:]) > max(SPIKE, 1 + noise) * medians[-2]:
        return Refusal(
            f"The curve ends in a spike, at {max(losses[-2:]):.3f} after {medians[-2]:.3f}.",
            "Wait until it has recovered: see the check loss.spike.",
        )
    return None


def _anneal_unseen(usable: Curve, plan: Floats, siblings: Sequence[Curve]) -> Refusal | None:
    if _is_shown(plan, siblings):
        return None
    if siblings:
        remedy = "Give a sibling whose learning rate falls at least half as far as this run's will, and has its loss."
    else:
        remedy = "Give finished runs of the same model, shorter ones will do, with --siblings."
    share = usable.last_step / len(plan)
    if is_gradual(plan) and share < GRADUAL_SHARE:
        return Refusal(
            f"Only {100 * share:.1f} % of the run is done, too little to tell what the falling rate will buy.",
            f"{remedy} Or ask again after step {int(GRADUAL_SHARE * len(plan)) + 1:,}.",
        )
    if not _seen(plan, usable):
        return Refusal(
            "The learning rate has hardly fallen yet, so the curve cannot tell what its decay will buy.",
            f"{remedy} Or ask again some way into the decay.",
        )
    return None


def _shorter_than_warmup(raw: Curve, plan: Floats) -> Refusal | None:
    warm = warmup_end(plan)
    if raw.last_step > warm:
        return None
    return Refusal(
        f"The curve ends at step {raw.last_step:,}, within the warm-up of the schedule, which takes {warm:,} steps.",
        "Give a longer run of the same model.",
    )


def _anneal_of_another_unseen(plan: Floats, known: Sequence[Curve]) -> Refusal | None:
    if _is_shown(plan, known):
        return None
    return Refusal(
        f"The learning rate of this schedule falls by {100 * drop_share(plan):.0f} %, and none of these curves has "
        "seen its own fall half as far, so nobody knows what the decay will buy.",
        "Give a run of the same model whose learning rate falls at least half as far, with --siblings.",
    )


def _is_shown(plan: Floats, curves: Sequence[Curve]) -> bool:
    """Whether one of these curves stands in for the plan's anneal, or the plan has none."""
    planned = drop_share(plan)
    return planned < FLAT or any(
        drop_share(c.rates) >= SIBLING_DROP * planned and _seen(c.rates, c) for c in curves
    )


def _seen(rates: Floats, curve: Curve) -> bool:
    return answered(rates, curve.last_step, SEEN_LAG) >= SEEN_SHARE


def not_siblings(names: Sequence[str], residuals: Sequence[Floats], limit: float = 0.015) -> Refusal | None:
    """Refuse a pool that no one law fits: median absolute log residual of a curve above `limit`.

    Curves of one model leave .001 to .004 under the annealing law, one of another size leaves .03 and more.
    """
    worst = max(range(len(names)), key=lambda i: float(np.median(np.abs(residuals[i]))))
    away = float(np.median(np.abs(residuals[worst])))
    if away <= limit:
        return None
    return Refusal(
        f"No one law fits these curves: {names[worst]} is {100 * away:.1f} % away from it.",
        "Give siblings of the same model size, data, tokenizer and batch, or none.",
    )
