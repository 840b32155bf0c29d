"""Gradient norms of the whole model and of its layers under the scan, and how layers that moved together are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.stream.book import open_book
from checks.stream.excuse import explained, split
from checks.stream.layout import LEAST_ROWS
from checks.stream.series import Episode, Series

if TYPE_CHECKING:
    from trainvitals.store import Run

ALL = "all layers"
TINY = 1e-29
LARGEST = 700.0
"""Logarithm beyond which a factor would overflow."""
APART_ROWS = 20
"""Layers whose episodes begin within so many rows are one alarm."""
ONSET = "fit of a line and curve in log time plus a step or ramp; 99 % interval (Hansen 2000)"


@dataclass(frozen=True, slots=True)
class Norms:
    """One series of norms."""

    signal: str
    label: str
    series: Series


@dataclass(frozen=True, slots=True)
class Moved:
    """One series' episode."""

    of: Norms
    episode: Episode

    @property
    def factor(self) -> float:
        """Mean norm over its trend, at its largest."""
        e = self.episode
        size = max(e.effect * e.side, e.peak * e.side if e.side > 0 else e.effect * e.side)
        return float(np.exp(min(size, LARGEST)))


def norms(run: Run, whole: str = "grad/norm", each: str = "grad/norm_by_layer") -> list[Norms]:
    """The whole model's norm first, then the layers' where they were logged."""
    book = open_book(run)
    total = book.one(whole)
    layers = [Norms(each, label, s) for label, s in book.of(each).items() if s.rows]
    return ([Norms(whole, ALL, total)] if total and total.rows else []) + layers


def too_few(ground: Ground) -> Finding:
    """The answer where too few rows of norms are finite."""
    return ground.unknown(
        f"{ground.n} finite gradient norm{'' if ground.n == 1 else 's'} {'is' if ground.n == 1 else 'are'} too few for "
        "a trend.",
        "A norm is judged against the rows before it.",
        f"Wait for at least {LEAST_ROWS} logged steps.",
    )


def moved(run: Run, known: list[Norms], side: int) -> tuple[list[Moved], list[Episode], tuple[Masked, ...]]:
    """Episodes of one side that nothing explains, those that an event does, and the events."""
    mask = quiet(run, "optimisation")
    found: list[Moved] = []
    excused: list[Episode] = []
    events: dict[Masked, None] = {}
    for of in known:
        now = of.series.last_step

        def explain(e: Episode, now: int = now) -> tuple[Masked, ...]:
            return explained(e, mask, "optimisation", now)

        kept, masked, by = split((e for e in of.series.episodes() if e.side == side), explain)
        found += [Moved(of, e) for e in kept]
        excused += masked
        events |= dict.fromkeys(by)
    return found, excused, tuple(events)


def grouped(found: list[Moved]) -> list[list[Moved]]:
    """Episodes that begin close to the one before, earliest first."""
    groups: list[list[Moved]] = []
    for m in sorted(found, key=lambda m: (m.episode.onset, m.of.label == ALL, -m.factor)):
        if groups and _close(groups[-1], m):
            groups[-1].append(m)
        else:
            groups.append([m])
    return groups


def _close(group: list[Moved], m: Moved) -> bool:
    rows = max(m.of.series.rows, 2)
    spacing = max(m.of.series.last_step / rows, 1.0)
    return m.episode.onset - group[-1].episode.onset <= APART_ROWS * spacing


def spell(group: list[Moved]) -> Spell:
    """From the first mover's onset to the last recovery."""
    return Spell(
        group[0].episode.onset, max(m.episode.last for m in group), any(m.episode.ongoing for m in group)
    )


def alarm(
    ground: Ground,
    group: list[Moved],
    summary: str,
    statistic: Statistic,
    *,
    failed: bool,
    means: str,
    do: str,
    details: Mapping[str, object],
) -> Finding:
    """One alarm for a group of layers, with what moved when."""
    first = group[0].episode
    return ground.alarm(
        summary,
        statistic,
        spell(group),
        level="fail" if failed else "warn",
        evidence=[
            Evidence(m.of.signal, (m.episode.onset, m.episode.last), None if m.of.label == ALL else m.of.label)
            for m in group[:20]
        ],
        began=(first.onset_low, first.onset_high),
        means=means,
        do=do,
        details={
            "order": [{"layer": m.of.label, "step": m.episode.onset, "factor": m.factor} for m in group[:100]],
            "onset": {"method": ONSET, "low": first.onset_low, "high": first.onset_high},
            "noticed": min(m.episode.noticed for m in group),
            **details,
        },
    )


def order_text(group: list[Moved]) -> str:
    """What moved first, in words."""
    layers = [m for m in group if m.of.label != ALL]
    if not layers:
        return "in the norm of all layers together"
    head = layers[0].episode.onset
    together = [spoken(m.of.label) for m in layers if m.episode.onset == head]
    if len(together) == len(layers) > 3:
        return f"all {len(layers)} affected layers moved together"
    return f"{', '.join(together[:3])}{' and others' if len(together) > 3 else ''} first"


def spoken(label: str) -> str:
    """A layer's label as words: `layer 3` for a bare number."""
    return f"layer {label}" if label.isdigit() else label


def frozen(known: list[Norms]) -> list[str]:
    """Layers whose norm was never above zero."""
    return [of.label for of in known if of.label != ALL and _never_alive(of.series)]


def _never_alive(series: Series) -> bool:
    state = series.state[0]
    newest = state["trail"][0][: min(int(state["trail_count"][0]), 64)]
    return not series.episodes() and bool(len(newest)) and bool((newest < np.log(TINY)).all())


