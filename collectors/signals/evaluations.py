"""Which evaluation set a forward belongs to, so that two sets never become one number.

Between two steps a job may evaluate several sets. A *pass* over one of them is what lies between two boundaries: where
`tap.evaluation(name)` or a trainer names it, where the module is put back into training mode, or where a data loader
begins. A single pass without a name is `loss/val`. Named passes, and several without a name (numbered in their order),
are rows of `loss/val_set`.

Boundaries are met where they happen, in `nn.Module.train` and `DataLoader.__iter__`, while a tap is live.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.utils.data import DataLoader

from collectors.signals.collector import Handle

if TYPE_CHECKING:
    from collectors.signals.loss import DomainSums

MOST_PASSES = 8
"""Passes without a name between two steps that are kept apart; a loop that leaves evaluation mode after every batch
makes more, and is one evaluation."""
MOST_SETS = 64
"""Names of sets in one run."""


@dataclass(slots=True)
class Pass:
    """Evaluation forwards of one set, one after the other."""

    name: str | None
    """None: without one."""
    sums: DomainSums


class Passes:
    """The passes since the last training forward."""

    def __init__(self) -> None:
        self.name: str | None = None
        """Of the pass that `tap.evaluation` opened."""
        self.done: list[Pass] = []
        self.now: Pass | None = None

    def add(self, sums: DomainSums) -> None:
        """A forward of the pass that is under way."""
        if self.now is None:
            self.now = Pass(self.name, sums)
        else:
            self.now.sums.merge(sums)

    def end(self, name: str | None = None) -> None:
        """A boundary. `name` is of what came before it, "" where it is known to be the only set."""
        if self.now is not None:
            self.now.name = self.now.name if name is None else name
            self.done.append(self.now)
            self.now = None

    def take(self) -> tuple[DomainSums | None, dict[str, DomainSums], int]:
        """What is `loss/val`, the sets by name, and how many passes had no name. What was taken is forgotten."""
        self.end()
        done, self.done = self.done, []
        unnamed = [one for one in done if one.name is None]
        if 1 < len(unnamed) <= MOST_PASSES:
            for number, one in enumerate(unnamed, 1):
                one.name = str(number)
        whole: DomainSums | None = None
        named: dict[str, DomainSums] = {}
        for one in done:
            if one.name and one.name in named:
                named[one.name].merge(one.sums)
            elif one.name:
                named[one.name] = one.sums
            elif whole is None:
                whole = one.sums
            else:
                whole.merge(one.sums)
        return whole, named, len(unnamed)


class PassWatch(Handle):
    """Calls `boundary` where a pass over an evaluation set may have ended."""

    active: ClassVar[list[PassWatch]] = []
    originals: ClassVar[tuple[Any, Any] | None] = None

    def __init__(self, model: nn.Module, boundary: Callable[[], None]) -> None:
        self.model, self.boundary = model, boundary
        if not self.active:
            PassWatch.originals = nn.Module.train, DataLoader.__iter__
            nn.Module.train = _train(nn.Module.train)  # type: ignore[method-assign]
            DataLoader.__iter__ = _iter(DataLoader.__iter__)  # type: ignore[method-assign]
        self.active.append(self)

    def remove(self) -> None:
        """Stop watching; the last one puts torch's methods back."""
        self.active.remove(self)
        if self.active or PassWatch.originals is None:
            return
        # Who patched a method after us keeps their patch; ours then passes every call through.
        if getattr(nn.Module.train, "_trainvitals", False):
            nn.Module.train = PassWatch.originals[0]  # type: ignore[method-assign]
        if getattr(DataLoader.__iter__, "_trainvitals", False):
            DataLoader.__iter__ = PassWatch.originals[1]  # type: ignore[method-assign]


def _train(original: Any) -> Any:
    @functools.wraps(original)
    def train(module: nn.Module, mode: bool = True) -> Any:
        if mode:
            for watch in PassWatch.active:
                if watch.model is module:
                    watch.boundary()
        return original(module, mode)

    train._trainvitals = True  # type: ignore[attr-defined]
    return train


def _iter(original: Any) -> Any:
    @functools.wraps(original)
    def __iter__(loader: Any) -> Iterator[Any]:
        for watch in PassWatch.active:
            watch.boundary()
        found: Iterator[Any] = original(loader)
        return found

    __iter__._trainvitals = True  # type: ignore[attr-defined]
    return __iter__
