"""The fingerprint of a batch on the device that holds it; what it is, is said in `trainvitals.fingerprint`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from collectors.batch import Batch
from trainvitals.fingerprint import FMIX64, LANE, lanes, multipliers


def batch_lanes(batch: Batch) -> Tensor | NDArray[Any] | float:
    """The two lanes [2] of a forward's token ids: on the host an array, elsewhere a tensor that nobody waits for.

    NaN where the forward has no token ids, or this rank holds only a part of each row.
    """
    ids, mask = batch.input_ids, batch.mask
    if ids is None or isinstance(ids, DTensor):
        return math.nan
    if ids.device.type == "cpu":
        return lanes(ids.numpy(), None if mask is None else mask.numpy())
    return device_lanes(ids, mask)


@torch.no_grad()
def device_lanes(ids: Tensor, mask: Tensor | None) -> Tensor:
    """The same with torch's signed integers, which wrap as unsigned ones do: int64 [2]."""
    tokens = ids.to(torch.int64) + 1
    if mask is not None:
        tokens *= mask
    h = (tokens * _multipliers(ids.shape[1], ids.device)).sum(dim=1)
    for factor in FMIX64:
        h = (h ^ ((h >> 33) & (2**31 - 1))) * _signed(factor)
    h = h ^ ((h >> 33) & (2**31 - 1))
    return torch.stack([h & LANE, (h >> 32) & LANE]).sum(dim=1) & LANE


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


@lru_cache(maxsize=16)
def _multipliers(positions: int, device: torch.device) -> Tensor:
    made = torch.from_numpy(multipliers(positions).view(np.int64).copy())
    if device.type == "cuda":
        # A copy from pageable memory may wait for the device.
        return made.pin_memory().to(device, non_blocking=True)
    return made.to(device)
