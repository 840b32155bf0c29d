"""Which planned event explains an episode, and up to what effect. A mask explains; it never excuses for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from checks.finding import Masked
from checks.masking import BOUNDS, NEW_LEVEL, Quiet
from checks.stream.series import Episode

Explain = Callable[[Episode], tuple[Masked, ...]]


def explained(episode: Episode, mask: Quiet, area: str, now: int) -> tuple[Masked, ...]:
    """Events in whose window it may have begun, that can explain its size, and whose time is not over.

    Args:
        episode: off its trend, in log units or in deviations.
        mask: windows of the area's events.
        area: whose bounds hold.
        now: last step seen.
    """
    size = max(abs(episode.effect), abs(episode.lasting) if episode.ongoing else 0.0)
    found = []
    for span in mask.spans:
        up, down = BOUNDS.get(area, {}).get(span.kind, (1.0, 1.0))
        if episode.onset_low > span.until or episode.onset_high < span.step:
            continue
        bound = np.log(up) if episode.side > 0 else -np.log(max(down, 1e-30))
        if episode.raw:
            bound *= 20 * episode.scale  # 5 % of a usual loss is about a deviation of a row
        over = span.until < now and (episode.ongoing or episode.last > span.until)
        stays = span.kind in NEW_LEVEL.get(area, ()) or (span.kind == "warmup" and episode.side < 0)
        if size <= bound and (stays or not over):
            found.append(span)
    return tuple(found)


def split(
    episodes: Iterable[Episode], explain: Explain
) -> tuple[list[Episode], list[Episode], tuple[Masked, ...]]:
    """Episodes that nothing explains, those that something does, and the events that do."""
    kept: list[Episode] = []
    masked: list[Episode] = []
    events: dict[Masked, None] = {}
    for episode in episodes:
        by = explain(episode)
        (masked if by else kept).append(episode)
        events |= dict.fromkeys(by)
    return kept, masked, tuple(events)


def masked_words(masked: list[Episode], events: tuple[Masked, ...]) -> str:
    """What an answer adds where an event explained something: a sentence, or nothing."""
    if not masked:
        return ""
    largest = max(masked, key=lambda e: abs(e.effect))
    kinds = ", ".join(dict.fromkeys(f"{e.kind.replace('_', ' ')} at {e.step:,}" for e in events))
    return (f" {len(masked)} change{'s' if len(masked) > 1 else ''} explained by {kinds}, the largest "
            f"{largest.percent(largest.effect)} since step {largest.onset:,}.")  # fmt: skip
