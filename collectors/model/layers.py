"""Which layer each parameter belongs to, and which share of it this rank answers for.

Ranks add their sums of squares at read time. A parameter that k ranks hold in full counts 1/k on each; a shard counts
in full on the one rank that holds it. So the sum over ranks is the true one, and no rank talks to another.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_EMBEDDING = re.compile(r"embed|wte|wpe", re.IGNORECASE)
_HEAD = re.compile(r"head|lm_out|output|score|classifier", re.IGNORECASE)
_NORM = re.compile(r"norm|ln_f|layer_?norm", re.IGNORECASE)


@dataclass(frozen=True)
class Layers:
    """The parameters of an optimizer, in the order of the model.

    P parameters, L layers.
    """

    parameters: list[nn.Parameter]
    labels: list[str]
    """Names of the L layers, from the embedding to the head."""
    index: list[int]
    """Layer of every parameter, [P]."""
    shares: list[float]
    """Part of every parameter's sum of squares that this rank adds, [P]."""

    def by_layer(self, norms: NDArray[np.float64], members: Sequence[int]) -> tuple[NDArray[np.float64], float]:
        """This rank's sum of squared norms per layer, [L], and how many of the norms are not finite.

        `members` are the parameters that the norms belong to.
        """
        index, shares = self._arrays
        if len(members) != len(index) or members != self._all:
            chosen = list(members)
            index, shares = index[chosen], shares[chosen]
        with np.errstate(all="ignore"):
            total = np.asarray(np.bincount(index, norms * norms * shares, len(self.labels)), dtype=np.float64)
        return total, float(shares[~np.isfinite(norms)].sum())

    @functools.cached_property
    def _all(self) -> list[int]:
        return list(range(len(self.index)))

    @functools.cached_property
    def _arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.array(self.index, dtype=np.int64), np.array(self.shares, dtype=np.float64)


def find_layers(model: nn.Module, optimized: Iterable[nn.Parameter]) -> Layers:
    """The model's parameters that the optimizer holds, by layer. Raises nothing; may be empty."""
    wanted = {id(p) for p in optimized}
    named = [(clean_name(n), p) for n, p in model.named_parameters() if id(p) in wanted]
    labels_of = layer_labels([name for name, _ in named])
    labels = list(dict.fromkeys(labels_of))
    copies = replicas(model)
    return Layers(parameters=[p for _, p in named], labels=labels, index=[labels.index(label) for label in labels_of],
                  shares=[1.0 / (sharded_replicas(p) or copies) for _, p in named])


def clean_name(name: str) -> str:
    """A parameter's name without the wrappers of DDP, FSDP, torch.compile and activation checkpointing."""
    return _WRAPPERS.sub("", name)


def layer_labels(names: list[str]) -> list[str]:
    """Layer of every parameter name: a block's number, `embed`, `final_norm`, `head`, or its first name.

    >>> layer_labels(["model.embed_tokens.weight", "model.layers.0.mlp.w", "model.layers.1.mlp.w", "lm_head.weight"])
    ['embed', '0', '1', 'head']
    """
    stacks = Counter(block[0] for name in names if (block := _block(name)))
    return [_label(name, several_stacks=len(stacks) > 1) for name in names]


def _block(name: str) -> tuple[str, str] | None:
    """Path of the stack and number of the block that a parameter is in."""
    parts = name.split(".")
    for i, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[:i]), part
    return None


def _label(name: str, several_stacks: bool) -> str:
    block = _block(name)
    if block:
        return f"{block[0]}.{block[1]}" if several_stacks and block[0] else block[1]
    if _EMBEDDING.search(name):
        return "embed"
    if _NORM.search(name):
        return "final_norm"
    if _HEAD.search(name):
        return "head"
    return name.split(".")[0]


def replicas(model: nn.Module) -> int:
    """How many ranks hold a copy of every plain parameter of this model."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    if isinstance(model, DistributedDataParallel):
        return dist.get_world_size(model.process_group)
    return dist.get_world_size()


def sharded_replicas(parameter: Tensor) -> int | None:
    """How many ranks hold the same shard of a DTensor; None for a plain tensor."""
    if not isinstance(parameter, DTensor):
        return None
    copies = 1
    for size, placement in zip(parameter.device_mesh.shape, parameter.placements, strict=True):
        copies *= size if placement.is_replicate() else 1
    return copies


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def stacked(norms: Sequence[Tensor]) -> Tensor:
    """Norms as one tensor, on the device of the first."""
    device = norms[0].device
    if {norm.device for norm in norms} != {device}:
        norms = [norm.to(device) for norm in norms]
    return torch.stack(list(norms))


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """L2 norm of every tensor, at least in float32."""
    out: dict[int, Tensor] = {}
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(i)
    for (_, dtype), members in groups.items():
        wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        values = torch._foreach_norm([tensors[i] for i in members], 2, dtype=wide)
        out.update(zip(members, values, strict=True))
    return [out[i] for i in range(len(tensors))]
