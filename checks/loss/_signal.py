"""The training loss that a check of the loss reads: per target token, else as the model returned it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.reading import Rows, has, scalar

if TYPE_CHECKING:
    from trainvitals.store import Run

PER_TOKEN, RETURNED = "loss/train", "loss/returned"
INSTEAD = {PER_TOKEN: RETURNED}
"""A loop whose cross-entropy the tap could not see still has the loss that its model returned. Auxiliary terms are
in it, and it is a mean over forwards, not over tokens; a spike, a climb and a NaN show all the same."""


@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """Rows of the loss, and whose they are."""

    signal: str
    rows: Rows

    @property
    def words(self) -> str:
        """What an answer adds where it rests on the returned loss."""
        return "" if self.signal == PER_TOKEN else " (the loss as the model returned it; per token it is unknown)"


def training_loss(run: Run) -> TrainingLoss:
    """The loss of the run."""
    name = PER_TOKEN if has(run, PER_TOKEN) else RETURNED
    return TrainingLoss(name, scalar(run, name))
