"""The faults that are planted, one a run, and the healthy runs beside them.

A fault is a function `(training, age)` that is called before every step from the onset on; `age` is 0 at the first.
It changes the training and never the telemetry: what a judge says of the run, it found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from benchmarks.detection.training import Setup, Training
from collectors.demo.batches import Batch

Shape = Literal["point", "jump", "ramp"]
"""A few rows; at once and lasting; growing."""
Fault = Callable[[Training, int], None]
ONSET = 331
"""Behind the warm-up, at no multiple of the evaluations."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of run."""

    name: str
    change: Fault | None = None
    """What happens from the onset on."""
    shape: Shape | None = None
    causes: tuple[str, ...] = ()
    """Areas and checks that are right to be named first."""
    setup: Setup = field(default_factory=Setup)
    onset: int | None = None
    last: int | None = None
    """Last step of the fault; None of one that stays."""
    planned: bool = False
    """The change is one that the run's plan names, and no fault."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.change is None or self.planned


def lr_jump(training: Training, age: int) -> None:
    """The rate is five times the planned one, to the end."""
    for group, rate in zip(training.optimizer.param_groups, training.scheduler.get_last_lr(), strict=True):
        group["lr"] = 5 * rate


def warmup_skipped(training: Training, age: int) -> None:
    """The peak rate from the first step on, where the plan warms up."""
    if age < training.setup.warmup:
        for group in training.optimizer.param_groups:
            group["lr"] = training.setup.peak_lr


def schedule_restarted(training: Training, age: int) -> None:
    """A resume that forgot the scheduler: it begins anew."""
    if age == 0:
        training.scheduler.last_epoch = -1
        training.scheduler.step()


def optimizer_state_lost(training: Training, age: int) -> None:
    """Adam begins anew, moments and count of steps, as after a resume from weights alone."""
    if age == 0:
        training.optimizer.state.clear()


def poisoned_batch(training: Training, age: int) -> None:
    """Three batches of random tokens."""
    vocabulary = training.model.config.vocab_size

    def garbage(batch: Batch) -> Batch:
        ids = torch.randint(vocabulary, batch["input_ids"].shape, generator=torch.Generator().manual_seed(age))
        return batch | {"input_ids": ids, "labels": ids.clone()}

    training.on_batch = garbage if age < 3 else lambda batch: batch


def labels_shuffled(training: Training, age: int) -> None:
    """The targets of one domain in five are in random order."""
    generator = torch.Generator().manual_seed(7)

    def shuffle(batch: Batch) -> Batch:
        labels = batch["labels"].clone()
        for row in (batch["domain"] == 1).nonzero().flatten():
            labels[row] = labels[row][torch.randperm(labels.shape[1], generator=generator)]
        return batch | {"labels": labels}

    training.on_batch = shuffle


def mix_shift(training: Training, age: int) -> None:
    """The first domain gets a quarter of its share."""
    if age == 0:
        _share(training, 0, 0.25)


def starvation(training: Training, age: int) -> None:
    """The second domain is no longer drawn."""
    if age == 0:
        _share(training, 1, 0.0)


def _share(training: Training, domain: int, factor: float) -> None:
    shares = training.mixture.shares.copy()
    shares[domain] *= factor
    training.mixture.shares = shares / shares.sum()


def repeated_data(training: Training, age: int) -> None:
    """The loader gives the same four batches again and again."""
    if age == 0:
        kept = [training.mixture.draw() for _ in range(4)]
        turn = iter(range(10**9))
        training.on_batch = lambda batch: {name: one.clone() for name, one in kept[next(turn) % 4].items()}


def tokenizer_changed(training: Training, age: int) -> None:
    """The shards from here on were written with another vocabulary: every id means something else."""
    if age == 0:
        vocabulary = training.model.config.vocab_size
        other = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(3))
        training.on_batch = lambda batch: batch | {name: other[batch[name]] for name in ("input_ids", "labels")}


def balance_lost(training: Training, age: int) -> None:
    """The routers' balancing loss enters with the wrong sign."""
    if age == 0:
        training.model.balance_coef = -0.1


def expert_frozen(training: Training, age: int) -> None:
    """One expert of the first layer gets no gradient."""
    if age == 0:
        experts = training.model.model.layers[0].mlp.experts

        def freeze() -> None:
            for parameter in experts.parameters():
                if parameter.grad is not None and parameter.dim() == 3:
                    parameter.grad[0].zero_()

        training.on_gradients = freeze


def layer_exploded(training: Training, age: int) -> None:
    """An attention output is a thousandfold at once, as after a faulty load."""
    if age == 0:
        with torch.no_grad():
            training.model.model.layers[0].self_attn.o_proj.weight *= 1000


def layer_frozen(training: Training, age: int) -> None:
    """The second layer gets no gradient."""
    def freeze() -> None:
        for parameter in training.model.model.layers[1].parameters():
            parameter.grad.zero_()

    training.on_gradients = freeze


def overflow(training: Training, age: int) -> None:
    """The loss is scaled up so far that float16 gradients overflow at every scale that the scaler tries."""
    training.on_loss = lambda loss: loss * (1e9 if age < 60 else 1.0)


def loss_in_bfloat16(training: Training, age: int) -> None:
    """The loss is computed in bfloat16: its mean has eight bits, and so has what is logged of it.

    Rounded logits would leave no trace in any record: their errors go out in the mean over thousands of tokens.
    """
    if age == 0:
        whole: Callable[..., torch.Tensor] = training.model.loss_function
        training.model.loss_function = lambda *args, **rest: whole(*args, **rest).bfloat16().float()


def weights_in_bfloat16(training: Training, age: int) -> None:
    """The weights are rounded to bfloat16 after every update, which swallows small ones."""
    def rounded() -> None:
        with torch.no_grad():
            for parameter in training.model.parameters():
                parameter.copy_(parameter.bfloat16().float())

    training.on_update = rounded


def loader_slow(training: Training, age: int) -> None:
    """The loader takes as long again as a whole step did."""
    if age == 0:
        wait = max(training.step_time, 0.01)
        training.on_batch = lambda batch: (time.sleep(wait), batch)[1]


def straggler(training: Training, age: int) -> None:
    """The second rank computes half as long again."""
    if age == 0 and training.rank == 1:
        wait = max(0.5 * training.step_time, 0.01)
        training.on_loss = lambda loss: (time.sleep(wait), loss)[1]


def nan_on_one_rank(training: Training, age: int) -> None:
    """The second rank's loss is NaN at one step."""
    if training.rank == 1:
        training.on_loss = (lambda loss: loss * float("nan")) if age == 0 else (lambda loss: loss)


def replica_flipped(training: Training, age: int) -> None:
    """A high bit of a few hundred weights of the second rank is another one: silent corruption."""
    if age == 0 and training.rank == 1:
        with torch.no_grad():
            weight = training.model.model.layers[0].mlp.down_proj.weight
            bits = weight.view(torch.int32)
            bits.view(-1)[:: max(1, bits.numel() // 200)] ^= 1 << 25


def stale_parameters(training: Training, age: int) -> None:
    """The optimizer steps copies that the model no longer uses: learning stops."""
    if age == 0:
        kept = [parameter.detach().clone() for parameter in training.model.parameters()]

        def restore() -> None:
            with torch.no_grad():
                for parameter, old in zip(training.model.parameters(), kept, strict=True):
                    parameter.copy_(old)

        training.on_update = restore


def slow_divergence(training: Training, age: int) -> None:
    """The weights of the last block grow by 1 % a step, as under a decay of the wrong sign."""
    def grow() -> None:
        with torch.no_grad():
            for parameter in training.model.model.layers[-1].parameters():
                parameter *= 1.01

    training.on_update = grow


def validation_leaked(training: Training, age: int) -> None:
    """Half of every batch are rows of the validation set."""
    def leak(batch: Batch) -> Batch:
        source = training.held_out[age % len(training.held_out)]
        half = len(batch["domain"]) // 2
        return {name: torch.cat([one[:half], source[name][:half]]) for name, one in batch.items()}

    training.on_batch = leak


def weight_infinite(training: Training, age: int) -> None:
    """One weight overflows: loss and gradients are NaN from here on."""
    if age == 0:
        with torch.no_grad():
            training.model.model.norm.weight[0] = torch.inf


def stage_switched(training: Training, age: int) -> None:
    """No fault: the mix changes at a step that the plan names."""
    if age == 0:
        training.tap.event("stage_switch", message="the second stage: less text, more code")
        shares = np.roll(training.mixture.shares, 1)
        training.mixture.shares = shares


MOE, PAIR = Setup(experts=8), Setup(ranks=2, rows=8)
DATA = ("data",)


def _faulty() -> list[Kind]:
    def kind(fault: Fault, shape: Shape, causes: tuple[str, ...], setup: Setup | None = None, onset: int = ONSET,
             length: int | None = None) -> Kind:
        return Kind(fault.__name__, fault, shape, causes, setup or Setup(), onset, length and onset + length - 1)

    return [
        kind(lr_jump, "jump", ("lr.plan", "lr.jump")),
        kind(warmup_skipped, "jump", ("lr.plan", "lr.jump"), onset=1, length=60),
        kind(schedule_restarted, "jump", ("lr.plan", "lr.jump")),
        kind(optimizer_state_lost, "point", ("optimisation", "loss"), length=20),
        kind(poisoned_batch, "point", ("data", "loss", "optimisation"), length=3),
        kind(labels_shuffled, "jump", ("loss", "data")),
        kind(mix_shift, "jump", DATA),
        kind(starvation, "jump", DATA),
        kind(repeated_data, "ramp", ("data", "loss")),
        kind(tokenizer_changed, "jump", ("data", "loss")),
        kind(balance_lost, "ramp", ("routing",), MOE),
        kind(expert_frozen, "jump", ("optimisation", "routing", "telemetry"), MOE),
        kind(layer_exploded, "jump", ("optimisation", "loss")),
        kind(layer_frozen, "jump", ("optimisation", "telemetry")),
        kind(overflow, "jump", ("optimisation", "loss", "telemetry"), Setup(half=True), length=60),
        kind(loss_in_bfloat16, "jump", ("loss",)),
        kind(weights_in_bfloat16, "ramp", ("optimisation", "loss")),
        kind(loader_slow, "jump", ("throughput",)),
        kind(straggler, "jump", ("throughput",), PAIR),
        kind(nan_on_one_rank, "point", ("loss", "optimisation"), PAIR),
        kind(replica_flipped, "jump", ("telemetry", "loss", "optimisation"), PAIR),
        kind(stale_parameters, "jump", ("optimisation", "loss")),
        kind(slow_divergence, "ramp", ("optimisation", "loss")),
        kind(validation_leaked, "ramp", ("loss", "data")),
        kind(weight_infinite, "jump", ("loss", "optimisation")),
    ]


def _healthy() -> list[Kind]:
    setups = {
        "dense": Setup(), "wide": Setup(width=128), "deep": Setup(layers=6, width=48), "wsd": Setup(schedule="wsd"),
        "constant": Setup(schedule="constant", peak_lr=2e-3), "mixture_of_experts": MOE,
        "many_experts": Setup(experts=16, width=48), "accumulated": Setup(micro_batches=2, rows=8),
        "small_batch": Setup(rows=4), "two_ranks": PAIR, "scaled": Setup(half=True), "long": Setup(steps=2500),
        "preference": Setup(preference=True, peak_lr=1e-3, rows=8), "fine_tuned": Setup(tuned=300, peak_lr=4e-4)}
    plain = [Kind(f"healthy_{name}", setup=setup) for name, setup in setups.items()]
    switch = Kind("healthy_stage_switch", stage_switched, onset=ONSET, planned=True)
    return [*plain, switch]


FAMILIES: Mapping[str, tuple[str, ...]] = {
    "learning rate": ("lr_jump", "warmup_skipped", "schedule_restarted"),
    "optimizer": ("optimizer_state_lost", "weights_in_bfloat16", "stale_parameters"),
    "data": ("poisoned_batch", "labels_shuffled", "mix_shift", "starvation", "repeated_data", "tokenizer_changed",
             "validation_leaked"),
    "routing": ("balance_lost", "expert_frozen"),
    "layers": ("layer_exploded", "layer_frozen", "slow_divergence"),
    "numerics": ("overflow", "loss_in_bfloat16", "nan_on_one_rank", "weight_infinite"),
    "machine": ("loader_slow", "straggler", "replica_flipped"),
}
"""Classes of faults."""

FINDERS: Mapping[str, tuple[str, ...]] = {
    "loss.divergence": ("labels_shuffled", "tokenizer_changed", "slow_divergence", "layer_exploded"),
    "loss.domain": ("labels_shuffled", "slow_divergence"),
    "loss.fall": ("repeated_data",),
    "loss.nonfinite": ("nan_on_one_rank", "weight_infinite"),
    "loss.plateau": ("stale_parameters",),
    "loss.resolution": ("loss_in_bfloat16",),
    "loss.spike": ("poisoned_batch",),
    "loss.validation": ("repeated_data", "slow_divergence"),
    "grad.explosion": ("layer_exploded", "slow_divergence"),
    "grad.loss_scale": ("overflow",),
    "grad.skipped": ("overflow",),
    "lr.jump": ("lr_jump",),
    "lr.plan": ("lr_jump", "warmup_skipped", "schedule_restarted"),
    "optimizer.reset": ("optimizer_state_lost",),
    "update.lost": ("stale_parameters", "weights_in_bfloat16"),
    "update.stopped": ("layer_frozen", "stale_parameters"),
    "weights.replicas": ("replica_flipped",),
    "router.collapse": ("balance_lost",),
    "router.overload": ("balance_lost",),
    "data.mix": ("mix_shift", "starvation"),
    "data.corrupt": ("repeated_data",),
    "data.garbled": ("tokenizer_changed",),
    "data.token_drift": ("repeated_data", "tokenizer_changed"),
    "throughput.data_wait": ("loader_slow",),
    "throughput.drop": ("loader_slow", "straggler"),
    "throughput.straggler": ("straggler",),
}
"""Check -> the faults that are its own to find, whatever else finds them: its recall is counted on these."""

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*_faulty(), *_healthy())}
