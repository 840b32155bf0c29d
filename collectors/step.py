"""One optimizer step, as a small state machine that every collector reads from.

    forward ─▶ output ─▶ (its gradient reaches the parameters) ─▶ gradients ─▶ update of each optimizer ─▶ step done
       │                                                             │
       └─ evaluation, or an aside: no gradient is taken              └─ cleared before any update: skipped

A forward belongs to the step whose gradient it is part of, which is known once a backward through its output has
reached the parameters; never by the flags of the module. A step ends when every optimizer has made its update, or when
the next training forward begins. What was computed and never used is told apart, not merged into the next step. The
page with all states is docs/collectors.md.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from collectors.batch import Batch

Tell = Callable[..., None]
MOST_OUTPUTS = 8
"""Tensors of one output that are watched for the gradient; a model's loss and logits come first."""
MOST_WAITING = 256
"""Forwards with a graph that may wait for their gradient; older ones are taken for unused, not kept in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one optimizer updates."""

    number: int
    optimizer: torch.optim.Optimizer
    members: tuple[int, ...]
    """Its parameters, as positions in `Layers.parameters`."""
    groups: tuple[int, ...]
    """Its parameter groups, as positions among those of all optimizers."""


def parts_of(optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[nn.Parameter]) -> list[Part]:
    """One part per optimizer; a parameter that two hold belongs to the first."""
    position = {id(p): i for i, p in enumerate(parameters)}
    found, first_group = [], 0
    for number, optimizer in enumerate(optimizers):
        ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
        members = tuple(i for one in ids if (i := position.pop(one, None)) is not None)
        groups = tuple(range(first_group, first_group + len(optimizer.param_groups)))
        first_group += len(groups)
        found.append(Part(number, optimizer, members, groups))
    return found


def steps_done(optimizers: Sequence[torch.optim.Optimizer]) -> int | None:
    """Steps that the optimizers' own state counts; None where it counts none (as SGD's)."""
    steps = [int(state["step"]) for optimizer in optimizers for state in optimizer.state.values()
             if isinstance(state, Mapping) and "step" in state]
    return max(steps, default=None)


class Steps:
    """Follows forwards, backwards and updates of one model, and tells the collectors.

    `tell(moment, ...)` calls the collectors' method of that name; `once(kind, message)` notes what could not be seen.
    """

    def __init__(self, done: int, parts: Sequence[Part], parameters: Sequence[nn.Parameter], tell: Tell,
                 once: Callable[..., None], guard: Callable[..., Any]) -> None:
        self.done = done
        """Optimizer steps done so far."""
        self.parts, self.parameters = parts, parameters
        self._tell, self._once, self._guard = tell, once, guard
        self.waiting: list[Batch] = []
        """Forwards with a graph, whose gradient has not reached the parameters."""
        self.taken: list[Batch] = []
        """Forwards whose gradient is in the parameters now."""
        self.updated: set[int] = set()
        """Optimizers that have made their update in this step."""
        self._held = [sum(len(group["params"]) for group in part.optimizer.param_groups) for part in parts]
        self._updating = 0
        self._task: int | None = None
        self._coming: list[Batch] = []
        self._accumulates = False
        self._deferred = any(isinstance(p, DTensor) for p in parameters)
        """Whether a backward may leave its gradient beside the parameters until ranks exchange it (FSDP2)."""
        self._sentinel: tuple[nn.Parameter, weakref.ref[Tensor]] | None = None
        self._weights: tuple[int, ...] = ()
        self._handles: list[Any] = []
        self._place()

    # ---- forwards --------------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> None:
        """A forward begins, outside of any backward."""
        self._task, self._accumulates = None, False  # a backward that raised never told its end
        self._forget_coming()
        if batch.training and self.updated and not self._updating:
            self._end()
        self._tell("forward", batch)

    def end(self, batch: Batch, output: Any) -> None:
        """A forward ended."""
        batch.open = False
        if batch.training:
            # By the node in place of the tensor: the same moment at half the cost.
            nodes = {node for tensor in _tensors(output) if (node := tensor.grad_fn) is not None}
            reached = _Reached(self, batch)
            for node in nodes:
                node.register_prehook(reached)
            # An output that holds no tensor we can find is given the benefit of the doubt.
            batch.reached = batch.reached or (not nodes and not isinstance(output, Tensor))
            self.waiting.append(batch)
            if len(self.waiting) > MOST_WAITING:
                self.waiting, old = self.waiting[-MOST_WAITING // 2:], self.waiting[:-MOST_WAITING // 2]
                self.leave(old)
        self._tell("output", batch, output)
        if not batch.training:
            self._settle(batch, "evaluated" if batch.evaluation else "unused")

    def _settle(self, batch: Batch, purpose: str) -> None:
        """Tell what a forward was for, once."""
        if not batch.settled:
            batch.settled = not batch.evaluation  # the loss of an evaluation may still be computed by the loop
            self._tell(purpose, batch)

    # ---- backward --------------------------------------------------------------------------------------------

    def _accumulated(self, parameter: Tensor) -> None:
        """A parameter has its gradient; of those of a backward, the first counts."""
        if not self._accumulates:
            self._accumulates = True
            self._guard(None, self._call_at_the_end)

    def coming_back(self, batch: Batch) -> None:
        """A gradient comes back through a forward's output: told once a backward for all its tensors."""
        self._coming.append(batch)
        self._guard(None, self._call_at_the_end)

    def _forget_coming(self) -> list[Batch]:
        coming, self._coming = self._coming, []
        for batch in coming:
            batch.coming_back = False
        return coming

    def _call_at_the_end(self) -> None:
        """Ask, once, to be called when the backward that runs has ended."""
        task = torch._C._current_graph_task_id()
        if self._task is not None or task == -1:
            return  # asked already, perhaps by the backward around this one (reentrant checkpointing)
        self._task = task
        engine = torch.autograd.Variable._execution_engine
        # Twice: what DDP and FSDP do at the end of a backward was asked for after our first call, and runs before the
        # second.
        engine.queue_callback(lambda: engine.queue_callback(self._backward_ended))

    def _backward_ended(self) -> None:
        self._task = None
        self._guard(None, self._take)

    def _take(self) -> None:
        accumulates, self._accumulates = self._accumulates, False
        for batch in self._forget_coming():
            batch.reached, batch.probed = batch.reached or accumulates, not accumulates
        if not accumulates:
            return
        if self._replaced():
            self.cleared(there=False)
        for batch in self.waiting:
            batch.reached = batch.reached or (batch.probed and self._deferred)
        self.taken += [batch for batch in self.waiting if batch.reached]
        self.waiting = [batch for batch in self.waiting if not batch.reached]
        self._tell("gradients")
        self._sentinel = next(((p, weakref.ref(p.grad)) for p in self.parameters if p.grad is not None), None)
        if len(self.updated) == len(self.parts) and not self._updating:
            self._end()  # optimizers that step inside the backward

    def _replaced(self) -> bool:
        """Whether the gradient of an earlier backward is gone, and no zero_grad of ours was called for it."""
        if not self.taken or self._sentinel is None:
            return False
        parameter, gradient = self._sentinel
        return gradient() is not parameter.grad

    def cleared(self, there: bool = True) -> None:
        """Gradients are set to zero, now or (not `there`) at some time since the last backward.

        If no update used them, their forwards were for nothing.
        """
        if not self.taken or self.updated or self._updating:
            return
        moved = self._weights != self._versions()
        for batch in self.taken:
            self._settle(batch, "unused")
        self.taken, self._sentinel = [], None
        if moved:
            self._once("weights_moved", "A gradient was taken and cleared, and the weights were moved without "
                       "optimizer.step (as sharpness-aware training does): that pass is not counted in the step.",
                       unknown=False)
        else:
            self._tell("skipped", self.done + 1, there)

    # ---- updates ---------------------------------------------------------------------------------------------

    def _update_begins(self, part: Part, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if part.number in self.updated and not self._updating:
            self._guard(None, self._end)
        self._updating += 1
        if sum(len(group["params"]) for group in part.optimizer.param_groups) != self._held[part.number]:
            self._once("parameters_added", "Parameters were added to an optimizer after attach: their gradients and "
                       "updates are not recorded, nor is their learning rate. Attach once all groups are there.")
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._tell("before_update", part)
            return None
        wrapped = _Closure(closure, lambda: self._tell("before_update", part))
        if "closure" in kwargs and kwargs["closure"] is closure:
            return args, kwargs | {"closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _update_ended(self, part: Part) -> None:
        self._updating = max(self._updating - 1, 0)
        self._tell("after_update", part)
        self.updated.add(part.number)
        if len(self.updated) == len(self.parts) and self._task is None:
            self._end()

    def _end(self) -> None:
        """The step is done: its forwards are counted, what was not used is told apart."""
        if not self.taken:
            # Gradients that autograd.grad returned and the loop put in place never pass through a backward of ours.
            self.taken = [batch for batch in self.waiting if batch.reached or batch.probed]
            self.waiting = [batch for batch in self.waiting if not (batch.reached or batch.probed)]
        taken, self.taken = self.taken, []
        waiting, self.waiting = self.waiting, []
        self.updated, self._sentinel = set(), None
        for batch in taken:
            self._settle(batch, "trained")
        self.leave(waiting)
        self.done += 1
        self._tell("after_step", self.done)
        self._weights = self._versions()

    def leave(self, batches: Sequence[Batch]) -> None:
        """Forwards with a graph that no gradient came back through."""
        for batch in batches:
            self._settle(batch, "unused" if batch.in_training_mode else "evaluated")

    def finish(self) -> None:
        """The run ends: what is under way is told."""
        if self.updated:
            self._end()
        self.leave(self.waiting)
        for batch in self.taken:
            self._settle(batch, "unused")
        self.waiting, self.taken = [], []

    def rewind(self, step: int) -> None:
        """The job went back to an earlier step: what is under way belongs to no step."""
        self.done, self.waiting, self.taken, self.updated = step, [], [], set()
        self._sentinel, self._weights = None, self._versions()

    def _versions(self) -> tuple[int, ...]:
        return tuple(p._version for p in self.parameters[:8])

    # ---- hooks -----------------------------------------------------------------------------------------------

    def _place(self) -> None:
        self._weights = self._versions()
        for parameter in self.parameters:
            if parameter.requires_grad and parameter.is_leaf:
                handle = parameter.register_post_accumulate_grad_hook(self._accumulated)  # type: ignore[no-untyped-call]
                self._handles.append(handle)
        for part in self.parts:
            self._handles += [
                part.optimizer.register_step_pre_hook(partial(self._before, part)),
                part.optimizer.register_step_post_hook(partial(self._after, part)),
                _ZeroGrad(part.optimizer, partial(self._guard, None, self.cleared)),
            ]

    def _before(self, part: Part, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._guard(None, self._update_begins, part, args, kwargs)

    def _after(self, part: Part, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard(None, self._update_ended, part)

    def remove(self) -> None:
        """Take all hooks away."""
        while self._handles:
            self._handles.pop().remove()


class _Reached:
    """Notes that a gradient comes back through a forward's output."""

    def __init__(self, steps: Steps, batch: Batch) -> None:
        self.steps, self.batch = steps, batch

    def __call__(self, gradients: tuple[Tensor, ...]) -> None:
        if not self.batch.coming_back:
            self.batch.coming_back = True
            self.steps.coming_back(self.batch)


class _Closure:
    """A closure of `optimizer.step` that says when its gradients are there: at its first evaluation."""

    def __init__(self, closure: Callable[[], Any], ready: Callable[[], None]) -> None:
        self._closure, self._ready, self._told = closure, ready, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        value = self._closure(*args, **kwargs)
        if not self._told:
            self._told = True
            self._ready()
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._closure, name)


class _ZeroGrad:
    """Stands before one optimizer's zero_grad until it is removed."""

    def __init__(self, optimizer: Any, cleared: Callable[[], None]) -> None:
        self.optimizer, self.own = optimizer, vars(optimizer).get("zero_grad")
        original = optimizer.zero_grad

        def zero_grad(*args: Any, **kwargs: Any) -> Any:
            cleared()
            return original(*args, **kwargs)

        self.wrapper = zero_grad
        optimizer.zero_grad = zero_grad

    def remove(self) -> None:
        if vars(self.optimizer).get("zero_grad") is not self.wrapper:
            return
        if self.own is not None:
            self.optimizer.zero_grad = self.own
        else:
            del self.optimizer.zero_grad


def _tensors(output: Any, depth: int = 3) -> Iterator[Tensor]:
    """Tensors with a graph in a model's output: the output itself, or in its fields, the first of them."""
    found = 0
    pending: list[tuple[Any, int]] = [(output, depth)]
    while pending and found < MOST_OUTPUTS:
        value, left = pending.pop(0)
        if isinstance(value, Tensor):
            if value.requires_grad and value.grad_fn is not None:
                found += 1
                yield value
        elif left and isinstance(value, Mapping):
            pending += [(item, left - 1) for item in value.values()]
        elif left and isinstance(value, list | tuple):
            pending += [(item, left - 1) for item in value[:MOST_OUTPUTS]]
        elif left and hasattr(value, "__dict__"):
            pending += [(item, left - 1) for item in list(vars(value).values())[:MOST_OUTPUTS]]
