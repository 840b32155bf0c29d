"""data.token_drift: token frequencies of a domain, against the run's own first windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import excursions
from trainvitals.formulas import REFERENCE_WINDOWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on samples of one Zipf vocabulary: 1 % of other text gives a distance of 0.05, 5 % gives 0.12; "
    "evidently alarms at 0.1: https://github.com/evidentlyai/evidently"
)
UNIT = "Jensen-Shannon distance"


@check(
    "data.token_drift",
    area="data",
    reads=("tokens/js",),
    refs=("https://github.com/evidentlyai/evidently", "https://arxiv.org/abs/2202.02766"),
)
def token_drift(
    run: Run,
    *,
    warn_distance: float = 0.05,
    fail_distance: float = 0.1,
    own_factor: float = 1.75,
    blind_distance: float = 0.3,
    min_later_windows: int = 3,
) -> Iterator[Finding]:
    """A domain's token frequencies move away from what they were in the first windows.

    Why it matters: another tokenizer, another language or boilerplate in a source changes the frequencies while the
    planned mix still looks right. How to read it: Jensen-Shannon distance (base 2) with the sampling noise
    subtracted. The limits are those of the run itself: `own_factor` times the largest distance among its reference
    windows, at least `warn_distance`. Documents come in bursts, so small windows scatter; where they scatter beyond
    `blind_distance` the answer is unknown.
    """
    drift = vector(run, "tokens/js")
    mask = quiet(run, "data")
    answers: list[Finding] = []
    blind: list[str] = []
    for column, label in enumerate(drift.labels):
        known = np.isfinite(drift.values[:, column])
        rows = Rows(drift.steps[known], drift.values[known, column])
        if len(rows) == 0:
            continue
        own = own_factor * float(rows.values[:REFERENCE_WINDOWS].max())
        if len(rows) < REFERENCE_WINDOWS + min_later_windows or own > blind_distance:
            blind.append(label)
            continue
        limits = max(warn_distance, own), max(fail_distance, 1.5 * own)
        answers.append(_judge(label, rows, limits, mask.level_steps))
    alarms = [f for f in answers if f.level != "pass"]
    details = {"too_few_tokens": blind}
    if alarms:
        yield from sorted(alarms, key=lambda f: f.steps or (0, 0))
    elif answers:
        top = max(answers, key=lambda f: f.statistic.value if f.statistic else 0.0)
        masked = tuple(m for f in answers for m in f.masked)
        yield Ground(sum(f.n for f in answers), top.threshold, masked, details).passed(
            f"Token frequencies of {len(answers)} domains stay with those of the start.",
            top.statistic,
            "The text inside the domains is of one kind throughout.",
        )
    else:
        yield Ground(len(drift), Threshold(warn_distance, fail_distance, UNIT, SOURCE), details=details).unknown(
            "Windows are too small or too few to see a drift of tokens.",
            "Windows of one and the same text differ by chance as much as a drift would.",
            "Wait for more windows, or let the token collector sum more steps per window.",
        )


def _judge(label: str, rows: Rows, limits: tuple[float, float], switches: tuple[int, ...]) -> Finding:
    warn, fail = limits
    over = rows.values > warn
    over[:REFERENCE_WINDOWS] = False
    masked: list[Masked] = []
    for e in excursions(rows.values, over, np.full(len(rows), warn), k=2, n=3, calm_rows=3):
        before = int(rows.steps[max(e.first - 1, 0)])
        first, last = int(rows.steps[e.first]), int(rows.steps[e.last])
        if planned := [s for s in switches if before <= s <= first]:
            masked.append(Masked("stage_switch", planned[0], last))
            continue
        ground = Ground(len(rows), Threshold(warn, fail, UNIT, SOURCE), tuple(masked))
        level = float(np.median(rows.values[e.first : e.last + 1]))
        return ground.alarm(
            f"Tokens of {label} changed between steps {before + 1:,} and {first:,}: distance {level:.2g} to the first "
            f"windows, {warn:.2g} is usual at most.",
            Statistic("Jensen-Shannon distance, median since the onset", level, "1"),
            Spell(before + 1, last, not e.recovered),
            evidence=[Evidence("tokens/js", (first, last), label)],
            means="The text of this domain is of another kind than at the start: language, format, tokenizer or "
            "source.",
            do=f"Compare documents of {label} before step {before:,} and after {first:,}; look for shards that begin "
            "there.",
            onset="first window above the limit; the change lies inside it",
        )
    top = Statistic(f"largest distance, {label}", float(rows.values[REFERENCE_WINDOWS:].max()), "1")
    return Ground(len(rows), Threshold(warn, fail, UNIT, SOURCE), tuple(masked)).passed(
        f"Tokens of {label} stay the same.", top, ""
    )
