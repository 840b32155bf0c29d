"""The factor that torch's gradient scaler puts on a loss, so that norms can be told without it.

Gradients of a scaled loss are scaled until `unscale_` or a fused optimizer divides them. The scaler is an object that
the loop hands neither to the model nor to the optimizer, so it is met where it works: `GradScaler.scale`
(https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling).
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.amp import GradScaler


class ScaleWatch:
    """The factor of the last loss that a scaler scaled, while at least one tap is live."""

    active: ClassVar[list[ScaleWatch]] = []
    original: ClassVar[Any] = None

    def __init__(self) -> None:
        self.latest: Tensor | None = None
        if not self.active:
            type(self).original = GradScaler.scale
            GradScaler.scale = _watched(GradScaler.scale)  # type: ignore[method-assign]
        self.active.append(self)

    def remove(self) -> None:
        """Stop watching; the last one puts the scaler back."""
        self.active.remove(self)
        # Who patched the method after us keeps their patch; ours then passes every call through.
        if not self.active and getattr(GradScaler.scale, "_trainvitals", False):
            GradScaler.scale = ScaleWatch.original  # type: ignore[method-assign]


def _watched(original: Any) -> Any:
    @functools.wraps(original)
    def scale(scaler: GradScaler, outputs: Any) -> Any:
        scaled = original(scaler, outputs)
        factor = getattr(scaler, "_scale", None)
        if isinstance(factor, Tensor):
            with torch.no_grad():
                copy = factor.detach().clone()
            for watch in ScaleWatch.active:
                watch.latest = copy
        return scaled

    scale._trainvitals = True  # type: ignore[attr-defined]
    return scale
