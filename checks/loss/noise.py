"""loss.noise: a training loss that scatters more, or less, from row to row than it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.loss._signal import INSTEAD
from checks.loss._stream import AT_MOST, ONSET, Stream, rate_falls, span_words, training
from checks.registry import check
from checks.stream.book import SCATTER, open_book
from checks.stream.excuse import split
from checks.stream.layout import LEAST_ROWS
from checks.stream.series import Episode
from checks.stream.slope import COARSE
from checks.stream.spread import GROUP, SPREAD

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured: no warning in 38,512 published healthy rows, 2 in 320,000 simulated ones; planted in published logs, x3 "
    "was found in 24 of 30 places after a median of 78 rows, for 60 rows in 13, x2 in 16, x0.4 in 19"
)
UNIT = "times the scatter before"
LEAST_POINTS = 3
"""Groups of rows that must show it: one or two calm or wild ones come back by themselves."""
BLIND = 4.0
"""A pass needs a log in which a scatter of so many times would have shown."""
EXPLAIN = ("stage_switch", "batch_size", "lr_restart", "warmup", "decay_start")


@check("loss.noise", area="loss", reads=("loss/train",), uses=("lr/used",), instead=INSTEAD,
       needs=("averaged", "sampled", "rounded"))  # fmt: skip
def noise(run: Run) -> Iterator[Finding]:
    """The loss scatters more, or less, from row to row than before.

    Why it matters: a run nears its limit of stability, a smaller batch, another mix within batches, or another way to
    average the loss show in the scatter before they show in the mean, or never in the mean. How to read it: the scan
    over logarithms of the scatter of 8 rows (second differences, so neither level nor slope counts); it warns from
    x1.8 and below x0.4. A spike scatters, too, and is told as one. Stages, batch sizes and warm-up explain it, and a
    falling learning rate explains a fall.
    """
    stream = training(run)
    series = open_book(run).one(SCATTER)
    rows = series.rows if series is not None else 0
    ground = Ground(stream.series.rows, Threshold(1.8, None, UNIT, SOURCE))
    r = stream.series.repeats[0]
    if (int(r["ties"]) + 1) / (int(r["rows"]) + 2) > COARSE:
        yield ground.unknown(
            "The log is printed too coarsely to tell how the loss scatters.",
            "Rounding is as large as the scatter.",
            "Print the loss with at least four decimals.",
        )
        return
    seen = series.resolution() if series is not None else None
    if series is None or rows < LEAST_ROWS or seen is None:
        yield ground.unknown(
            f"{ground.n} losses are too few to know how they scatter.",
            f"The scatter of {GROUP} rows is one point, and {LEAST_ROWS} are needed.",
        )
        return
    kept, _, events = split(series.episodes(), lambda e: _explained(run, stream, e))
    jumps = [e for e in stream.series.episodes() if e.sudden and not e.ongoing]
    alarms = [e for e in kept if not e.lone and e.rows >= LEAST_POINTS and not any(
        j.onset_low <= e.last and e.onset_low <= j.last + GROUP and e.last <= j.last + 2 * GROUP for j in jumps
    )][-AT_MOST:]  # fmt: skip
    ground = Ground(ground.n, ground.threshold, events, {"points": rows})
    for e in alarms:
        yield _alarm(ground, stream, e)
    if alarms:
        return
    shown = f"{1 + seen[0]:.2g} times the scatter over {GROUP * seen[1]:,} rows would have shown nine times in ten."
    if 1 + seen[0] > BLIND:
        yield ground.unknown(
            f"{stream.signal} shows no change of its scatter, but only {shown}",
            "Too few rows, or a scatter that changes by itself.",
        )
    else:
        yield ground.passed(
            f"{stream.signal} scatters as it did over {ground.n:,} rows{stream.words}. {shown}",
            Statistic("smallest rise of the scatter that would show", 1 + seen[0], UNIT),
            "Batches are as alike as they were.",
        )


def _explained(run: Run, stream: Stream, e: Episode) -> tuple[Masked, ...]:
    by = tuple(s for s in stream.mask.touching(e.onset_low, e.onset_high) if s.kind in EXPLAIN)
    return by if by or e.side > 0 or not rate_falls(run, e) else (Masked("rate_falls", e.onset_low, e.last),)


def _alarm(ground: Ground, stream: Stream, e: Episode) -> Finding:
    spell = Spell(e.onset, e.last, e.ongoing)
    factor = min(float(2.718281828459045 ** min(e.effect, SPREAD.fail)), 1e9)
    return ground.alarm(
        f"{stream.signal} {'scatters' if e.ongoing else 'scattered'} {factor:.2g} times as much from row to row "
        f"{'since' if e.ongoing else 'from'} {span_words(e)}"
        + ("." if e.ongoing else f" to {e.last:,}."),
        Statistic("scatter", factor, UNIT),
        spell,
        level="warn",
        evidence=[Evidence(stream.signal, spell.steps)],
        began=(e.onset_low, e.onset_high),
        means="Steps differ more: smaller or less alike batches, or a rate near the limit of stability."
        if e.side > 0 else "Steps differ less: larger batches, data that repeats, or the log averages over more.",
        do=f"Compare batch size, the mix within batches, what is averaged in the log, and the gradient norm before and "
        f"after step {e.onset:,}.",
        details={"onset": {"method": ONSET, "low": e.onset_low, "high": e.onset_high}, "noticed": e.noticed, "z": e.z},
    )  # fmt: skip
