"""loss.nonfinite: a loss or gradient that is not a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.finding import Evidence, Finding, Level, Statistic, Threshold
from checks.masking import warmup_steps
from checks.reading import has, scalar
from checks.registry import check
from checks.robust import Bools, Floats

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "Megatron-LM stops on any NaN or infinite loss: "
    "https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/rerun_state_machine.py"
)
Steps = NDArray[np.int64]
SIGNALS: dict[str, Callable[[Floats], Bools]] = {
    "loss/train": np.isfinite,
    "grad/norm": np.isfinite,
    "loss/nonfinite_tokens": lambda x: ~(x > 0),
    "grad/nonfinite": lambda x: ~(x > 0),
}
"""Signal -> which of its values are in order. Counts that are missing (NaN) are no fault."""


@check(
    "loss.nonfinite",
    area="loss",
    reads=("loss/train",),
    uses=("loss/nonfinite_tokens", "grad/norm", "grad/nonfinite"),
    refs=("https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/rerun_state_machine.py",),
)
def nonfinite(run: Run, *, fp16_skips_per_1000: float = 1.0) -> Iterator[Finding]:
    """A loss or a gradient was NaN or infinite.

    Why it matters: one such step that reaches the optimizer destroys every weight. How to read it: the signal that
    went first says whether the forward (loss) or the backward (gradient) broke. Under fp16 the loss scaler skips
    steps whose gradient overflows; while it searches its scale, and up to `fp16_skips_per_1000` steps in a
    thousand, that is normal.
    """
    bad = {name: _bad_steps(run, name, SIGNALS[name]) for name in SIGNALS if has(run, name)}
    if "grad/norm" in bad and "grad/nonfinite" not in bad and not np.isfinite(scalar(run, "grad/norm").values).any():
        # Norms that were never a number are a log without norms, not a run without gradients.
        bad.pop("grad/norm")
    losses = scalar(run, "loss/train")
    threshold = Threshold(None, 1, "steps", SOURCE)
    first = {name: int(steps[0]) for name, steps in bad.items() if len(steps)}
    if not first:
        yield Finding(
            level="pass",
            summary=f"All {len(losses):,} losses are finite.",
            n=len(losses),
            threshold=threshold,
            statistic=Statistic("non-finite steps", 0, "steps"),
            what_it_means="No step carried a NaN or an infinity.",
            what_to_do="Nothing.",
        )
        return
    found = Faults(bad, first, len(losses), int(losses.steps[-1]) if len(losses) else 0)
    scaled = "16" in run.card.precision and "bf" not in run.card.precision.lower()
    if scaled and not any(name.startswith("loss/") for name in first):
        yield _skipped(found, warmup_steps(run), fp16_skips_per_1000)
    else:
        yield _destroyed(found, threshold)


@dataclass(frozen=True, slots=True)
class Faults:
    """Steps that were not finite."""

    bad: dict[str, Steps]
    """Signal -> steps"""
    first: dict[str, int]
    """Signal -> first such step, of those that have one"""
    n: int
    last_step: int

    @property
    def union(self) -> Steps:
        """Every such step once."""
        return np.unique(np.concatenate([steps for steps in self.bad.values() if len(steps)]))

    @property
    def mover(self) -> str:
        """The signal that went first; in the same step the loss comes before the gradient."""
        return min(self.first, key=lambda name: (self.first[name], name.startswith("grad/")))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Each signal's steps, earliest first."""
        names = sorted(self.first, key=lambda name: self.first[name])
        return tuple(Evidence(name, (self.first[name], int(self.bad[name][-1]))) for name in names)

    def finding(self, level: Level, threshold: Threshold, meaning: str, advice: str) -> Finding:
        """The finding, whatever it means."""
        union = self.union
        first, last = int(union[0]), int(union[-1])
        ongoing = last >= self.last_step
        until = ", to the last step." if ongoing else f", the last at {last:,}."
        return Finding(
            level=level,
            n=self.n,
            steps=(first, last),
            ongoing=ongoing,
            summary=f"{len(union):,} step{'s' if len(union) > 1 else ''} with a NaN or infinite value since step "
            f"{first:,}, first in {self.mover}{until}",
            statistic=Statistic("non-finite steps", len(union), "steps"),
            threshold=threshold,
            evidence=self.evidence,
            what_it_means=meaning,
            what_to_do=advice,
            details={"first_step_by_signal": self.first, "onset": {"method": "exact: the first such step"}},
        )


def _destroyed(found: Faults, threshold: Threshold) -> Finding:
    part = "forward" if found.mover.startswith("loss/") else "backward"
    first = int(found.union[0])
    return found.finding(
        "fail",
        threshold,
        f"The weights are destroyed if the optimizer took one of these steps; the {part} pass broke first.",
        f"Go back to the last checkpoint before step {first:,}, look at that step's batch, and skip it or lower the "
        "learning rate; guard the optimizer step against non-finite norms.",
    )


def _skipped(found: Faults, warmup: int, per_1000: float) -> Finding:
    rate = 1000 * int((found.union > warmup).sum()) / max(found.n, 1)
    return found.finding(
        "pass" if rate <= per_1000 else "warn",
        Threshold(per_1000, None, "skipped steps per 1,000", "convention; fp16 loss scaling skips overflowing steps"),
        "The loss scaler skips steps whose fp16 gradient overflows; these were such steps.",
        "Watch the loss scale; move to bf16 where the hardware has it.",
    )


def _bad_steps(run: Run, name: str, fine: Callable[[Floats], Bools]) -> Steps:
    rows = scalar(run, name)
    return rows.steps[~fine(rows.values)]
