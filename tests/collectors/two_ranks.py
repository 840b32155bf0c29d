"""Two gloo processes train one model on the CPU: `python -m tests.collectors.two_ranks ddp|fsdp2 RANK FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.collectors import tiny

STEPS = 4
COLLECTORS = {"update": 2, "router_domain": 2, "tokens": 2}


def data(rank: int | None) -> list[dict[str, torch.Tensor]]:
    """The batches of the single process (None), or this rank's half of their rows."""
    whole = tiny.batches(STEPS, padded=False)
    rows = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    return [{name: value[rows] for name, value in batch.items()} for batch in whole]


def wrapped(kind: str) -> nn.Module:
    model = tiny.olmoe()
    if kind == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(kind: str, rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{kind}", rank=rank, world_size=2)
    tapped, plain = wrapped(kind), wrapped(kind)
    tiny.train(tapped, data(rank), folder / kind, max_norm=0.5, collectors=COLLECTORS)
    tiny.train(plain, data(rank), max_norm=0.5)
    assert tiny.same_weights(tapped, plain), "the tap changed the weights"
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
