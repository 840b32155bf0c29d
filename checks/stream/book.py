"""The series of a run under the scan, as far as they were read, kept beside the run between looks.

book = open_book(run)
book.of("loss/train"), book.of("grad/norm_by_layer")["layers.3"]

Each look reads the rows that are new. A state is used only where it was made by the same code under the same bounds and
planned events, and where the last rows that it read are still what they were; else the series is read from its start.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from checks.masking import NEW_LEVEL, quiet
from checks.reading import ENDLESS, Rows, Snapshot, has, remember, since
from checks.stream.gap import GAP, GapState, gaps
from checks.stream.jit import version
from checks.stream.layout import GRADIENT, LOSS, Bounds
from checks.stream.series import Series
from checks.stream.spread import SPREAD, SpreadState, spreads
from trainvitals.errors import UsageError
from trainvitals.sealed import opened, seal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

WATCHED: Mapping[str, tuple[str, Bounds]] = {
    "loss/train": ("loss", LOSS),
    "loss/returned": ("loss", LOSS),
    "loss/val": ("loss", LOSS),
    "loss/domain": ("loss", LOSS),
    "loss/val_set": ("loss", LOSS),
    "loss/val_domain": ("loss", LOSS),
    "grad/norm": ("optimisation", GRADIENT),
    "grad/norm_by_layer": ("optimisation", GRADIENT),
    "update/ratio": ("optimisation", GRADIENT),
    "update/ratio_by_layer": ("optimisation", GRADIENT),
}
"""Signal -> the area whose planned events concern it, and its bounds."""
SCANS: Mapping[str, Bounds] = {"loss": LOSS, "gradient": GRADIENT, "validation_gap": GAP, "scatter": SPREAD}
"""Bounds that a run's settings may replace, as `scan.loss`: one pass over a series serves several checks."""
MODES = ("raw", "level")
"""Bounds that say what a series is, and are no thresholds."""
VALIDATION_GAP = "validation gap"
"""Validation over training loss: a series of our own."""
SCATTER = "scatter of the loss"
"""Of 8 rows of the training loss each: another."""
OWN = {VALIDATION_GAP: GAP, SCATTER: SPREAD}
"""Series of our own -> bounds."""
POOLED = {"loss/domain": "loss/domain_tokens"}
"""Signal -> weights with which its rows are pooled: a domain's loss in one row is that of a few documents."""
POOL_ROWS = 8
MOST_LABELS = 1000
"""Series of one signal that are watched: their states together take 43 MB."""
FILE, FILE_OF_POLICY = "streams.bin", "streams-policy.bin"
"""States under the shipped bounds, and under the bounds last asked for in their place."""
MOST_BYTES = 1 << 28
WORTH_KEEPING = 64
"""New rows from which on a state is stored again."""


@dataclass
class Book:
    """Every watched series of a run, up to the last look."""

    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    """Signal -> label -> series; "" for a signal without axes."""
    gap: GapState = field(default_factory=GapState)
    scatter: SpreadState = field(default_factory=SpreadState)
    cuts: list[int] = field(default_factory=list)
    """Last steps that restarts have left of earlier attempts, as of the last look."""
    at: str = ""
    """Store version of the last look."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Signal -> its labels beyond the first 1,000, which are not watched."""
    unsaved: int = 0
    """Rows read since the state was last stored."""
    instead: Mapping[Bounds, Bounds] = field(default_factory=dict)
    """Shipped bounds -> those that hold in their place."""

    def of(self, signal: str) -> dict[str, Series]:
        """Series of a signal by label; empty where the run has none."""
        return self.series.get(signal, {})

    def one(self, signal: str) -> Series | None:
        """The series of a signal without axes."""
        return self.of(signal).get("")

    def look(self, run: Run) -> None:
        """Read what is new."""
        levels = {area: _levels(run, area) for area in ("loss", "optimisation")}
        cuts = sorted(a.kept_until for a in run.attempts if a.kept_until < ENDLESS)
        if cuts != self.cuts:
            # Pooled rows keep no witness: after a restart they are read anew.
            for name in POOLED:
                self.series.pop(name, None)
            self.cuts = cuts
        for name, (area, bounds) in WATCHED.items():
            if has(run, name):
                self._read(run, name, self.instead.get(bounds, bounds), levels[area])
        training = "loss/train" if has(run, "loss/train") else "loss/returned"
        if has(run, "loss/val") and has(run, training):
            self._read_gap(run, training, levels["loss"])
        if has(run, training):
            self._read_scatter(run, training)

    def _read(self, run: Run, name: str, bounds: Bounds, levels: NDArray[np.int64]) -> None:
        known = self.series.setdefault(name, {})
        if any(not _agree(s, levels) for s in known.values()):
            known.clear()
        # Labels that have no rows yet are looked for from the start of what the others keep as witness.
        starts = [int(s.witness_steps[0]) if name not in POOLED else s.last_step for s in known.values() if s.rows]
        rows = since(run, name, min(starts, default=None))
        if rows.values.ndim > 1 and rows.values.shape[1] != len(rows.labels):
            return
        columns = {"": rows.values} if not rows.labels else dict(zip(rows.labels, rows.values.T, strict=True))
        if name not in POOLED and any(not _still(s, rows.steps, columns.get(label)) for label, s in known.items()):
            known.clear()
            rows = since(run, name, None)
            columns = {"": rows.values} if not rows.labels else dict(zip(rows.labels, rows.values.T, strict=True))
        if len(columns) > MOST_LABELS:
            self.left_out[name] = len(columns) - MOST_LABELS
            columns = dict(list(columns.items())[:MOST_LABELS])
        weights = _weights(run, name, rows)
        for label, values in columns.items():
            series = known.get(label)
            if series is None:
                series = known[label] = Series(bounds)
            series.levels = levels
            fresh = rows.steps > (series.last_step if series.rows else -ENDLESS)
            steps, means = rows.steps[fresh], values[fresh]
            if label in weights:
                steps, means = _pooled(steps, means, weights[label][fresh])
            before = series.rows
            series.feed(steps, means)
            self.unsaved += series.rows - before

    def _read_gap(self, run: Run, training: str, levels: NDArray[np.int64]) -> None:
        known = self.series.setdefault(VALIDATION_GAP, {})
        series, bounds = known.get(""), self.instead.get(GAP, GAP)
        if series is None or not _agree(series, levels) or self.one("loss/val") is None:
            series, self.gap = Series(bounds), GapState()
        start = self.gap.evaluated
        validation = since(run, "loss/val", start if start >= 0 else None)
        if start >= 0 and not (len(validation) and validation.steps[0] == start
                               and validation.values[0] == self.gap.value):  # fmt: skip
            series, self.gap = Series(bounds), GapState()
            validation, start = since(run, "loss/val", None), -1
        rows = since(run, training, start if start >= 0 else None)
        series.levels = levels
        steps, values = gaps(self.gap, validation, rows)
        series.feed(steps, np.exp(values))
        known[""] = series

    def _read_scatter(self, run: Run, training: str) -> None:
        known = self.series.setdefault(SCATTER, {})
        series, state = known.get(""), self.scatter
        rows = since(run, training, state.steps[0] if series is not None and state.steps else None)
        waiting = len(state.steps)
        good = np.isfinite(rows.values)
        if series is None or not waiting or rows.steps[good][:waiting].tolist() != state.steps or (
            rows.values[good][:waiting].tolist() != state.values
        ):
            series, self.scatter = Series(self.instead.get(SPREAD, SPREAD)), SpreadState()
            rows = since(run, training, None)
        series.feed(*spreads(self.scatter, rows.steps, rows.values))
        known[""] = series

    def packed(self) -> bytes:
        """The whole book: a sealed line that says what follows, and the series as bytes."""
        parts = [(name, label, s.packed()) for name, known in self.series.items() for label, s in known.items()]
        payload = b"".join(data for *_, data in parts)
        head = seal({
            "version": stamp(self.instead), "gap": list(astuple(self.gap)), "scatter": list(astuple(self.scatter)),
            "cuts": self.cuts, "sum": zlib.crc32(payload),
            "series": [[name, label, len(data)] for name, label, data in parts],
        })  # fmt: skip
        return json.dumps(head).encode() + b"\n" + payload

    @classmethod
    def unpacked(cls, data: bytes, instead: Mapping[Bounds, Bounds] | None = None) -> Book:
        """What `packed` gave; an empty book where it is damaged or of another version."""
        line, _, payload = data.partition(b"\n")
        with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, OverflowError):
            head, state = opened(line)
            if state == "whole" and head["version"] == stamp(instead) and head["sum"] == zlib.crc32(payload):
                book, at = cls(gap=GapState(*head["gap"]), scatter=SpreadState(*head["scatter"]),
                               cuts=[int(cut) for cut in head["cuts"]], instead=instead or {}), 0
                for name, label, length in head["series"]:
                    shipped = OWN[name] if name in OWN else WATCHED[name][1]
                    bounds = book.instead.get(shipped, shipped)
                    book.series.setdefault(name, {})[label] = Series.unpacked(bounds, payload[at : at + length])
                    at += length
                return book
        return cls(instead=instead or {})


def scan_settings() -> dict[str, dict[str, float]]:
    """`scan.NAME` -> threshold -> shipped value."""
    return {f"scan.{name}": {key: value for key, value in asdict(bounds).items() if key not in MODES}
            for name, bounds in SCANS.items()}


def bounds_instead(settings: Mapping[str, Mapping[str, Any]]) -> dict[Bounds, Bounds]:
    """Shipped bounds -> those that settings put in their place. Raises UsageError for a bound that there is not."""
    known = scan_settings()
    for name, given in settings.items():
        if name in known and (wrong := set(given) - set(known[name])):
            raise UsageError(f"{name} has no setting {', '.join(sorted(wrong))}. It has {', '.join(known[name])}.")
    changed = {b: replace(b, **settings.get(f"scan.{name}", {})) for name, b in SCANS.items()}
    return {shipped: bounds for shipped, bounds in changed.items() if shipped != bounds}


def stamp(instead: Mapping[Bounds, Bounds] | None = None) -> str:
    """What a stored state belongs to: the code, and every bound."""
    every = [*((name, bounds) for name, (_, bounds) in WATCHED.items()), *OWN.items()]
    policy = repr([(name, astuple((instead or {}).get(bounds, bounds))) for name, bounds in every])
    return f"{version()}-{zlib.crc32(policy.encode()):08x}"


_BOOKS: WeakKeyDictionary[Any, dict[str, Book]] = WeakKeyDictionary()
"""Of runs that are open in this process, so that a folder which cannot be written costs memory, not time."""


def open_book(run: Run) -> Book:
    """The book of a run as of its last refresh, read on and stored where there is something new."""
    return remember(run, "book", lambda: _open(run.run if isinstance(run, Snapshot) else run, run))


def _open(run: Run, seen: Run) -> Book:
    instead = bounds_instead(seen.settings) if isinstance(seen, Snapshot) else {}
    file = FILE_OF_POLICY if instead else FILE
    books, key = _BOOKS.setdefault(run, {}), stamp(instead)
    book = books.get(key)
    if book is None:
        with contextlib.suppress(OSError):
            book = Book.unpacked(run.kept(file, MOST_BYTES), instead)
        book = books[key] = book or Book(instead=instead)
    if book.at != run.version:
        book.look(seen)
        book.at = run.version
        if book.unsaved >= WORTH_KEEPING:
            # A folder that cannot be written: the book lives as long as the run is open.
            with contextlib.suppress(OSError):
                run.keep(file, book.packed())
            book.unsaved = 0
    return book


def _weights(run: Run, name: str, rows: Rows) -> dict[str, NDArray[np.float64]]:
    """Weight of each row by label; of the signals whose rows are pooled."""
    if name not in POOLED or not len(rows):
        return {}
    tokens = since(run, POOLED[name], int(rows.steps[0]))
    if not np.array_equal(tokens.steps, rows.steps):
        return {}
    return dict(zip(tokens.labels, np.nan_to_num(tokens.values.T), strict=True))


def _pooled(
    steps: NDArray[np.int64], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Weighted means of 8 rows each, at the step of the last; rows of a group that is not full wait."""
    n = len(steps) // POOL_ROWS * POOL_ROWS
    w = np.where(np.isfinite(values[:n]), weights[:n], 0.0).reshape(-1, POOL_ROWS)
    total = w.sum(axis=1)
    mean = (w * np.nan_to_num(values[:n]).reshape(-1, POOL_ROWS)).sum(axis=1) / np.where(total > 0, total, np.nan)
    return steps[POOL_ROWS - 1 : n : POOL_ROWS], mean


def _levels(run: Run, area: str) -> NDArray[np.int64]:
    spans = (s for s in quiet(run, area).spans if s.kind in NEW_LEVEL[area])
    return np.array(sorted(s.until + 1 for s in spans), np.int64)


def _agree(series: Series, levels: NDArray[np.int64]) -> bool:
    """Whether the planned events up to the last row are those that the series was read with."""
    done = int(series.state[0]["resets"])
    past = int(np.searchsorted(levels, series.last_step, side="right")) if series.rows else 0
    return past == done and np.array_equal(levels[:done], series.levels[:done])


def _still(series: Series, steps: NDArray[np.int64], values: Any) -> bool:
    """Whether the last rows that a series read are still in the record, as they were."""
    if not series.rows:
        return True
    if values is None:
        return False
    known = (steps >= series.witness_steps[0]) & (steps <= series.last_step) & np.isfinite(values)
    found = values[known]
    if series.bounds.raw < 0:
        found = np.maximum(found, 1e-30)
    return np.array_equal(steps[known], series.witness_steps) and np.array_equal(found, series.witness_values)


