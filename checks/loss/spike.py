"""loss.spike: sudden jumps of the training loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell, unexplained
from checks.loss._signal import INSTEAD, TrainingLoss, training_loss
from checks.masking import quiet, run_length
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import Excursion, Floats, excursions, segmented_baseline

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "window and 6 deviations of OLMo-core "
    "https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/train/callbacks/stability_monitor.py, median and "
    "MAD in place of mean and deviation because one spike hides the next"
)
LEAD_ROWS = 5
"""Rows before a loss spike in which its gradient may already move: BLOOM-176B's moved 4 before
(https://github.com/bigscience-workshop/bigscience/blob/master/train/tr11-176B-ml/chronicles.md)."""
UNIT = "robust deviations"


@dataclass(frozen=True, slots=True)
class Spike:
    """One excursion of the loss, judged."""

    rows: Excursion
    first: int
    """Its first step."""
    last: int
    top: float
    """Largest loss."""
    z: float
    rise: float
    """Peak over baseline, minus 1."""
    grad_ratio: float | None
    """Largest gradient norm around it over its running median; None without gradient norms."""
    onset: int
    """Step at which it began: of the gradient where that moved first."""
    kind: Literal["note", "warn", "fail"]
    of: TrainingLoss

    @property
    def spell(self) -> Spell:
        """From its onset on."""
        return Spell(self.onset, self.last, not self.rows.recovered)


@dataclass(frozen=True, slots=True)
class Limits:
    """When an excursion is more than an unusual batch."""

    z: float
    lone_rise: float
    sustained_rows: int
    grad_ratio: float
    patience: int
    """Steps within which a spike has to come back."""


@check(
    "loss.spike",
    area="loss",
    reads=("loss/train",),
    uses=("grad/norm",),
    instead=INSTEAD,
    needs=("nonfinite", "sampled", "last", "averaged", "rounded", "rank"),
    refs=(
        "https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/train/callbacks/stability_monitor.py",
        "https://arxiv.org/abs/2501.00656",
    ),
)
def spike(
    run: Run,
    *,
    z: float = 6.0,
    window_rows: int = 128,
    min_rise: float = 0.02,
    lone_rise: float = 0.5,
    sustained_rows: int = 3,
    grad_ratio: float = 2.0,
    recover_steps: int = 100,
    per_10k_steps: float = 3.0,
    at_most: int = 10,
) -> Iterator[Finding]:
    """The loss jumps more than `z` robust deviations above its running median.

    Why it matters: a spike costs the progress since its onset, and an unrecovered one the run. How to read it: one row
    alone, with a gradient that stayed calm, is an unusual batch (22 of them in a healthy 19,560-step run) and is only
    counted; a spike that the gradient norm shares, that lasts `sustained_rows` rows or that rises by `lone_rise` is a
    warning; one that does not come back within `recover_steps`, or many of them, a failure.
    """
    known = training_loss(run)
    loss = known.rows.finite()
    if len(loss) < 48:
        yield Ground(len(loss)).unknown(
            f"{len(loss)} finite losses are too few to know their noise{known.words}.",
            "A jump is judged against the scatter of the rows before it.",
            "Wait for at least 48 logged steps.",
        )
        return
    mask = quiet(run, "loss")
    center, sigma = segmented_baseline(loss.values, mask.level_rows(loss.steps), window=window_rows)
    scale = np.fmax(sigma, 1e-3 * np.abs(center))
    with np.errstate(invalid="ignore"):
        score = (loss.values - center) / scale
        over = (score > z) & (loss.values > (1 + min_rise) * center)
    limit = center + np.fmax(2 * scale, min_rise * np.abs(center))
    found, masked = unexplained(
        excursions(loss.values, over, limit), mask, lambda e: (loss.steps[e.first], loss.steps[e.last])
    )
    grad = _gradient(run, mask.level_rows, window_rows)
    patience = min(recover_steps, max(20, run_length(run) // 20))
    limits = Limits(z, lone_rise, sustained_rows, grad_ratio, patience)
    spikes = [_judge(rows, loss, center, scale, grad, limits, known) for rows in found]
    notes = [s for s in spikes if s.kind == "note"]
    alarms = [s for s in spikes if s.kind != "note"]
    details = {
        "isolated_rows": len(notes),
        "isolated_at": [s.first for s in notes[:50]],
        "gradient_known": grad is not None,
    }
    ground = Ground(len(loss), Threshold(z, None, UNIT, SOURCE), masked, details)
    if alarms:
        yield from _alarms(ground, alarms, z, int(loss.steps[-1] - loss.steps[0]), per_10k_steps, at_most)
        return
    top = float(np.nanmax(score)) if np.isfinite(score).any() else None
    stood = f"; {len(notes)} isolated row{'s' if len(notes) > 1 else ''} stood out and came back" if notes else ""
    yield ground.passed(
        f"No loss spike{stood}{known.words}.",
        None if top is None else Statistic("largest jump of a single row", top, UNIT),
        "Single rows that stand out while the gradient stays calm are unusual batches.",
    )


def _gradient(
    run: Run, level_rows: Callable[[NDArray[np.int64]], list[int]], window_rows: int
) -> tuple[Rows, Floats, Floats] | None:
    norm = scalar(run, "grad/norm").finite()
    keep = norm.values > 0
    norm = Rows(norm.steps[keep], np.log(norm.values[keep]))
    if len(norm) < 48:
        return None
    return norm, *segmented_baseline(norm.values, level_rows(norm.steps), window=window_rows)


def _judge(
    rows: Excursion,
    loss: Rows,
    center: Floats,
    scale: Floats,
    grad: tuple[Rows, Floats, Floats] | None,
    limits: Limits,
    of: TrainingLoss,
) -> Spike:
    onset = first = int(loss.steps[rows.first])
    last, top = int(loss.steps[rows.last]), float(loss.values[rows.peak])
    rise = float(top / center[rows.first] - 1)
    ratio, shared = None, False
    if grad is not None:
        norm, g_center, g_sigma = grad
        low = int(np.searchsorted(norm.steps, loss.steps[max(rows.first - LEAD_ROWS, 0)]))
        high = int(np.searchsorted(norm.steps, loss.steps[rows.peak], side="right")) + 1
        jump = norm.values[low:high] - g_center[low:high]
        with np.errstate(invalid="ignore"):
            moved = (jump > np.log(limits.grad_ratio)) & (jump > limits.z * np.fmax(g_sigma[low:high], 0.05))
        ratio = float(np.exp(np.nanmax(jump))) if np.isfinite(jump).any() else None
        shared = bool(moved.any())
        if shared:
            onset = min(onset, int(norm.steps[low + int(np.argmax(moved))]))
    lasted = last - first
    lost = not rows.recovered and lasted >= limits.patience and rows.rows_over >= limits.sustained_rows
    warned = shared or rows.rows_over >= limits.sustained_rows or rise >= limits.lone_rise
    kind: Literal["note", "warn", "fail"] = (
        "fail" if lost or (warned and lasted > limits.patience) else ("warn" if warned else "note")
    )
    # The onset's baseline: a running one follows a lasting spike.
    jumped = float((top - center[rows.first]) / scale[rows.first])
    return Spike(rows, first, last, top, jumped, rise, ratio, onset, kind, of)


def _alarms(
    ground: Ground, alarms: list[Spike], z: float, span_steps: int, per_10k_steps: float, at_most: int
) -> Iterator[Finding]:
    rate = 1e4 * len(alarms) / max(span_steps, 1)
    details = {**ground.details, "spikes": len(alarms), "spikes_per_10k_steps": rate}
    worst = sorted(alarms, key=lambda s: (s.kind != "fail", -s.rise))[:at_most]
    for s in sorted(worst, key=lambda s: s.onset):
        yield _alarm(replace(ground, details=details), s, z)
    if len(alarms) > 3 and rate > per_10k_steps:
        spell = Spell(alarms[0].onset, alarms[-1].last, ongoing=False)
        yield replace(ground, threshold=Threshold(None, per_10k_steps, "per 10,000 steps", "convention")).alarm(
            f"{len(alarms)} loss spikes, {rate:.3g} per 10,000 steps, since step {spell.first:,}{alarms[0].of.words}.",
            Statistic("spikes", rate, "per 10,000 steps"),
            spell,
            evidence=[alarms[0].of.signal],
            means="The run is unstable, not unlucky: spikes at this rate come before divergence.",
            do="Lower the peak learning rate or raise Adam's epsilon, tighten clipping, and check the data filter.",
        )


def _alarm(ground: Ground, s: Spike, z: float) -> Finding:
    back = s.rows.recovered
    state = f"back after {_steps(s.last - s.first + 1)}" if back else "not back at the last step"
    grad = "" if s.grad_ratio is None else f", gradient norm up to {s.grad_ratio:.1f} times its median"
    lead = f" The gradient moved {_steps(s.first - s.onset)} before the loss." if s.onset < s.first else ""
    return ground.alarm(
        f"Loss spike at step {s.first:,}: +{100 * s.rise:.0f} % to {s.top:.3g}{grad}, {state}{s.of.words}.{lead}",
        Statistic("jump", s.z, UNIT),
        s.spell,
        level="fail" if s.kind == "fail" else "warn",
        evidence=[s.of.signal] if s.grad_ratio is None else [s.of.signal, "grad/norm"],
        means="The optimizer took a step that hurt the model."
        if back
        else "The model has lost what it had learnt and is not finding back by itself.",
        do=f"Look at the batches of steps {max(s.onset - 1, 0):,} to {s.first:,} and at the layer whose gradient moved "
        "first."
        if back and s.kind == "warn"
        else f"Restart from a checkpoint some 100 steps before {s.onset:,} and skip the batches around it "
        "(PaLM, https://arxiv.org/abs/2204.02311, section 5.1).",
        details={
            "onset": {
                "method": f"first row above {z:g} {UNIT}; of the gradient norm where it moved within 5 rows before",
                "loss_step": s.first,
            }
        },
    )


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"
