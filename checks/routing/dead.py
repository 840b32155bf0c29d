"""router.dead: experts that get no tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground
from checks.registry import check
from checks.robust import Floats, excursions, held_level, k_of_n
from checks.routing._domains import Mix, distance
from checks.routing._episodes import MIX_NOTE, Course, Episode, course, excused
from checks.routing._loads import MIN_WINDOWS, loads, no_choice, too_few
from checks.routing._mix import UNSEEN, Explained, explain

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention: below 1 % of the fair share; OLMoE's 1,024 experts on single-domain text had none "
    "(https://github.com/allenai/OLMoE), the hardest healthy case measured"
)
ALIVE = 0.1
"""Of the fair share: ten times that of a dead expert."""
ALIVE_WINDOWS = 3


@check(
    "router.dead",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens", "router/domain_tokens"),
    refs=("https://github.com/NVIDIA-NeMo/Automodel/issues/1232", "https://github.com/allenai/OLMoE"),
)
def dead(
    run: Run, *, share_of_fair: float = 0.01, windows_in_a_row: int = 3, fail_share: float = 0.1
) -> Iterator[Finding]:
    """An expert gets less than a hundredth of its fair share of tokens, for several windows.

    Why it matters: its parameters train no more, yet they are paid for. How to read it: windows hold at least 200
    tokens per expert, so a fair expert is not silent by chance. One dead expert is a warning; a layer that lost
    `fail_share` of its experts a failure. An expert that had tokens on another mix only, and of which the present mix
    asks nothing, rests: its domains are not in the data. It is told as dead where it stays silent when they return.
    """
    found = loads(run)
    if found is None:
        yield too_few()
        return
    if (answer := no_choice(found)) is not None:
        yield answer
        return
    account = explain(run)
    ratio, explained = found.ratio, account.explained
    spans = list(_silent(ratio, share_of_fair, windows_in_a_row))
    calm = _scattered(explained.mix) if explained is not None else 1
    smooth = _means(explained.mix.shares, calm) if explained is not None else np.zeros(0)
    due = [span if explained is None else _asked(ratio, explained, span, smooth, calm) for span in spans]
    silent, masked = excused(run, found, [episode for episode in due if episode is not None])
    ground = Ground(len(found.first), Threshold(share_of_fair, None, "of the fair share", SOURCE))
    if silent:
        yield _alarm(ground, course(run, found, silent, silent[0].expert), fail_share)
        return
    resting = sum(one is None and not span.recovered for one, span in zip(due, spans, strict=True))
    yield replace(ground, masked=masked).passed(
        f"{resting} expert{'s rest' if resting > 1 else ' rests'}: the present mix is not known to ask for more. Every "
        "other one gets tokens." if resting else "Every expert gets tokens.",
        Statistic(
            f"smallest load held by {windows_in_a_row} windows in a row",
            -held_level(-ratio, windows_in_a_row, windows_in_a_row),
            "of the fair share",
        ),
        "Tokens came with other text, and should come again when that returns." if resting
        else "No expert stands idle.",
        details={"rows_per_window": found.rows_per_window, "resting": resting},
    )  # fmt: skip


def _silent(ratio: Floats, share_of_fair: float, in_a_row: int) -> Iterator[Episode]:
    silent = ratio < share_of_fair
    calm = np.full(len(silent), -5 * share_of_fair)
    for layer, expert in zip(*np.nonzero(silent.any(axis=0)), strict=True):
        values, over = -ratio[:, layer, expert], silent[:, layer, expert]
        for e in excursions(values, over, calm, k=in_a_row, n=in_a_row, calm_rows=3):
            yield Episode(e.first, e.last, e.recovered, int(layer), int(expert))


def _asked(ratio: Floats, explained: Explained, span: Episode, smooth: Floats, calm: int) -> Episode | None:
    """The part of a silence since which tokens were due; None where the mix asked nothing of the expert.

    Nothing is asked of an expert that had tokens on another mix, never on one like the present, and of which the
    domains of the present mix are not known to ask. smooth: [w, D] mixes averaged over the `calm` windows that a mix
    needs to be told from another.
    """
    shares, first = explained.mix.shares, span.first
    present = shares[first : min(first + max(calm, ALIVE_WINDOWS), span.last + 1)].mean(axis=0)
    alike = distance(smooth[:first], present) < MIX_NOTE
    alive = ratio[:first, span.layer, span.expert] > ALIVE
    if (alive & alike).sum() >= ALIVE_WINDOWS or (alive & ~alike).sum() < ALIVE_WINDOWS:
        return span
    inside = slice(first, span.last + 1), span.layer
    asked = (explained.expected - explained.doubt)[*inside, span.expert] > ALIVE
    due = np.flatnonzero(k_of_n(asked | (explained.unseen[inside] > UNSEEN), ALIVE_WINDOWS, ALIVE_WINDOWS))
    if not len(due):
        return None
    return replace(span, first=first + int(due[0]) - ALIVE_WINDOWS + 1)


def _scattered(mix: Mix) -> int:
    """Windows over which a mix is to be averaged for its scatter to be half of `MIX_NOTE`; 32 at most."""
    steps = distance(mix.shares[1:], mix.shares[:-1])[: 8 * MIN_WINDOWS]
    noise = float(np.median(steps[np.isfinite(steps)])) / np.sqrt(2) if np.isfinite(steps).any() else 0.0
    return int(np.clip(np.ceil((2 * noise / MIX_NOTE) ** 2), 1, 32))


def _means(shares: Floats, windows: int) -> Floats:
    """[w, D] mean of each window and those before it, `windows` together at most."""
    sums = np.concatenate([np.zeros((1, shares.shape[1])), np.cumsum(np.nan_to_num(shares), axis=0)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - windows, 0)
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)[:, None]
    return means


def _alarm(ground: Ground, c: Course, fail_share: float) -> Finding:
    experts, layers = c.loads.experts, c.loads.layers
    now = [e for e in c.episodes if not e.recovered]
    worst = max(Counter(e.layer for e in now or c.episodes).values())
    many = worst >= max(2, fail_share * len(experts)) if len(experts) > 8 else worst >= 1
    names = [f"{layers[e.layer]}.{experts[e.expert]}" for e in c.episodes]
    steps = [(int(c.loads.first[e.first]), int(c.loads.last[e.last])) for e in c.episodes]
    evidence = [Evidence("router/load", span, name) for span, name in zip(steps, names, strict=True)]
    state = f"{len(now)} still are" if now else "all came back"
    return ground.alarm(
        c.lead + f"{len(names)} expert{'s' if len(names) > 1 else ''} {'silent' if c.lead else 'dead'} "
        f"{'from the start' if c.born else f'since step {c.spell.first:,}'}, first {evidence[0].place}; {state}.",
        Statistic("dead experts in the worst layer", worst, f"of {len(experts)}"),
        c.spell,
        level="fail" if many and now and not c.into_the_unseen else "warn",
        evidence=evidence[:20],
        means="These experts learn no more; the others do their work with less capacity." + c.mix_sentence,
        do=f"Check that the load-balancing loss or bias is on and weighted, and what changed at step "
        f"{c.spell.first:,}; restart before it, or re-initialise the dead experts from living ones." + c.log_sentence,
        details={
            "experts": names[:200],
            "rows_per_window": c.loads.rows_per_window,
            "mix_shift": c.mix_shift,
        },
        onset="silent from the first window"
        if c.born
        else "best two-level split of the expert's share around the first silent window",
    )
