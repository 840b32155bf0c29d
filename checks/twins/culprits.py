"""Rows that stand out: does the twin stand out there too? Then the data of that step did it, else this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from checks.twins.pair import Pair
from checks.twins.rows import Floats, LossRows

OUT_Z, ECHO_Z, QUIET_Z = 6.0, 4.0, 3.0
"""Deviations from the median of the rows before: of a row that stands out, of one that answers it, of one that does
not. Healthy rank-local losses reach 14 by the tails of their data: the twin's row decides, not the height."""
ECHO_SHARE = 0.4
"""Part of a row's height that the twin's must reach to have answered it."""
BEFORE_ROWS, SPREAD_ROWS, LEAST_BEFORE = 21, 256, 32
AT_MOST = 1_000
Cause = Literal["data", "own", "unknown"]


@dataclass(frozen=True, slots=True)
class Culprit:
    """A step of one run that stands out, and what its twins show for the same data."""

    run: str
    step: int
    percent: float
    """Above the rows before."""
    z: float
    recurs: int
    """Twins that stand out there too."""
    of: int
    """Twins that have a row there."""
    cause: Cause

    @property
    def words(self) -> str:
        """The answer, short."""
        if self.cause == "data":
            return f"data: recurs in {self.recurs} of {self.of} twin{'s' if self.of > 1 else ''}"
        return "this run only" if self.cause == "own" else f"unclear: recurs in {self.recurs} of {self.of}"

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals twins --json` prints it."""
        return {"run": self.run, "step": self.step, "percent": round(self.percent, 3), "z": round(self.z, 2),
                "recurs_in": self.recurs, "of": self.of, "cause": self.cause}  # fmt: skip


def heights(values: Floats) -> tuple[Floats, Floats]:
    """How far each row lies above the median of those before it, in log units and in their deviations, [n] each."""
    series = pd.Series(values)
    over = (series - series.rolling(BEFORE_ROWS, min_periods=8).median().shift(1)).to_numpy()
    spread = 1.4826 * pd.Series(np.abs(over)).rolling(SPREAD_ROWS, min_periods=LEAST_BEFORE).median().shift(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = over / spread.to_numpy()
    return np.nan_to_num(over), np.nan_to_num(z, posinf=0.0, neginf=0.0)


def culprits(run: LossRows, twins: Sequence[tuple[LossRows, Pair]]) -> list[Culprit]:
    """Steps of a run that stand out upward, with their cause by its twins; the highest first.

    Args:
        run: the run.
        twins: each twin, and its pair seen from the run.
    """
    height, z = heights(run.values)
    out = np.flatnonzero(z >= OUT_Z)
    echoes: dict[int, list[bool | None]] = {int(i): [] for i in out}
    for twin, pair in twins:
        if not pair.usable:
            continue
        at, other = pair.indices(run.steps, twin.steps)
        twin_height, twin_z = heights(twin.values)
        place = dict(zip(at.tolist(), other.tolist(), strict=True))
        for i, seen in echoes.items():
            if (j := place.get(i)) is not None:
                seen.append(_echo(float(height[i]), float(twin_height[j]), float(twin_z[j])))
    found = [_culprit(run, i, float(height[i]), float(z[i]), seen) for i, seen in echoes.items() if seen]
    return sorted(found, key=lambda c: -c.z)[:AT_MOST]


def _echo(height: float, twin_height: float, twin_z: float) -> bool | None:
    """Whether the twin answers a row; None where it does by half."""
    if twin_z >= ECHO_Z and twin_height >= ECHO_SHARE * height:
        return True
    return False if twin_z < QUIET_Z or twin_height < ECHO_SHARE / 2 * height else None


def _culprit(run: LossRows, i: int, height: float, z: float, seen: Sequence[bool | None]) -> Culprit:
    yes, no = sum(s is True for s in seen), sum(s is False for s in seen)
    cause: Cause = "data" if 2 * yes > len(seen) else "own" if 2 * no > len(seen) else "unknown"
    percent = 100 * float(np.expm1(min(height, 50.0)))
    return Culprit(run.name, int(run.steps[i]), percent, z, yes, len(seen), cause)


def of_all(rows: Mapping[str, LossRows], pairs: Sequence[Pair]) -> list[Culprit]:
    """The culprits of every run that has a usable twin among the others."""
    found: list[Culprit] = []
    for name, run in rows.items():
        twins = [(rows[p.b], p) for p in pairs if p.a == name] + [(rows[p.a], p.turned()) for p in pairs if p.b == name]
        found += culprits(run, [(twin, pair) for twin, pair in twins if pair.usable])
    return found
