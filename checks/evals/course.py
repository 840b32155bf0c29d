"""A task over many checkpoints: the same items of all that were measured alike, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from checks.evals.items import SETTINGS, NotComparable, clusters_of, side
from trainvitals.evals import Evals, Sheet, Summary

MOST_CHECKPOINTS = 500
"""The newest are read."""
MOST_CELLS = 64 << 20
"""Scores that are held at once: 256 MiB."""
LEAST_SHARE = 0.99
"""Of the newest checkpoint's items, that another must have answered."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """One task, oldest checkpoint first. Shapes: C = checkpoints, I = items."""

    task: str
    family: str
    checkpoints: tuple[str, ...]
    steps: tuple[int, ...]
    raw_C: Floats
    """Mean scores as they were measured."""
    means_C: Floats
    """The same with more always better."""
    scores_CI: NDArray[np.float32] | None
    """More is better; None where only means are known."""
    items: tuple[str, ...]
    clusters_I: NDArray[np.int64] | None
    shares: bool
    """Scores lie between 0 and 1."""
    notes: tuple[str, ...]


def courses(evals: Evals, tasks: Sequence[str] = ()) -> Iterator[Course]:
    """Every task that was asked of a checkpoint with a step, or those that are named."""
    summaries: dict[str, list[Summary]] = {}
    for one in evals.summaries:
        if one.step is not None and (not tasks or one.task in tasks):
            summaries.setdefault(one.task, []).append(one)
    for group in _bunches(summaries):
        sheets: dict[str, list[Sheet]] = {task: [] for task in group}
        # A file holds all tasks of a checkpoint, so tasks are read together.
        for checkpoint in evals.checkpoints:
            for task in group:
                if any(one.checkpoint == checkpoint for one in group[task]):
                    sheet = evals.sheet(task, checkpoint)
                    if sheet is not None:
                        sheets[task].append(sheet)
        for task in group:
            if sheets[task]:
                yield _course(task, sheets[task])


def _bunches(summaries: dict[str, list[Summary]]) -> Iterator[dict[str, list[Summary]]]:
    bunch: dict[str, list[Summary]] = {}
    cells = 0
    for task in sorted(summaries):
        kept = sorted(summaries[task], key=lambda s: s.step or 0)[-MOST_CHECKPOINTS:]
        size = sum(one.rows for one in kept)
        if bunch and cells + size > MOST_CELLS:
            yield bunch
            bunch, cells = {}, 0
        bunch[task], cells = kept, cells + size
    if bunch:
        yield bunch


def _course(task: str, sheets: Sequence[Sheet]) -> Course:
    newest = sheets[-1]
    alike = [s for s in sheets if all(getattr(s, name) == getattr(newest, name) for name in SETTINGS)]
    notes = [f"{len(sheets) - len(alike)} checkpoints were measured otherwise than the newest, and are left out"] \
        if len(alike) < len(sheets) else []
    known: list[tuple[Sheet, pd.Series]] = []
    lost = 0
    for sheet in alike:
        if not len(sheet.items):
            continue
        try:
            known.append((sheet, side(sheet, sheet.checkpoint, shares=False).scores))
        except NotComparable as problem:
            notes.append(f"{problem}, so {sheet.checkpoint} is left out")
    if not known:
        return _of_means(task, [s for s in alike if not len(s.items) and s.aggregate is not None], notes)
    items = known[-1][1].index
    whole = [(s, scores) for s, scores in known if len(items.intersection(scores.index)) >= LEAST_SHARE * len(items)]
    lost = len(alike) - len(whole)
    if lost:
        notes.append(f"{lost} checkpoints answered other items, or lack scores, and are left out")
    for _, scores in whole:
        items = items.intersection(scores.index)
    matrix = np.stack([scores.reindex(items).to_numpy(np.float32) for _, scores in whole])
    up = newest.higher_is_better
    shares = bool(len(items) and 0 <= (matrix if up else -matrix).min() and (matrix if up else -matrix).max() <= 1)
    means = matrix.mean(axis=1, dtype=float)
    return Course(task, newest.family, tuple(s.checkpoint for s, _ in whole), tuple(s.step or 0 for s, _ in whole),
                  means if up else -means, means, matrix, tuple(map(str, items)), clusters_of(newest, items)[0], shares,
                  tuple(notes))  # fmt: skip


def _of_means(task: str, sheets: Sequence[Sheet], notes: list[str]) -> Course:
    raw = np.array([s.aggregate for s in sheets], float)
    sign = 1.0 if not sheets or sheets[-1].higher_is_better else -1.0
    shares = bool(len(raw) and raw.min() >= 0 and raw.max() <= 1)
    return Course(task, sheets[-1].family if sheets else "", tuple(s.checkpoint for s in sheets),
                  tuple(s.step or 0 for s in sheets), raw, sign * raw, None, (), None, shares,
                  (*notes, "its items are not known"))  # fmt: skip
