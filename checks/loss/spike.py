"""loss.spike: sudden jumps of the training loss that come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic
from checks.ground import Ground
from checks.loss._signal import INSTEAD
from checks.loss._stream import AT_MOST, Stream, brief, judged, span_words, tell, too_few, training
from checks.registry import check
from checks.stream.book import open_book
from checks.stream.excuse import masked_words
from checks.stream.series import Episode

if TYPE_CHECKING:
    from trainvitals.store import Run

LEAD_ROWS = 5
"""Rows before a loss spike in which its gradient may already move: BLOOM-176B's moved 4 before
(https://github.com/bigscience-workshop/bigscience/blob/master/train/tr11-176B-ml/chronicles.md)."""


@check(
    "loss.spike",
    area="loss",
    reads=("loss/train",),
    uses=("grad/norm",),
    instead=INSTEAD,
    needs=("nonfinite", "sampled", "last", "averaged", "rounded"),
    refs=("https://doi.org/10.1145/3097983.3098144", "https://arxiv.org/abs/2501.00656"),
)
def spike(run: Run) -> Iterator[Finding]:
    """The loss jumps out of its trend and comes back.

    Why it matters: a spike costs the progress since its onset, and may not come back the next time. How to read it:
    rows in sequence that the run's own tail does not explain; one row alone is a warning at most, and only above x1.5,
    because healthy rank-local losses reach +37 % for one row; two to seven rows fail above x1.5, eight above 2 %. One
    that is not back after 20 to 100 rows is told by loss.divergence.
    """
    stream = training(run)
    if (few := too_few(stream)) is not None:
        yield few
        return
    found, masked, events = judged(run, stream, 1)
    alarms = [e for e in found if brief(e)]
    steps, z = stream.series.notes()
    told = {e.onset for e in alarms}
    alone = [int(s) for s, score in zip(steps, z, strict=True) if score > 0 and int(s) not in told]
    ground = stream.ground(masked=events, isolated_rows=len(alone), isolated_at=alone[-50:], spikes=len(alarms))
    if not alarms:
        stood = f"; {len(alone)} single row{'s' if len(alone) > 1 else ''} stood out and came back" if alone else ""
        top = float(stream.series.state[0]["top"])
        yield ground.passed(
            f"No loss spike in {stream.series.rows:,} rows{stood}{stream.words}."
            + masked_words([e for e in masked if brief(e)], events),
            Statistic("largest jump of a single row", top, "deviations"),
            "Single rows that stand out and come back are unusual batches.",
            details={"gradient_known": open_book(run).one("grad/norm") is not None},
        )
    worst = sorted(alarms, key=lambda e: (e.failed is None, -e.peak))[:AT_MOST]
    for e in sorted(worst, key=lambda e: e.onset):
        yield _alarm(run, ground, stream, e)


def _alarm(run: Run, ground: Ground, stream: Stream, e: Episode) -> Finding:
    gradient = _gradient(run, e)
    lead = "" if gradient is None else f" The gradient norm left its trend at step {gradient.onset:,}."
    rows = f"{e.rows:,} row{'' if e.rows == 1 else 's'}"
    state = "not back at the last step" if e.ongoing else f"back after {rows}"
    return tell(
        ground,
        stream,
        e,
        f"Loss spike at {span_words(e)}: {e.percent(e.peak)} at its highest, {state}{stream.words}.{lead}",
        "fail" if e.failed is not None else "warn",
        "A single row far above its neighbours: a batch, a rank or a log line." if e.lone else
        "The optimizer took a step that hurt the model." if not e.ongoing else
        "The model has lost what it had learnt, and has not found back yet.",
        f"Look at the batches of steps {max(e.onset_low - 1, 0):,} to {e.onset_high:,}"
        + (" and at the layer whose gradient moved first." if gradient else ".")
        + (" If it recurs, restart some 100 steps before and skip these batches (PaLM, "
           "https://arxiv.org/abs/2204.02311, section 5.1)." if e.failed is not None else ""),
        evidence=["grad/norm"] if gradient else [],
    )  # fmt: skip


def _gradient(run: Run, e: Episode) -> Episode | None:
    """The gradient's episode of the same time."""
    series = open_book(run).one("grad/norm")
    near = [g for g in (series.episodes() if series else []) if g.side > 0 and g.onset_low <= e.last
            and g.last >= e.onset_low - LEAD_ROWS]  # fmt: skip
    return min(near, key=lambda g: g.onset, default=None)
