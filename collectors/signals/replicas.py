"""Whether the ranks that should hold the same weights do: silent corruption of one of them shows nowhere else.

Metrics recorded:
    weight/checksum, weight/checksum_min, weight/checksum_max   at the first step and every 100 steps

Every rank sums the bits of its weights as integers, per layer, modulo 2**32, so equal weights have equal numbers and
one bit changed always changes them. No rank talks to another: the comparison is made at read time, layer by layer with
the smallest and the largest over ranks (`weight/replicas_differ`), and rank by rank (`weight/checksum_by_rank`).

Ranks should be equal where one DistributedDataParallel over all of them wraps the model and averages gradients in a way
that gives all the same. Of shards (FSDP2, tensor parallel) and of anything else nothing is written.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from collectors.batch import Batch
from collectors.model.layers import clean_name
from collectors.signals.collector import Collector
from trainvitals.fingerprint import LANE

WORD = 8
"""Bytes that are added as one integer: eight times faster than four on a CPU."""


class ReplicaCollector(Collector):
    """Checksums of this rank's weights."""

    name = "replicas"
    default_every = 100
    turn = 45

    def open(self) -> None:
        self.world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self.ddp: DistributedDataParallel | None = None
        self.members: list[int] | None = None
        """Parameters that all ranks hold, as positions in `Layers.parameters`; None while that is not known."""
        self.first = True

    def forward(self, batch: Batch) -> None:
        # The wrapper may have been made after the tap, around the module that was attached to.
        if self.world > 1 and self.members is None and batch.training:
            self.ddp = self.ddp or DistributedDataParallel._active_ddp_module

    def after_step(self, step: int) -> None:
        if self.world == 1 or not (self.first or self.due(step)):
            return
        self.first = False
        if self.members is None:
            self.members = self._replicated()
        if not self.members:
            return
        by_layer = self._by_layer(self.members)
        self.emit(self.frame, step, {"checksums": by_layer}, _fields)

    def _replicated(self) -> list[int]:
        """What all ranks should hold alike; says once where that is nothing."""
        layers, ddp, why = self.tap.layers, self.ddp, ""
        if any(isinstance(p, DTensor) for p in layers.parameters):
            why = "it is sharded over the ranks"
        elif ddp is None:
            why = "no DistributedDataParallel was seen around the model"
        elif dist.get_world_size(ddp.process_group) != self.world:
            why = "its DistributedDataParallel spans only some of the ranks"
        elif not all(_gives_all_the_same(hook) for hook, _ in ddp._comm_hooks):
            why = "a communication hook may give each rank other gradients"
        if why or ddp is None:
            self.tap.once("replicas_unknown", "Whether the ranks hold the same weights is not looked at: the model is "
                          f"no known replica ({why}).", unknown=False)
            return []
        left_out = {clean_name(name) for name in ddp.parameters_to_ignore}
        replicated = {id(p) for name, p in ddp.module.named_parameters() if clean_name(name) not in left_out}
        self.frame = self.tap.frame("replicas", ["weight/checksum", "weight/checksum_min", "weight/checksum_max"],
                                    labels={"layer": layers.labels})
        return [i for i, p in enumerate(layers.parameters) if id(p) in replicated]

    @torch.no_grad()
    def _by_layer(self, members: list[int]) -> Tensor:
        """Checksum of every layer, int64 [L] within 0..2**32 - 1, on the device of the first parameter."""
        layers = self.tap.layers
        sums = torch.stack([checksum(layers.parameters[i]).to(self.tap.device) for i in members])
        index = torch.tensor([layers.index[i] for i in members])
        if self.tap.device.type == "cuda":
            # A copy from pageable memory may wait for the device.
            index = index.pin_memory()
        total = torch.zeros(len(layers.labels), dtype=torch.int64, device=self.tap.device)
        return total.index_add_(0, index.to(self.tap.device, non_blocking=True), sums) & LANE


def checksum(weights: Tensor) -> Tensor:
    """Sum of the bytes of all elements in their order, as words, folded to 32 bits: one bit changed changes it."""
    flat = weights.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = flat.numel() // WORD * WORD
    if flat.storage_offset() % WORD:
        flat = flat.clone()
    total = flat[:whole].view(torch.int64).sum() + flat[whole:].sum(dtype=torch.int64)
    return (total + (total >> 32)) & LANE


def _fields(host: dict[str, object]) -> dict[str, object]:
    by_layer = host["checksums"]
    return {"weight/checksum": int(by_layer.sum()) & LANE,  # type: ignore[attr-defined]
            "weight/checksum_min": by_layer, "weight/checksum_max": by_layer}


def _gives_all_the_same(hook: object) -> bool:
    """Whether a communication hook is one of torch's that leave the same gradient on all ranks."""
    return getattr(hook, "__module__", "") in (default_hooks.__name__, powerSGD_hook.__name__)
