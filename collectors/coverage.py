"""How much of a training job the tap sees: parameters, gradients, losses, routers.

Metrics recorded:
    coverage/*   at the first step, where a share changes, and every 100 steps: what there was and what of it was seen,
                 since the last row

What lies below 100 % is said once, in an event; the check telemetry.coverage reads the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from collectors.batch import Batch
from collectors.signals.collector import Collector
from collectors.step import Part
from trainvitals.store import FrameWriter

EVERY = 100
"""Steps between two rows while nothing changes."""
PAIRS: Mapping[str, str] = {
    "coverage/parameters_held": "coverage/parameters",
    "coverage/gradients_seen": "coverage/gradients",
    "coverage/losses_seen": "coverage/forwards",
    "coverage/routers_read": "coverage/routers",
}
"""Fields: what was seen, of what."""
SAID = {
    "coverage/gradients_seen": (
        "gradients_missing", "parameters had no gradient when their optimizer made its update (experts without a token "
        "have none; with ZeRO or the like no gradient is where torch keeps it)"),
    "coverage/losses_seen": (
        "losses_missing", "training forwards showed no loss per token (another loss than torch's cross_entropy, a "
        "fused or compiled one): they are not in the record. Pass their losses to tap.loss(...)"),
    "coverage/routers_read": (
        "routers_missing", "routers of the forwards could not be read: they are not among the loads"),
}
"""The event that says so. Parameters that no optimizer holds are told when the tap is attached."""

class Coverage:
    """Counts what there is to see beside what was seen. Its methods are called like a collector's, and before them."""

    def __init__(self, frame: Callable[[Sequence[str]], FrameWriter], once: Callable[..., None], core: nn.Module,
                 held: Sequence[nn.Parameter], collectors: Mapping[str, Collector]) -> None:
        self._frame, self._once = frame([*PAIRS, *PAIRS.values()]), once
        self._core, self._collectors = core, collectors
        self._sizes = [p.numel() if p.requires_grad else 0 for p in held]
        self.parameters = sum(p.numel() for p in core.parameters() if p.requires_grad)
        self.held = sum(self._sizes)
        self._of_part: dict[int, int] = {}
        """Elements of the trainable parameters that each optimizer holds."""
        self._now: dict[str, int] = {}
        """Of the step under way."""
        self._sums: dict[str, int] = {}
        """Of the steps since the last row, all with the same shares."""
        self._step: int | None = None
        self._before: dict[str, int] = {}
        """The last step, and its counts."""

    def trained(self, batch: Batch) -> None:
        """A forward belongs to the step that ends."""
        loss, router = self._collectors.get("loss"), self._collectors.get("router")
        if loss is not None and loss.due(loss.tap.step + 1):
            self._count("coverage/losses_seen", batch.loss_seen, 1)
        if router is not None and (routers := getattr(router, "routers", 0)):
            self._count("coverage/routers_read", len(batch.routers_read), routers)

    def before_update(self, part: Part) -> None:
        """An optimizer is about to use the gradients of its part."""
        grad = self._collectors.get("grad")
        if grad is not None and grad.due(grad.tap.step + 1):
            if part.number not in self._of_part:
                self._of_part[part.number] = sum(self._sizes[i] for i in part.members)
            self._count("coverage/gradients_seen", 0, self._of_part[part.number])

    def after_step(self, step: int) -> None:
        """All of the step was told, and the collectors still hold what they saw of it."""
        if "coverage/gradients_seen" in self._now:
            seen = getattr(self._collectors.get("grad"), "after", {})
            self._now["coverage/gradients_seen"] = (
                self.held if len(seen) == len(self._sizes) else sum(self._sizes[i] for i in seen))
        self._count("coverage/parameters_held", self.held, self.parameters)
        now, self._now = self._now, {}
        before, self._before = self._before, now
        changed = now != before and shares(now) != shares(before)
        if changed:
            self.rewind()
        self._step = step
        self._sums = {name: n + self._sums.get(name, 0) for name, n in now.items()}
        if changed or step % EVERY == 0:
            self._say(step, now)
            self.rewind()

    def rewind(self) -> None:
        """Write what is not written: the run ends, or goes back."""
        if self._sums and self._step is not None:
            self._frame.append(self._step, self._sums)
        self._sums = {}

    def _count(self, seen: str, n: int, of: int) -> None:
        now = self._now
        now[seen], now[PAIRS[seen]] = now.get(seen, 0) + int(n), now.get(PAIRS[seen], 0) + of

    def _say(self, step: int, counts: Mapping[str, int]) -> None:
        # Where no forward shows a loss, the loss collector's own event says so, with what is recorded in its place.
        for field, (kind, message) in SAID.items():
            missing = counts.get(PAIRS[field], 0) - counts.get(field, 0)
            if missing > 0 and not (field == "coverage/losses_seen" and missing == counts[PAIRS[field]]):
                self._once(kind, f"At step {step:,}, {missing:,} of {counts[PAIRS[field]]:,} {message}.", unknown=False)


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """What must stay the same for steps to share a row: each share.

    Which experts have no gradient changes at every step; of gradients only whether there are any makes a row.
    """
    found = {seen: counts[seen] / counts[of] if counts[of] else 1.0 for seen, of in PAIRS.items() if seen in counts}
    if "coverage/gradients_seen" in found:
        found["coverage/gradients_seen"] = float(found["coverage/gradients_seen"] > 0)
    return found
