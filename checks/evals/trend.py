"""The course of every task over many checkpoints: its band, the checkpoint where a fall began, and the best checkpoint.

    trends(read_evals(run))         # list of Trend, worst first

A fall is found by the scan of `checks.evals.scan` and must hold over the items, too: the same items before and behind
it, paired, over clusters where items share one. A task fails where that is no chance over all places and all tasks
(Holm), and is unknown where a fall of the margin could not have shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from checks.evals.best import Best, best_of
from checks.evals.course import Course, courses
from checks.evals.noise import NO_NOISE, Noise
from checks.evals.paired import ALPHA, holm, paired_difference
from checks.evals.scan import DRAWS, LEAST, Scan, null_p, scan, threshold
from checks.finding import Level
from trainvitals.evals import Evals

MARGIN, POWER = 0.02, 0.8
LASTING = 4
"""Checkpoints that a fall is taken to last, where it is said which one would have shown; convention."""
MOST_DRAWS = 100_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint on a task's course."""

    checkpoint: str
    step: int
    score: float
    """As it was measured."""
    low: float
    high: float
    """95 %: items as a sample of such items, and the noise of one checkpoint."""


@dataclass(frozen=True, slots=True)
class Fall:
    """A fall that lasts, or lasted a while."""

    last_good: str
    last_good_step: int
    start: str
    """The first checkpoint behind it."""
    start_step: int
    earliest: str
    latest: str
    """The first checkpoint behind the fall is one of these, 95 %."""
    earliest_step: int
    """Step of the checkpoint before `earliest`: what began the fall lies behind it."""
    latest_step: int
    size: float
    """Behind less before, negative."""
    interval: tuple[float, float]
    """95 %."""
    p: float
    """One-sided, of no fall, over all places."""
    p_holm: float
    """The same over all tasks, too."""
    recovered: bool
    """Whether the newest checkpoint is no worse than those before the fall."""


@dataclass(frozen=True, slots=True)
class Trend:
    """One task."""

    task: str
    level: Level
    reason: str
    family: str
    points: tuple[Point, ...]
    fall: Fall | None
    """The largest fall where it is more than chance by itself."""
    best: Best | None
    n: int
    clusters: int | None
    noise: float | None
    """Standard deviation of one checkpoint's score beside its course; None where it is not known."""
    detectable: float | None
    """Fall over four checkpoints that would have shown with 80 % chance."""

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals evals trend --json` prints it."""
        return asdict(self)


def trends(evals: Evals, margin: float = MARGIN, tasks: Sequence[str] = ()) -> list[Trend]:
    """Every task's course, worst first.

    Args:
        evals: of a run.
        margin: fall that must be able to show for a `pass`, as a share.
        tasks: names; all where empty.
    """
    return trends_of(courses(evals, tasks), margin)


def trends_of(found_courses: Iterable[Course], margin: float = MARGIN) -> list[Trend]:
    """The same of courses that are at hand; all of them are one run's, and counted as so many looks."""
    looked = [(course, *_looked(course)) for course in found_courses]
    known = [seen for _, seen, _ in looked if seen is not None]
    draws = int(min(max(DRAWS, 40 * len(known) / ALPHA), MOST_DRAWS)) if len(known) > 50 else DRAWS
    p = {id(course): max(null_p(seen.size, len(course.steps), draws), p_items)
         for course, seen, p_items in looked if seen is not None}  # fmt: skip
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    found = []
    for course, seen, _ in looked:
        if seen is None:
            found.append(_unresolved(course))
        else:
            found.append(_told(course, seen, p[id(course)], adjusted[id(course)], margin, len(known), draws))
    order = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}
    return sorted(found, key=lambda t: (order[t.level], t.fall.size if t.fall else 0.0, t.task))


def _looked(course: Course) -> tuple[Scan | None, float]:
    """The scan, and the p of its fall over items; none where noise is unknown."""
    if len(course.steps) < LEAST:
        return None, 1.0
    seen = scan(course.means_C, item_sd(course))
    if seen.sd == 0:
        return None, 1.0
    if not seen.place or course.scores_CI is None:
        return seen, 1.0 if not seen.place else 0.0
    return seen, _paired(course, seen)[2]


def item_sd(course: Course) -> float:
    """What the items of one checkpoint add to its mean: of neighbours' differences on the same items, the median."""
    if course.scores_CI is None or course.scores_CI.shape[1] < 2:
        return 0.0
    variances = [float((b - a).var(ddof=1)) for a, b in zip(course.scores_CI, course.scores_CI[1:], strict=False)]
    return float(np.sqrt(np.median(variances) / 2 / course.scores_CI.shape[1])) if variances else 0.0


def _paired(course: Course, seen: Scan) -> tuple[float, tuple[float, float], float]:
    """Size of the fall, its 95 % interval and one-sided p, over the same items before and behind."""
    low, high = max(0, seen.place - seen.reach), min(len(course.steps), seen.place + seen.reach)
    before, after = seen.place - low, high - seen.place
    beside = seen.sd * float(np.sqrt((1 / before + 1 / after) / 2))
    if course.scores_CI is None:
        size = float(course.means_C[seen.place : high].mean() - course.means_C[low : seen.place].mean())
        reach = float(stats.norm.ppf(1 - ALPHA / 2)) * beside * np.sqrt(2)
        return size, (size - reach, size + reach), 0.0
    first = course.scores_CI[low : seen.place].mean(axis=0, dtype=float)
    then = course.scores_CI[seen.place : high].mean(axis=0, dtype=float)
    d = paired_difference(first, then, course.clusters_I, Noise(beside, max(len(course.steps) - 3.0, 1.0)))
    if d.kind == "exact":
        return d.value, (d.low, d.high), d.p_worse
    reach = float(stats.t.ppf(1 - ALPHA / 2, max(d.df, 1.0))) * d.se
    return d.value, (d.value - reach, d.value + reach), d.p_worse


def _told(course: Course, seen: Scan, p: float, p_holm: float, margin: float, tasks: int, draws: int) -> Trend:
    count = len(course.steps)
    unit, word = (100, " points") if course.shares else (1, "")
    lasting = min(LASTING, count // 2)
    sizes = threshold(ALPHA / tasks, count, draws) + float(stats.norm.ppf(POWER))
    detectable = sizes * seen.sd * float(np.sqrt(2 / lasting))
    fall = _fall(course, seen, p, p_holm) if p <= ALPHA else None
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in course.notes)
    level: Level
    if fall is not None and course.scores_CI is None:
        level = "unknown"
        reason = (f"{unit * fall.size:+.3g}{word} {_where(fall)}: more than checkpoints wander (p {p:.2g}), and "
                  "whether it is more than chance of the items cannot be said without them.")  # fmt: skip
    elif fall is not None:
        level = "fail" if p_holm <= ALPHA else "warn"
        how = "no chance, over all places and tasks" if level == "fail" else \
            f"more than chance by itself (p {p:.2g}), and not over all tasks ({p_holm:.2g})"
        reason = f"{unit * fall.size:+.3g}{word} {_where(fall)}: {how}.{' It has recovered since.' * fall.recovered}"
    else:
        room = margin if course.shares else margin * max(float(course.raw_C.std()), 1e-12)
        level = "pass" if detectable <= room else "unknown"
        reason = f"No fall that is more than chance over {count} checkpoints"
        if level == "pass":
            reason += f"; one of {unit * detectable:.3g}{word} would have shown."
        else:
            reason += (f", and one of {unit * room:.3g}{word} could not have shown: {unit * detectable:.3g} is the "
                       "least. More checkpoints or items would tell.")  # fmt: skip
    return _trend(course, level, reason + notes, fall, seen.sd, detectable)


def _where(fall: Fall) -> str:
    if fall.earliest == fall.latest:
        return f"from {fall.last_good} to {fall.start}"
    return f"from {fall.start} on (it began between {fall.earliest} and {fall.latest}, 95 %)"


def _fall(course: Course, seen: Scan, p: float, p_holm: float) -> Fall:
    size, interval, _ = _paired(course, seen)
    low = max(0, seen.place - seen.reach)
    before, now = course.means_C[low : seen.place], course.means_C[-seen.reach :]
    reach = float(stats.norm.ppf(1 - ALPHA)) * seen.sd * np.sqrt(1 / len(before) + 1 / len(now))
    names, steps = course.checkpoints, course.steps
    return Fall(names[seen.place - 1], steps[seen.place - 1], names[seen.place], steps[seen.place], names[seen.first],
                names[seen.last], steps[seen.first - 1], steps[seen.last], size, interval, p, p_holm,
                bool(now.mean() > before.mean() - reach))  # fmt: skip


def _unresolved(course: Course) -> Trend:
    count = len(course.steps)
    why = f"{count} checkpoints that were measured alike are too few to know their noise: {LEAST} are needed" \
        if count < LEAST else f"All {count} checkpoints have nearly the same score, so their noise is not known"
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in course.notes)
    return _trend(course, "unknown", f"{why}.{notes}", None, None, None)


def _trend(course: Course, level: Level, reason: str, fall: Fall | None, sd: float | None, detectable: float | None
           ) -> Trend:
    items = 0 if course.scores_CI is None else course.scores_CI.shape[1]
    groups = None if course.clusters_I is None else len(np.unique(course.clusters_I))
    points = _points(course, sd or 0.0)
    return Trend(course.task, level, reason, course.family, points, fall, best_of(course, sd), items, groups, sd,
                 detectable)  # fmt: skip


def _points(course: Course, sd: float) -> tuple[Point, ...]:
    reach = float(stats.norm.ppf(1 - ALPHA / 2))
    found = []
    for at, score in enumerate(course.raw_C):
        items = 0.0
        if course.scores_CI is not None and course.scores_CI.shape[1] > 1:
            scores = course.scores_CI[at].astype(float)
            items = paired_difference(np.zeros(len(scores)), scores, course.clusters_I, NO_NOISE).se
        # Items and checkpoint noise share a part; both whole make the band a little wide.
        se = float(np.hypot(items, sd))
        found.append(Point(course.checkpoints[at], course.steps[at], float(score), float(score - reach * se),
                           float(score + reach * se)))  # fmt: skip
    return tuple(found)
