"""Spells of windows in which a layer or an expert is beyond its limit, and what their alarms have in common.

Legend: w windows, L layers with a router.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Masked
from checks.ground import Ground, Spell, unexplained
from checks.masking import Quiet, quiet
from checks.reading import remember
from checks.robust import Floats, best_split, excursions, held_level, segmented_baseline
from checks.routing._domains import Mix, distance
from checks.routing._loads import Loads
from checks.routing._mix import UNSEEN, Account, explain

if TYPE_CHECKING:
    from trainvitals.store import Run

MIN_OWN = 8
"""Windows before a run's own level is known."""
MIX_NOTE = 0.1
"""Total variation distance from which on a change of the data is named."""
BEFORE, GAP, EARLY = 32, 2, 8
"""Windows before an onset whose mix is the earlier one, those that may already be mixed, and those of the later one."""


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
    absolute: float | Floats
    """Limit in any run, or in each window [w, 1]; infinite where only the run's own holds."""
    windows: int
    """Windows whose median is usual."""


def episodes(run: Run, loads: Loads, values: Floats, limits: Limits) -> tuple[list[Episode], tuple[Masked, ...]]:
    """Where three of four windows are above the absolute limit or above what is usual in this run, earliest first.

    values: [w, L]. Planned events excuse an episode, and come second.
    """
    starts = _quiet(run).level_rows(loads.first)
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
    kept, masked = unexplained(found, _quiet(run), lambda e: (loads.first[e.first], loads.last[e.last]))
    return sorted(kept), masked


def _quiet(run: Run) -> Quiet:
    return remember(run, "quiet routing", lambda: quiet(run, "routing"))


def sustained(values: Floats, found: list[Episode]) -> float:
    """The highest level that three of four windows of an episode reached: it never falls as windows come. [w, L]."""
    return max(held_level(values[e.first : e.last + 1, e.layer], *_three_of(e.last + 1 - e.first)) for e in found)


def _three_of(windows: int) -> tuple[int, int]:
    return min(3, windows), min(4, windows)


@dataclass(frozen=True, slots=True)
class Course:
    """Episodes of one kind, earliest first, told as one."""

    loads: Loads
    episodes: list[Episode]
    spell: Spell
    account: Account
    before: Floats | None
    """[D] mix of the windows before the onset; None where unknown."""
    after: Floats | None
    """[D] mix of the first windows since."""
    unseen: float
    """How little of the mix since then was ever seen, 0 to 1; in the layer that moved first."""

    @property
    def born(self) -> bool:
        """Beyond the limit from the first window on."""
        return self.episodes[0].first == 0

    @property
    def layers(self) -> list[str]:
        """Layers affected, the first mover first."""
        return list(dict.fromkeys(self.loads.layers[e.layer] for e in self.episodes))

    @property
    def mix_shift(self) -> float | None:
        """Total variation distance between the domain shares before and after the onset; None where unknown."""
        if self.before is None or self.after is None:
            return None
        return float(distance(self.before, self.after))

    @property
    def details(self) -> dict[str, object]:
        """What an alarm about layers keeps, as JSON types."""
        known = {"top_k": self.loads.top_k, "top_k_known": self.loads.top_k_known}
        return {"layers": self.layers, "mix_shift": self.mix_shift, "rows_per_window": self.loads.rows_per_window,
                "mix_recorded": self.account.explained is not None, "mix_unseen": self.unseen, **known}

    def evidence(self, signal: str) -> list[Evidence]:
        """The first episodes in a signal by layer."""
        steps = [(int(self.loads.first[e.first]), int(self.loads.last[e.last])) for e in self.episodes[:20]]
        return [Evidence(signal, s, self.loads.layers[e.layer]) for s, e in zip(steps, self.episodes, strict=False)]

    def onset(self, what: str) -> str:
        """How the onset was located in `what`."""
        return "over from the first window" if self.born else f"best two-level split of {what} around the first window"

    @property
    def moved(self) -> str:
        """The domains that moved most, as words, where the mix moved at the onset; else empty."""
        mix, before, after = self.account.mix, self.before, self.after
        if mix is None or before is None or after is None or (self.mix_shift or 0.0) < MIX_NOTE:
            return ""
        return mix.moved(before, after)

    @property
    def into_the_unseen(self) -> bool:
        """Whether the mix moved to one of which this run cannot say what loads it asks for."""
        return self.unseen > UNSEEN and bool(self.moved)

    @property
    def lead(self) -> str:
        """How a summary begins where the mix moved to one of which too little was seen."""
        return f"The mix moved ({self.moved}), and what that asks for is not known; " if self.into_the_unseen else ""

    @property
    def mix_sentence(self) -> str:
        """What the mix, or that it is not known, says about an alarm."""
        if self.account.explained is None:
            return f" {self.account.missing} So the data may be the cause."
        if self.into_the_unseen:
            return (" Too little was seen of these domains to know their experts, so text that asks for them and a "
                    "router that fails look alike.")  # fmt: skip
        if self.moved:
            return (f" The mix moved at the same time ({self.moved}); what it asks for is known from before, and is "
                    "taken out.")  # fmt: skip
        return " The mix of domains stayed as it was, and does not explain it." if self.before is not None else ""

    @property
    def log_sentence(self) -> str:
        """What to record so that the next answer is surer; empty where nothing is missing."""
        if self.account.mix is None:
            return (" Let batches carry their domain (attach with domains={name: share}), so that loads can be held "
                    "against the mix.")  # fmt: skip
        if self.into_the_unseen:
            return " Route a batch of the earlier mix through it: a healthy router spreads that as before."
        return ""


def course(run: Run, loads: Loads, found: list[Episode], expert: int | None) -> Course:
    """How episodes went. The onset is that of the first one's load: of one expert, or of all where None."""
    head = found[0]
    first = int(loads.first[0]) if head.first == 0 else _onset(run, loads, head, expert)
    spell = Spell(first, max(int(loads.last[e.last]) for e in found), any(not e.recovered for e in found))
    account = explain(run)
    unseen = float(account.explained.unseen[early(head), head.layer].mean()) if account.explained is not None else 0.0
    before, after = mixes(account.mix, head, unlike=unseen > UNSEEN)
    return Course(loads, found, spell, account, before, after, unseen)


def mixes(mix: Mix | None, head: Episode, unlike: bool = False) -> tuple[Floats | None, Floats | None]:
    """Mean mix of the windows before an episode and of its first ones; None where there are none, or no mix.

    unlike: of those before, the last whose mix was another one, however long ago that was.
    """
    if mix is None:
        return None, None
    after, earlier = mix.mean(early(head)), np.arange(max(head.first - GAP, 0))
    if unlike:
        earlier = earlier[distance(mix.shares[earlier], after) > MIX_NOTE]
    before = mix.mean(earlier[-BEFORE:])
    return before if np.isfinite(before).all() else None, after if np.isfinite(after).all() else None


def early(head: Episode) -> slice:
    """The first windows of an episode: what is said of them stays."""
    return slice(head.first, min(head.first + EARLY, head.last + 1))


def _onset(run: Run, loads: Loads, head: Episode, expert: int | None) -> int:
    """First step of the change: best two-level split of the rows around an episode's first window."""
    low, high = max(head.first - 4, 0), min(head.first + 4, head.last)
    rows = run.array("router/tokens", steps=(int(loads.first[low]), int(loads.last[high])))
    tokens = np.nan_to_num(rows.values[:, head.layer])
    p = tokens / np.maximum(tokens.sum(axis=-1, keepdims=True), 1)
    values = p[:, expert] if expert is not None else -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1)
    return int(rows.steps[best_split(values)])


def unseen(ground: Ground, c: Course, does: str) -> Finding:
    """The answer where loads moved with a mix of which too little is known, and no further than that may bring."""
    return ground.unknown(
        f"{c.lead}the router of layer {c.layers[0]} {does} {c.spell.words}.",
        "The mix may ask for it, or the router may be at fault; the change is not large enough to tell.",
        "Log loads by domain from a mixed run on (the tap does), or route a batch of the earlier mix through it.",
    )
