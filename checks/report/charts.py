"""A signal as inline SVG: the mean of each bucket of steps as a line, between the smallest and the largest value.

No extreme is lost: a spike of one step in a million is a spike of the band. Buckets with NaN or infinity have a mark
below; where there are no rows, the line is broken. Colours are the page's, so that they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from checks.contamination.report.text import Html, plural, tag, text
from checks.report.figures import short
from trainvitals.errors import TrainVitalsError
from trainvitals.store.decimate import decimate

if TYPE_CHECKING:
    from trainvitals.store import Run

BUCKETS = 300
LEFT, RIGHT, TOP, WIDTH = 56.0, 22.0, 10.0, 760.0
BOTTOM, HALF_A_DIGIT = 24.0, 4.0
LOG_FROM = 20.0
"""Ratio of the largest to the smallest value from which the axis is logarithmic."""
GAP = 8.0
"""Median distances of rows that make a gap."""
MOST_BANDS = 40
MOST_SHADED = 0.8
"""Share of the width from which a bar above the chart stands for steps: where all is shaded, nothing is."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A slice of a signal, in buckets."""

    name: str
    unit: str
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    nonfinite: NDArray[np.int64]
    rows: int
    """That the buckets were made of."""
    labels: int = 1
    """Labels that the band is over."""


class Band(NamedTuple):
    """Steps to shade."""

    first: int
    last: int
    css: str
    says: str


def curve(run: Run, signal: str, steps: tuple[int, int] | None = None, label: str | None = None) -> Curve | None:
    """What there is to draw of a signal; None where it has no rows there.

    A signal with axes and no label is drawn over all its labels: their mean, between their smallest and largest.
    """
    try:
        data = run.array(signal, steps=steps)
    except TrainVitalsError:
        return None
    if not len(data):
        return None
    values = np.asarray(data.values, np.float64).reshape(len(data), -1)
    there = np.ones(values.shape, bool) if data.present is None else data.present.reshape(values.shape)
    names = [""]
    for axis in data.labels:
        names = [f"{before}.{name}" if before else name for before in names for name in axis]
    if label is not None and label in names:
        values, there = values[:, [names.index(label)]], there[:, [names.index(label)]]
    keep = there.any(axis=1)
    if not keep.any():
        return None
    buckets = decimate(data.steps[keep], values[keep], there[keep], BUCKETS)
    size = buckets.count - buckets.nonfinite
    n = size.sum(axis=1)
    with np.errstate(all="ignore"):
        total = np.where(size > 0, buckets.mean * size, 0.0).sum(axis=1)
        mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
        low = np.where(size > 0, buckets.lo, np.inf).min(axis=1)
        high = np.where(size > 0, buckets.hi, -np.inf).max(axis=1)
    bare = n == 0
    return Curve(signal, data.signal.unit, buckets.first_step, buckets.last_step, mean, np.where(bare, np.nan, low),
                 np.where(bare, np.nan, high), buckets.nonfinite.sum(axis=1), int(keep.sum()), values.shape[1])


def figure(shown: Curve, says: str, bands: Sequence[Band] = (), marks: Sequence[tuple[int, str]] = (),
           height: float = 150.0, title: str = "", class_: str | None = None) -> Html:
    """The chart with what it shows, its unit and how much it was made of."""
    over = f"mean, smallest and largest of {shown.labels:,} labels" if shown.labels > 1 else ""
    scale = "logarithmic" if _values_axis(shown, height)[2] else ""
    unit = "" if shown.unit in ("", "1", "custom") else shown.unit
    parts = (unit, scale, plural(shown.rows, "row"), over, says)
    caption = tag("figcaption", tag("b", text(title or shown.name, 120)), text(" · ".join(p for p in parts if p), 400))
    return tag("figure", caption, chart(shown, bands, marks, height, title), class_=class_)


def chart(shown: Curve, bands: Sequence[Band] = (), marks: Sequence[tuple[int, str]] = (), height: float = 150.0,
          title: str = "") -> Html:
    """The curve with shaded steps and events, as one SVG element of `WIDTH` times `height`."""
    x, (begin, end) = _steps_axis(shown)
    y, ticks, _ = _values_axis(shown, height)
    floor = height - BOTTOM
    said = f"{title or shown.name}: {_summary(shown)}"
    parts = [tag("title", said)]
    for band in list(bands)[:MOST_BANDS]:
        if band.last >= begin and band.first <= end:
            at, to = x(max(band.first, begin)), x(min(band.last, end))
            most = to - at > MOST_SHADED * (WIDTH - LEFT - RIGHT)
            parts.append(tag("rect", tag("title", band.says), x=f"{at - 0.8:.1f}", y=TOP - 4 if most else TOP,
                             width=f"{to - at + 1.6:.1f}", height=3 if most else f"{floor - TOP:.1f}",
                             class_=f"{'bar' if most else 'shade'} {band.css}"))
    for value in ticks:
        level = f"{y(value):.1f}"
        parts += [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=level, y2=level, class_="rail"),
                  tag("text", short(value), x=LEFT - 6, y=f"{y(value) + 3.5:.1f}", class_="tick end")]
    for step in _round_steps(begin, end):
        edge = WIDTH - HALF_A_DIGIT * len(f"{step:,}")
        parts.append(tag("text", f"{step:,}", x=f"{min(x(step), edge):.1f}", y=height - 8, class_="tick middle"))
    for step, what in list(marks)[:MOST_BANDS]:
        if begin <= step <= end:
            parts.append(tag("line", tag("title", f"{what}, step {step:,}"), x1=f"{x(step):.1f}", x2=f"{x(step):.1f}",
                             y1=TOP, y2=f"{floor:.1f}", class_="event"))
    parts += _line(shown, x, y)
    parts += [tag("path", tag("title", f"{shown.nonfinite[i]:,} not finite from step {shown.first[i]:,}"),
                  d=f"M{x(float(shown.first[i])):.1f} {floor - 7:.1f}l4 7h-8z", class_="nonfinite")
              for i in np.flatnonzero(shown.nonfinite)[:BUCKETS]]
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", class_="chart", role="img", aria_label=said[:300])


def _summary(shown: Curve) -> str:
    finite = np.isfinite(shown.low)
    lost = int(shown.nonfinite.sum())
    reach = f"{short(np.min(shown.low[finite]))} to {short(np.max(shown.high[finite]))}" if finite.any() else \
        "no finite value"
    return (f"{reach}{'' if shown.unit in ('', '1', 'custom') else f' {shown.unit}'} in {shown.rows:,} rows of steps "
            f"{int(shown.first[0]):,} to {int(shown.last[-1]):,}" + (f", {lost:,} values not finite" if lost else ""))


def _steps_axis(shown: Curve) -> tuple[_Scale, tuple[int, int]]:
    begin, end = int(shown.first[0]), int(shown.last[-1])
    return _Scale(float(begin), float(max(end, begin + 1)), LEFT, WIDTH - RIGHT), (begin, end)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to coordinates."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else \
            (self.low, self.high, value)
        # Halves, because the distance of the two largest numbers is none.
        share = (at / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)


def _values_axis(shown: Curve, height: float) -> tuple[_Scale, list[float], bool]:
    finite = np.isfinite(shown.low) & np.isfinite(shown.high)
    low, high = (float(shown.low[finite].min()), float(shown.high[finite].max())) if finite.any() else (0.0, 1.0)
    log = low > 0 and high / low > LOG_FROM
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = max((last - first + 3) // 4, 1)
        powers = [10.0**power for power in range(max(first, -300), min(last, 307) + 1, every)]
        ticks = [digit * power for power in powers for digit in ((1, 2, 5) if last - first <= 2 else (1,))]
        ticks = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1] or [low, high]
        low, high = min(low * 0.95, ticks[0]), max(high, ticks[-1])
    else:
        if low == high:
            low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
        ticks = [tick for tick in _nice(low, high) if low <= tick <= high] or [low, high]
        margin = high / 20 - low / 20
        low, high = max(low - margin, -1.7e308), min(high + margin, 1.7e308)
    return _Scale(low, high, height - BOTTOM - 2, TOP, log), ticks, log


def _nice(low: float, high: float) -> list[float]:
    size = high / 4 - low / 4
    if not math.isfinite(size) or size <= 0 or size < 1e-300:
        return [low, high]
    power = 10.0 ** math.floor(math.log10(size))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= size), 10 * power)
    first = math.ceil(low / step)
    return [round(n * step, 12) if abs(n * step) < 1e6 else n * step for n in range(first, first + 6)]


def _round_steps(begin: int, end: int) -> list[int]:
    """Four to eight round steps."""
    size = max((end - begin) / 5, 1)
    power = 10 ** math.floor(math.log10(size))
    every = next(m * power for m in (1, 2, 5, 10) if m * power >= size)
    return list(range(-(-begin // every) * every, end + 1, every))


def _line(shown: Curve, x: _Scale, y: _Scale) -> list[Html]:
    """The band and the line, in pieces between which there is nothing to draw."""
    pieces = _pieces(shown)
    parts = []
    for piece in pieces:
        middle = [x((float(shown.first[i]) + float(shown.last[i])) / 2) for i in piece]
        tops = [(at, y(float(shown.high[i]))) for at, i in zip(middle, piece, strict=True)]
        feet = [(at, y(float(shown.low[i]))) for at, i in zip(middle, piece, strict=True)]
        if any(shown.high[i] > shown.low[i] for i in piece):
            parts.append(tag("polygon", points=_points(tops + feet[::-1]), class_="band"))
        if len(piece) == 1:
            parts.append(tag("circle", cx=f"{middle[0]:.1f}", cy=f"{y(float(shown.mean[piece[0]])):.1f}", r=2,
                             class_="dot"))
        else:
            line = [(at, y(float(shown.mean[i]))) for at, i in zip(middle, piece, strict=True)]
            parts.append(tag("polyline", points=_points(line), class_="line"))
    return parts


def _pieces(shown: Curve) -> list[list[int]]:
    drawn = np.flatnonzero(np.isfinite(shown.mean))
    gaps = shown.first[1:] - shown.last[:-1]
    usual = float(np.median(gaps)) if len(gaps) else 1.0
    pieces: list[list[int]] = []
    for i in drawn.tolist():
        joined = pieces and pieces[-1][-1] == i - 1 and gaps[i - 1] <= GAP * usual
        if joined:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return pieces


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)
