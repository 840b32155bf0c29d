"""What the checks of the loss share: the training loss under the scan, what explains an episode, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.finding import Evidence, Finding, Level, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.loss._signal import PER_TOKEN, RETURNED
from checks.masking import Quiet, quiet
from checks.reading import has, remember, vector
from checks.stream.book import open_book
from checks.stream.excuse import explained, split
from checks.stream.layout import LEAST_ROWS, LOSS
from checks.stream.series import Episode, Series, Stuck

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured: no alarm in 38,512 healthy rows (llm.c 124M, nanoGPT, 18 multi-power-law curves; below 7.8 per 100,000 "
    "at 95 %), 0-3 warnings per 100,000 and no failure in 851,450 simulated rows; "
    "see docs/checks.md"
)
THRESHOLD = Threshold(100 * LOSS.warn, 100 * LOSS.fail, "% off the trend", SOURCE)
COARSEST = 0.05
"""A pass needs a log in which a lasting rise of this size would have shown nine times in ten; of a calmer one it names
the smaller rise. Measured on rows of 1.5 % noise: 17 % can be told after 40 rows, 5.5 % after 200, 3.2 % after 500 and
1.5 % after 2,000. Convention: 2 % would fail and 5 % is what a reader would not want to have missed, so below that a
pass that names its size is an answer, and above it there is none."""
COARSEST_RAW = 2 * LOSS.raw_fail
"""The same in deviations of a row, where a ratio has no meaning."""
STUCK_ROWS = 16
"""Rows behind a run of equal values in which the first true ones look like a change."""
STUCK_SCALE = 256
"""The noise is read off so many differences: equal values among them make the true rows behind look wild, until half
are true again. What is as high as a spike that fails is told all the same."""
PATIENCE_ROWS = 100
AT_MOST = 10
FALL_PER_DECADE = 0.10
"""By how much a loss may fall, in log units, where the learning rate falls to a tenth: 3-5 % were measured for each
factor of 0.3 on multi-power-law curves."""
ONSET = "fit of a line and curve in log time plus a step or ramp; 99 % interval (Hansen 2000)"


@dataclass(frozen=True, slots=True)
class Stream:
    """A loss under the scan."""

    signal: str
    label: str
    series: Series
    mask: Quiet

    @property
    def words(self) -> str:
        """What an answer adds where it rests on the returned loss."""
        return "" if self.signal != RETURNED else " (the loss as the model returned it; per token it is unknown)"

    @property
    def name(self) -> str:
        """Of the series in a sentence."""
        return f"{self.signal} of {self.label}" if self.label else self.signal

    def ground(self, threshold: Threshold = THRESHOLD, masked: tuple[Masked, ...] = (), **details: Any) -> Ground:
        """What answers on it rest on."""
        if threshold is THRESHOLD:
            bounds = self.series.bounds
            threshold = replace(THRESHOLD, warn=100 * bounds.warn, fail=100 * bounds.fail)
        return Ground(self.series.rows, threshold, masked, details)


def training(run: Run) -> Stream:
    """The training loss; without rows where it was never finite."""
    name = PER_TOKEN if has(run, PER_TOKEN) else RETURNED
    return Stream(name, "", open_book(run).one(name) or Series(LOSS), quiet(run, "loss"))


def returned(run: Run) -> Stream | None:
    """The loss as the model returned it, where the loss of each token is known beside it."""
    series = open_book(run).one(RETURNED) if has(run, PER_TOKEN) else None
    return None if series is None or not series.rows else Stream(RETURNED, "", series, quiet(run, "loss"))


def streams(run: Run, signal: str) -> list[Stream]:
    """A signal's series, by label."""
    mask = quiet(run, "loss")
    return [Stream(signal, label, s, mask) for label, s in open_book(run).of(signal).items() if s.rows]


def too_few(stream: Stream) -> Finding | None:
    """The answer where no trend can be known yet."""
    n = stream.series.rows
    if n >= LEAST_ROWS or stream.series.episodes():
        return None
    return stream.ground().unknown(
        f"{n} finite loss{'' if n == 1 else 'es'} {'is' if n == 1 else 'are'} too few to know a trend and its noise"
        f"{stream.words}.",
        "A loss is judged against the rows before it.",
        f"Wait for at least {LEAST_ROWS} logged steps.",
    )


def judged(run: Run, stream: Stream, side: int) -> tuple[list[Episode], list[Episode], tuple[Masked, ...]]:
    """Episodes of one side: unexplained, explained, and by what.

    A falling rate explains a fall up to its bound; a number that was stuck explains how true ones differ from it.
    """
    now = stream.series.last_step
    stuck = stream.series.stuck()

    def explain(e: Episode) -> tuple[Masked, ...]:
        by = explained(e, stream.mask, "loss", now) or _by_stuck(e, stuck)
        return by if by or side > 0 else _by_rate(run, e)

    return split((e for e in stream.series.episodes() if e.side == side), explain)


def _by_stuck(e: Episode, runs: list[Stuck]) -> tuple[Masked, ...]:
    behind = (r for r in runs if r.last <= e.onset_high and e.onset_row <= r.last_row + _blind_rows(r)
              and abs(e.effect) < LOSS.brief)
    inside = (r for r in runs if r.first <= e.onset <= r.last)
    return tuple(Masked("stuck_value", r.first, r.last) for r in (*behind, *inside))[:1]


def _blind_rows(run: Stuck) -> int:
    return STUCK_ROWS + min(run.rows, STUCK_SCALE) * 3 // 4


def brief(e: Episode) -> bool:
    """A spike: it came at once, and is back, or not older than what a spike may take."""
    return e.sudden and e.lasted <= min(max(e.first_row // 20, 20), PATIENCE_ROWS)


def resolution_words(series: Series) -> str:
    """What would have shown."""
    seen = series.resolution()
    if seen is None:
        return "No lasting change could have shown yet."
    shown = 100 * seen[0] if not series.raw else seen[0]
    size = f"{shown:,.0f}" if shown >= 100 else f"{shown:.2g}"
    size += " deviations of a row" if series.raw else " %"
    return f"A lasting rise of {size} over {seen[1]:,} rows would have shown nine times in ten."


def too_noisy(series: Series) -> bool:
    """Whether the noise hides what no pass may miss."""
    seen = series.resolution()
    return seen is None or seen[0] > (COARSEST_RAW if series.raw else COARSEST)


def tell(
    ground: Ground, stream: Stream, e: Episode, summary: str, level: Level, means: str, do: str,
    evidence: Iterable[Evidence | str] = (), details: Mapping[str, Any] | None = None,
) -> Finding:  # fmt: skip
    """One alarm for one episode."""
    spell = Spell(e.onset, e.last, e.ongoing)
    size = 100 * abs(float(np.expm1(min(e.effect, 50.0)))) if not e.raw else abs(e.effect) / max(e.scale, 1e-300)
    unit = "% off the trend" if not e.raw else "deviations of a row"
    return replace(ground, threshold=ground.threshold if not e.raw else _raw(stream.series)).alarm(
        summary,
        Statistic("mean change", size, unit),
        spell,
        level=level,
        evidence=[Evidence(stream.signal, spell.steps, stream.label or None), *evidence],
        began=(e.onset_low, e.onset_high),
        means=means,
        do=do,
        details={
            "onset": {"method": ONSET, "low": e.onset_low, "high": e.onset_high},
            "noticed": e.noticed, "failed_at": e.failed, "z": e.z, "peak_step": e.peak_step,
            "rows_off_trend": e.rows, **(details or {}),
        },
    )  # fmt: skip


def _raw(series: Series) -> Threshold:
    return Threshold(series.bounds.raw_warn, series.bounds.raw_fail, "deviations of a row", SOURCE)


def span_words(e: Episode) -> str:
    """When it began, with what is known of it."""
    if e.onset_low == e.onset_high == e.onset:
        return f"step {e.onset:,}"
    return f"step {e.onset:,} (between {e.onset_low:,} and {e.onset_high:,})"


def rate_falls(run: Run, e: Episode) -> tuple[int, float] | None:
    """Step from which the learning rate falls while an episode may have begun, and to what part; None where not."""
    steps, rates = remember(run, "first rate", lambda: _rates(run))
    # The loss answers a lower rate for a while: as long again as the onset's own uncertainty, at least 5 % of the run.
    reach = max(e.onset_high - e.onset_low, e.onset // 20, 1)
    a = int(np.searchsorted(steps, e.onset_low - reach))
    b = int(np.searchsorted(steps, e.last, side="right"))
    if b - a < 2:
        return None
    peak = int(rates[a:b].argmax())
    high, low = float(rates[a:b].max()), float(rates[a:b][peak:].min())
    return (int(steps[a + peak]), low / high) if high > 0 and low <= 0.98 * high else None


def _by_rate(run: Run, e: Episode) -> tuple[Masked, ...]:
    found = None if e.raw else rate_falls(run, e)
    if found is None or -e.effect > 0.03 - FALL_PER_DECADE * float(np.log10(max(found[1], 0.01))):
        return ()
    return (Masked("rate_falls", found[0], int(e.last)),)


def _rates(run: Run) -> tuple[Any, Any]:
    if not has(run, "lr/used"):
        return np.zeros(0, np.int64), np.zeros(0)
    rows = vector(run, "lr/used")
    column = rows.values[:, 0] if rows.values.ndim == 2 and rows.values.shape[1] else np.zeros(0)
    good = np.isfinite(column) if len(column) else np.zeros(0, bool)
    return (rows.steps[good], column[good]) if len(column) else (np.zeros(0, np.int64), column)


