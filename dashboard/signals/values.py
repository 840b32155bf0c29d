"""The numbers of one choice on the page: a signal with its labels, or a formula of several signals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard.server import reads
from dashboard.server.reads import Steps, shared
from dashboard.signals import formula
from dashboard.signals.formula import Formula
from trainvitals.catalogue import FIELDS, SIGNALS
from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.store import Run
from trainvitals.store.decimate import decimate

MOST_LINES, MOST_ROWS = 10, 60
"""Labels that are drawn as lines; more become rows of a heat map, as many as a screen holds."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn for one choice."""

    title: str
    unit: str
    table: pd.DataFrame
    """step, last_step, label, value, lo, hi, nonfinite."""
    labels: int
    """Labels that the signal has, of which the table may hold fewer."""
    meaning: str = ""


def curve(path: str, choice: str, steps: Steps, points: int) -> Curve:
    """Read a choice: `signal`, `signal:label` or a formula.

    Raises:
        UsageError: the formula is none, or names what the run does not have.
    """
    if formula.is_formula(choice):
        return _of_formula(path, formula.parse(choice), steps, points)
    name, label = named(path, choice)
    table = reads.series(path, name, steps, points)
    found = list(dict.fromkeys(table["label"]))
    if label:
        table = table[table["label"] == label]
    else:
        table = table[table["label"].isin(found[:MOST_ROWS])] if len(found) > MOST_ROWS else table
    known = SIGNALS.get(name)
    unit = known.unit if known else "1"
    return Curve(choice, unit, table.reset_index(drop=True), 1 if label else len(found), known.meaning if known else "")


def named(path: str, choice: str) -> tuple[str, str]:
    """Signal and label of `signal` or `signal:label`; the run decides where a name holds a colon itself.

    Raises:
        UsageError: the run has no such signal, or the signal no such label.
    """
    if reads.has(path, choice):
        return choice, ""
    name, colon, label = choice.rpartition(":")
    while colon and not reads.has(path, name):
        name, colon, more = name.rpartition(":")
        label = f"{more}:{label}"
    if not colon:
        raise UsageError(f"This run has no signal {choice}.")
    if label not in set(reads.series(path, name, None, 2)["label"]):
        raise UsageError(f"{name} has no label {label}.")
    return name, label


def _of_formula(path: str, wanted: Formula, steps: Steps, points: int) -> Curve:
    names = {name: named(path, name) for name in wanted.names}

    def make(run: Run) -> pd.DataFrame:
        at: NDArray[Any] | None = None
        columns: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        for name, (signal, label) in names.items():
            columns[name] = _column(run, signal, label, steps)
            at = columns[name][0] if at is None else np.intersect1d(at, columns[name][0], assume_unique=True)
        assert at is not None
        values = wanted.of({name: v[np.searchsorted(s, at)] for name, (s, v) in columns.items()})
        buckets = decimate(at, values[:, None], None, points)
        return pd.DataFrame({
            "step": buckets.first_step, "last_step": buckets.last_step, "label": "", "value": buckets.mean[:, 0],
            "lo": buckets.lo[:, 0], "hi": buckets.hi[:, 0], "nonfinite": buckets.nonfinite[:, 0],
        })  # fmt: skip

    table = shared(path).read(("formula", wanted.text, steps, points), make)
    if not len(table):
        raise UsageError(f"{' and '.join(wanted.names)} share no step, so {wanted.text} has no value.")
    return Curve(wanted.text, "1", table, 1, "at the steps that all of its signals have")


def _column(run: Run, signal: str, label: str, steps: Steps) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps and values of one label where it has any."""
    found = run.array(signal, steps=steps)
    flat = found.values.reshape(len(found), -1)
    exists = np.ones(flat.shape, bool) if found.present is None else found.present.reshape(flat.shape)
    if flat.shape[1] == 1:
        place = 0
    elif label:
        place = [".".join(parts) for parts in product(*found.labels)].index(label)
    else:
        raise UsageError(f"{signal} has {flat.shape[1]:,} labels; a formula needs one, as in {{{signal}:label}}.")
    return found.steps[exists[:, place]], flat[exists[:, place], place]


def catalogue(path: str) -> pd.DataFrame:
    """Every signal that has data, the script's own first: see `Run.signals`."""

    def make(run: Run) -> pd.DataFrame:
        try:
            table = run.signals()
        except TrainVitalsError:
            return pd.DataFrame(columns=["name", "unit", "axis", "points", "first_step", "last_step", "meaning"])
        own = ~table["name"].isin({*SIGNALS, *FIELDS})
        return table.assign(own=own).sort_values(["own", "name"], ascending=[False, True], ignore_index=True)

    return shared(path).read("catalogue", make)
