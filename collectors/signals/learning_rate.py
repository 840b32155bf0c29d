"""The learning rate that each step used, beside the one that was planned for it.

Metrics recorded:
    lr/used, lr/planned   per step and parameter group

The rate is read just before the optimizer's step, so it is the one the step uses; after `scheduler.step()` it would
be the next one's. Step n is the n-th optimizer step. A plan must not be read from the optimizer it is to be held
against: it is what the user gave, or the initial rates and functions of a `LambdaLR` (every schedule of transformers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from collectors.signals.collector import Collector
from collectors.step import Part
from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

GroupPlan = Callable[[int], float]
"""Rate of one parameter group at a step."""

CARD_POINTS = 2049
"""Samples of a plan that is known only as a function; a power of two of equal pieces."""


class LearningRateCollector(Collector):
    """Learning rates per parameter group."""

    name = "lr"
    turn = 30

    def open(self) -> None:
        groups = self.tap.param_groups
        labels = [str(group.get("name", i)) for i, group in enumerate(groups)]
        if len(set(labels)) < len(labels):
            labels = [str(i) for i in range(len(groups))]
        fields = ["lr/used"] + (["lr/planned"] if self.tap.plans is not None else [])
        self.frame = self.tap.frame("lr", fields, labels={"group": labels})
        self.groups = len(groups)
        self.rewind()

    def rewind(self) -> None:
        self.rates: dict[tuple[int, ...], Any] = {}

    def before_update(self, part: Part) -> None:
        if self.due(self.tap.step + 1):
            self.rates[part.groups] = _together([part.optimizer.param_groups[i - part.groups[0]]["lr"]
                                                 for i in part.groups])

    def after_step(self, step: int) -> None:
        if self.rates:
            groups = list(self.rates)
            self.emit(self.frame, step, {str(i): rates for i, rates in enumerate(self.rates.values())},
                      lambda host: self._fields(step, groups, host))
            self.rewind()

    def _fields(self, step: int, groups: list[tuple[int, ...]], host: dict[str, Any]) -> dict[str, Any]:
        """NaN for the groups of an optimizer that made no update in this step."""
        used = np.full(self.groups, np.nan)
        for i, members in enumerate(groups):
            used[list(members)] = host[str(i)]
        planned = {} if self.tap.plans is None else {"lr/planned": np.array([plan(step) for plan in self.tap.plans])}
        return {"lr/used": used, **planned}


def _together(rates: list[Any]) -> Any:
    if any(isinstance(rate, Tensor) for rate in rates):
        device = next(rate.device for rate in rates if isinstance(rate, Tensor))
        return torch.stack([torch.as_tensor(rate, dtype=torch.float64).to(device) for rate in rates])
    return np.array(rates, dtype=np.float64)


def find_plans(given: Any, scheduler: Any, groups: int) -> list[GroupPlan] | None:
    """The plan of every parameter group; None where none is known.

    Args:
        given: a Plan or a function of the step for all groups, a list of either per group, or None.
        scheduler: used where nothing is given, if it is a LambdaLR.
        groups: number of parameter groups.

    Raises:
        UsageError: `given` is none of these, or the list has another length.
    """
    if given is None:
        return _plans_of(scheduler)
    items = list(given) if isinstance(given, Sequence) else [given] * groups
    if len(items) != groups:
        raise UsageError(f"lr_plan has {len(items)} plans, the optimizer {groups} parameter groups. Give one plan for "
                         "all groups, or one per group.")
    return [_as_function(item) for item in items]


def _as_function(item: Any) -> GroupPlan:
    if isinstance(item, Plan):
        return lambda step: float(item.at(step))
    if callable(item):
        return lambda step: float(item(step))
    raise UsageError(f"lr_plan takes a trainvitals.schedules.Plan or a function of the step, not {item!r}.")


def _plans_of(scheduler: Any) -> list[GroupPlan] | None:
    calls_per_step = 1
    if type(scheduler).__name__ == "AcceleratedScheduler":
        # Accelerate steps the schedule once per process, unless it splits one batch over them.
        from accelerate.state import AcceleratorState

        calls_per_step = 1 if scheduler.split_batches else AcceleratorState().num_processes
        scheduler = scheduler.scheduler
    if not isinstance(scheduler, LambdaLR):
        return None

    def plan(base: float | Tensor, factor: Callable[[int], float]) -> GroupPlan:
        return lambda step: float(base) * factor((step - 1) * calls_per_step)

    return [plan(base, factor) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]


def plan_for_card(given: Any, plans: list[GroupPlan] | None, total_steps: int | None) -> dict[str, Any]:
    """The first group's plan as JSON for the run card; {} where it is unknown, or a function of unknown length."""
    first = given[0] if isinstance(given, Sequence) and given else given
    if isinstance(first, Plan):
        return first.to_json()
    if plans is None or not total_steps:
        return {}
    steps = sorted({int(s) for s in np.linspace(1, total_steps, min(total_steps, CARD_POINTS)).round()})
    return Plan.sampled(steps, [plans[0](step) for step in steps]).to_json()
