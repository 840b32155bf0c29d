"""Gradient norms of the layers and of the whole model, as one table of logarithms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Threshold
from checks.reading import has, remember, scalar, vector
from checks.robust import Excursion, Floats

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


def too_few(n: int, threshold: Threshold) -> Finding:
    """The answer where fewer than `LEAST_ROWS` rows of norms are finite."""
    return Finding(
        level="unknown",
        n=n,
        summary=f"{n} finite gradient norms are too few for a baseline.",
        threshold=threshold,
        what_it_means="A norm is judged against the rows before it.",
        what_to_do=f"Wait for at least {LEAST_ROWS} logged steps.",
    )


def excused(beyond: bool) -> str:
    """What a passing answer says where its number is beyond the limit all the same."""
    return " Rows beyond the limit are within this norm's usual noise, or follow a planned event." if beyond else ""


@dataclass(frozen=True, slots=True)
class LayerExcursion:
    """One layer's excursion, in steps."""

    signal: str
    label: str
    first: int
    last: int
    recovered: bool
    factor: float
    """Largest norm over its baseline (explosion), or baseline over the smallest norm (vanishing)."""
    failed: bool
    rows: Excursion


def grouped(found: list[LayerExcursion], apart: int) -> list[list[LayerExcursion]]:
    """Excursions that begin within `apart` steps of the one before, earliest first."""
    groups: list[list[LayerExcursion]] = []
    for e in sorted(found, key=lambda e: (e.first, e.label == ALL, -e.factor)):
        if groups and e.first - groups[-1][-1].first <= apart:
            groups[-1].append(e)
        else:
            groups.append([e])
    return groups


def evidence(group: list[LayerExcursion]) -> tuple[Evidence, ...]:
    """The norms that show a group."""
    return tuple(Evidence(e.signal, (e.first, e.last), None if e.label == ALL else e.label) for e in group[:20])


def order_details(group: list[LayerExcursion]) -> list[dict[str, object]]:
    """What moved when, as JSON types."""
    return [{"layer": e.label, "step": e.first, "factor": e.factor} for e in group[:100]]


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
