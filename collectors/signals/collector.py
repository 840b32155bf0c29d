"""What a collector offers the tap, and all that it may use of it.

A collector is a name, a cadence, and methods named after the moment they are called at; a new signal family is one file
in this folder with one subclass. Whatever a method raises disables that collector alone; training and the other
collectors never notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collectors.batch import Batch
    from collectors.model.layers import Layers
    from collectors.step import Part
    from collectors.transfer import Work
    from trainvitals.card import RunCard
    from trainvitals.catalogue import Field
    from trainvitals.store import FrameWriter


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


class Host(Protocol):
    """All that a collector may use of the tap that calls it."""

    @property
    def step(self) -> int:
        """Optimizer steps done so far."""

    @property
    def batch(self) -> Batch | None:
        """The batch of the latest forward; None before the first."""

    @property
    def core(self) -> nn.Module:
        """The user's own module, inside the wrappers of DDP and torch.compile."""

    @property
    def layers(self) -> Layers:
        """The parameters that the optimizer holds, by layer."""

    @property
    def device(self) -> torch.device:
        """Where the first of these parameters is."""

    @property
    def parts(self) -> Sequence[Part]:
        """What each optimizer updates."""

    @property
    def loss_scale(self) -> Tensor | None:
        """Factor that a gradient scaler put on the loss of the last backward; None without one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""

    @property
    def plans(self) -> Sequence[Callable[[int], float]] | None:
        """Planned learning rate at a step, one per parameter group; None where it is unknown."""

    @property
    def card(self) -> RunCard: ...

    @property
    def tokenizer(self) -> Any:
        """As the user gave it; None where there is none."""

    @property
    def domain_names(self) -> Sequence[str]:
        """Data domains in the order of their ids."""

    @property
    def domain_labels(self) -> Sequence[str]:
        """The same with a last one for what carries none."""

    def cadence(self, name: str) -> int:
        """Steps between two rows of this name; 0 is off."""

    def frame(self, name: str, fields: Iterable[str | Field], labels: Mapping[str, Iterable[str]] | None = None
              ) -> FrameWriter:
        """Open a frame of the run folder: what is logged together, and the labels of every axis."""

    def send(self, owner: Collector, values: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None],
             later: Work | None = None, device: torch.device | None = None) -> None:
        """Call `deliver` with the values once they are on the host; nothing waits for them. See `Transfer.add`."""

    def tell(self, kind: str, message: str) -> None:
        """Mark something on the time axis of the run."""

    def once(self, kind: str, message: str, *, unknown: bool = True) -> None:
        """The same, at its first occurrence only: what could not be seen, why, and what to do.

        With `unknown=False` it is no more than a note: the record lacks nothing.
        """

    def guard(self, collector: Collector, call: Callable[..., Any], *args: Any) -> Any:
        """Call, and take the collector out of the run if it raises; None then. For code that the model calls."""

    def hook(self, collector: Collector, function: Callable[..., Any]) -> Hook:
        """A hook for the model that is guarded, and that torch.compile traces as nothing."""

    def disable(self, collector: Collector, error: Exception) -> None:
        """Take a collector that failed out of the run, and say so in an event."""


class Collector:
    """Base of all collectors. `step` is the optimizer step that is being done or was just done, from 1."""

    name: ClassVar[str]
    default_every: ClassVar[int] = 1
    """Steps between two rows."""
    also: ClassVar[Mapping[str, int]] = {}
    """Steps between two rows of further frames, by the name under which users set them."""
    turn: ClassVar[int] = 50
    """Collectors are called in the order of their turns."""

    def __init__(self, tap: Host, every: int) -> None:
        self.tap = tap
        self.every = every
        self.handles: list[Handle] = []

    def open(self) -> None:
        """Open frames and place hooks. Called once, before training."""

    def forward(self, batch: Batch) -> None:
        """A forward of the model begins."""

    def output(self, batch: Batch, output: Any) -> None:
        """A forward of the model ended; what it was for is not known yet. Keep what is needed in `batch.notes`."""

    def evaluated(self, batch: Batch) -> None:
        """The forward was one of an evaluation."""

    def trained(self, batch: Batch) -> None:
        """The forward's gradient is part of the step that ends now."""

    def unused(self, batch: Batch) -> None:
        """The forward's gradient became part of no step, or it had none."""

    def gradients(self) -> None:
        """A backward ended: gradients are whole and as they came, unless another micro-batch adds to them."""

    def skipped(self, step: int, there: bool) -> None:
        """The gradient for this step is thrown away, the weights are as they were. `there`: it can still be read."""

    def before_update(self, part: Part) -> None:
        """An optimizer is about to change the weights of its part, with gradients that are final."""

    def after_update(self, part: Part) -> None:
        """An optimizer has changed the weights of its part."""

    def after_step(self, step: int) -> None:
        """All optimizers have made their update."""

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

    def emit(self, frame: Any, step: int, values: Mapping[str, Any], fields: Fields = lambda host: host,
             later: Work | None = None, device: torch.device | None = None) -> None:
        """Write a row once its device values have arrived on the host.

        `fields` makes the row's fields of them there, where small arithmetic costs no kernel launch. `later` gives
        values of which the working out may wait, from tensors on this device that nobody changes.
        """
        now = time.time()
        self.tap.send(self, values, lambda host: frame.append(step, fields(host), now), later, device)
