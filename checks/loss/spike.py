"""loss.spike: sudden jumps of the training loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
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


@dataclass(frozen=True, slots=True)
class Spike:
    """One excursion of the loss, judged."""

    rows: Excursion
    z: float
    rise: float
    """Peak over baseline, minus 1."""
    grad_ratio: float | None
    """Largest gradient norm around it over its running median; None without gradient norms."""
    onset: int
    """Step at which it began: of the gradient where that moved first."""
    kind: Literal["note", "warn", "fail"]


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
    loss = scalar(run, "loss/train").finite()
    if len(loss) < 48:
        yield Finding(
            level="unknown",
            n=len(loss),
            summary=f"{len(loss)} finite losses are too few to know their noise.",
            what_it_means="A jump is judged against the scatter of the rows before it.",
            what_to_do="Wait for at least 48 logged steps.",
        )
        return
    mask = quiet(run, "loss")
    center, sigma = segmented_baseline(loss.values, mask.level_rows(loss.steps), window=window_rows)
    scale = np.fmax(sigma, 1e-3 * np.abs(center))
    with np.errstate(invalid="ignore"):
        score = (loss.values - center) / scale
        over = (score > z) & (loss.values > (1 + min_rise) * center)
    limit = center + np.fmax(2 * scale, min_rise * np.abs(center))
    found = excursions(loss.values, over, limit)
    grad = _gradient(run, mask.level_rows, window_rows)
    patience = min(recover_steps, max(20, run_length(run) // 20))
    limits = Limits(z, lone_rise, sustained_rows, grad_ratio, patience)
    spikes: list[Spike] = []
    masked: list[Masked] = []
    for rows in found:
        if events := mask.explains(int(loss.steps[rows.first]), int(loss.steps[rows.last])):
            masked += events
            continue
        spikes.append(_judge(rows, loss, center, scale, grad, limits))
    top = float(np.nanmax(score)) if np.isfinite(score).any() else None
    yield from _report(loss, spikes, tuple(dict.fromkeys(masked)), grad is not None, z, per_10k_steps, at_most, top)


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
) -> Spike:
    onset = int(loss.steps[rows.first])
    rise = float(loss.values[rows.peak] / center[rows.first] - 1)
    ratio = None
    if grad is not None:
        norm, g_center, g_sigma = grad
        low = int(np.searchsorted(norm.steps, loss.steps[max(rows.first - LEAD_ROWS, 0)]))
        high = int(np.searchsorted(norm.steps, loss.steps[rows.peak], side="right")) + 1
        jump = norm.values[low:high] - g_center[low:high]
        with np.errstate(invalid="ignore"):
            moved = (jump > np.log(limits.grad_ratio)) & (jump > limits.z * np.fmax(g_sigma[low:high], 0.05))
        ratio = float(np.exp(np.nanmax(jump))) if np.isfinite(jump).any() else None
        if moved.any():
            onset = min(onset, int(norm.steps[low + int(np.argmax(moved))]))
        shared = bool(moved.any())
    else:
        shared = False
    lasted = int(loss.steps[rows.last] - loss.steps[rows.first])
    lost = not rows.recovered and lasted >= limits.patience and rows.rows_over >= limits.sustained_rows
    warned = shared or rows.rows_over >= limits.sustained_rows or rise >= limits.lone_rise
    kind: Literal["note", "warn", "fail"] = (
        "fail" if lost or (warned and lasted > limits.patience) else ("warn" if warned else "note")
    )
    # The onset's baseline: a running one follows a lasting spike.
    jumped = float((loss.values[rows.peak] - center[rows.first]) / scale[rows.first])
    return Spike(rows, jumped, rise, ratio, onset, kind)


def _report(
    loss: Rows,
    spikes: list[Spike],
    masked: tuple[Masked, ...],
    with_grad: bool,
    z: float,
    per_10k_steps: float,
    at_most: int,
    top: float | None,
) -> Iterator[Finding]:
    threshold = Threshold(z, None, "robust deviations", SOURCE)
    alarms = [s for s in spikes if s.kind != "note"]
    notes = [s for s in spikes if s.kind == "note"]
    details = {
        "isolated_rows": len(notes),
        "isolated_at": [int(loss.steps[s.rows.first]) for s in notes[:50]],
        "gradient_known": with_grad,
    }
    if not alarms:
        yield Finding(
            level="pass",
            n=len(loss),
            threshold=threshold,
            masked=masked,
            details=details,
            statistic=None if top is None else Statistic("largest jump of a single row", top, "robust deviations"),
            summary="No loss spike."
            if not notes
            else f"No loss spike; {len(notes)} isolated row{'s' if len(notes) > 1 else ''} stood out and came back.",
            what_it_means="Single rows that stand out while the gradient stays calm are unusual batches.",
            what_to_do="Nothing.",
        )
        return
    span = max(int(loss.steps[-1] - loss.steps[0]), 1)
    rate = 1e4 * len(alarms) / span
    often = len(alarms) > 3 and rate > per_10k_steps
    worst = sorted(alarms, key=lambda s: (s.kind != "fail", -s.rise))[:at_most]
    for s in sorted(worst, key=lambda s: s.onset):
        yield _finding(loss, s, threshold, masked, details | {"spikes": len(alarms), "spikes_per_10k_steps": rate}, z)
    if often:
        yield Finding(
            level="fail",
            n=len(loss),
            masked=masked,
            details=details,
            steps=(alarms[0].onset, int(loss.steps[alarms[-1].rows.last])),
            summary=f"{len(alarms)} loss spikes, {rate:.3g} per 10,000 steps, since step {alarms[0].onset:,}.",
            statistic=Statistic("spikes", rate, "per 10,000 steps"),
            threshold=Threshold(None, per_10k_steps, "per 10,000 steps", "convention"),
            evidence=(Evidence("loss/train", (alarms[0].onset, int(loss.steps[alarms[-1].rows.last]))),),
            what_it_means="The run is unstable, not unlucky: spikes at this rate come before divergence.",
            what_to_do="Lower the peak learning rate or raise Adam's epsilon, tighten clipping, and check the "
            "data filter.",
        )


def _finding(
    loss: Rows,
    s: Spike,
    threshold: Threshold,
    masked: tuple[Masked, ...],
    details: dict[str, object],
    z: float,
) -> Finding:
    last = int(loss.steps[s.rows.last])
    first = int(loss.steps[s.rows.first])
    state = f"back after {_steps(last - first + 1)}" if s.rows.recovered else "not back at the last step"
    grad = "" if s.grad_ratio is None else f", gradient norm up to {s.grad_ratio:.1f} times its median"
    lead = f" The gradient moved {_steps(first - s.onset)} before the loss." if s.onset < first else ""
    return Finding(
        level="fail" if s.kind == "fail" else "warn",
        n=len(loss),
        steps=(s.onset, last),
        ongoing=not s.rows.recovered,
        summary=f"Loss spike at step {first:,}: +{100 * s.rise:.0f} % to "
        f"{loss.values[s.rows.peak]:.3g}{grad}, {state}.{lead}",
        statistic=Statistic("jump", s.z, "robust deviations"),
        threshold=threshold,
        masked=masked,
        evidence=(
            Evidence("loss/train", (s.onset, last)),
            *([] if s.grad_ratio is None else [Evidence("grad/norm", (s.onset, last))]),
        ),
        what_it_means="The optimizer took a step that hurt the model."
        if s.rows.recovered
        else "The model has lost what it had learnt and is not finding back by itself.",
        what_to_do=f"Look at the batches of steps {max(s.onset - 1, 0):,} to {first:,} and at the layer whose "
        f"gradient moved "
        "first."
        if s.rows.recovered and s.kind == "warn"
        else f"Restart from a checkpoint some 100 steps before {s.onset:,} and skip the batches around it "
        "(PaLM, https://arxiv.org/abs/2204.02311, section 5.1).",
        details=details
        | {
            "onset": {
                "method": f"first row above {z:g} robust deviations; of the gradient norm where it "
                "moved within 5 rows before",
                "loss_step": first,
            }
        },
    )


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"
