"""What a learning-rate schedule has done so far: warm-up, drop, and how much of the drop the model has answered to.

Legend: T steps of a schedule.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Phase = Literal["constant", "gradual", "decay not seen", "decay under way"]
"""Where a run stands in its schedule: a constant rate; a cosine or linear fall; before, or in, the decay of a
warm-up-stable-decay or two-stage schedule. Bands are held to account for each by itself."""

SEEN_LAG = 0.025
"""Share of the run over which the loss answers to a drop of the rate: 600 of 24,000 steps, the annealing law's tau."""

SETTLED_LAG = 0.1
"""Share of the run after which a drop is old news. After a sudden drop the annealing law is off by .033, .022, .015,
.009 nats at 3, 10, 23 and 43 % of the run (wsdcon_3, own curve only): it falls with about this constant."""

FLAT = 0.05
"""A rate that never falls by more than this share of its peak is constant."""


def warmup_end(rates: Floats) -> int:
    """First step at the peak rate (to within a tenth of a percent); 0 where the rate starts there."""
    if not len(rates) or rates.max() <= 0:
        return 0
    at = int(np.argmax(rates >= 0.999 * rates.max()))
    return at + 1 if at else 0


def drop_share(rates: Floats) -> float:
    """How far the rate falls from its peak to its end, as a share of the peak."""
    peak = float(rates.max())
    return (peak - float(rates[-1])) / peak if peak > 0 else 0.0


def answered(rates: Floats, step: int, lag_share: float) -> float:
    """Share of the schedule's whole drop that a loss with this lag has answered to at `step`; 1 for a flat schedule.

    rates: [T], of the whole run.
    """
    from scipy.signal import lfilter

    if drop_share(rates) < FLAT:
        return 1.0
    peak = float(rates.max())
    falling = np.where(np.arange(len(rates)) < int(rates.argmax()), peak, rates)[: max(step, 1)]
    keep = float(np.exp(-1.0 / max(lag_share * len(rates), 1.0)))
    smooth, _ = lfilter([1 - keep], [1, -keep], falling, zi=[peak * keep])
    return float((peak - smooth[-1]) / (peak - rates[-1]))


def rises_again(rates: Floats) -> int | None:
    """First step at which the rate climbs back by more than `FLAT` of its peak after it had fallen; None if never."""
    start = int(rates.argmax()) if len(rates) else 0
    lowest = np.minimum.accumulate(rates[start:])
    up = np.flatnonzero(rates[start:] > lowest + FLAT * rates.max()) if len(rates) else np.zeros(0)
    return start + int(up[0]) + 1 if len(up) else None


def phase(plan: Floats, now: int) -> Phase:
    """Where a run at step `now` (0: one that has not begun) stands in its plan. plan: rates of the whole run, [T]."""
    if drop_share(plan) < FLAT:
        return "constant"
    if is_gradual(plan):
        return "gradual"
    return "decay under way" if now > decay_start(plan) else "decay not seen"


def decay_start(plan: Floats) -> int:
    """Last step at the peak rate (to within a tenth of a percent)."""
    return len(plan) - int(np.argmax(plan[::-1] >= 0.999 * plan.max()))


def is_gradual(rates: Floats) -> bool:
    """Whether the rate falls within the first fifth after warm-up: cosine and linear plans, not constant or WSD."""
    if drop_share(rates) < FLAT:
        return False
    start = warmup_end(rates)
    probe = start + (len(rates) - start) // 5
    return bool(rates[min(probe, len(rates) - 1)] < 0.995 * rates.max())
