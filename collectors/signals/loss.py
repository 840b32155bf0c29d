"""Loss per data domain, without computing the cross-entropy a second time.

Metrics recorded:
    loss/*   per step: cross-entropy and target tokens, in all and per domain; what the model returned
    eval/*   at the step of the evaluation: the same for forwards outside of training

`F.cross_entropy` is `log_softmax` followed by `nll_loss`. While the model's own loss function runs, it is taken apart
into these two, and the log-probabilities in between also give the loss of every token. Value and gradient are
bit-identical, because the same two kernels run on the same inputs in the same order:
https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/LossNLL.cpp (cross_entropy_loss_symint).

N targets, C classes, D domains.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from collectors.batch import Batch, domain_tensor
from collectors.signals.collector import Collector, Handle, count, zeros
from trainvitals.store import FrameWriter


class LossCollector(Collector):
    """Sums of per-token losses and counts of target tokens, per domain."""

    name = "loss"
    turn = 10

    def open(self) -> None:
        tap = self.tap
        self.labels = {"domain": tap.domain_labels}
        self.train_frame: FrameWriter | None = None
        self.eval_frame = tap.frame("eval", [
            "loss/val_sum", "loss/val_tokens", "loss/val_domain_sum", "loss/val_domain_tokens"], labels=self.labels)
        self.rewind()
        # Outermost first: adapters (PEFT) wrap the transformers model that computes the loss.
        self.model = next((m for m in tap.core.modules() if hasattr(type(m), "loss_function")), None)
        if self.model is not None:
            self.handles.append(_LossFunction(self.model, self))

    def rewind(self) -> None:
        self.train = DomainSums(len(self.tap.domain_names))
        self.validation = DomainSums(len(self.tap.domain_names))
        self.returned: dict[str, Tensor] = {}
        self.forwards = 0
        self.held: list[tuple[Tensor, Tensor, int]] = []
        """Per-token losses of the forward that runs, with their targets and the target that is ignored."""

    def wanted(self) -> bool:
        """Whether the loss of the forward that runs will be written."""
        batch = self.tap.batch
        return batch is not None and batch.open and (not batch.training or self.due(self.tap.step + 1))

    def forward(self, batch: Batch) -> None:
        self.held = []
        if batch.training:
            self._write_validation()

    def output(self, batch: Batch, output: Any) -> None:
        for per_token, target, ignore_index in self.held:
            self._count(batch, per_token, target, ignore_index)
        self.held = []
        if not batch.training or not self.due(self.tap.step + 1):
            return
        self.forwards += 1
        for name, attributes in _RETURNED.items():
            value = next((v for a in attributes if isinstance(v := getattr(output, a, None), Tensor)), None)
            if value is not None and value.numel() == 1:
                wide = value.detach().to(torch.float64).reshape(())
                self.returned[name] = self.returned[name] + wide if name in self.returned else wide
        if batch.has_labels and not batch.loss_seen:
            self.tap.once("loss_unseen", "The loss per token and domain is unknown: the model computes its loss "
                          "without torch's cross_entropy (a fused or compiled loss). Pass per-token losses to "
                          "tap.loss(...).")

    def cross_entropy(self, logits: Tensor, target: Tensor, weight: Tensor | None = None,
                      size_average: bool | None = None, ignore_index: int = -100, reduce: bool | None = None,
                      reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        """Stands in for `F.cross_entropy` in the model's loss, and keeps the per-token losses. [N, C], [N]."""
        def unchanged() -> Tensor:
            return F.cross_entropy(logits, target, weight, size_average, ignore_index, reduce, reduction,
                                   label_smoothing)

        if type(logits) is not Tensor or logits.dim() != 2 or target.dim() != 1 or target.is_floating_point():
            return unchanged()
        # Which of the two parts autocast lifts to float32 differs between devices.
        lifted = logits.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(logits.device.type)
        if weight is not None or label_smoothing or size_average is not None or reduce is not None or lifted:
            self.tap.guard(self, self._add_apart, logits, target, ignore_index)
            return unchanged()
        try:
            # The dtype is given as ATen gives it.
            log_probability = F.log_softmax(logits, 1, dtype=logits.dtype)
            loss = F.nll_loss(log_probability, target, ignore_index=ignore_index, reduction=reduction)
        except Exception as error:  # whatever fails here must fail, or not, as it does without the tap
            loss = unchanged()  # raises where the fault is the caller's; then the collector is not to blame
            self.tap.disable(self, error)
            return loss
        self.tap.guard(self, self._add, log_probability.detach(), target, ignore_index)
        return loss

    def _add_apart(self, logits: Tensor, target: Tensor, ignore_index: int) -> None:
        """A weighted, smoothed or autocast loss is left alone: the plain cross-entropy is computed beside it."""
        self.tap.once("loss_twice", "The model's loss has class weights, label smoothing or logits in half "
                      "precision under autocast: the plain cross-entropy is computed beside it, which costs a second "
                      "log_softmax.")
        with torch.no_grad():
            self._add(F.log_softmax(logits.detach(), 1, dtype=torch.float32), target, ignore_index)

    def _add(self, log_probability: Tensor, target: Tensor, ignore_index: int) -> None:
        batch = self.tap.batch
        assert batch is not None
        self.held.append((F.nll_loss(log_probability, target, ignore_index=ignore_index, reduction="none"), target,
                          ignore_index))
        batch.loss_seen = True

    def _count(self, batch: Batch, per_token: Tensor, target: Tensor, ignore_index: int) -> None:
        ids = batch.target_ids(target.shape[0], shifted=self.shifted)
        if ids is None:
            self.tap.once("loss_unaligned", f"A loss over {target.shape[0]} targets does not line up with a batch of "
                          f"shape {batch.shape}: its tokens count as unattributed.")
            ids = torch.full_like(target, batch.domains)
        rows = ids.to(target.device).masked_fill(target == ignore_index, batch.domains + 1)
        self._sums(batch.training).add(per_token, rows)

    def add_tokens(self, per_token: Tensor, domain: Any, mask: Tensor | None) -> None:
        """What `tap.loss` takes: losses of any shape, domains and mask that broadcast to it from the left."""
        batch = self.tap.batch
        training = batch.training if batch is not None else torch.is_grad_enabled() and self.tap.core.training
        if batch is not None and batch.loss_seen:
            self.tap.once("loss_ignored", "tap.loss was called for a batch whose loss the model had computed itself: "
                          "it is counted once, as the model computed it.")
            return
        if training and not self.due(self.tap.step + 1):
            return
        per_token, names = per_token.detach(), self.tap.domain_names
        if domain is not None:
            ids = domain_tensor(domain, names, per_token.device)
        else:
            aligned = batch.target_ids(per_token.numel(), shifted=True) if batch is not None else None
            ids = aligned.reshape(per_token.shape) if aligned is not None else torch.full(
                per_token.shape, len(names), dtype=torch.int64, device=per_token.device)
        ids = _spread(ids, per_token)
        if mask is not None:
            ids = torch.where(_spread(mask, per_token).to(torch.bool), ids, len(names) + 1)
        self._sums(training).add(per_token.reshape(-1), ids.reshape(-1))
        if batch is not None:
            batch.loss_seen = batch.open
        elif training:
            self.forwards += 1

    @property
    def shifted(self) -> bool:
        """Whether the model's loss at a position is that of the next token."""
        return "MaskedLM" not in str(getattr(self.model, "loss_type", ""))

    def _sums(self, training: bool) -> DomainSums:
        if training:
            return self.train
        self.validation_step = self.tap.step
        return self.validation

    def after_step(self, step: int) -> None:
        if self.due(step) and (self.forwards or self.train.values):
            values = self.train.take() | self.returned | {"loss/forwards": self.forwards}
            if self.train_frame is None:
                # Only what this model computes: a loss that it does not have is not a loss of NaN.
                computed = list(DomainSums.FIELDS) if "losses" in values else []
                self.train_frame = self.tap.frame("loss", [*computed, *self.returned, "loss/forwards"],
                                                         labels=self.labels)
            self.emit(self.train_frame, step, values, DomainSums.fields)
        self.returned, self.forwards = {}, 0

    def finish(self) -> None:
        self._write_validation()

    def _write_validation(self) -> None:
        if self.validation.values:
            self.emit(self.eval_frame, self.validation_step, self.validation.take(), _validation_fields)


def _validation_fields(host: dict[str, Any]) -> dict[str, Any]:
    fields = DomainSums.fields(host)
    del fields["loss/nonfinite_tokens"]
    return {name.replace("loss/", "loss/val_"): value for name, value in fields.items()}


_RETURNED = {"loss/returned_sum": ("loss",), "loss/aux_sum": ("aux_loss",),
             "loss/z_sum": ("z_loss", "router_z_loss")}
"""Attributes of a model's output that hold each returned loss."""


class DomainSums:
    """Running sums over tokens, on the device of the losses."""

    FIELDS = ("loss/sum", "loss/tokens", "loss/nonfinite_tokens", "loss/domain_sum", "loss/domain_tokens")

    def __init__(self, domains: int) -> None:
        self.domains = domains
        self.values: tuple[Tensor, Tensor] | None = None
        """Sums of losses [D + 2], and counts of tokens [(D + 2) * 2], those of finite losses after the others."""

    def add(self, per_token: Tensor, rows: Tensor) -> None:
        """Add losses [N] at rows [N] of the D + 2 rows; what is in the last row is not counted."""
        if self.values is None:
            size, device = self.domains + 2, per_token.device
            self.values = (zeros(size, dtype=torch.float64, device=device),
                           zeros(2 * size, dtype=torch.int64, device=device))
        losses, tokens = self.values
        losses.index_add_(0, rows, per_token.to(torch.float64))
        count(tokens, torch.add(per_token.abs() < math.inf, rows, alpha=2))

    def take(self) -> dict[str, Tensor]:
        """The sums since the last call, as `fields` takes them; {} if there are none."""
        if self.values is None:
            return {}
        losses, tokens = self.values
        self.values = None
        return {"losses": losses, "tokens": tokens}

    @staticmethod
    def fields(host: dict[str, Any]) -> dict[str, Any]:
        """The training frame's fields of a row that holds sums."""
        if "losses" not in host:
            return host
        losses, tokens = host.pop("losses")[:-1], host.pop("tokens")[:-2]
        nonfinite, finite = tokens[::2], tokens[1::2]
        return host | {"loss/sum": sum(losses.tolist()), "loss/tokens": sum(tokens.tolist()),
                       "loss/nonfinite_tokens": sum(nonfinite.tolist()), "loss/domain_sum": losses,
                       "loss/domain_tokens": nonfinite + finite}


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Values per row, or per token, for every element of `like`."""
    values = values.to(like.device)
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim())).expand(like.shape)


class _TakenApart(TorchFunctionMode):
    """While it is active, cross-entropies go through the collector."""

    def __init__(self, collector: LossCollector) -> None:
        super().__init__()
        self.collector = collector

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = self.collector.cross_entropy if func is F.cross_entropy else func
        return call(*args, **(kwargs or {}))


class _WatchedLoss:
    """The model's loss function. Copies and pickles of the model get the original back."""

    def __init__(self, original: Any, collector: LossCollector) -> None:
        self.original = original
        self.collector = collector
        self.__name__ = getattr(original, "__name__", type(original).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Under torch.compile the original must be traced, not this wrapper's Python.
        if torch.compiler.is_compiling() or not self.collector.wanted():
            return self.original(*args, **kwargs)
        with _TakenApart(self.collector):
            return self.original(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.original,)


def _itself(function: Any) -> Any:
    return function


class _LossFunction(Handle):
    """Stands in for `model.loss_function` of a transformers model until `remove()` puts back what was there."""

    def __init__(self, model: Any, collector: LossCollector) -> None:
        self.model = model
        self.own = vars(model).get("_loss_function")
        self.wrapper = _WatchedLoss(model.loss_function, collector)
        model.loss_function = self.wrapper

    def remove(self) -> None:
        # Someone may have set another loss function since; that one stays.
        if vars(self.model).get("_loss_function") is not self.wrapper:
            return
        if self.own is not None:
            self.model.loss_function = self.own
        else:
            del self.model._loss_function
