"""One series under the scan: what it remembers, and its episodes in words of steps.

series = Series(LOSS)
series.feed(steps, values)  # as often as there are new rows; never looks ahead
series.episodes(), series.resolution()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checks.stream.grids import GRIDS, NAMES, feed_grids, new_grids
from checks.stream.layout import EPISODE, LEAST_ROWS, LONE, NOTES, STATE, UNKNOWN_YET, Bounds, new_state
from checks.stream.scan import feed
from checks.stream.slope import PLATEAU, REPEATS, feed_plateau, feed_repeats, new_plateau, new_repeats

Steps = NDArray[np.int64]
Floats = NDArray[np.float64]
WITNESSES = 16
"""Last rows that are kept as they were: a look that finds them changed begins anew."""
MOST_EPISODES = 200_000

MOST_ROWS = 1 << 40
_FROM_MINUS_ONE = ("open", "last_told", "run_side", "last_step", "trail_step", "note_step")


@dataclass(frozen=True, slots=True)
class Episode:
    """Rows that left their trend together, on one side. Steps unless it says rows."""

    side: int
    """1 above, -1 below."""
    lone: bool
    """One row, back in the next."""
    sudden: bool
    """Noticed row by row rather than by a window of them."""
    onset: int
    onset_low: int
    onset_high: int
    """99 % interval of the onset."""
    onset_row: int
    noticed: int
    """When it was first said."""
    last: int
    """Last step that shows it."""
    ongoing: bool
    failed: int | None
    """When it became a failure."""
    rows: int
    """Rows off the trend."""
    lasted: int
    """Rows from the onset to the last that shows it."""
    window: int
    """Rows of the window that noticed it."""
    first_row: int
    """Row of the run at which it was noticed."""
    z: float
    effect: float
    """Mean effect in log units, or in units of the value where `raw`; with the levels told before it."""
    peak: float
    peak_step: int
    lasting: float
    """Effect as it was last."""
    parts: int
    """Episodes of one side, each told as a level, that make it up."""
    raw: bool
    scale: float
    """Noise of one row at the time."""

    def percent(self, effect: float) -> str:
        """An effect of this episode in words, signed."""
        if self.raw:
            return f"{effect / max(self.scale, 1e-300):+.3g} deviations of a row"
        change = float(np.expm1(min(effect, 50.0)))
        return f"{100 * change:+.3g} %" if abs(change) < 4 else f"to {1 + change:.3g} times"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run of equal values that the log's own rate of ties does not explain."""

    first: int
    last: int
    """Steps."""
    rows: int
    last_row: int
    """Row of the run at which it ended."""


class Series:
    """The detector's memory of one series."""

    def __init__(self, bounds: Bounds, levels: Steps | None = None) -> None:
        self.bounds = bounds
        self.levels = np.zeros(0, np.int64) if levels is None else levels
        """Steps from which on a planned event lets another level be expected; may grow, but not change in the past."""
        self.state = new_state()
        self.table = np.zeros(16, EPISODE)
        self.plateau = new_plateau()
        self.repeats = new_repeats()
        self.grids = new_grids()
        self.witness_steps: Steps = np.zeros(0, np.int64)
        self.witness_values: Floats = np.zeros(0)
        self._packed = bounds.packed()[0]

    @property
    def rows(self) -> int:
        """Finite rows read."""
        return int(self.state[0]["rows"])

    @property
    def last_step(self) -> int:
        """Of the last row read."""
        return int(self.state[0]["last_step"])

    def feed(self, steps: Steps, values: Floats) -> None:
        """Read more rows, in order; those that are not finite are left out. steps: [n] rising; values: [n]."""
        keep = np.isfinite(values)
        if not keep.any():
            return
        steps = np.ascontiguousarray(steps[keep], np.int64)
        values = np.ascontiguousarray(values[keep], np.float64)
        if self.bounds.raw < 0:
            values = np.maximum(values, 1e-30)
        at = 0
        while (at := feed(self.state[0], self.table, steps, values, at, self.levels, self._packed)) < len(values):
            if len(self.table) >= MOST_EPISODES:
                raise MemoryError(f"more than {MOST_EPISODES:,} episodes")
            self.table = np.concatenate([self.table, np.zeros(len(self.table), EPISODE)])
        logs = self.state[0]["mode"] == 0 and (values > 0).all()
        feed_plateau(self.plateau[0], steps, np.log(values) if logs else values)
        feed_repeats(self.repeats[0], steps, values)
        if self.bounds.level == 0:
            feed_grids(self.grids[0], steps, values)
        self.witness_steps = np.concatenate([self.witness_steps, steps])[-WITNESSES:]
        self.witness_values = np.concatenate([self.witness_values, values])[-WITNESSES:]

    def episodes(self) -> list[Episode]:
        """In the order in which they were noticed; levels of one climb that were told one after another are one."""
        groups: dict[int, list[Any]] = {}
        for i, e in enumerate(self.table[: int(self.state[0]["small"])]):
            groups.setdefault(int(e["part_of"]) if e["part_of"] >= 0 else i, []).append(e)
        return [self._episode(group) for group in groups.values()]

    def notes(self) -> tuple[Steps, Floats]:
        """Steps of the last single rows that stood out by 5 deviations or more, and by how many."""
        state = self.state[0]
        n = min(int(state["notes"]), NOTES)
        order = np.argsort(state["note_step"][:n])
        return state["note_step"][:n][order], state["note_z"][:n][order]

    def stuck(self) -> list[Stuck]:
        """Runs of equal values, the first 32."""
        r = self.repeats[0]
        columns = (r[name][: int(r["found"])].tolist() for name in ("start", "end", "length", "end_row"))
        return [Stuck(*row) for row in zip(*columns, strict=True)]

    def resolution(self) -> tuple[float, int] | None:
        """Lasting rise that nine in ten times would be told, as a fraction, and the rows it needs; None if unknown.

        In deviations of a row where the series is `raw`.
        """
        state = self.state[0]
        if self.rows < LEAST_ROWS or not np.isfinite(state["visible"]).any():
            return None
        k = int(np.argmin(state["visible"]))
        size = float(state["visible"][k])
        return (size / max(float(state["scale"]), 1e-300) if self.raw else float(np.expm1(min(size, 700.0)))), 2 << k

    @property
    def raw(self) -> bool:
        """Whether values are judged as they are, in noise units."""
        return bool(self.state[0]["mode"] == 1)

    def packed(self) -> bytes:
        """Everything, as bytes of a known layout."""
        count = int(self.state[0]["small"])
        head = np.array([count, len(self.witness_steps), len(self.levels)], np.int64)
        parts = (head, self.state, self.table[:count], self.plateau, self.repeats, self.grids,
                 self.witness_steps, self.witness_values, self.levels)  # fmt: skip
        return b"".join(part.tobytes() for part in parts)

    @classmethod
    def unpacked(cls, bounds: Bounds, data: bytes) -> Series:
        """What `packed` gave. Raises ValueError for bytes of another length."""
        series, at = cls(bounds), 24
        count, witnesses, levels = (int(n) for n in np.frombuffer(data, np.int64, 3))

        def take(dtype: Any, n: int) -> Any:
            nonlocal at
            found = np.frombuffer(data, dtype, n, at).copy()
            at += found.nbytes
            return found

        if min(count, witnesses, levels) < 0 or count > MOST_EPISODES:
            raise ValueError("counts out of range")
        series.state, table = take(STATE, 1), take(EPISODE, count)
        series.table = np.concatenate([table, np.zeros(max(16, count), EPISODE)])
        series.plateau, series.repeats = take(PLATEAU, 1), take(REPEATS, 1)
        series.grids = take(GRIDS, 1)
        series.witness_steps, series.witness_values = take(np.int64, witnesses), take(np.float64, witnesses)
        series.levels = take(np.int64, levels)
        if at != len(data) or int(series.state[0]["small"]) != count:
            raise ValueError("another length")
        _refuse_unsound(series, count)
        return series

    def _episode(self, group: list[Any]) -> Episode:
        first, last = group[0], group[-1]
        # A later part that is over only came back to the level of those before it.
        ended = all(e["how"] == LONE or e["closed"] >= 0 for e in group)
        failed = [int(e["failed"]) for e in group if e["failed"] >= 0]
        peak = max(group, key=lambda e: e["peak"] + e["side"] * e["before"])
        before = float(last["side"] * (last["before"] - first["before"]))
        mean = float(last["sum"] / max(int(last["rows"]), 1))
        if ended and len(group) == 1:
            # Rows that were back already are in the mean of a brief one.
            mean = max(mean, 0.5 * float(first["effect"])) if int(first["rows"]) > 8 else float(first["effect"])
        mean += before
        side = int(first["side"])
        end = max(int(e["out_step"] if e["told"] < 0 else e["closed_step"]) for e in group)
        return Episode(
            side=side,
            lone=bool(first["how"] == LONE),
            sudden=bool(first["how"] in (0, LONE, 4)) or int(first["window"]) <= 8,
            onset=int(first["onset"]),
            onset_low=int(first["onset_low"]),
            onset_high=int(first["onset_high"]),
            onset_row=int(first["onset_row"]),
            noticed=int(first["step"]),
            last=max(end if ended else self.last_step, int(first["onset"])),
            ongoing=not ended,
            failed=min(failed, default=None),
            rows=sum(int(e["out_rows"]) if e["told"] < 0 else int(e["rows"]) for e in group),
            lasted=max((int(last["out_row"]) if ended and last["told"] < 0 else int(last["closed"]) if ended
                        else self.rows) - int(first["onset_row"]), 1),
            window=int(first["window"]),
            first_row=int(first["row"]),
            z=float(max(e["z"] for e in group)),
            effect=side * mean,
            peak=side * (float(peak["peak"]) + float(side * (peak["before"] - first["before"]))),
            peak_step=int(peak["peak_step"]),
            lasting=side * (float(last["lasting"]) + before),
            parts=len(group),
            raw=bool(first["mode"] == 1),
            scale=float(first["scale"]),
        )


def _refuse_unsound(series: Series, count: int) -> None:
    """Raise ValueError where stored counts would lead the kernels outside their arrays: anybody may write the file."""
    state, plateau, repeats = series.state[0], series.plateau[0], series.repeats[0]
    for name, (kind, *_) in (STATE.fields or {}).items():
        if kind.base == np.int64 and name not in _FROM_MINUS_ONE:
            _within(name, state[name], 0, MOST_ROWS)
    _within("mode", state["mode"], 0, 1)
    _within("open", state["open"], -1, count - 1)
    _within("resets", state["resets"], 0, len(series.levels))
    table = series.table[:count]
    for name in ("row", "window", "rows", "out_rows"):
        _within(name, table[name], 0, MOST_ROWS)
    _within("refit", table["refit"], 0, MOST_ROWS)
    _within("part_of", table["part_of"], UNKNOWN_YET, count - 1)
    _within("filled", plateau["filled"], 0, len(plateau["mean"]) - 1)
    _within("width", plateau["width"], 1, MOST_ROWS)
    _within("found", repeats["found"], 0, len(repeats["start"]))
    _within("open", repeats["open"], -1, len(repeats["start"]) - 1)
    grids = series.grids[0]
    _within("found", grids["found"], 0, len(grids["start"]))
    _within("open", grids["open"], -1, len(grids["start"]) - 1)
    _within("grid", grids["grid"], 0, len(NAMES) - 1)


def _within(name: str, values: Any, low: int, high: int) -> None:
    if np.any(np.asarray(values) < low) or np.any(np.asarray(values) > high):
        raise ValueError(f"{name} out of range")
