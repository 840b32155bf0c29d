"""Two gloo processes train one model on the CPU, in one way after another: `python -m tests.collectors.two_ranks RANK
FOLDER`. `alone` is the single process that sees all their data.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import trainvitals as tv
from tests.collectors import tiny

COLLECTORS = {"update": 1, "router": 1, "router_domain": 1, "tokens": 1, "replicas": 1}
MAX_NORM = 0.5
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Way:
    """How the ranks train. Rows of every micro-batch, by step and rank: `rows[step][rank]` is a list."""

    wrapper: str
    rows: tuple[tuple[list[int], list[int]], ...]
    bad: tuple[int, int] | None = None
    """Step and rank at which the logits of the first micro-batch are not numbers."""
    remedy: str = ""
    """What the loop does against it: a gradient `scaler`, or `continue` with the next micro-batch."""
    flipped: tuple[int, int] | None = None
    """Step and rank at which one bit of one weight in layer 1 turns over before the update."""

    def data(self) -> list[tuple[list[Batch], list[Batch]]]:
        """Micro-batches by step and rank."""
        most = max(row for step in self.rows for rank in step for row in rank) if self.rows else 1
        source = iter(tiny.batches(64, rows=most, seed=3))
        return [tuple([{name: value[:n] for name, value in next(source).items()} for n in rank]  # type: ignore[misc]
                      for rank in step) for step in self.rows]


EVEN = (([2], [2]),) * 3
UNEVEN = (([1], [3]), ([3], [1]), ([2], [3]))
ACCUMULATED = (([2, 1], [3, 1, 2]), ([2, 2], [1, 1, 1]), ([1], [2]))
AS_MANY = (([2, 1], [3, 2]), ([2, 2], [1, 1]), ([1], [2]))
"""Sharded parameters are gathered in every forward, so all ranks make as many."""
WAYS = {
    "ddp": Way("ddp", EVEN),
    "fsdp2": Way("fsdp2", EVEN),
    "ddp uneven": Way("ddp", UNEVEN),
    "fsdp2 uneven": Way("fsdp2", UNEVEN),
    "ddp accumulated": Way("ddp", ACCUMULATED),
    "fsdp2 accumulated": Way("fsdp2", AS_MANY),
    "flipped": Way("ddp", EVEN, flipped=(1, 1)),
    "join": Way("ddp", (*UNEVEN, ([], [2]), ([], [1]))),
    "scaler": Way("ddp", EVEN, bad=(1, 1), remedy="scaler"),
    "micro-batch left out": Way("ddp", ACCUMULATED, bad=(1, 1), remedy="continue"),
    "alone": Way("", EVEN, bad=(1, 1), remedy="scaler"),
}


def wrapped(kind: str) -> nn.Module:
    model = tiny.olmoe()
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp2":
        mesh = init_device_mesh("cpu", (2,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return model


class Poison:
    """Makes the logits of chosen forwards NaN, inside the model."""

    def __init__(self, model: nn.Module) -> None:
        self.on = False
        head = next(m for n, m in model.named_modules() if n.endswith("lm_head"))
        head.register_forward_hook(lambda m, a, out: out * math.nan if self.on else None)


def train(way: Way, model: nn.Module, rank: int, run: Path | None) -> None:
    """The loop of one rank."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=way.remedy == "scaler")
    tap = None if run is None else tv.attach(model, optimizer, run, domains=tiny.DOMAINS, collectors=COLLECTORS)
    poison = Poison(model)
    ends_early = any(not rank for step in way.rows for rank in step)
    with Join([model]) if ends_early else nullcontext():
        for number, step in enumerate(way.data()):
            for i, batch in enumerate(step[rank]):
                if tap is None:
                    batch = {name: value for name, value in batch.items() if name != "domain"}
                poison.on = way.bad == (number, rank) and i == 0
                with synchronized(model, i + 1 == len(step[rank])):
                    loss = model(**batch).loss
                    if way.remedy == "continue" and not torch.isfinite(loss):
                        continue
                    scaler.scale(loss / len(step[rank])).backward()
            if way.flipped == (number, rank):
                flip(model)
            if step[rank]:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    if tap is not None:
        tap.close()


def flip(model: nn.Module) -> None:
    """Turn over one bit, the second lowest, of one weight."""
    weight = next(p for name, p in model.named_parameters() if "layers.1." in name)
    with torch.no_grad():
        weight.view(-1)[:1].view(torch.int32).bitwise_xor_(2)


def synchronized(model: nn.Module, last: bool) -> Any:
    """The context of a micro-batch: gradients are exchanged at the last one only."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
    return nullcontext()


def alone(way: Way, run: Path, note: Callable[[list[Batch], nn.Module], None]) -> None:
    """One process makes the steps that the ranks make together: the mean over ranks of each one's mean loss.

    `note` is told each step's micro-batches before its update.
    """
    model = tiny.olmoe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.attach(model, optimizer, run, domains=tiny.DOMAINS, collectors=COLLECTORS):
        for number, step in enumerate(way.data()):
            used = []
            for rank, batches in enumerate(step):
                for i, batch in enumerate(batches):
                    if way.bad != (number, rank) or i:
                        used.append(batch)
                        (model(**batch).loss / len(batches) / 2).backward()
            note(used, model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))
    for name, way in WAYS.items():
        tapped, plain = wrapped(way.wrapper), wrapped(way.wrapper)
        train(way, tapped, rank, folder / name)
        train(way, plain, rank, None)
        assert tiny.same_weights(tapped, plain), f"{name}: the tap changed the weights"
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
