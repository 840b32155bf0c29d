"""What a run's twins leave of its loss, read for the board."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from checks.twins.culprits import Culprit, culprits
from checks.twins.difference import difference
from checks.twins.known import known_twins, own_rows
from dashboard.server.reads import Steps, shared
from trainvitals.store import Run
from trainvitals.store.decimate import decimate


@dataclass(frozen=True, slots=True)
class Twins:
    """The differences, and the rows that stand out."""

    table: pd.DataFrame
    """step, last_step, value, lo, hi, nonfinite, label: per cent of the loss off each twin, its mean taken off."""
    culprits: tuple[Culprit, ...]


def twins_of(path: str, steps: Steps, points: int) -> Twins | None:
    """The twins that are noted beside a run and still are; None where there are none."""

    def make(run: Run) -> Twins | None:
        mine, twins = own_rows(run), known_twins(run)
        parts = []
        for rows, pair in twins:
            found = difference(mine, rows, pair)
            at, values = found.steps, 100 * np.expm1(np.clip(found.values - np.median(found.values), -5, 5)) \
                if len(found.steps) else found.values
            keep = np.ones(len(at), bool) if steps is None else (at >= steps[0]) & (at <= steps[1])
            if keep.any():
                b = decimate(at[keep], values[keep][:, None], None, points)
                parts.append(pd.DataFrame({
                    "step": b.first_step, "last_step": b.last_step, "value": b.mean[:, 0], "lo": b.lo[:, 0],
                    "hi": b.hi[:, 0], "nonfinite": b.nonfinite[:, 0], "label": rows.name.rstrip("/").rsplit("/", 1)[-1],
                }))  # fmt: skip
        if not parts:
            return None
        told = culprits(mine, [(rows, pair) for rows, pair in twins if pair.usable])
        return Twins(pd.concat(parts, ignore_index=True), tuple(told))

    return shared(path).read(("twins", steps, points), make)
