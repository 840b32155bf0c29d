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
from collectors.step import Part

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
        self.kept: dict[int, list[Tensor]] = {}
        self.rewind()

    def rewind(self) -> None:
        self.before: dict[int, list[Tensor]] = {}
        """Weights before the update, by the number of their part."""
        self.members: list[int] = []
        self.weights: list[Tensor] = []
        self.updates: list[Tensor] = []

    def _weights(self, part: Part) -> list[Tensor]:
        return [local(self.tap.layers.parameters[i].detach()) for i in part.members]

    @torch.no_grad()
    def before_update(self, part: Part) -> None:
        if not self.due(self.tap.step + 1) or not part.members:
            return
        weights = self._weights(part)
        copies = self.kept.pop(part.number, None) or [torch.empty_like(w) for w in weights]
        for piece in cached(weights):
            torch._foreach_copy_(copies[piece], weights[piece])
            self.weights += norms(copies[piece])
        self.before[part.number] = copies
        self.members += part.members

    @torch.no_grad()
    def after_update(self, part: Part) -> None:
        copies = self.before.pop(part.number, None)
        if copies is None:
            return
        weights = self._weights(part)
        for piece in cached(weights):
            torch._foreach_sub_(copies[piece], weights[piece])
            self.updates += norms(copies[piece])
        if self.tap.device.type == "cpu":
            self.kept[part.number] = copies

    def after_step(self, step: int) -> None:
        if self.updates and len(self.updates) == len(self.weights):
            members = list(self.members)
            self.emit(self.frame, step, {"weights": stacked(self.weights), "updates": stacked(self.updates)},
                      lambda host: self._fields(host, members))
        self.rewind()

    def _fields(self, host: dict[str, Any], members: list[int]) -> dict[str, Any]:
        layers = self.tap.layers
        return {"weight/sumsq_by_layer": layers.by_layer(host["weights"], members)[0],
                "update/sumsq_by_layer": layers.by_layer(host["updates"], members)[0]}


def cached(tensors: list[Tensor]) -> list[slice]:
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
