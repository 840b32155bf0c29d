"""How far each step moves the weights, and how large they are.

Metrics recorded:
    update/sumsq_by_layer, weight/sumsq_by_layer   every 50 steps, per layer

The update is the difference of the weights after and before the step. lr x gradient is not the update of Adam, Muon
or any optimizer with weight decay. It costs a copy of this rank's weights: on the host it is kept, because taking 12 MB
afresh at every step costs more in page faults (4 ms) than the copy itself (0.3 ms); on a device it lasts for the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from collectors.model.layers import local, norms, stacked
from collectors.signals.collector import Collector

CACHED_BYTES = 1 << 20
"""Weights on the host that are copied and measured together: between the two they stay in the core's cache."""


class UpdateCollector(Collector):
    """Norms of weights and of their changes, per layer."""

    name = "update"
    default_every = 50
    turn = 40

    def open(self) -> None:
        self.frame = self.tap.frame("update", ["weight/sumsq_by_layer", "update/sumsq_by_layer"],
                                           labels={"layer": self.tap.layers.labels})
        self.before: list[Tensor] | None = None
        self.kept: list[Tensor] | None = None
        self.parts = parts([local(p.detach()) for p in self.tap.layers.parameters])

    def rewind(self) -> None:
        self.before = None

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        if self.due(step):
            weights = [local(p.detach()) for p in self.tap.layers.parameters]
            self.before = self.kept or [torch.empty_like(w) for w in weights]
            self.weights: list[Tensor] = []
            for part in self.parts:
                torch._foreach_copy_(self.before[part], weights[part])
                self.weights += norms(self.before[part])
            self.kept = self.before if self.tap.device.type == "cpu" else None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if self.before is None:
            return
        before, self.before = self.before, None
        weights, updates = [local(p.detach()) for p in self.tap.layers.parameters], []
        for part in self.parts:
            torch._foreach_sub_(before[part], weights[part])
            updates += norms(before[part])
        self.emit(self.frame, step, {"weights": stacked(self.weights), "updates": stacked(updates)}, self._fields)

    def _fields(self, host: dict[str, Any]) -> dict[str, Any]:
        layers = self.tap.layers
        everything = range(len(layers.parameters))
        return {"weight/sumsq_by_layer": layers.by_layer(host["weights"], everything)[0],
                "update/sumsq_by_layer": layers.by_layer(host["updates"], everything)[0]}


def parts(tensors: list[Tensor]) -> list[slice]:
    """Consecutive tensors that fit into a cache together; on a device, where a kernel costs a launch, all of them."""
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return [slice(None)]
    starts, size = [0], 0
    for i, tensor in enumerate(tensors):
        size += tensor.nbytes
        if size > CACHED_BYTES and i > starts[-1]:
            starts.append(i)
            size = tensor.nbytes
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(tensors)], strict=True)]
