"""Counts and sums over tokens, kept where the tokens are.

On a device an addition queues a kernel, at once. On the host it waits until the result is asked for, and then runs
together with what waits beside it: between the layers of a model the caches hold other things, and an operation on two
thousand numbers costs ten times what it does among its like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from collectors.transfer import is_asynchronous

HELD = 1 << 18
"""Cells that may wait to be counted: 2 MB."""

Cells = Callable[[], Iterable[tuple[Tensor, Tensor | None]]]
"""Gives cells, int64 [N], and the weight of each; from tensors that nobody changes any more."""


class Tally:
    """A flat counter that starts at zero: what was added to it, and what tallies of its kind were merged into it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tables: tuple[Tensor, ...] | None = None
        self._waiting: list[tuple[Cells, torch.device]] = []
        self._merged: list[Tally] = []
        self._held = 0
        self._borrowed = False
        """Whether the tables are those of one that was merged into this, and are not to be written to."""

    @property
    def device(self) -> torch.device | None:
        """Where it is kept; None of an empty one."""
        if self._tables is not None:
            return self._tables[0].device
        return self._waiting[0][1] if self._waiting else next((d for t in self._merged if (d := t.device)), None)

    def add(self, cells: Cells, n: int, device: torch.device) -> None:
        """Count n cells that are on this device."""
        self._waiting.append((cells, device))
        self._wait(n, device)

    def merge(self, other: Tally | None) -> None:
        """Add all that another one holds; it is not added to any more."""
        if other is not None and (device := other.device) is not None:
            self._merged.append(other)
            self._wait(max(other._held, other.size), device)

    def _wait(self, n: int, device: torch.device) -> None:
        self._held += n
        if self._held > HELD or is_asynchronous(device):
            self.settle()

    def settle(self) -> None:
        """Do what waits."""
        self._held = 0
        waiting, self._waiting = self._waiting, []
        merged, self._merged = self._merged, []
        for cells, device in waiting:
            for rows, weights in cells():
                self._put(self._own(device), rows, weights)
        for other in merged:
            tables = other.tables
            if tables is None:
                continue
            if self._tables is None:
                self._tables, self._borrowed = tables, True
                continue
            for own, more in zip(self._own(tables[0].device), tables, strict=True):
                own += more.to(own.device)

    def _own(self, device: torch.device) -> tuple[Tensor, ...]:
        """Tables that may be written to."""
        if self._tables is None:
            self._tables = self._zeros(device)
        elif self._borrowed:
            copies = self._zeros(self._tables[0].device)
            for copy, table in zip(copies, self._tables, strict=True):
                copy += table
            self._tables = copies
        self._borrowed = False
        return self._tables

    def _zeros(self, device: torch.device) -> tuple[Tensor, ...]:
        return (zeros(self.size, dtype=torch.int64, device=device),)

    def _put(self, tables: tuple[Tensor, ...], rows: Tensor, weights: Tensor | None) -> None:
        count(tables[0], rows)

    @property
    def tables(self) -> tuple[Tensor, ...] | None:
        """What was counted; None where nothing was."""
        self.settle()
        return self._tables

    @property
    def counts(self) -> Tensor | None:
        """The first of them."""
        tables = self.tables
        return None if tables is None else tables[0]


def zeros(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A zero tensor that may be updated in place inside and outside of inference mode."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return torch.zeros(shape, dtype=dtype, device=device)
    return torch.zeros(shape, dtype=dtype, device=device)


def count(counts: Tensor, cells: Tensor) -> None:
    """Add 1 to a flat counter at every one of these cells, int64 [N]."""
    counts.scatter_add_(0, cells, torch.ones_like(cells))
