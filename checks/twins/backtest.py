"""What a twin buys on a run of one's own: rises planted into its healthy rows, found with the twin and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checks.stream.layout import LOSS
from checks.stream.series import Series
from checks.twins.judge import SETTLED_ROWS, SETTLED_STEPS, controls, partings, told_at
from checks.twins.pair import Pair
from checks.twins.rows import LossRows

RISES_NAT = (0.03, 0.1, 0.3)
PLACES, MOST_ROWS, LEAST_AFTER = 12, 20_000, 100


@dataclass(frozen=True, slots=True)
class Backtest:
    """One size of rise at many places."""

    rise_nat: float
    places: int
    found: int
    """With the twins."""
    found_alone: int
    delay_rows: float | None
    """Median over all places; None where more than half were not found."""
    delay_rows_alone: float | None

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals twin --json` prints it."""
        return {"rise_nat": self.rise_nat, "places": self.places, "found": self.found, "found_alone": self.found_alone,
                "delay_rows": self.delay_rows, "delay_rows_alone": self.delay_rows_alone}  # fmt: skip


def backtest(run: LossRows, twins: Sequence[tuple[LossRows, Pair]]) -> list[Backtest]:
    """Plant lasting rises in the run's loss, from places in its later rows to the end.

    Returns:
        A row for each of `RISES_NAT`; nothing where too few rows are shared for a place.
    """
    usable = [(twin, pair) for twin, pair in twins if pair.usable]
    steps, logs = run.steps[-MOST_ROWS:], run.values[-MOST_ROWS:]
    if not usable or (logs <= -20).any():
        return []
    shared = np.unique(np.concatenate([run.steps[pair.indices(run.steps, twin.steps)[0]] for twin, pair in usable]))
    first = int(np.searchsorted(steps, max(shared[min(2 * SETTLED_ROWS, len(shared) - 1)], SETTLED_STEPS + 1)))
    if len(steps) - LEAST_AFTER <= first or len(shared) <= 2 * SETTLED_ROWS:
        return []
    places = np.unique(np.linspace(first, len(steps) - LEAST_AFTER, PLACES).astype(int))
    return [_rows(run, steps, logs, usable, places, rise) for rise in RISES_NAT]


def _rows(run: LossRows, steps: Any, logs: Any, twins: list[tuple[LossRows, Pair]], places: Any,
          rise: float) -> Backtest:
    soon, late = [], []
    for place in places:
        planted = np.exp(logs)
        planted[place:] += rise
        faulty = LossRows(run.name, steps, np.log(planted), run.hash_steps, run.hashes)
        soon.append(_first(said_with(faulty, twins), steps, int(place)))
        late.append(_first(said_alone(steps, planted), steps, int(place)))
    return Backtest(rise, len(places), int(np.isfinite(soon).sum()), int(np.isfinite(late).sum()), _median(soon),
                    _median(late))  # fmt: skip


def said_with(run: LossRows, twins: Sequence[tuple[LossRows, Pair]]) -> list[int]:
    """Steps at which the twins let it be said that the run's loss rose, and the run's own doing was not ruled out."""
    return [told_at(p.episode) for p in partings(controls(run, twins)) if p.moved is not False]


def said_alone(steps: Any, losses: Any) -> list[int]:
    """Steps at which the loss by itself was said to have risen. steps, losses: [n]."""
    series = Series(LOSS)
    series.feed(steps, losses)
    return [e.noticed for e in series.episodes() if e.side > 0 and not e.lone]


def _first(said: list[int], steps: Any, place: int) -> float:
    """Rows from the place to the first word of it; infinite where there is none."""
    after = [step for step in said if step >= steps[place]]
    return float(np.searchsorted(steps, min(after)) - place) if after else np.inf


def _median(delays: list[float]) -> float | None:
    middle = float(np.quantile(delays, 0.5, method="inverted_cdf"))
    return middle if np.isfinite(middle) else None
