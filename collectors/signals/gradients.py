"""Gradient norms per layer, before and after whatever the loop does to them.

Metrics recorded:
    grad/*      per step: sums of squares before clipping, in all and per layer, and after it; tensors whose norm is not
                finite
    skipped/*   where a gradient was thrown away: how many, and how many of their tensors were not finite

Norms are taken twice, at two moments: when a backward has ended, and when the optimizer is about to use the gradient.
What lies between them is the loop's: clipping of whatever kind, by whatever function, or none. Both passes read each
gradient once, fused (`torch._foreach_norm`); nothing of torch is replaced. A gradient scaler's factor is divided out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from collectors.model.layers import local, norms, stacked
from collectors.signals.collector import Collector
from collectors.step import Part


class GradientCollector(Collector):
    """Per-layer gradient norms of the parameters that the optimizers hold."""

    name = "grad"
    turn = 20

    def open(self) -> None:
        self.frame = self.tap.frame(
            "grad", ["grad/sumsq", "grad/sumsq_by_layer", "grad/clipped_sumsq", "grad/nonfinite"],
            labels={"layer": self.tap.layers.labels})
        self.skip_frame = self.tap.frame("skipped", ["skipped/gradients", "skipped/nonfinite"])
        self.rewind()

    def rewind(self) -> None:
        self.before: dict[int, Tensor] = {}
        """Norm of every gradient as the last backward left it, by parameter."""
        self.after: dict[int, Tensor] = {}
        """The same when its optimizer was about to use it."""
        self.before_scale: Tensor | None = None
        self.after_scale: Tensor | None = None
        self.overflow: Tensor | None = None
        self.skips: Tensor | int = 0
        self.skipped_nonfinite: Tensor | float = 0.0

    @torch.no_grad()
    def _norms(self, members: range | tuple[int, ...]) -> dict[int, Tensor]:
        parameters = self.tap.layers.parameters
        found = {i: local(gradient) for i in members if (gradient := parameters[i].grad) is not None}
        dense = [g.coalesce().values() if g.is_sparse else g for g in found.values()]
        return dict(zip(found, norms(dense), strict=True)) if found else {}

    def gradients(self) -> None:
        if self.due(self.tap.step + 1) and (found := self._norms(range(len(self.tap.layers.parameters)))):
            self.before, self.before_scale = found, self.tap.loss_scale

    def before_update(self, part: Part) -> None:
        if not self.due(self.tap.step + 1):
            return
        found = self._norms(part.members)
        self.after |= found
        # A fused optimizer divides by the scale itself, and leaves out the update where the scaler found an overflow.
        self.after_scale = getattr(part.optimizer, "grad_scale", None)
        self.overflow = getattr(part.optimizer, "found_inf", None)
        for i in found.keys() - self.before.keys():
            self.before[i] = found[i]

    @torch.no_grad()
    def skipped(self, step: int) -> None:
        skips, nonfinite = self.skips + 1, self.skipped_nonfinite
        if self.before:
            norms = stacked(list(self.before.values()))
            shares = torch.tensor([self.tap.layers.shares[i] for i in self.before], device=norms.device)
            nonfinite = nonfinite + (shares * ~norms.isfinite()).sum()
        self.rewind()
        self.skips, self.skipped_nonfinite = skips, nonfinite

    def finish(self) -> None:
        if isinstance(self.skips, Tensor) or self.skips:
            self._write_skips(self.tap.step + 1)

    def _write_skips(self, step: int) -> None:
        self.emit(self.skip_frame, step, {"skipped/gradients": self.skips,
                                          "skipped/nonfinite": self.skipped_nonfinite})

    def after_step(self, step: int) -> None:
        if self.after:
            members = list(self.after)
            values: dict[str, Any] = {"before": stacked([self.before[i] for i in members]),
                                      "after": stacked(list(self.after.values())),
                                      "before_scale": _taken(self.before_scale),
                                      "after_scale": _taken(self.after_scale)}
            self.emit(self.frame, step, values, lambda host: self._fields(host, members))
            if self.overflow is not None:
                self.skipped_nonfinite = self.skipped_nonfinite + (~values["after"].isfinite()).sum()
                self.skips = self.skips + (_taken(self.overflow) > 0)
        if isinstance(self.skips, Tensor) or self.skips:
            self._write_skips(step)
        self.rewind()

    def _of(self, norms: Any, members: list[int]) -> tuple[Any, float]:
        return self.tap.layers.by_layer(norms, members)

    def _fields(self, host: Mapping[str, Any], members: list[int]) -> dict[str, Any]:
        by_layer, nonfinite = self._of(host["before"] / host["before_scale"], members)
        clipped, _ = self._of(host["after"] / host["after_scale"], members)
        return {"grad/sumsq": by_layer.sum(), "grad/sumsq_by_layer": by_layer, "grad/clipped_sumsq": clipped.sum(),
                "grad/nonfinite": nonfinite}


def _taken(number: Tensor | float | None) -> Tensor | float:
    """A copy of a scaler's number, which it changes in place; 1 where there is none."""
    return 1.0 if number is None else number.detach().clone().reshape(()) if isinstance(number, Tensor) else number
