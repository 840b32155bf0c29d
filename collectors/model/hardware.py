"""Peak dense FLOP/s of accelerators, for model FLOP utilisation. An unknown device has no peak, never another one's."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Peak:
    """One accelerator's peak in bf16 with float32 accumulation, dense (without structured sparsity)."""

    pattern: str
    """Regular expression over the device's name as the driver gives it; the first that matches counts."""
    flops: float
    source: str


PEAKS: tuple[Peak, ...] = (
    Peak(r"\bGB300\b|\bB300\b", 2.5e15, "https://www.nvidia.com/en-us/data-center/gb300-nvl72/"),
    Peak(r"\bGB200\b", 2.5e15, "https://www.nvidia.com/en-us/data-center/gb200-nvl72/"),
    Peak(r"\bB200\b", 2.25e15, "https://www.nvidia.com/en-us/data-center/dgx-b200/"),
    Peak(r"\bH200 NVL\b", 835e12, "https://www.nvidia.com/en-us/data-center/h200/"),
    Peak(r"\bH200\b|\bGH200\b", 989e12, "https://www.nvidia.com/en-us/data-center/h200/"),
    Peak(r"\bH100 NVL\b", 835e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Peak(r"\bH100 PCIe\b", 756e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Peak(r"\bH100\b.*\bHBM3\b|\bH100 SXM", 989e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Peak(r"\bH800\b(?!.*PCIe)", 989e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    Peak(r"\bA100\b|\bA800\b", 312e12, "https://www.nvidia.com/en-us/data-center/a100/"),
    Peak(r"\bL40S\b", 362e12, "https://www.nvidia.com/en-us/data-center/l40s/"),
    Peak(r"\bL4\b", 121e12, "https://www.nvidia.com/en-us/data-center/l4/"),
    Peak(r"\bA40\b", 149.7e12, "https://www.nvidia.com/en-us/data-center/a40/"),
    Peak(r"\bA10\b", 125e12, "https://www.nvidia.com/en-us/data-center/products/a10-gpu/"),
    Peak(r"\bMI355X\b", 2.5e15, "https://www.amd.com/en/products/accelerators/instinct/mi350/mi355x.html"),
    Peak(r"\bMI325X\b|\bMI300X\b", 1307.4e12,
         "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html"),
    Peak(r"\bMI250X\b(?!.*MI250\b)", 191.5e12, "https://www.amd.com/en/products/accelerators/instinct/mi200/mi250x.html"),
)
"""MI250X: torch sees each of its two dies as a device, so the figure is half of the data sheet's 383e12."""


def device_name(device: torch.device) -> str:
    """The device's name as its driver gives it; "cpu" or the type's name otherwise."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_flops(name: str) -> float | None:
    """Dense bf16 peak FLOP/s of the device of this name; None if it is not in the table.

    >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA GeForce GTX 970")
    (989000000000000.0, None)
    """
    if re.search(r"\bMIG\b", name):
        return None  # a slice of a device: its share of the peak is not in its name
    return next((peak.flops for peak in PEAKS if re.search(peak.pattern, name, re.IGNORECASE)), None)
