"""Cross-entropies as they are computed, taken apart so that the loss of every token is known.

`F.cross_entropy` is `log_softmax` followed by `nll_loss`. While a tap is live, `torch.nn.functional.cross_entropy`,
which models, criteria and loops look up there, does these two steps itself where a tapped forward is concerned, and
the log-probabilities in between also give the loss of every token. Value and gradient are bit-identical, because the
same two kernels run on the same inputs in the same order:
https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/LossNLL.cpp (cross_entropy_loss_symint).

N targets, C classes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from collectors.model.routers import recomputing
from collectors.signals.collector import Handle

if TYPE_CHECKING:
    from collectors.batch import Batch
    from collectors.signals.loss import LossCollector


@dataclass(frozen=True, slots=True)
class Piece:
    """One cross-entropy."""

    per_token: Tensor
    """[N]"""
    target: Tensor
    """[N]"""
    ignore_index: int


class CrossEntropyWatch(Handle):
    """Stands before torch's cross-entropy while at least one collector listens."""

    active: ClassVar[list[LossCollector]] = []
    latest: ClassVar[LossCollector | None] = None
    """The collector whose model ran last."""
    original: ClassVar[Any] = None

    def __init__(self, collector: LossCollector) -> None:
        self.collector = collector
        if not self.active:
            type(self).original = F.cross_entropy
            F.cross_entropy = _watched(F.cross_entropy)
        self.active.append(collector)

    def remove(self) -> None:
        """Stop listening; the last one puts torch's function back."""
        self.active.remove(self.collector)
        if CrossEntropyWatch.latest is self.collector:
            CrossEntropyWatch.latest = None
        # Who patched the function after us keeps their patch; ours then passes every call through.
        if not self.active and getattr(F.cross_entropy, "_trainvitals", False):
            F.cross_entropy = CrossEntropyWatch.original


def _watched(original: Any) -> Any:
    @functools.wraps(original)
    def cross_entropy(*args: Any, **kwargs: Any) -> Any:
        # Under torch.compile the original must be traced; a recomputation was seen when it was computed first.
        if torch.compiler.is_compiling():
            return original(*args, **kwargs)
        collector = CrossEntropyWatch.latest
        if collector is None or recomputing():
            return original(*args, **kwargs)
        batch = collector.tap.guard(collector, collector.wanted)
        if batch is None:
            return original(*args, **kwargs)
        return taken_apart(original, collector, batch, *args, **kwargs)

    cross_entropy._trainvitals = True  # type: ignore[attr-defined]
    return cross_entropy


def taken_apart(original: Any, collector: LossCollector, batch: Batch, input: Tensor, target: Tensor,
                weight: Tensor | None = None, size_average: bool | None = None, ignore_index: int = -100,
                reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """`F.cross_entropy`, with the per-token losses handed to the collector. input: [N, C] or [N, C, ...]."""
    def unchanged() -> Tensor:
        result: Tensor = original(input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        return result

    if type(input) is not Tensor or type(target) is not Tensor or target.is_floating_point() or input.dim() < 2 or (
            target.shape != input.shape[:1] + input.shape[2:]):
        return unchanged()
    # Which of the two parts autocast lifts to float32 differs between devices.
    lifted = input.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(input.device.type)
    if weight is not None or label_smoothing or size_average is not None or reduce is not None or lifted:
        collector.tap.guard(collector, _beside, collector, batch, input, target, ignore_index)
        return unchanged()
    # No exception is caught around these two: what they raise is what the model's own call would have raised, and
    # activation checkpointing steers its recomputation by exceptions of its own. The dtype is given as ATen gives it.
    log_probability = F.log_softmax(input, 1, dtype=input.dtype)
    loss = F.nll_loss(log_probability, target, ignore_index=ignore_index, reduction=reduction)
    collector.tap.guard(collector, _keep, collector, batch, log_probability.detach(), target, ignore_index)
    return loss


def _beside(collector: LossCollector, batch: Batch, input: Tensor, target: Tensor, ignore_index: int) -> None:
    """A weighted, smoothed or autocast loss is left alone: the plain cross-entropy is computed beside it."""
    collector.tap.once("loss_twice", "The model's loss has class weights, label smoothing or logits in half precision "
                       "under autocast: the plain cross-entropy is computed beside it, a second log_softmax.",
                       unknown=False)
    with torch.no_grad():
        _keep(collector, batch, F.log_softmax(input.detach(), 1, dtype=torch.float32), target, ignore_index)


def _keep(collector: LossCollector, batch: Batch, log_probability: Tensor, target: Tensor, ignore_index: int) -> None:
    # Gradients are off: an operation that saves tensors here, but not in a recomputation, breaks checkpointing.
    with torch.no_grad():
        per_token = F.nll_loss(log_probability, target, ignore_index=ignore_index, reduction="none")
        flat = target.reshape(-1)
        # A copy: the loop may fill the same tensor with the next batch before this one is counted.
        flat = flat.clone() if flat.data_ptr() == target.data_ptr() else flat
    collector.keep(batch, Piece(per_token.reshape(-1), flat, ignore_index))
