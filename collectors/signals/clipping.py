"""Whether a gradient is still what it was, told without reading it, and torch's own pass over it put to use.

A gradient that nobody touched has one norm, and torch's `clip_grad_norm_` computes the norms of what it clips: where
either is so, no pass of our own is needed. A stamp tells: the identity and version of every gradient, which in-place
writes change, and a few of its elements, which show writes that go round the version (`p.grad.data.mul_`).

This saves time and decides nothing: what it cannot explain is measured.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad

from collectors.signals.collector import Handle

if TYPE_CHECKING:
    from collectors.signals.gradients import GradientCollector

SAMPLES = 4
"""Parameters of which one element is looked at, spread over the model."""
IN_NUMPY = (torch.float32, torch.float64, torch.float16)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What gradients were at one moment. n parameters."""

    members: Sequence[int]
    """Positions of the parameters, [n]."""
    identities: list[int]
    """Which tensor each gradient was, [n]; 0 for none."""
    versions: list[int]
    """How often each had been written to, [n]."""
    samples: tuple[float | None, ...] | Tensor
    """One element each of some of them: on the host as numbers (None for NaN), else [m] where the gradients are."""
    sampled: list[int]
    """Which of them, as positions in the lists above."""

    @property
    def there(self) -> set[int]:
        """Parameters that had a gradient."""
        return {i for i, identity in zip(self.members, self.identities, strict=True) if identity}

    def same(self, other: Stamp, members: Sequence[int]) -> bool:
        """Whether these gradients have not been written to in between, as far as versions tell."""
        if self.members is other.members is members:
            return self.identities == other.identities and self.versions == other.versions
        one, two = self._of(members), other._of(members)
        return one == two

    def _of(self, members: Sequence[int]) -> list[tuple[int, int]]:
        if self.members is members:
            return list(zip(self.identities, self.versions, strict=True))
        at = {i: n for n, i in enumerate(self.members)}
        return [(self.identities[n], self.versions[n]) if (n := at.get(i)) is not None else (0, 0) for i in members]


def stamp(parameters: Sequence[nn.Parameter], members: Sequence[int], like: Stamp | None = None) -> Stamp | None:
    """The stamp of these parameters' gradients; None where they are sparse, sharded or not there.

    `like` is an earlier one of the same members: gradients that are the same tensors are of the same kind.
    """
    # By functions of C over whole lists: this runs four times a step, over every parameter.
    gradients = list(map(_GRADIENT, [parameters[i] for i in members]))
    whole = type(None) not in set(map(type, gradients))
    identities = list(map(id, gradients)) if whole else [0 if g is None else id(g) for g in gradients]
    sampled = like.sampled if like is not None and like.identities == identities else _sampled(gradients)
    if not sampled:
        return None
    versions = list(map(_VERSION, gradients)) if whole else [0 if g is None else g._version for g in gradients]
    return Stamp(members, identities, versions, _samples([gradients[n] for n in sampled]), sampled)


def _sampled(gradients: list[Tensor | None]) -> list[int]:
    """Positions of the gradients of which an element is looked at; [] where the gradients are not of a kind for it."""
    found = [(n, g) for n, g in enumerate(gradients) if g is not None]
    if {type(g) for _, g in found} - {Tensor} or {g.layout for _, g in found} - {torch.strided}:
        return []
    chosen = [(n, g) for n, g in found[:: max(1, len(found) // SAMPLES)] if g.numel()]
    return [n for n, _ in chosen] if len({(g.device, g.dtype) for _, g in chosen}) == 1 else []


_GRADIENT, _VERSION = map(operator.attrgetter, ("grad", "_version"))


def _samples(chosen: list[Tensor]) -> tuple[float | None, ...] | Tensor:
    # The last element: the first rows of an embedding are often those of tokens that never occur.
    if chosen[0].device.type != "cpu":
        return torch.stack([g.detach()[(-1,) * g.dim()] for g in chosen])
    if chosen[0].dtype in IN_NUMPY:
        numbers = [g.detach().numpy().item(-1) for g in chosen]
    else:
        numbers = [g.detach()[(-1,) * g.dim()].item() for g in chosen]
    return tuple(None if number != number else number for number in numbers)


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
        with recording() as record:
            result = original(parameters, *args, **kwargs)
        collector.tap.guard(collector, collector.clip_ended, entry, record)
        return result

    clip_grad_norm_._trainvitals = True  # type: ignore[attr-defined]
    return clip_grad_norm_


@dataclass(slots=True)
class Record:
    """What a clipping computed on its way."""

    norms: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    """Tensors, and the L2 norm of each."""
    factors: list[Tensor] = field(default_factory=list)
    """Numbers that it limited to a range."""


_recording = threading.Lock()


@contextmanager
def recording() -> Iterator[Record]:
    """Keep the norms and limits that torch's functions return meanwhile.

    The clipping looks these functions up in torch's modules, where ones that also note the result stand in for them.
    A mode for dispatch (`TorchDispatchMode`) would see the same and costs a quarter of the clipping. Of two threads
    that clip at once one records; where torch takes other ways nothing is recorded, and the norms are measured.
    """
    record = Record()
    if not _recording.acquire(blocking=False):
        yield record
        return
    try:
        with _standing_in(torch, "_foreach_norm", record, _note_norms), _standing_in(
                torch.linalg, "vector_norm", record, _note_norm), _standing_in(torch, "clamp", record, _note_factor):
            yield record
    finally:
        _recording.release()


@contextmanager
def _standing_in(module: Any, name: str, record: Record, note: Callable[..., None]) -> Iterator[None]:
    original, thread = getattr(module, name), threading.get_ident()

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if threading.get_ident() == thread:
            note(record, result, *args, **kwargs)
        return result

    setattr(module, name, noted)
    try:
        yield
    finally:
        setattr(module, name, original)


def _note_norms(record: Record, result: Any, tensors: Any, *order: Any, **unused: Any) -> None:
    if _is_l2(order):
        record.norms.append((list(tensors), list(result)))


def _note_norm(record: Record, result: Any, tensor: Any, *order: Any, **unused: Any) -> None:
    if _is_l2(order):
        record.norms.append(([tensor], [result]))


def _note_factor(record: Record, result: Any, *unused: Any, **limits: Any) -> None:
    record.factors.append(result)


def _is_l2(order: tuple[Any, ...]) -> bool:
    return not order or order[0] == 2
