"""What every collector offers the tap: a name, a cadence, and methods named after the moment they are called at.

A new signal family is one file with one subclass, listed in `loop.COLLECTORS`. Whatever a method raises disables that
collector alone; training and the other collectors never notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collectors.batch import Batch
    from collectors.loop import Tap


Fields = Callable[[dict[str, Any]], dict[str, Any]]


class Handle(Protocol):
    """Anything that a collector must take away when it ends."""

    def remove(self) -> None: ...


class Hook:
    """A function that sits in a model, and that copies and pickles of the model do not carry along.

    An averaged copy of the weights (`copy.deepcopy(model)`) must not feed the tap, and `torch.save(model)` must work.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing_hook, ()


def _nothing_hook() -> Any:
    return _nothing


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


class Collector:
    """Base of all collectors. `step` is the optimizer step that is being done or was just done, from 1."""

    name: ClassVar[str]
    default_every: ClassVar[int] = 1
    """Steps between two rows."""

    def __init__(self, tap: Tap, every: int) -> None:
        self.tap = tap
        self.every = every
        self.handles: list[Handle] = []

    def open(self) -> None:
        """Open frames and place hooks. Called once, before training."""

    def forward(self, batch: Batch) -> None:
        """A forward of the model begins."""

    def output(self, batch: Batch, output: Any) -> None:
        """A forward of the model ended."""

    def before_step(self, step: int) -> None:
        """The optimizer is about to change the weights."""

    def after_step(self, step: int) -> None:
        """The optimizer has changed the weights."""

    def rewind(self) -> None:
        """The run goes back to an earlier step: forget what is not written yet."""

    def finish(self) -> None:
        """The run ends: hand over what waits."""

    def remove(self) -> None:
        """Take all hooks away; nothing of this collector stays in the model."""
        while self.handles:
            self.handles.pop().remove()

    def due(self, step: int) -> bool:
        """Whether this step gets a row."""
        return step % self.every == 0

    def emit(self, frame: Any, step: int, values: Mapping[str, Any], fields: Fields = lambda host: host) -> None:
        """Write a row once its device values have arrived on the host.

        `fields` makes the row's fields of them there, where small arithmetic costs no kernel launch.
        """
        self.tap.transfer.add(self, values, lambda host: frame.append(step, fields(host)))


def zeros(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A zero tensor that may be updated in place inside and outside of inference mode."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return torch.zeros(shape, dtype=dtype, device=device)
    return torch.zeros(shape, dtype=dtype, device=device)


def count(counts: Tensor, cells: Tensor) -> None:
    """Add 1 to a flat counter at every one of these cells, int64 [N]."""
    counts.scatter_add_(0, cells, torch.ones_like(cells))
