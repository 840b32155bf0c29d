"""loss.nonfinite: a loss or gradient that is not a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.finding import Evidence, Finding, Level, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.loss._signal import INSTEAD, PER_TOKEN, RETURNED, training_loss
from checks.masking import warmup_steps
from checks.reading import has, scalar, vector
from checks.registry import check
from checks.robust import Bools, Floats

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "Megatron-LM stops on any NaN or infinite loss: "
    "https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/rerun_state_machine.py"
)
FP16_SOURCE = "convention; fp16 loss scaling skips overflowing steps"
Steps = NDArray[np.int64]
SIGNALS: dict[str, Callable[[Floats], Bools]] = {
    PER_TOKEN: np.isfinite,
    RETURNED: np.isfinite,
    "grad/norm": np.isfinite,
    "loss/nonfinite_tokens": lambda x: ~(x > 0),
    "grad/nonfinite": lambda x: ~(x > 0),
    "skipped/nonfinite": lambda x: ~(x > 0),
    "unused/nonfinite_tokens": lambda x: ~(x > 0),
}
"""Signal -> which of its values are in order. Counts that are missing (NaN) are no fault."""
BY_RANK = ("loss/nonfinite_by_rank", "unused/nonfinite_by_rank", "grad/nonfinite_by_rank")
"""Counts of each rank, from cause to effect."""


@check(
    "loss.nonfinite",
    area="loss",
    reads=("loss/train",),
    uses=(
        "loss/nonfinite_tokens",
        "grad/norm",
        "grad/nonfinite",
        "skipped/nonfinite",
        "unused/nonfinite_tokens",
        *BY_RANK,
    ),
    instead=INSTEAD,
    needs=("nonfinite", "sampled", "last", "rank"),
    refs=("https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/rerun_state_machine.py",),
)
def nonfinite(run: Run, *, fp16_skips_per_1000: float = 1.0) -> Iterator[Finding]:
    """A loss or a gradient was NaN or infinite.

    Why it matters: one such step that reaches the optimizer destroys every weight. How to read it: the signal that
    went first says whether the forward (loss) or the backward (gradient) broke. Under fp16 the loss scaler skips
    steps whose gradient overflows; while it searches its scale, and up to `fp16_skips_per_1000` steps in a
    thousand, that is normal. Of several ranks the answer names the one it began on alone, or says that it cannot be
    told: averaged gradients break on all ranks in the same step.
    """
    known = training_loss(run)
    bad = {name: _bad_steps(run, name, SIGNALS[name]) for name in SIGNALS if has(run, name)}
    if "grad/norm" in bad and "grad/nonfinite" not in bad and not np.isfinite(scalar(run, "grad/norm").values).any():
        # Norms that were never a number are a log without norms, not a run without gradients.
        bad.pop("grad/norm")
    losses = known.rows
    seen = [name for name in ("grad/norm", "grad/nonfinite") if name in bad]
    ground = Ground(len(losses), Threshold(None, 1, "steps", SOURCE))
    last = int(losses.steps[-1]) if len(losses) else 0
    found = Faults({name: steps for name, steps in bad.items() if len(steps)}, last)
    if not found.steps:
        norms = len(scalar(run, "grad/norm")) if "grad/norm" in seen else 0
        yield ground.passed(
            f"All {len(losses):,} losses{f' and {norms:,} gradient norms' if norms else ''} are finite{known.words}.",
            Statistic("non-finite steps", 0, "steps"),
            "No row carried a NaN or an infinity."
            + ("" if seen else " Gradients are not in the record, so one that broke and was skipped would not show."),
        )
        return
    scaled = "16" in run.card.precision and "bf" not in run.card.precision.lower()
    if found.kept_out or (scaled and not any(name.startswith("loss/") for name in found.steps)):
        yield _skipped(ground, found, warmup_steps(run), fp16_skips_per_1000, _where(run, found))
    else:
        yield _destroyed(ground, found, _where(run, found))


def _where(run: Run, found: Faults) -> tuple[str, str | None]:
    """On which rank it began, in words, and its label; "" for a run of one rank."""
    if run.extent().ranks < 2:
        return "", None
    for name in BY_RANK:
        rows = vector(run, name) if has(run, name) else None
        broken = np.nan_to_num(rows.values) > 0 if rows is not None else np.zeros((0, 0), bool)
        if rows is None or not broken.any():
            continue
        at = int(np.argmax(broken.any(axis=1)))
        if int(rows.steps[at]) > found.spell.first:
            continue
        alone = np.flatnonzero(broken[at])
        if len(alone) == 1:
            until = next((int(step) for step, row in zip(rows.steps, broken, strict=True) if row.sum() > 1), None)
            label = rows.labels[int(alone[0])]
            spread = f", on others from step {until:,} on" if until is not None else ", and on no other"
            return f" It began on rank {label} alone{spread}.", label
    return " On which rank it began cannot be told: it shows on several in its first step.", None


@dataclass(frozen=True, slots=True)
class Faults:
    """Steps that were not finite."""

    steps: dict[str, Steps]
    """Signal -> its steps, of those that have any."""
    last_step: int

    @property
    def first(self) -> dict[str, int]:
        """Signal -> first such step."""
        return {name: int(steps[0]) for name, steps in self.steps.items()}

    @property
    def union(self) -> Steps:
        """Every such step once."""
        return np.unique(np.concatenate(list(self.steps.values())))

    @property
    def kept_out(self) -> bool:
        """Whether none of it was in a gradient that an optimizer used."""
        return all(name.startswith(("skipped/", "unused/")) for name in self.steps)

    @property
    def spell(self) -> Spell:
        """From the first such step to the last."""
        union = self.union
        return Spell(int(union[0]), int(union[-1]), ongoing=bool(union[-1] >= self.last_step))

    @property
    def mover(self) -> str:
        """The signal that went first; in the same step the loss comes before the gradient."""
        return min(self.first, key=lambda name: (self.first[name], name.startswith("grad/")))


def _destroyed(ground: Ground, found: Faults, where: tuple[str, str | None]) -> Finding:
    part = "forward" if found.mover.startswith("loss/") else "backward"
    return _finding(
        ground,
        found,
        where,
        "fail",
        f"The weights are destroyed if the optimizer took one of these steps; the {part} pass broke first.",
        f"Go back to the last checkpoint before step {found.spell.first:,}, look at that step's batch, and skip it or "
        "lower the learning rate; guard the optimizer step against non-finite norms.",
    )


def _skipped(
    ground: Ground, found: Faults, warmup: int, per_1000: float, where: tuple[str, str | None]
) -> Finding:
    rate = 1000 * int((found.union > warmup).sum()) / max(ground.n, 1)
    limit = Threshold(
        per_1000, None, "skipped steps per 1,000", "convention; fp16 loss scaling skips overflowing steps"
    )
    return _finding(
        replace(ground, threshold=limit),
        found,
        where,
        "pass" if rate <= per_1000 else "warn",
        "No optimizer used these gradients: the loop or its loss scaler skipped them."
        if found.kept_out
        else "The loss scaler skips steps whose fp16 gradient overflows; these were such steps.",
        "Look at the batches that were skipped, and watch the loss scale; move to bf16 where the hardware has it."
        if found.kept_out
        else "Watch the loss scale; move to bf16 where the hardware has it.",
    )


def _finding(
    ground: Ground, found: Faults, where: tuple[str, str | None], level: Level, means: str, do: str
) -> Finding:
    spell, count = found.spell, len(found.union)
    end = "to the last step" if spell.ongoing else f"the last at {spell.last:,}"
    return ground.alarm(
        f"{count:,} step{'s' if count > 1 else ''} with a NaN or infinite value since step {spell.first:,}, first in "
        f"{found.mover}, {end}.{where[0]}",
        Statistic("non-finite steps", count, "steps"),
        spell,
        level=level,
        evidence=[
            Evidence(name, (step, int(found.steps[name][-1])))
            for name, step in sorted(found.first.items(), key=lambda item: item[1])
        ],
        means=means,
        do=f"{do} Test the device of rank {where[1]}: others had none of it." if where[1] is not None else do,
        details={"first_step_by_signal": found.first, "rank": where[1]},
        onset="exact: the first such step",
    )


def _bad_steps(run: Run, name: str, fine: Callable[[Floats], Bools]) -> Steps:
    rows = scalar(run, name)
    return rows.steps[~fine(rows.values)]
