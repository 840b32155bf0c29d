"""Planned events: what a person would mark on the time axis, and which alarms it explains.

After an event, an excursion that begins and ends inside the event's window, and no larger than the event can make it,
raises no alarm; the finding names the event and the excursion instead. One that began before the event, that outlasts
the window or that is larger is reported as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.finding import Masked
from checks.reading import has, vector

if TYPE_CHECKING:
    from trainvitals.store import Run

LEVEL_EVENTS = {
    "warmup_end": ("loss", "optimisation", "routing"),
    "stage_switch": ("loss", "optimisation", "routing", "data"),
    "batch_size": ("loss", "optimisation", "throughput"),
    "lr_restart": ("loss", "optimisation"),
    "decay_start": ("loss", "optimisation"),
    "resume": ("optimisation", "routing", "throughput"),
    "rollback": ("optimisation", "routing", "throughput"),
}
"""Event kind -> areas in which a new level is expected after it. A resume must not move the loss, so it masks none."""

NEW_LEVEL = {
    "loss": ("stage_switch", "batch_size", "lr_restart"),
    "optimisation": ("stage_switch", "batch_size", "lr_restart", "warmup"),
}
"""Area -> events after which another level may stay; what the others set going must be over when their window ends. A
fall during a warm-up may stay, too: it is learning."""

BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "loss": {
        "stage_switch": (1.5, 0.5), "batch_size": (1.05, 0.9), "lr_restart": (1.1, 0.9), "warmup": (1.05, 0.0),
        "warmup_end": (1.05, 0.9), "decay_start": (1.02, 0.85),
    },
    "optimisation": dict.fromkeys(LEVEL_EVENTS, (10.0, 0.1)) | {"warmup": (50.0, 0.0)},
}  # fmt: skip
"""Area -> event -> how many times its level an event may raise it, and to what part lower it. Convention: another data
stage is other text; a change of batch size or rate moves the loss by less than 10 %; a rise of more during a warm-up
is no warm-up. Norms: the factors at which their checks fail; small models' norms grow 40 times within a warm-up."""

MOMENT_EVENTS = {"checkpoint": ("throughput",), "eval": ("throughput",), "evaluation": ("throughput",)}
"""Event kind -> areas that it disturbs for a moment, without a new level."""

MOMENT_STEPS = 2
"""A checkpoint or evaluation may show in the row of its step and in the next two."""


FIRST_ROWS = 4
"""Rows within which a warm-up may make most of its way: its rate was logged so seldom, or it is so short."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Windows of planned events that concern one area."""

    spans: tuple[Masked, ...]
    level_steps: tuple[int, ...]
    """Steps from which on another level is expected."""

    def explains(self, first: int, last: int) -> tuple[Masked, ...]:
        """Events whose window holds all steps from `first` to `last`."""
        return tuple(s for s in self.spans if s.step <= first and last <= s.until)

    def touching(self, first: int, last: int) -> tuple[Masked, ...]:
        """Events whose window overlaps these steps."""
        return tuple(s for s in self.spans if s.step <= last and first <= s.until)

    def level_rows(self, steps: NDArray[np.int64]) -> list[int]:
        """Rows at which another level is expected to begin. steps: [rows], rising."""
        return [int(row) for row in np.searchsorted(steps, self.level_steps)]

    def covers(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for steps inside any window. steps: [rows]."""
        inside = np.zeros(len(steps), bool)
        for span in self.spans:
            inside |= (steps >= span.step) & (steps <= span.until)
        return inside


def window_steps(run: Run, step: int | None = None) -> int:
    """Steps that an event masks: 200, or 0.2 % of a long run; never more than 5 % of a short one.

    The first two are the project's convention; the last keeps a run of a few hundred steps judgeable. Where no length
    was planned, an event at `step` is judged by the length up to it: how long the run became is not known then.
    """
    length = max(step, 1) if step is not None and not run.card.total_steps else run_length(run)
    return max(1, min(max(200, length // 500), length // 20))


def run_length(run: Run) -> int:
    """Planned steps of the run, or those seen so far where no plan is known."""
    return max(int(run.card.total_steps or 0), int(run.last_step or 0), 1)


def quiet(run: Run, area: str) -> Quiet:
    """Windows in which this area's alarms are explained: warm-up of the plan, and events of the run."""
    spans: list[Masked] = []
    levels: list[int] = []
    warmup = warmup_steps(run)
    if warmup and area in LEVEL_EVENTS["warmup_end"]:
        spans.append(Masked("warmup", 0, warmup + window_steps(run, warmup)))
    for kind, step in _events(run):
        if area in LEVEL_EVENTS.get(kind, ()):
            spans.append(Masked(kind, step, step + window_steps(run, step)))
            levels.append(step)
        elif area in MOMENT_EVENTS.get(kind, ()):
            spans.append(Masked(kind, step, step + MOMENT_STEPS))
    return Quiet(tuple(spans), tuple(sorted(levels)))


def warmup_steps(run: Run) -> int:
    """Steps of learning-rate warm-up: of the plan, else as long as the rate rose from its first row on; 0 for none."""
    plan = run.card.lr_plan
    if not plan:
        return _risen(run)
    if plan.get("kind") == "table" and plan.get("rates"):
        rates, steps = list(plan["rates"]), list(plan["steps"])
        return int(steps[int(np.argmax(rates))]) if rates[0] < max(rates) else 0
    return int(plan.get("warmup_steps", 0) or 0)


def _risen(run: Run) -> int:
    if not has(run, "lr/used"):
        return 0
    rows = vector(run, "lr/used")
    rates = rows.values[:, 0] if rows.values.ndim == 2 and rows.values.shape[1] else np.zeros(0)
    known = np.flatnonzero(np.isfinite(rates))
    falls = np.flatnonzero(np.diff(rates[known]) < 0)
    end = int(falls[0]) if len(falls) else len(known) - 1
    first = rates[known[: end + 1]]
    if not len(first) or first[0] >= 0.9 * first.max():
        return 0  # constant from its first row
    rises = np.diff(first)
    # A rate printed coarsely rises in steps; one that makes half of its way in one row has jumped.
    if rises.max() > 0.5 * rises.sum() and np.argmax(rises) >= FIRST_ROWS:
        return 0
    return int(rows.steps[known[int(np.argmax(first))]])


def _events(run: Run) -> Iterable[tuple[str, int]]:
    events = run.events().dropna(subset=["step"])
    for kind, step in zip(events["kind"], events["step"], strict=True):
        # The store opens every attempt with "started"; past the first step that is a resume.
        yield ("resume" if kind == "started" and step > 1 else str(kind)), int(step)
