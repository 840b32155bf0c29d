"""Past forecasts of a run, kept in its folder and held against what happened.

One file per forecast, `forecasts/step-000012000.json`, written once and never changed; at most one per percent of the
run, so a live run that is judged every few seconds leaves a hundred.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.finding import Finding
from checks.scaling.forecast import Forecast
from trainvitals.sealed import MOST_BYTES, opened, seal
from trainvitals.store.folder import open_folder
from trainvitals.untrusted import MOST_STEP, number, whole

if TYPE_CHECKING:
    from trainvitals.store import Run

FOLDER = "forecasts"
APART_SHARE = 0.01
FINISHED_SHARE = 0.99
LAST_ROWS_SHARE = 0.01
CHECK = "scaling.final_forecast"


@dataclass(frozen=True, slots=True)
class Scored:
    """A kept forecast beside the loss that the run ended at."""

    made_at_step: int
    total_steps: int
    final_loss: float
    low: float
    high: float
    time: float
    """Unix time, seconds."""
    law: str
    error: float | None = None
    """Forecast minus observed; None while the run goes on."""
    inside: bool | None = None
    """Whether the observed loss lies in the interval."""


def keep(run: Run, told: Forecast | dict[str, Any]) -> bool:
    """Store a forecast in the run's folder; True if it was. Unknown ones, and those just after another, are not kept.

    Raises:
        OSError: the folder cannot be written.
    """
    record = told.to_json() if isinstance(told, Forecast) else dict(told)
    step, total = int(record["last_step"]), int(record["total_steps"])
    if record["final_loss"] is None or not step or step >= FINISHED_SHARE * total:
        return False  # at the end there is nothing left to forecast
    known = [s.made_at_step for s in past(run)]
    if any(abs(step - other) < max(APART_SHARE * total, 1) for other in known):
        return False
    text = json.dumps(seal(record | {"time": time.time(), "version": run.version}), indent=1, allow_nan=False)
    open_folder(run.path).replace(f"{FOLDER}/step-{step:09d}.json", text.encode())
    return True


def keep_found(run: Run, findings: Iterable[Finding]) -> bool:
    """Store the forecast that the check `scaling.final_forecast` made, if it made one. Raises OSError."""
    made = [f.details["forecast"] for f in findings if f.check == CHECK and f.details.get("forecast")]
    return any([keep(run, record) for record in made])


def past(run: Run) -> list[Scored]:
    """Kept forecasts in order of their step, scored once the run is at its end.

    Files that are damaged are left out; `run.problems()` names them.
    """
    folder = open_folder(run.path)
    found = []
    for path in sorted(folder.sizes(FOLDER)):
        if path.endswith(".json"):
            try:
                raw, state = opened(folder.read(path, 0, MOST_BYTES))
                if state != "broken":
                    found.append(_record(raw))
            except (OSError, ValueError, LookupError, TypeError):
                continue
    return score(run, found)


def score(run: Run, made: Iterable[Scored]) -> list[Scored]:
    """The forecasts with their errors, where the run has reached its planned end.

    What happened is the mean training loss of the last 1 % of the rows.
    """
    made = list(made)
    if not made or (run.last_step or 0) < FINISHED_SHARE * max(s.total_steps for s in made):
        return made
    series = run.array("loss/train")
    losses = series.values[np.isfinite(series.values)]
    if not len(losses):
        return made
    seen = float(np.mean(losses[-max(int(LAST_ROWS_SHARE * len(losses)), 5) :]))
    return [
        Scored(
            s.made_at_step, s.total_steps, s.final_loss, s.low, s.high, s.time, s.law,
            s.final_loss - seen, s.low <= seen <= s.high,
        )
        for s in made
    ]  # fmt: skip


def _record(raw: dict[str, Any]) -> Scored:
    low, high = raw["interval"]
    return Scored(
        whole(raw["last_step"], "last_step", 0, MOST_STEP), whole(raw["total_steps"], "total_steps", 0, MOST_STEP),
        number(raw["final_loss"], "final_loss"), number(low, "interval"), number(high, "interval"),
        number(raw["time"], "time"), str(raw["law"]),
    )  # fmt: skip
