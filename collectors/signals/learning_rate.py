"""The learning rate that each step used, beside the one that was planned for it, and what the optimizer remembers.

Metrics recorded:
    lr/used, lr/planned, optimizer/steps   per step and parameter group

The rate is read just before the optimizer's step, so it is the one the step uses; after `scheduler.step()` it would
be the next one's. Step n is the n-th optimizer step. A plan must not be read from the optimizer it is to be held
against: it is what the user gave, or the initial rates and functions of a `LambdaLR` (every schedule of transformers).

An optimizer that keeps moments counts the updates in them (`state["step"]` of Adam and its kin). Where that count
falls, its state was lost. NaN where an optimizer counts nothing, as SGD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

COUNTING = {"betas", "eps"}
"""Settings of optimizers that count their updates: of an empty state nothing else tells."""
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
        fields = ["lr/used", "optimizer/steps"] + (["lr/planned"] if self.tap.plans is not None else [])
        self.frame = self.tap.frame("lr", fields, labels={"group": labels})
        self.groups = len(groups)
        self.rewind()

    def rewind(self) -> None:
        self.rates: dict[tuple[int, ...], Any] = {}
        self.counts: dict[tuple[int, ...], Any] = {}

    def before_update(self, part: Part) -> None:
        if self.due(self.tap.step + 1):
            groups = [part.optimizer.param_groups[i - part.groups[0]] for i in part.groups]
            self.rates[part.groups] = _together([group["lr"] for group in groups])
            self.counts[part.groups] = _together([_updates(part.optimizer, group) for group in groups])

    def after_step(self, step: int) -> None:
        if self.rates:
            groups = list(self.rates)
            values = {f"rate {i}": rates for i, rates in enumerate(self.rates.values())}
            values |= {f"count {i}": counts for i, counts in enumerate(self.counts.values())}
            self.emit(self.frame, step, values,
                      lambda host: self._fields(step, groups, host))
            self.rewind()

    def _fields(self, step: int, groups: list[tuple[int, ...]], host: dict[str, Any]) -> dict[str, Any]:
        """NaN for the groups of an optimizer that made no update in this step."""
        used, counts = np.full(self.groups, np.nan), np.full(self.groups, np.nan)
        for i, members in enumerate(groups):
            used[list(members)], counts[list(members)] = host[f"rate {i}"], host[f"count {i}"]
        planned = {} if self.tap.plans is None else {"lr/planned": np.array([plan(step) for plan in self.tap.plans])}
        return {"lr/used": used, "optimizer/steps": counts, **planned}


def _updates(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Any:
    """Updates that the state of a group's first trained parameter counts: 0 of an empty one, NaN where none is kept."""
    parameter = next((p for p in group["params"] if p.requires_grad), None)
    state = optimizer.state.get(parameter) if parameter is not None else None
    if state:
        count = state.get("step", group.get("step", math.nan)) if isinstance(state, Mapping) else math.nan
        if isinstance(count, Tensor) and count.device.type != "cpu":
            return count.detach()
        return float(count) if isinstance(count, Tensor | int | float) else math.nan
    return 0.0 if optimizer.defaults.keys() & COUNTING else math.nan


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
