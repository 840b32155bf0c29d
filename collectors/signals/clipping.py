"""Whether a gradient is still what it was, told without reading it, and torch's own pass over it put to use.

A gradient that nobody touched has one norm, and torch's `clip_grad_norm_` computes the norms of what it clips: where
either is so, no pass of our own is needed. A stamp tells: the identity and version of every gradient, which in-place
writes change, and a few of its elements, which show writes that go round the version (`p.grad.data.mul_`).

This saves time and decides nothing: what it cannot explain is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode

from collectors.signals.collector import Handle

if TYPE_CHECKING:
    from collectors.signals.gradients import GradientCollector

SAMPLES = 4
"""Parameters of which one element is looked at, spread over the model."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What gradients were at one moment."""

    versions: dict[int, tuple[int, int]]
    """Identity and version of every gradient, by parameter."""
    samples: Tensor
    """[m] One element each of some of them."""

    def same(self, other: Stamp, members: Iterable[int]) -> bool:
        """Whether these gradients have not been written to in between, as far as versions tell."""
        return all(self.versions.get(i) == other.versions.get(i) for i in members)


def stamp(parameters: Sequence[nn.Parameter], members: Sequence[int]) -> Stamp | None:
    """The stamp of these parameters' gradients; None where they are sparse, sharded or not there."""
    versions: dict[int, tuple[int, int]] = {}
    found: list[Tensor] = []
    for i in members:
        gradient = parameters[i].grad
        if gradient is not None:
            if type(gradient) is not Tensor or gradient.layout is not torch.strided:
                return None
            versions[i] = id(gradient), gradient._version
            found.append(gradient)
    chosen = [g for g in found[:: max(1, len(found) // SAMPLES)] if g.numel()]
    if not chosen or any(g.device != chosen[0].device or g.dtype != chosen[0].dtype for g in chosen):
        return None
    # The last element: the first rows of an embedding are often those of tokens that never occur.
    return Stamp(versions, torch.stack([g[(-1,) * g.dim()] for g in chosen]))


@dataclass(frozen=True, slots=True)
class Clip:
    """One call of torch's clipping by the L2 norm."""

    norms: dict[int, Tensor]
    """Norm of every gradient that it read, by parameter."""
    factor: Tensor
    """What it multiplied them all by."""
    entry: Stamp
    exit: Stamp


class ClipWatch(Handle):
    """Stands before `torch.nn.utils.clip_grad_norm_` while a collector listens. Torch's code runs unchanged."""

    active: ClassVar[list[GradientCollector]] = []
    original: ClassVar[Any] = None

    def __init__(self, collector: GradientCollector) -> None:
        self.collector = collector
        if not self.active:
            ClipWatch.original = torch.nn.utils.clip_grad_norm_
            _put(_watched(torch.nn.utils.clip_grad_norm_))
        self.active.append(collector)

    def remove(self) -> None:
        """Stop listening; the last one puts torch's function back."""
        self.active.remove(self.collector)
        if not self.active:
            _put(ClipWatch.original)


def _put(function: Any) -> None:
    for module in (torch.nn.utils, clip_grad):
        # Who patched the function after us keeps their patch; ours then passes every call through.
        there = getattr(module, "clip_grad_norm_", None)
        if there is ClipWatch.original or getattr(there, "_trainvitals", False):
            setattr(module, "clip_grad_norm_", function)  # noqa: B010 - the name is not among the module's types


def _watched(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def clip_grad_norm_(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(parameters, Tensor):
            parameters = list(parameters)  # an iterator is read once
        first = parameters if isinstance(parameters, Tensor) else next(iter(parameters), None)
        collector = next((c for c in ClipWatch.active if id(first) in c.owned), None)
        entry = collector.tap.guard(collector, collector.clip_begins) if collector is not None else None
        if collector is None or entry is None:
            return original(parameters, *args, **kwargs)
        with Watcher() as watcher:
            result = original(parameters, *args, **kwargs)
        collector.tap.guard(collector, collector.clip_ended, entry, watcher)
        return result

    clip_grad_norm_._trainvitals = True  # type: ignore[attr-defined]
    return clip_grad_norm_


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
