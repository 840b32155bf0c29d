"""The tap: hooks that follow a training loop step by step, and the guard that keeps it unharmed.

    tap = tv.attach(model, optimizer, run="runs/mine", domains={"web": 0.7, "code": 0.3})
    ...                                   # the loop as it was; batches may carry "domain"
    tap.close()

Do no harm: nothing of a collector is ever raised into the loop, no value is waited for, no rank talks to another, and
weights come out bit-identical to those of a run without the tap.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from collectors.batch import Batch
from collectors.coverage import Coverage
from collectors.logger import Logger
from collectors.model import facts as model_facts
from collectors.model.layers import find_layers
from collectors.model.routers import recomputing
from collectors.resume import ResumeWatch
from collectors.scaler import ScaleWatch
from collectors.signals.collector import Collector, Hook
from collectors.signals.learning_rate import GroupPlan
from collectors.signals.loss import LossCollector
from collectors.signals.registry import all_collectors, default_cadences
from collectors.step import Steps, parts_of
from collectors.transfer import Transfer, Work
from trainvitals.card import RunCard
from trainvitals.catalogue import UNKNOWN, Field
from trainvitals.store import FrameWriter, RunWriter

log = logging.getLogger("trainvitals")

COLLECTORS = all_collectors()
MOMENTS = ("forward", "output", "evaluated", "trained", "unused", "gradients", "skipped", "before_update",
           "after_update", "after_step", "rewind")
"""Methods of a collector that the loop calls while it runs."""

CADENCES = default_cadences(COLLECTORS)
"""Steps between two rows, by name; 0 switches off. `system` writes at most every 10 s."""


@dataclass(kw_only=True)
class Plans:
    """What attach worked out about the job before the tap begins."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    card: RunCard
    lr: list[GroupPlan] | None
    tokenizer: Any
    start_step: int
    scheduler: Any = None
    cadences: dict[str, int]


_TAPPED: WeakSet[nn.Module] = WeakSet()
"""Modules that have a live tap."""


def is_tapped(model: nn.Module) -> bool:
    """Whether a tap that is not closed sits on this module."""
    return core_of(model) in _TAPPED


class Tap(Logger):
    """A live tap on one process of a training job. Made by `attach`."""

    follows_training = True

    def __init__(self, writer: RunWriter, plans: Plans) -> None:
        super().__init__(writer, plans.card)
        self.tokenizer, self.plans = plans.tokenizer, plans.lr
        self.batch: Batch | None = None
        self.model = plans.model
        self.core = core_of(plans.model)
        self.optimizers = plans.optimizers
        self.domain_names = list(self.card.domains)
        self.domain_labels = self.card.domain_labels
        self.layers = find_layers(self.model, [p for group in self.param_groups for p in group["params"]])
        self.device = self.layers.parameters[0].device
        self._cadences = plans.cadences
        self.rank, self.world_size = writer.rank, writer.world_size
        self._failed: set[Collector] = set()
        self.transfer = Transfer(self.guard)
        self.parts = parts_of(self.optimizers, self.layers.parameters)
        self.scale = ScaleWatch()
        self.steps = Steps(plans.start_step, self.parts, self.layers.parameters, self._each, self.once,
                           lambda *args: self.guard(*args))
        self.resumes = ResumeWatch(self.core, self.optimizers, plans.scheduler, lambda: self.steps.done, self._rewind,
                                   self.once, self.guard)
        self.collectors = {c.name: c(self, every) for c in COLLECTORS if (every := self._cadences[c.name])}
        self._called_at = {moment: [c for c in self.collectors.values()
                                    if getattr(type(c), moment) is not getattr(Collector, moment)]
                           for moment in MOMENTS}
        self._handles: list[Any] = []
        self._card_complete = False
        self._closed = False
        _TAPPED.add(self.core)
        for collector in list(self.collectors.values()):
            self.guard(collector, collector.open)
        self.coverage = Coverage(lambda fields: self.frame("coverage", fields), self.once, self.core,
                                 self.layers.parameters, self.collectors)
        self._place_hooks()
        self._say_coverage()
        self._write_card()
        atexit.register(self.close)

    # ---- what users call -------------------------------------------------------------------------------------

    def loss(self, per_token: Tensor, domain: Any = None, mask: Tensor | None = None) -> None:
        """Hand over per-token losses, in a loop whose model does not compute its loss itself.

        Args:
            per_token: cross-entropy of every target token, any shape, in nats.
            domain: id or name of each target token's domain, per row or per token; None takes it from the batch.
            mask: True where the loss counts; None counts all.
        """
        collector = self.collectors.get("loss")
        if isinstance(collector, LossCollector):
            self.guard(collector, collector.add_tokens, per_token, domain, mask)

    @contextmanager
    def evaluation(self, name: str) -> Iterator[None]:
        """Name the evaluation set of the forwards inside: `with tap.evaluation("held-out"): evaluate(...)`.

        Its loss is `loss/val_set`, one series per name.
        """
        collector = self.collectors.get("loss")
        if isinstance(collector, LossCollector):
            self.guard(collector, collector.evaluation_begins, str(name))
        try:
            yield
        finally:
            self.evaluated(name)

    def evaluated(self, name: str = "") -> None:
        """The same, after the fact: what was evaluated since the last boundary is of this set, or of the only one."""
        collector = self.collectors.get("loss")
        if isinstance(collector, LossCollector):
            self.guard(collector, collector.evaluation_ends, str(name))

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
                        foreach: bool | None = None) -> Tensor:
        """`torch.nn.utils.clip_grad_norm_` over the model's parameters; the norms are taken in the same pass."""
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm, norm_type, error_if_nonfinite, foreach)

    def rewind(self, step: int) -> None:
        """The job went back to an earlier step, say by loading a checkpoint: what follows is a new attempt."""
        self.guard(None, self._rewind, step)

    def close(self) -> None:
        """Write what is left and take everything out of the model. Calling it again does nothing."""
        if self._closed or os.getpid() != self.process:
            return  # a forked child inherits the tap, and must not close it
        self._closed = True
        _TAPPED.discard(self.core)
        atexit.unregister(self.close)
        if self.guard(None, self.transfer.drain):  # else the device hangs, and no collector may wait for it
            self.guard(None, self.steps.finish)
            self.guard(None, self.coverage.rewind)
            for collector in list(self.collectors.values()):
                self.guard(collector, collector.finish)
            self.guard(None, self.transfer.drain)
        for collector in list(self.collectors.values()):
            self.guard(collector, collector.remove)
        for handle in self._handles:
            handle.remove()
        self.leave()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.tell("exception", f"training ended with {kind.__name__ if kind else ''}: {error}")
        self.close()

    # ---- what collectors call --------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimizer steps done so far."""
        return self.steps.done

    @property
    def loss_scale(self) -> Tensor | None:
        """Factor that a gradient scaler put on the loss of the last backward; None without one."""
        return self.scale.latest

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def cadence(self, name: str) -> int:
        """Steps between two rows of this name; 0 is off."""
        return self._cadences[name]

    def frame(self, name: str, fields: Iterable[str | Field], labels: Mapping[str, Iterable[str]] | None = None
              ) -> FrameWriter:
        """Open a frame of the run folder."""
        return self.writer.frame(name, fields, labels)

    def send(self, owner: Collector, values: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None],
             later: Work | None = None, device: torch.device | None = None) -> None:
        """Call `deliver` with the values once they are on the host."""
        self.transfer.add(owner, values, deliver, later, device)

    def guard(self, collector: Collector | None, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call, and disable the collector if it raises. Returns None then."""
        if collector is not None and self.collectors.get(collector.name) is not collector:
            return None
        if collector is None:
            return super().guard(None, call, *args, **kwargs)
        try:
            return call(*args, **kwargs)
        except Exception as error:  # do no harm: whatever telemetry raises must not reach the training loop
            self.disable(collector, error)
            return None

    def disable(self, collector: Collector, error: Exception) -> None:
        """Take a collector that failed out of the run, and say so in an event."""
        if collector in self._failed:
            return
        self._failed.add(collector)
        self.transfer.deliver_waiting()  # what it measured before is good
        self.collectors.pop(collector.name, None)
        self.guard(None, collector.remove)
        message = f"The collector {collector.name!r} failed at step {self.step + 1} and is off: {error!r}"
        log.warning("trainvitals: %s. Training goes on.", message)
        self.tell("collector_disabled", message, step=self.step + 1, collector=collector.name, error=repr(error))

    def once(self, kind: str, message: str, *, unknown: bool = True) -> None:
        """An event that is written at its first occurrence only; `unknown` marks what is not in the record."""
        if kind not in self._said:
            self._said.add(kind)
            self.tell(kind, message, **{UNKNOWN: True} if unknown else {})

    def hook(self, collector: Collector, function: Callable[..., Any]) -> Hook:
        """A hook for the model that is guarded, and that torch.compile traces as nothing."""
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return None if torch.compiler.is_compiling() else self.guard(collector, function, *args, **kwargs)

        return Hook(guarded)

    # ---- the loop --------------------------------------------------------------------------------------------

    def _place_hooks(self) -> None:
        parameters = inspect.signature(self.core.forward).parameters
        self._argument_names = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        module = self.model
        while isinstance(module, DistributedDataParallel):
            module = module.module
        # A compiled module is hooked from outside: hooks inside would be traced.
        self._handles = [
            module.register_forward_pre_hook(Hook(self._forward_begins), with_kwargs=True),
            module.register_forward_hook(Hook(self._forward_ends)),
            self.steps, self.scale, self.resumes,
        ]

    def _forward_begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        domain = kwargs.get("domain")
        ours = "domain" in kwargs and "domain" not in self._argument_names
        if ours:
            kwargs = {name: value for name, value in kwargs.items() if name != "domain"}
        if not torch.compiler.is_compiling() and not recomputing():
            self.guard(None, self._begin_batch, module, args, kwargs, domain)
        return (args, kwargs) if ours else None

    def _begin_batch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], domain: Any) -> None:
        inputs = dict(zip(self._argument_names, args, strict=False)) | kwargs
        if len(args) == 1 and isinstance(args[0], Mapping):
            inputs |= args[0]
            domain = inputs.get("domain", domain)
        self.batch = Batch(inputs, domain, self.domain_names, torch.is_grad_enabled(), module.training)
        if self.batch.training:
            batch = self.batch
            self.resumes.settle()
            self.batch = batch  # also where the run went back
        if not self._card_complete and self.batch.training:
            self._complete_card(self.batch)
        self.steps.begin(self.batch)

    def _forward_ends(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not torch.compiler.is_compiling() and not recomputing() and self.batch is not None:
            self.guard(None, self.steps.end, self.batch, output)

    def _say_coverage(self) -> None:
        held, trainable = self.coverage.held, self.coverage.parameters
        if held < trainable:
            self.once("parameters_uncovered", f"The optimizers given to attach hold {held:,} of {trainable:,} "
                      f"trainable parameters ({held / trainable:.1%}): gradients, updates and rates are those of this "
                      "part. Pass all optimizers as a list.")

    def _step_done(self) -> None:
        if self.batch is None:
            self.once("forward_unseen", "A step ended, but no forward of the model was seen: losses, tokens and "
                      "routers are unknown. Attach to the module that the loop calls; use torch.compile(model) in "
                      "place of model.compile().")
        self.guard(None, self.transfer.send)

    def _each(self, moment: str, *args: Any) -> None:
        if moment == "before_update":
            self.guard(None, self.resumes.settle)
        if (follow := getattr(self.coverage, moment, None)) is not None:
            self.guard(None, follow, *args)
        for collector in self._called_at[moment]:
            # The guard's own lines: they run thirty times a step.
            if collector not in self._failed:
                try:
                    getattr(collector, moment)(*args)
                except Exception as error:  # noqa: BLE001 - do no harm
                    self.disable(collector, error)
        if moment == "after_step":
            self._step_done()
        elif moment == "skipped":
            self.once("step_skipped", f"Rank {self.rank} threw a gradient away without an update, the first time at "
                      f"step {args[0]}; skipped/gradients_by_rank counts them.", unknown=False)

    # ---- the run ---------------------------------------------------------------------------------------------

    def _hand(self, row: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None]) -> None:
        self.transfer.add(None, row, deliver)

    def _rewind(self, step: int) -> None:
        self.transfer.drain()
        self._each("rewind")
        self.writer.rewind(step)
        self.began_after = step - 1 if step > 0 else None
        self.steps.rewind(step)
        self.resumes.forget()
        self.batch = None

    def _complete_card(self, batch: Batch) -> None:
        """The cost of a token depends on the sequence length, which only the first batch tells."""
        self._card_complete = True
        if self.rank == 0 and batch.shape is not None:
            self.card.flops_per_token = model_facts.flops_per_token(self.card, self.core, batch.shape[1])
            self._write_card()


def core_of(model: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of DDP and torch.compile."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(inner := getattr(model, "_original_module", None), nn.Module):
            model = inner  # inside Fabric's wrapper
        else:
            return model
