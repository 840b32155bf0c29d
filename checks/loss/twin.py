"""loss.twin: a loss that leaves those of its twins, which were trained on the same data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.registry import check
from checks.twins.culprits import culprits
from checks.twins.domains import DomainParting, domain_partings
from checks.twins.judge import BOUNDS, LEAST_ROWS, Control, Parting, controls, partings
from checks.twins.known import known_twins, own_rows
from checks.twins.pair import Pair, numbers
from checks.twins.rows import LossRows
from trainvitals.errors import TrainVitalsError

if TYPE_CHECKING:
    from trainvitals.store import Run

THRESHOLD = Threshold(100 * BOUNDS.warn, 100 * BOUNDS.fail, "% off its twins",
                      "those of loss.divergence, on the loss less its twin's; see docs/twins.md")  # fmt: skip
LEAST_GAIN = 1.5
"""A twin that leaves more than two thirds of the noise adds nothing."""
MOST_NAMED = 5


@check("loss.twin", area="loss", optional=True,
       refs=("https://github.com/marin-community/marin/issues/1368",))  # fmt: skip
def twin(run: Run) -> Iterator[Finding]:
    """The loss leaves those of its twins: runs on the same data in the same order.

    Why it matters: most of a loss's noise is its data, and a twin has the same; what is left shows a lasting rise tens
    of times sooner. How to read it: each twin's loss is taken off, row by row, and the rest is judged as
    loss.divergence judges a loss. One twin alone can warn, because either of two runs may have moved; it fails from
    2 % where most of several twins agree. Asked only where twins are known: `trainvitals twins RUNS` finds them.
    """
    twins = known_twins(run)
    if not twins:
        return
    mine = own_rows(run)
    found = [c for c in controls(mine, twins) if (c.pair.noise_ratio or 0.0) >= LEAST_GAIN]
    ground = Ground(sum(len(c.rows.steps) for c in found), THRESHOLD, (), {
        "twins": [{"path": c.name, "offset_steps": c.pair.offset_steps, "noise_ratio": c.pair.noise_ratio,
                   "rows": len(c.rows.steps)} for c in found],
        "culprits": [c.to_json() for c in culprits(mine, [(t, p) for t, p in twins if p.usable])[:20]],
    })  # fmt: skip
    if not found:
        yield ground.unknown(
            f"{numbers(len(twins), 'twin')} of this run {'is' if len(twins) == 1 else 'are'} known, and none has "
            f"{LEAST_ROWS} rows in common that leave less noise.",
            "Without a twin the loss is judged by its own past alone.")  # fmt: skip
        return
    told = partings(found)
    alarms = [p for p in told if p.moved is not False]
    by_domain, looked = _domains(run, [(t, p) for t, p in twins if (p.noise_ratio or 0.0) >= LEAST_GAIN])
    yield from (_alarm(ground, p, _share_of(p, by_domain)) for p in alarms[:MOST_NAMED])
    hidden = [d for d in by_domain if not any(_together(d.parting, p) for p in alarms)]
    yield from (_domain_alarm(ground, d, looked) for d in hidden[:MOST_NAMED])
    if not alarms and not hidden:
        yield _calm(ground, found, len(told), looked)


def _domains(run: Run, twins: list[tuple[LossRows, Pair]]) -> tuple[list[DomainParting], int]:
    try:
        return domain_partings(run, twins)
    except TrainVitalsError:
        return [], 0  # The twin was moved since it was compared; `_calm` then speaks of no domain.


def _together(a: Parting, b: Parting) -> bool:
    """Whether two partings overlap in time."""
    return a.episode.onset_low <= b.episode.last and b.episode.onset_low <= a.episode.last


def _share_of(p: Parting, by_domain: list[DomainParting]) -> str:
    """Which domains left too, the furthest first."""
    those = sorted((d for d in by_domain if _together(d.parting, p)), key=lambda d: -d.parting.episode.effect)
    if not those:
        return ""
    named = ", ".join(f"`{d.domain:.40}` {_percent(d.parting)}" for d in those[:3])
    return f" By domain: {named}{f' and {len(those) - 3} more' if len(those) > 3 else ''}."


def _percent(p: Parting) -> str:
    e = p.episode
    return e.percent(e.lasting if e.ongoing else e.effect)


def _domain_alarm(ground: Ground, d: DomainParting, looked: int) -> Finding:
    e = d.parting.episode
    spell = Spell(e.onset, e.last, e.ongoing)
    doubt = "" if d.parting.moved else " Which of the two moved, two runs alone cannot tell."
    return ground.alarm(
        f"loss/domain of `{d.domain:.60}` left its twin {spell.words}: {_percent(d.parting)} off, on the same data; "
        f"the whole loss hides it.{doubt}",
        Statistic("mean change", 100 * abs(float(np.expm1(min(e.effect, 50.0)))), "% off its twin"),
        spell,
        level="warn",
        evidence=[Evidence("loss/domain", spell.steps, d.domain)],
        began=(e.onset_low, e.onset_high),
        means=f"One of {looked} domains that were compared: the data did not do it, for the twin saw the same.",
        do=f"Look at how `{d.domain:.60}` is read, labelled and weighted from step {e.onset:,} on.",
        details={"noticed": e.noticed, "z": e.z, "domain": d.domain, "moved": d.parting.moved},
    )  # fmt: skip


def _alarm(ground: Ground, p: Parting, by_domain: str) -> Finding:
    e = p.episode
    sure = p.moved is True and p.of > 1
    who = f"{p.agreed} of {numbers(p.of, 'twin')}" if p.of > 1 else "its twin"
    doubt = "" if p.moved else " Which of the two moved, two runs alone cannot tell."
    spell = Spell(e.onset, e.last, e.ongoing)
    return ground.alarm(
        f"loss/train left {who} {spell.words}: {_percent(p)} off, on the same data.{by_domain}{doubt}",
        Statistic("mean change", 100 * abs(float(np.expm1(min(e.effect, 50.0)))), "% off its twins"),
        spell,
        level="fail" if sure and e.failed is not None else "warn",
        evidence=[Evidence("loss/train", spell.steps)],
        began=(e.onset_low, e.onset_high),
        means="The data did not do it: the twin saw the same. The run itself changed, or its plan differs from the "
              "twin's from here on.",
        do=f"Compare the two runs' settings and learning rates at step {e.onset:,}; if they agree, go back to a "
           f"checkpoint before step {e.onset_low:,}.",
        details={"noticed": e.noticed, "z": e.z, "agreed": p.agreed, "of": p.of, "moved": p.moved},
    )  # fmt: skip


def _calm(ground: Ground, found: list[Control], theirs: int, domains: int) -> Finding:
    best = max(found, key=lambda c: c.pair.noise_ratio or 0.0)
    seen = best.series.resolution()
    if seen is None:
        return ground.unknown(f"Too few rows since the twins' gap settled: {best.series.rows:,}.",
                              "No change could have shown yet.")
    each = f" Each of {domains} domains does too, as far as its own noise lets that be seen." if domains else ""
    moved = f" {numbers(theirs, 'change')} of the gap came from the other side." if theirs else ""
    return ground.passed(
        f"loss/train stays with {numbers(len(found), 'twin')} over {len(best.rows.steps):,} shared rows. A lasting "
        f"rise of {100 * seen[0]:.2g} % over {seen[1]:,} rows would have shown, where it began after both had settled."
        f"{moved}{each}",
        Statistic("smallest lasting rise that would show", 100 * seen[0], "%"),
        "On the same data this run does as its twins do.",
    )  # fmt: skip
