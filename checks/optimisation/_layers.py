"""Gradient norms of the layers and of the whole model, as one table of logarithms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import has, remember, scalar, vector
from checks.robust import Excursion, Floats, segmented_baseline

if TYPE_CHECKING:
    from trainvitals.store import Run

ALL = "all layers"
TINY = float(np.log(1e-30))
"""Logarithm that stands for a norm of exactly zero."""


@dataclass(frozen=True, slots=True)
class LogNorms:
    """Logarithms of gradient norms; rows with a NaN or infinity anywhere are left to loss.nonfinite."""

    steps: np.ndarray
    """[n]"""
    values: Floats
    """[n, L], L layers"""
    labels: tuple[str, ...]
    """[L]"""
    signal: str

    def __len__(self) -> int:
        return len(self.steps)


def log_norms(run: Run) -> list[LogNorms]:
    """The whole model's norm, then the layers' where they were logged."""
    return remember(run, "log_norms", lambda: list(_log_norms(run)))


def _log_norms(run: Run) -> Iterable[LogNorms]:
    total = scalar(run, "grad/norm").finite()
    yield LogNorms(total.steps, _log(total.values)[:, None], (ALL,), "grad/norm")
    if has(run, "grad/norm_by_layer"):
        layers = vector(run, "grad/norm_by_layer")
        known = np.atleast_1d(np.isfinite(layers.values).any(axis=0))
        keep = np.isfinite(layers.values[:, known]).all(axis=1)
        labels = tuple(label for label, k in zip(layers.labels, known, strict=True) if k)
        if keep.any():
            yield LogNorms(layers.steps[keep], _log(layers.values[keep][:, known]), labels, "grad/norm_by_layer")


def _log(norms: Floats) -> Floats:
    return np.log(norms, out=np.full(norms.shape, TINY), where=norms > 0)


LEAST_ROWS = 40
LARGEST = 700.0
"""Logarithm beyond which a factor would overflow."""


def too_few(ground: Ground) -> Finding:
    """The answer where fewer than `LEAST_ROWS` rows of norms are finite."""
    return ground.unknown(
        f"{ground.n} finite gradient norms are too few for a baseline.",
        "A norm is judged against the rows before it.",
        f"Wait for at least {LEAST_ROWS} logged steps.",
    )


@dataclass(frozen=True, slots=True)
class Departure:
    """How far the log norms of one table are from their running median."""

    table: LogNorms
    center: Floats
    """[n, L] running median, begun anew where a planned event sets another level."""
    sigma: Floats
    """[n, L] robust deviation."""
    away: Floats
    """[n, L] log norm less its median; NaN where the median is unknown or stands for no gradient at all."""


def departures(run: Run, *, window: int, least: float) -> Iterator[Departure]:
    """Of each table; `least` is the smallest median, as a logarithm, that counts as a gradient."""
    for t in log_norms(run):
        starts = quiet(run, "optimisation").level_rows(t.steps)
        center, sigma = segmented_baseline(t.values, starts, window=window)
        with np.errstate(invalid="ignore"):
            yield Departure(t, center, sigma, np.where(center > least, t.values - center, np.nan))


@dataclass(frozen=True, slots=True)
class LayerExcursion:
    """One layer's excursion, in steps."""

    signal: str
    label: str
    first: int
    last: int
    recovered: bool
    factor: float
    """Largest norm over its baseline (explosion), or baseline over the median norm since (vanishing)."""
    failed: bool


def of_layer(table: LogNorms, column: int, rows: Excursion, log_factor: float, failed: bool) -> LayerExcursion:
    """Rows of one column of a table as steps of its layer."""
    return LayerExcursion(
        table.signal,
        table.labels[column],
        int(table.steps[rows.first]),
        int(table.steps[rows.last]),
        rows.recovered,
        float(np.exp(min(log_factor, LARGEST))),
        failed,
    )


def excused(beyond: bool) -> str:
    """What a passing answer says where its number is beyond the limit all the same."""
    return " Rows beyond the limit are within this norm's usual noise, or follow a planned event." if beyond else ""


def grouped(found: list[LayerExcursion], apart: int) -> list[list[LayerExcursion]]:
    """Excursions that begin within `apart` steps of the one before, earliest first."""
    groups: list[list[LayerExcursion]] = []
    for e in sorted(found, key=lambda e: (e.first, e.label == ALL, -e.factor)):
        if groups and e.first - groups[-1][-1].first <= apart:
            groups[-1].append(e)
        else:
            groups.append([e])
    return groups


def spell(group: list[LayerExcursion]) -> Spell:
    """From the first mover's onset to the last recovery."""
    return Spell(group[0].first, max(e.last for e in group), any(not e.recovered for e in group))


def alarm(
    ground: Ground,
    group: list[LayerExcursion],
    summary: str,
    statistic: Statistic,
    *,
    side: str,
    means: str,
    do: str,
    details: Mapping[str, object],
) -> Finding:
    """One alarm for a group of layers, with what moved when. `side`: above or below the factor that warns."""
    return ground.alarm(
        summary,
        statistic,
        spell(group),
        level="fail" if any(e.failed for e in group) else "warn",
        evidence=[Evidence(e.signal, (e.first, e.last), None if e.label == ALL else e.label) for e in group[:20]],
        means=means,
        do=do,
        details={"order": [{"layer": e.label, "step": e.first, "factor": e.factor} for e in group[:100]], **details},
        onset=f"first row {side} the warning factor among those that raised the alarm",
    )


def order_text(group: list[LayerExcursion]) -> str:
    """What moved first, in words."""
    layers = [e for e in group if e.label != ALL]
    if not layers:
        return "layers were not logged"
    head = layers[0]
    together = [spoken(e.label) for e in layers if e.first == head.first]
    if len(together) == len(layers) > 3:
        return f"all {len(layers)} affected layers moved together"
    return f"{', '.join(together[:3])}{' and others' if len(together) > 3 else ''} first"


def spoken(label: str) -> str:
    """A layer's label as words: `layer 3` for a bare number."""
    return f"layer {label}" if label.isdigit() else label
