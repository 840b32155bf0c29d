"""loss.plateau: a loss that stops falling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Spell
from checks.loss._signal import INSTEAD
from checks.loss._stream import Stream, span_words, too_few, training
from checks.reading import has, vector
from checks.registry import check
from checks.stream.slope import KEPT_SLOPE

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured: never in 38,512 healthy rows; loss held flat was found in 12 of 12 places after 0.23 (calm logs) to "
    "0.65 (noisy ones) of the rows before"
)
UNIT = "of the slope before"

BENDS = 0.003
"""Mean rise of the rows that are compared, in log units, beyond which a jump or climb says more than their slope."""


@check("loss.plateau", area="loss", reads=("loss/train",), uses=("lr/used",), instead=INSTEAD,
       refs=("https://arxiv.org/abs/2001.08361",))  # fmt: skip
def plateau(run: Run) -> Iterator[Finding]:
    """The loss has lost most of its slope in log time.

    Why it matters: a run that learns nothing more looks calm on every other curve. How to read it: at every 5 % of
    growth, the slope over the last fifth to half of the run against that over the same stretch before it; a plateau
    keeps less than 0.3 of it, by 3 standard errors. Where the learning rate changed, or the loss rose or
    stood still to the last digit meanwhile, the answer is unknown.
    """
    stream = training(run)
    if (few := too_few(stream)) is not None:
        yield few
        return
    p = stream.series.plateau[0]
    ground = stream.ground(Threshold(KEPT_SLOPE, None, UNIT, SOURCE))
    found, ended = int(p["flat_since"]), int(p["ended"])
    why = _why_not(run, stream, int(p["flat_low"]), int(p["seen"])) if found >= 0 else ""
    if found >= 0 and not why:
        kept = float(p["after"] / p["before"]) if p["before"] else 0.0
        spell = Spell(found, ended if ended >= 0 else stream.series.last_step, ended < 0)
        yield ground.alarm(
            f"{stream.signal} has kept {100 * max(kept, 0.0):.0f} % of its slope since about step {found:,}"
            + (", to the last step." if ended < 0 else f"; it fell again by step {ended:,}."),
            Statistic("slope kept", kept, UNIT),
            spell,
            level="warn",
            evidence=[stream.signal],
            began=(int(p["flat_low"]), int(p["seen"])),
            means="The run learns little or nothing more: a rate too low, frozen weights, data that repeats, or an "
            "optimizer state that was lost.",
            do=f"Look at learning rate, gradient norms and data around step {found:,}.",
            details={"noticed": int(p["seen"]), "z": float(p["z"])},
        )
    elif int(p["answered"]) == 0 or found >= 0:
        yield ground.unknown(
            f"Whether {stream.signal} lost its slope cannot be told: {why or 'too few or too noisy rows'}.",
            "A slope in log time needs several times its standard error before it can be compared.",
        )
    else:
        yield ground.passed(
            f"{stream.signal} keeps its slope in log time (compared {int(p['answered']):,} times).",
            Statistic("largest loss of slope", float(p["largest"]), "standard errors"),
            "No plateau that 3 standard errors would show.",
        )


def _why_not(run: Run, stream: Stream, first: int, last: int) -> str:
    """What else takes the slope off a curve in these steps; "" for nothing."""
    if _rate_moved(run, first, last):
        return "the learning rate changed at the same time"
    if any(r.first <= last and first <= r.last for r in stream.series.stuck()):
        return "the loss printed the same number for a while"
    steps = max(last - first, 1)
    bends = [e for e in stream.series.episodes() if e.side > 0 and (e.sudden or e.failed is not None)
             and e.onset_low <= last and first <= e.last
             and abs(e.effect) * (min(e.last, last) - max(e.onset, first) + 1) > BENDS * steps]  # fmt: skip
    return f"the loss rose at {span_words(bends[0])}, which bends the line through these rows" if bends else ""


def _rate_moved(run: Run, first: int, last: int) -> bool:
    if not has(run, "lr/used"):
        return False
    rows = vector(run, "lr/used")
    inside = (rows.steps >= first) & (rows.steps <= last)
    rates = rows.values[inside][:, 0] if rows.values.ndim == 2 and rows.values.shape[1] else rows.values[inside]
    return bool(len(rates) and rates.min() < 0.9 * rates.max())
