"""Gradient norms per layer, before and after whatever the loop does to them.

Metrics recorded:
    grad/*      per step: sums of squares before clipping, in all and per layer, and after it; tensors whose norm is not
                finite
    grad/loss_scale   where a gradient scaler is at work: its factor
    skipped/*   where a gradient was thrown away: how many, and how many of their tensors were not finite

Norms are taken at two moments: when a backward has ended, and when the optimizer is about to use the gradient. What
lies between them is the loop's: clipping of whatever kind, by whatever function, or none. A pass reads each gradient
once, fused (`torch._foreach_norm`), and is left out where stamps of the gradients show that it would find what is
known. What a loop has not shown in its first steps is a surprise: said, unknown at that step, and measured from then
on. A gradient scaler's factor is divided out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collectors.model.layers import local, norms, stacked
from collectors.signals.clipping import Clip, ClipWatch, Record, Stamp, stamp
from collectors.signals.collector import Collector
from collectors.step import Part
from trainvitals.store import FrameWriter

EAGER_STEPS = 3
"""Steps in which every norm is measured, before what was seen of the loop is relied on."""
SURPRISE = ("The gradient was changed between backward and update in a way that this loop had not shown before: its "
            "norm before that is unknown at step {step}, and measured from the next one on.")


class GradientCollector(Collector):
    """Per-layer gradient norms of the parameters that the optimizers hold."""

    name = "grad"
    turn = 20

    def open(self) -> None:
        self.frame = self.tap.frame(
            "grad", ["grad/sumsq", "grad/sumsq_by_layer", "grad/clipped_sumsq", "grad/nonfinite"],
            labels={"layer": self.tap.layers.labels})
        self.skip_frame = self.tap.frame("skipped", ["skipped/gradients", "skipped/nonfinite"])
        self.scale_frame: FrameWriter | None = None
        parts, all_of_them = self.tap.parts, range(len(self.tap.layers.parameters))
        alone = len(parts) == 1 and len(parts[0].members) == len(all_of_them)
        self.everything: Sequence[int] = parts[0].members if alone else tuple(all_of_them)
        self.owned = {id(p) for p in self.tap.layers.parameters}
        self.eager: float = EAGER_STEPS
        """Steps to come in which norms are measured at the end of the backward, needed or not."""
        self.rewind()
        self.handles.append(ClipWatch(self))

    def rewind(self) -> None:
        self.before: dict[int, Tensor] = {}
        """Norm of every gradient as the last backward left it, by parameter."""
        self.after: dict[int, Tensor] = {}
        """The same when its optimizer was about to use it; of `scaled` ones before torch's clipping."""
        self.scaled: set[int] = set()
        self.start: Stamp | None = None
        self.clip: Clip | None = None
        self.pairs: list[tuple[Tensor, Tensor]] = []
        """Samples on a device of gradients that are taken for unchanged between two moments."""
        self.compared = False
        self.alike = True
        """Whether samples on the host were unchanged."""
        self.explained = True
        self.before_scale: Tensor | None = None
        self.after_scale: Tensor | None = None
        self.overflow: Tensor | None = None
        self.skips: Tensor | int = 0
        self.skipped_nonfinite: Tensor | float = 0.0

    @torch.no_grad()
    def _norms(self, members: Sequence[int]) -> dict[int, Tensor]:
        parameters = self.tap.layers.parameters
        found = {i: local(gradient) for i in members if (gradient := parameters[i].grad) is not None}
        dense = [g.coalesce().values() if g.is_sparse else g for g in found.values()]
        return dict(zip(found, norms(dense), strict=True)) if found else {}

    def gradients(self) -> None:
        if not self.due(self.tap.step + 1):
            return
        start = stamp(self.tap.layers.parameters, self.everything)
        found = self._norms(self.everything) if self.eager > 0 or start is None else {}
        if start is not None or found:  # else optimizers that step inside the backward have used and cleared it all
            self.clip, self.before, self.start, self.before_scale = None, found, start, self.tap.loss_scale

    # ---- torch's own clipping ---------------------------------------------------------------------------------

    def clip_begins(self) -> Stamp | None:
        """The stamp before the clipping; None where it will not serve."""
        if self.clip is not None or self.start is None or self.eager == math.inf or not self.due(self.tap.step + 1):
            return None
        return stamp(self.tap.layers.parameters, self.everything, self.start)

    def clip_ended(self, entry: Stamp, record: Record) -> None:
        """Keep what the clipping computed, if it was all by one factor."""
        number = dict(zip(entry.identities, entry.members, strict=True))
        seen = {i: value for tensors, values in record.norms for tensor, value in zip(tensors, values, strict=True)
                if (i := number.get(id(tensor))) is not None}
        leave = stamp(self.tap.layers.parameters, self.everything, entry)
        if leave is not None and len(record.factors) == 1 and seen.keys() == entry.there:
            self.clip = Clip(seen, record.factors[0], entry, leave)

    # ---- the update -------------------------------------------------------------------------------------------

    def before_update(self, part: Part) -> None:
        if not self.due(self.tap.step + 1):
            return
        # A fused optimizer divides by the scale itself, and leaves out the update where the scaler found an overflow.
        self.after_scale = getattr(part.optimizer, "grad_scale", None)
        self.overflow = getattr(part.optimizer, "found_inf", None)
        clip = self.clip
        members = self.everything if len(part.members) == len(self.everything) else part.members
        now = None if self.eager == math.inf else stamp(self.tap.layers.parameters, members, self.start)
        kept = clip is not None and now is not None and clip.exit.same(now, members)
        if clip is not None and kept and self.eager <= 0:
            found = {i: clip.norms[i] for i in part.members if i in clip.norms}
            self.scaled.update(found)
        else:
            found = self._norms(part.members)
        self.after |= found
        if self.start is None:
            self.before |= {i: norm for i, norm in found.items() if i not in self.before}
        elif now is not None:
            self._explain(members, now, kept)

    def _explain(self, members: Sequence[int], now: Stamp, kept: bool) -> None:
        """Whether what happened since the backward is known, and with it the norms that it left."""
        start, clip, known = self.start, self.clip, {}
        assert start is not None
        if not self.compared:
            self.compared = True
            whole = now if members is self.everything else stamp(self.tap.layers.parameters, self.everything)
            self._compare(start, whole if clip is None else clip.entry)
            if clip is not None:
                self._compare(clip.exit, whole)
        if clip is not None and kept and start.same(clip.entry, members):
            known = clip.norms
        elif clip is None and start.same(now, members):
            known = self.after
        else:
            self.explained = False
        self.before |= {i: known[i] for i in members if i not in self.before and i in known}

    def _compare(self, one: Stamp, other: Stamp | None) -> None:
        if other is None:
            return
        first, second = one.samples, other.samples
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            self.alike = self.alike and (first == second or len(first) != len(second))
        elif first.shape == second.shape:
            self.pairs.append((first, second))

    @torch.no_grad()
    def skipped(self, step: int, there: bool) -> None:
        if there and not self.before:
            self.before = self._norms(self.everything)
        skips, nonfinite = self.skips + 1, self.skipped_nonfinite
        if self.before:
            norms = stacked(list(self.before.values()))
            shares = torch.tensor([self.tap.layers.shares[i] for i in self.before], device=norms.device)
            nonfinite = nonfinite + (shares * ~norms.isfinite()).sum()
        else:
            nonfinite = math.nan
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
            self._write(step)
            if self.overflow is not None:
                self.skipped_nonfinite = self.skipped_nonfinite + (~stacked(list(self.after.values())).isfinite()).sum()
                self.skips = self.skips + (_taken(self.overflow) > 0)
        if isinstance(self.skips, Tensor) or self.skips:
            self._write_skips(step)
        self.rewind()

    def _write(self, step: int) -> None:
        members = list(self.after)
        whole = all(i in self.before for i in members)
        self.eager = math.inf if not self.explained else self.eager - 1
        if not whole:
            self.tap.once("grad_surprise", SURPRISE.format(step=step))
            return
        before, after = [self.before[i] for i in members], list(self.after.values())
        changed = any(one is not other for one, other in zip(before, after, strict=True))
        factor, pairs = self.clip.factor if self.scaled and self.clip is not None else None, self.pairs
        scaled = np.array([i in self.scaled for i in members]) if factor is not None else False
        scales = {"before_scale": _taken(self.before_scale), "after_scale": _taken(self.after_scale)}
        if self.before_scale is not None:
            self.scale_frame = self.scale_frame or self.tap.frame("scaler", ["grad/loss_scale"])
        scale_frame = None if self.before_scale is None else self.scale_frame
        alike_here, measured, frame, now = self.alike, self.eager > -1, self.frame, time.time()
        if not alike_here:
            self.eager = math.inf

        def work() -> dict[str, Tensor]:
            values = dict(zip(("before", "after"), stacked([*before, *after]).chunk(2), strict=True)) if changed else {
                "before": stacked(before)}
            if factor is not None:
                values["factor"] = factor.detach().reshape(())
            if pairs:
                values["pairs"] = torch.stack([sample for pair in pairs for sample in pair])
            return values

        def deliver(host: dict[str, Any]) -> None:
            pairs = host.get("pairs")
            alike = alike_here and (pairs is None or np.array_equal(pairs[::2], pairs[1::2], equal_nan=True))
            if scale_frame is not None:
                scale_frame.append(step, {"grad/loss_scale": float(host["before_scale"])}, now)
            if not alike:
                self.eager = math.inf
            if alike or measured:
                frame.append(step, self._fields(host, members, scaled), now)
            else:
                self.tap.once("grad_surprise", SURPRISE.format(step=step))

        self.tap.send(self, scales, deliver, work, before[0].device)

    def _of(self, norms: Any, members: list[int]) -> tuple[Any, float]:
        return self.tap.layers.by_layer(norms, members)

    def _fields(self, host: Mapping[str, Any], members: list[int], scaled: Any) -> dict[str, Any]:
        by_layer, nonfinite = self._of(host["before"] / host["before_scale"], members)
        after = host.get("after", host["before"]) / host["after_scale"]
        after = np.where(scaled, after * host.get("factor", 1.0), after)
        return {"grad/sumsq": by_layer.sum(), "grad/sumsq_by_layer": by_layer,
                "grad/clipped_sumsq": self._of(after, members)[0].sum(), "grad/nonfinite": nonfinite}


def _taken(number: Tensor | float | None) -> Tensor | float:
    """A copy of a scaler's number, which it changes in place; 1 where there is none."""
    return 1.0 if number is None else number.detach().clone().reshape(()) if isinstance(number, Tensor) else number
