"""Gradient norms per layer, taken while torch clips: no pass over the gradients of our own.

Metrics recorded:
    grad/*   per step: sums of squares before clipping, in all and per layer; the factor that clipping applied;
             tensors whose norm is not finite

While a tap is attached, torch's clipping functions run under a watcher that reads the per-tensor norms that torch
computes anyway, and the factor it clamps. Torch's own code runs unchanged, so clipping is bit-identical, DTensor
collectives included. A loop that never clips gets its norms just before the optimizer's step.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode

from collectors.batch import Batch
from collectors.model.layers import local, norms, stacked
from collectors.signals.collector import Collector, Handle

PATCHED = ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm")
"""Functions of torch.nn.utils that are watched. Trainers find them there by name, so that is where we stand."""


class GradientCollector(Collector):
    """Per-layer gradient norms of the parameters that the optimizer holds."""

    name = "grad"
    turn = 20

    def open(self) -> None:
        layers = self.tap.layers
        self.frame = self.tap.frame(
            "grad", ["grad/sumsq", "grad/sumsq_by_layer", "grad/clip_coef", "grad/nonfinite"],
            labels={"layer": layers.labels})
        self.owned = {id(p) for p in layers.parameters}
        self.watching = False
        self.rewind()
        self.handles.append(_Patch(self))

    def rewind(self) -> None:
        self.norms: dict[int, Tensor] = {}
        self.clipped: list[Tensor] = []
        self.clip_unknown = False

    def forward(self, batch: Batch) -> None:
        # Another micro-batch will add to the gradients: norms seen so far were not those of the step.
        if batch.training:
            self.rewind()

    def owns(self, tensors: list[Tensor], are_gradients: bool) -> bool:
        """Whether these are this optimizer's parameters, or gradients of them, that nobody watches yet."""
        if self.watching:  # one function of torch calls another
            return False
        if are_gradients:
            return bool(tensors) and id(tensors[0]) in self._gradients()
        return any(id(t) in self.owned for t in tensors[:1])

    def watch(self, name: str, call: Callable[[], Any], clips_by_l2: bool) -> Any:
        """Run one of torch's functions and note the norms that it computes."""
        if not self.due(self.tap.step + 1) or self.clipped:
            return call()
        if not clips_by_l2:
            # The function will not compute what we need, and may change the gradients.
            self.tap.guard(self, self._measure)
        self.watching = True
        try:
            with _Watcher() as watcher:
                result = call()
        finally:
            self.watching = False
        self.tap.guard(self, self._note, watcher)
        self.clip_unknown |= name == "clip_grad_value_"
        return result

    def _gradients(self) -> dict[int, int]:
        """Parameter index by the identity of its gradient."""
        return {id(p.grad): i for i, p in enumerate(self.tap.layers.parameters) if p.grad is not None}

    def _note(self, watcher: _Watcher) -> None:
        index = self._gradients()
        for tensors, values in watcher.norms:
            for tensor, value in zip(tensors, values, strict=True):
                i = index.get(id(tensor))
                if i is not None:
                    self.norms[i] = local(value)
        self.clipped += [local(factor) for factor in watcher.factors if not _partial(factor)]
        self.clip_unknown |= any(_partial(factor) for factor in watcher.factors)

    def _measure(self) -> None:
        """Take the norms of all gradients that have none yet."""
        if len(self.norms) == len(self.tap.layers.parameters):
            return
        missing = {i: local(p.grad) for i, p in enumerate(self.tap.layers.parameters)
                   if p.grad is not None and i not in self.norms}
        dense = [g.coalesce().values() if g.is_sparse else g for g in missing.values()]
        self.norms.update(zip(missing, norms(dense), strict=True))

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        if self.due(step):
            self._measure()
            if self.norms:
                members, unknown = list(self.norms), self.clip_unknown
                values = {"norms": stacked(list(self.norms.values()))}
                if self.clipped:
                    values["factors"] = stacked(self.clipped)
                self.emit(self.frame, step, values, lambda host: self._fields(host, members, unknown))
        self.rewind()

    def _fields(self, host: dict[str, Any], members: list[int], clip_unknown: bool) -> dict[str, Any]:
        by_layer, nonfinite = self.tap.layers.by_layer(host["norms"], members)
        clip_coef = float("nan") if clip_unknown else clip_factor(host.get("factors", ()))
        return {"grad/sumsq": by_layer.sum(), "grad/sumsq_by_layer": by_layer, "grad/clip_coef": clip_coef,
                "grad/nonfinite": nonfinite}


def clip_factor(factors: Sequence[float]) -> float:
    """The one factor that clipping applied, 1 where there was none; NaN where there were several."""
    different = {float(factor) for factor in factors}
    return different.pop() if len(different) == 1 else float("nan") if different else 1.0


def _partial(factor: Tensor) -> bool:
    """Whether a DTensor holds only this rank's part of the number."""
    return any(not placement.is_replicate() for placement in getattr(factor, "placements", ()))


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the results of the norm and clamp kernels that run under it.

    It stands below Python: a `TorchFunctionMode` would be called for every `p.grad` that torch reads, too.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norms: list[tuple[list[Tensor], list[Tensor]]] = []
        self.factors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._foreach_norm.Scalar and _is_l2(args[1:]):
            self.norms.append((list(args[0]), list(result)))
        elif func is torch.ops.aten.linalg_vector_norm.default and _is_l2(args[1:]):
            self.norms.append(([args[0]], [result]))
        elif func is torch.ops.aten.clamp.default:
            self.factors.append(result)
        return result


def _is_l2(order: tuple[Any, ...]) -> bool:
    return not order or order[0] == 2


class _Patch(Handle):
    """Puts the watcher before torch's clipping functions; the last one removed puts the originals back."""

    active: list[GradientCollector] = []
    originals: dict[tuple[Any, str], Any] = {}

    def __init__(self, collector: GradientCollector) -> None:
        self.collector = collector
        if not self.active:
            for name in PATCHED:
                original = getattr(torch.nn.utils, name, None)
                if original is None:
                    continue
                patched = _watched(name, original)
                for module in (torch.nn.utils, clip_grad):
                    if getattr(module, name, None) is original:
                        self.originals[module, name] = original
                        setattr(module, name, patched)
        self.active.append(collector)

    def remove(self) -> None:
        self.active.remove(self.collector)
        if self.active:
            return
        for (module, name), original in self.originals.items():
            # Who patched the function after us keeps their patch; ours then passes every call through.
            if getattr(getattr(module, name), "_trainvitals", False):
                setattr(module, name, original)
        self.originals.clear()


def _watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)
    first = next(iter(signature.parameters))

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _Patch.active or not (args or first in kwargs):
            return original(*args, **kwargs)
        tensors = args[0] if args else kwargs[first]
        if not isinstance(tensors, Tensor):
            tensors = list(tensors) or tensors
        rest, named = args[1:], {k: v for k, v in kwargs.items() if k != first}

        def run() -> Any:
            return original(tensors, *rest, **named)

        collector = _owner(name, tensors)
        if collector is None:
            return run()
        bound = signature.bind_partial(tensors, *rest, **named).arguments
        by_l2 = name in ("clip_grad_norm_", "get_total_norm") and float(bound.get("norm_type", 2.0)) == 2.0
        return collector.watch(name, run, by_l2)

    call._trainvitals = True  # type: ignore[attr-defined]
    return call


def _owner(name: str, tensors: Any) -> GradientCollector | None:
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    return next((c for c in _Patch.active if c.owns(listed, name == "get_total_norm")), None)
