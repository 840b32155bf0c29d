"""What a script hands to a logger, on its way to the host: mappings are taken apart, tensors become numbers or arrays.

This file needs no torch: it knows its tensors where the script has loaded it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from trainvitals.errors import UsageError
from trainvitals.store.samplekinds import HISTOGRAM_VALUES, Taken, take_histogram, take_image

NESTED = 8
"""Levels of mappings inside each other that `log` takes apart."""
ASYNCHRONOUS = ("cuda", "xpu")
"""Devices whose numbers arrive later, as in `collectors.transfer`."""


def flatten(metrics: Mapping[Any, Any], row: dict[str, Any], refuse: Callable[[str, str], None], prefix: str = "",
             above: tuple[int, ...] = ()) -> bool:
    """Fill `row` with what is no mapping, by its path; whether a value is still on its device.

    `refuse` is told the name of what is left out, and why.
    """
    later = False
    tensor = _tensor_class()
    for name, value in metrics.items():
        if prefix:
            if not isinstance(name, str | int):
                refuse(prefix[:-1], f"a name inside it must be a string, not {type(name).__name__}")
                continue
            name = f"{prefix}{name}"
        if type(value) is float:
            row[name] = value
        elif isinstance(value, Mapping):
            if not isinstance(name, str):
                refuse("?", f"a name must be a string, not {type(name).__name__}")
            elif id(value) in above or id(value) == id(metrics) or len(above) >= NESTED:
                refuse(name, "it holds itself" if len(above) < NESTED else
                       f"its mappings are nested more than {NESTED} deep")
            else:
                later |= flatten(value, row, refuse, f"{name}/", (*above, id(metrics)))
        elif isinstance(value, tensor):
            number, why = _number_of(value)
            if why:
                refuse(str(name), why)
            else:
                row[name] = number
                later |= number is not None and isinstance(number, tensor)
        else:
            row[name] = value
    return later


def _number_of(value: Any) -> tuple[Any, str]:
    """The number in a tensor, or the tensor itself where waiting for it would stop the script; or why there is none."""
    if value.numel() != 1:
        return None, f"it is a tensor of {value.numel():,} numbers. Reduce it to one first, or use log_histogram"
    if type(value).__name__ == "DTensor":
        return None, "it is a DTensor, whose value all ranks may have to work out: log x.full_tensor()"
    if value.device.type in ASYNCHRONOUS:
        return value.detach().reshape(()).clone(), ""  # a running sum may be reset before its copy begins
    try:
        return value.item(), ""
    except Exception as error:  # noqa: BLE001 - a tensor without memory, say
        return None, f"its value cannot be read ({error})"


def _tensor_class() -> Any:
    """torch.Tensor where the script has loaded torch, else a class of nothing."""
    return getattr(sys.modules.get("torch"), "Tensor", ())


def on_host(value: Any, take: Callable[..., Taken]) -> tuple[Any, bool, Callable[..., Taken]]:
    """A tensor as a numpy array, or still on its device (True); anything else as it is; and how it is taken then."""
    if not isinstance(value, _tensor_class()):
        return value, False, take
    if type(value).__name__ == "DTensor":
        raise UsageError("a DTensor's value all ranks may have to work out: log x.full_tensor()")
    value = value.detach()
    if take is take_histogram and value.numel():
        take = partial(take_histogram, of=value.numel())
        value = value.reshape(-1)[::-(-value.numel() // HISTOGRAM_VALUES)]
    if take is take_image:
        if value.dim() == 3 and value.shape[0] in (1, 3, 4):
            value = value.movedim(0, -1)  # torch's own order, also where the last axis could be channels
        if value.dtype == sys.modules["torch"].bool:
            value = value.byte() * 255
    if value.device.type in ASYNCHRONOUS:
        return value, True, take
    value = value.cpu()
    return (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy(), False, take
