"""Where a run goes on once a stored state has been loaded into a job that is tapped already.

An optimizer's state tells where it counts its steps. Where it counts none (SGD, Muon, many of users' own), a scheduler
that was given to `attach` and was loaded with it does; it is asked at the next forward, because it may be loaded after
the optimizer. Else the step is unknown, which is said; it is never guessed. Weights that were loaded and put back
before the next step, as for an evaluation of averaged weights, are no resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from collectors.model.layers import local
from collectors.signals.collector import Hook
from collectors.step import steps_done

ASK = "Call tap.rewind(step) after loading."


class ResumeWatch:
    """Notices loaded states, and settles before the next step where the run goes on.

    `step()` is the step done last, `rewind(step)` goes there, `once(kind, message)` says what is unknown.
    """

    def __init__(self, core: nn.Module, optimizers: Sequence[torch.optim.Optimizer], scheduler: Any,
                 step: Callable[[], int], rewind: Callable[[int], None], once: Callable[..., None],
                 guard: Callable[..., Any]) -> None:
        self.optimizers, self.scheduler = optimizers, counting(scheduler)
        self._step, self._rewind, self._once, self._guard = step, rewind, once, guard
        self._begin = step()
        self._unsettled = False
        """Whether an optimizer took over a state that counts no steps."""
        self._sample = min((p for p in core.parameters()), key=lambda p: p.numel(), default=None)
        self._before: Tensor | None = None
        """The sample as it was before weights were loaded since the last step."""
        self._handles: list[Any] = [
            core.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
                Hook(lambda *unused: self._guard(None, self._weights_come))),
            *[one.register_load_state_dict_post_hook(lambda *unused: self._guard(None, self._state_came))
              for one in optimizers]]

    def _weights_come(self) -> None:
        if self._before is None and self._sample is not None and self._step() > self._begin:
            self._before = local(self._sample.detach()).clone()

    def _state_came(self) -> None:
        done = steps_done(self.optimizers)
        self._before = None
        if done is None:
            self._unsettled = True
        elif done != self._step():
            self._go(done)

    def settle(self) -> None:
        """Called before a training forward and before an update."""
        if not self._unsettled and self._before is None:
            return
        unsettled, before = self._unsettled, self._before
        self._unsettled, self._before = False, None
        moved = before is not None and self._sample is not None and not torch.equal(
            before, local(self._sample.detach()))
        count = self._count()
        if (unsettled or moved) and count is not None and count != self._step():
            self._once("resumed_by_scheduler", "A state was loaded that counts no optimizer steps; the scheduler is at "
                       f"{count:,}, and the run goes on from that step.", unknown=False)
            self._go(count)
        elif unsettled:
            self._once("resume_unknown", "The state of an optimizer was loaded, and it does not say after how many "
                       f"steps it was stored: steps are counted on from {self._step():,}. {ASK}")
        elif moved:
            self._once("resume_unknown", f"Weights were loaded into the model after step {self._step():,}, and nothing "
                       f"says of which step they are: steps are counted on. {ASK}")

    def forget(self) -> None:
        """The step is known by other means."""
        self._unsettled, self._before, self._begin = False, None, self._step()

    def _go(self, step: int) -> None:
        self._rewind(step)

    def _count(self) -> int | None:
        return None if self.scheduler is None else int(self.scheduler.last_epoch)

    def remove(self) -> None:
        """Take all hooks away."""
        while self._handles:
            self._handles.pop().remove()


def counting(scheduler: Any) -> Any:
    """The scheduler where it counts optimizer steps, as far as can be told; None for any other.

    One that waits for a plateau counts evaluations, and Accelerate's on several processes counts each of them.
    """
    inner = getattr(scheduler, "scheduler", None)
    if inner is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return None
    scheduler = scheduler if inner is None else inner
    return scheduler if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau) else None
