"""Real faults for the demo, one per run: each changes the training, none touches the telemetry.

A fault is a function `(training, age)`, called before every step from its onset on; `age` is 0 at the first of them.
Nothing about it is written to the run folder: what the board says, it found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from collectors.demo.batches import Batch, Mixture

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from collectors.demo.model import BalancedOlmoeForCausalLM


@dataclass(slots=True)
class Training:
    """The parts of a training run that a fault may change."""

    model: BalancedOlmoeForCausalLM
    optimizer: Optimizer
    scheduler: LRScheduler
    mixture: Mixture
    step_time_s: float = 0.0
    """Wall time of the last step."""
    on_batch: Callable[[Batch], Batch] = field(default=lambda batch: batch)
    """Applied to every training batch, inside the loader."""


Fault = Callable[[Training, int], None]
ONSET = 0.55
"""Share of the run after which the fault begins."""


def mix_shift(training: Training, age: int) -> None:
    """The loader draws other shares than planned, to the end of the run: the first domain gets a quarter of its share.

    Shows in `data/domain_share` against the plan, and as a step in `loss/train` that no domain's loss explains.
    """
    if age == 0:
        shares = training.mixture.shares.copy()
        shares[0] /= 4
        training.mixture.shares = shares / shares.sum()


def router_collapse(training: Training, age: int) -> None:
    """The load-balancing loss enters with the wrong sign, to the end of the run.

    The routers are now trained towards the experts that are already busy: within 40 steps, two of the four layers send
    every token to the same two experts. Shows in `router/max_vio`, `router/entropy` and `router/dead`, hardly in
    `loss/train`.
    """
    if age == 0:
        training.model.balance_coef *= -1


def lr_jump(training: Training, age: int) -> None:
    """The optimizer runs at 8 times the scheduled learning rate for 40 steps.

    Shows in `lr/used` against `lr/planned`, `update/ratio` and `loss/train`.
    """
    if age < 40:
        for group, rate in zip(training.optimizer.param_groups, training.scheduler.get_last_lr(), strict=True):
            group["lr"] = 8 * rate


def poisoned_batch(training: Training, age: int) -> None:
    """Three batches are random token ids instead of text.

    Shows as a spike of `loss/train`, of `loss/domain` in every domain and of `grad/norm`.
    """
    vocab_size = training.model.config.vocab_size

    def garbage(batch: Batch) -> Batch:
        ids = torch.randint(vocab_size, batch["input_ids"].shape, generator=torch.Generator().manual_seed(age))
        return batch | {"input_ids": ids, "labels": ids.clone()}

    training.on_batch = garbage if age < 3 else lambda batch: batch


def nan(training: Training, age: int) -> None:
    """One weight of the last normalisation overflows: the loss and every gradient are NaN from here on.

    Shows in `loss/train`, `grad/norm` and `grad/nonfinite_tensors`.
    """
    if age == 0:
        with torch.no_grad():
            training.model.model.norm.weight[0] = torch.inf


def exploding_layer(training: Training, age: int) -> None:
    """The attention output of the second layer grows a thousandfold at once, as after a faulty checkpoint load.

    Shows in `grad/norm_by_layer`, `weight/norm_by_layer` and `loss/train`.
    """
    if age == 0:
        with torch.no_grad():
            training.model.model.layers[1].self_attn.o_proj.weight *= 1000


def slow_loader(training: Training, age: int) -> None:
    """The loader takes as long again as a whole step did, to the end of the run.

    Shows in `throughput/data_wait_share` and `throughput/tokens_per_s`.
    """
    if age == 0:
        wait_s = training.step_time_s

        def late(batch: Batch) -> Batch:
            time.sleep(wait_s)
            return batch

        training.on_batch = late


FAULTS: dict[str, Fault] = {fault.__name__: fault for fault in (
    router_collapse, mix_shift, lr_jump, poisoned_batch, nan, exploding_layer, slow_loader)}
DEFAULT_FAULT = "router_collapse"
