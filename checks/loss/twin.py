"""loss.twin: a loss that leaves those of its twins, which were trained on the same data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.registry import check
from checks.twins.culprits import culprits
from checks.twins.judge import BOUNDS, LEAST_ROWS, Control, Parting, controls, partings
from checks.twins.known import known_twins, own_rows
from checks.twins.pair import numbers

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
    yield from (_alarm(ground, p) for p in alarms[:MOST_NAMED])
    if not alarms:
        yield _calm(ground, found, len(told))


def _alarm(ground: Ground, p: Parting) -> Finding:
    e = p.episode
    sure = p.moved is True and p.of > 1
    who = f"{p.agreed} of {numbers(p.of, 'twin')}" if p.of > 1 else "its twin"
    doubt = "" if p.moved else " Which of the two moved, two runs alone cannot tell."
    spell = Spell(e.onset, e.last, e.ongoing)
    return ground.alarm(
        f"loss/train left {who} {spell.words}: {e.percent(e.lasting if e.ongoing else e.effect)} off, on the same "
        f"data.{doubt}",
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


def _calm(ground: Ground, found: list[Control], theirs: int) -> Finding:
    best = max(found, key=lambda c: c.pair.noise_ratio or 0.0)
    seen = best.series.resolution()
    if seen is None:
        return ground.unknown(f"Too few rows since the twins' gap settled: {best.series.rows:,}.",
                              "No change could have shown yet.")
    moved = f" {numbers(theirs, 'change')} of the gap came from the other side." if theirs else ""
    return ground.passed(
        f"loss/train stays with {numbers(len(found), 'twin')} over {len(best.rows.steps):,} shared rows. A lasting "
        f"rise of {100 * seen[0]:.2g} % over {seen[1]:,} rows would have shown, where it began after both had settled."
        f"{moved}",
        Statistic("smallest lasting rise that would show", 100 * seen[0], "%"),
        "On the same data this run does as its twins do.",
    )  # fmt: skip
