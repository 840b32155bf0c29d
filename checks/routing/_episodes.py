"""Spells of windows in which a layer or an expert is beyond its limit, and what their alarms have in common.

Legend: w windows, L layers with a router.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Masked
from checks.ground import Spell, unexplained
from checks.masking import quiet
from checks.reading import vector
from checks.robust import Floats, best_split, excursions, segmented_baseline
from checks.routing._loads import Loads

if TYPE_CHECKING:
    from trainvitals.store import Run

MIN_OWN = 8
"""Windows before a run's own level is known."""
MIX_NOTE = 0.1
"""Total variation distance from which on a change of the data is named."""


@dataclass(frozen=True, slots=True, order=True)
class Episode:
    """Windows in which one layer, or one of its experts, was beyond its limit."""

    first: int
    last: int
    recovered: bool
    layer: int
    expert: int = -1
    """-1 for the whole layer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an episode begins and ends."""

    own: Callable[[Floats, Floats], Floats]
    """Makes the run's own limit of the median and sigma of the windows before."""
    margin: float
    """An episode ends below that median plus this."""
    absolute: float
    """Limit in any run."""
    windows: int
    """Windows whose median is usual."""


def episodes(run: Run, loads: Loads, values: Floats, limits: Limits) -> tuple[list[Episode], tuple[Masked, ...]]:
    """Where three of four windows are above the absolute limit or above what is usual in this run, earliest first.

    values: [w, L]. Planned events excuse an episode, and come second.
    """
    starts = quiet(run, "routing").level_rows(loads.first)
    center, sigma = segmented_baseline(values, starts, window=limits.windows, min_rows=MIN_OWN)
    limit, calm = limits.own(center, sigma), center + limits.margin
    # Where nothing in this run is known yet, only the absolute limit holds.
    limit, calm = (np.fmin(np.where(np.isfinite(x), x, np.inf), limits.absolute) for x in (limit, calm))
    over = values > limit
    return excused(
        run,
        loads,
        [
            Episode(e.first, e.last, e.recovered, int(layer))
            for layer in np.flatnonzero(over.any(axis=0))
            for e in excursions(values[:, layer], over[:, layer], calm[:, layer], k=3, n=4, calm_rows=3)
        ],
    )


def excused(run: Run, loads: Loads, found: list[Episode]) -> tuple[list[Episode], tuple[Masked, ...]]:
    """Episodes that no planned event explains, earliest first, and the events that explained the others."""
    kept, masked = unexplained(found, quiet(run, "routing"), lambda e: (loads.first[e.first], loads.last[e.last]))
    return sorted(kept), masked


def sustained(values: Floats, found: list[Episode]) -> float:
    """The largest median of an episode's values [w, L]."""
    return max(float(np.median(values[e.first : e.last + 1, e.layer])) for e in found)


@dataclass(frozen=True, slots=True)
class Course:
    """Episodes of one kind, earliest first, told as one."""

    loads: Loads
    episodes: list[Episode]
    spell: Spell
    mix_shift: float | None
    """Total variation distance between the domain shares before and after the onset; None where unknown."""

    @property
    def born(self) -> bool:
        """Beyond the limit from the first window on."""
        return self.episodes[0].first == 0

    @property
    def layers(self) -> list[str]:
        """Layers affected, the first mover first."""
        return list(dict.fromkeys(self.loads.layers[e.layer] for e in self.episodes))

    @property
    def details(self) -> dict[str, object]:
        """What an alarm about layers keeps, as JSON types."""
        return {"layers": self.layers, "mix_shift": self.mix_shift, "rows_per_window": self.loads.rows_per_window}

    def evidence(self, signal: str) -> list[Evidence]:
        """The first episodes in a signal by layer."""
        steps = [(int(self.loads.first[e.first]), int(self.loads.last[e.last])) for e in self.episodes[:20]]
        return [Evidence(signal, s, self.loads.layers[e.layer]) for s, e in zip(steps, self.episodes, strict=False)]

    def onset(self, what: str) -> str:
        """How the onset was located in `what`."""
        return "over from the first window" if self.born else f"best two-level split of {what} around the first window"

    @property
    def mix_sentence(self) -> str:
        """What a simultaneous change of the data says about a router."""
        if self.mix_shift is None or self.mix_shift < MIX_NOTE:
            return ""
        return (
            f" The domain mix changed by {self.mix_shift:.2f} at the same time: a new mix moves loads without any "
            "fault of the router, so look at data.mix first."
        )


def course(run: Run, loads: Loads, found: list[Episode], expert: int | None) -> Course:
    """How episodes went. The onset is that of the first one's load: of one expert, or of all where None."""
    head = found[0]
    first = int(loads.first[0]) if head.first == 0 else _onset(run, loads, head, expert)
    spell = Spell(first, max(int(loads.last[e.last]) for e in found), any(not e.recovered for e in found))
    return Course(loads, found, spell, _mix_shift(run, first, 4 * int(loads.last[0] - loads.first[0] + 1)))


def _onset(run: Run, loads: Loads, head: Episode, expert: int | None) -> int:
    """First step of the change: best two-level split of the rows around an episode's first window."""
    low, high = max(head.first - 4, 0), min(head.first + 4, head.last)
    rows = run.array("router/tokens", steps=(int(loads.first[low]), int(loads.last[high])))
    tokens = np.nan_to_num(rows.values[:, head.layer])
    p = tokens / np.maximum(tokens.sum(axis=-1, keepdims=True), 1)
    values = p[:, expert] if expert is not None else -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1)
    return int(rows.steps[best_split(values)])


def _mix_shift(run: Run, step: int, around: int) -> float | None:
    data = vector(run, "data/domain_tokens")
    if not len(data):
        return None
    before = np.nansum(data.values[(data.steps >= step - around) & (data.steps < step)], axis=0)
    after = np.nansum(data.values[(data.steps >= step) & (data.steps < step + around)], axis=0)
    if not before.sum() or not after.sum():
        return None
    return float(0.5 * np.abs(before / before.sum() - after / after.sum()).sum())
