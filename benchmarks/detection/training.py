"""Small trainings on two cores: what a fault may change of one, and the loop that the tap records.

A run is 600 steps of a language model with 0.2 M parameters on the text of this Python installation, five domains at
planned shares; a step takes 10 to 20 ms. Everything comes from the seed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, OlmoeConfig

from collectors.demo.batches import Batch, Mixture, split_rows, validation_batches
from collectors.demo.corpus import Corpus
from collectors.demo.installation import read_installation
from collectors.demo.model import BalancedOlmoeForCausalLM, train_tokenizer
from collectors.loop import Tap
from collectors.tap import attach
from trainvitals.schedules import Plan

if TYPE_CHECKING:
    from benchmarks.detection.kinds import Kind

CONTEXT, VOCABULARY = 64, 1024
EVAL_EVERY = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a healthy run is made of."""

    steps: int = 600
    width: int = 64
    layers: int = 2
    experts: int = 0
    rows: int = 16
    """Of a batch, per rank."""
    micro_batches: int = 1
    schedule: str = "cosine"
    peak_lr: float = 4e-3
    warmup: int = 60
    ranks: int = 1
    half: bool = False
    """Gradients pass through float16 under a gradient scaler."""
    preference: bool = False
    """A preference loss on pairs in place of the cross-entropy."""
    tuned: int = 0
    """Steps of a first training, unrecorded, that this one goes on from at a tenth of its rate."""


@dataclass(slots=True)
class Training:
    """The parts of a run in progress that a fault may change."""

    setup: Setup
    model: nn.Module
    """Bare, whatever is wrapped around it for the ranks."""
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    mixture: Mixture
    held_out: list[Batch]
    tap: Tap
    rank: int
    step_time: float = 0.0
    """Seconds of the step before."""
    on_batch: Callable[[Batch], Batch] = field(default=lambda batch: batch)
    on_loss: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda loss: loss)
    on_gradients: Callable[[], None] = field(default=lambda: None)
    """Called between backward and clipping."""
    on_update: Callable[[], None] = field(default=lambda: None)
    """Called after the optimizer."""


@cache
def text(seed: int) -> tuple[Corpus, Any, Any, Any]:
    """Corpus, tokenizer, training rows and held-out rows."""
    corpus = read_installation(seed, 1_000_000)
    tokenizer = train_tokenizer(corpus.documents.values(), VOCABULARY)
    return corpus, tokenizer, *split_rows(corpus, tokenizer, CONTEXT, seed)


def build(setup: Setup, vocabulary: int) -> nn.Module:
    """A Llama, or an OLMoE where there are experts; weights from torch's global generator."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary, "max_position_embeddings": CONTEXT, "hidden_size": setup.width,
        "num_hidden_layers": setup.layers, "num_attention_heads": 4, "num_key_value_heads": 4, "use_cache": False,
        "bos_token_id": None, "pad_token_id": None, "eos_token_id": 0}
    if setup.experts:
        config = OlmoeConfig(intermediate_size=setup.width, num_experts=setup.experts, num_experts_per_tok=2,
                             output_router_logits=True, router_aux_loss_coef=0.0, **shape)
        return BalancedOlmoeForCausalLM(config, balance_coef=0.1)
    kind = PreferenceLlama if setup.preference else LlamaForCausalLM
    return kind(LlamaConfig(intermediate_size=2 * setup.width, **shape))


class PreferenceLlama(LlamaForCausalLM):
    """Returns a preference loss: the first half of a batch is to become likelier than the second."""

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, **rest: Any) -> Any:
        """Logits, and the loss of the pairs. input_ids: [B, T], B even."""
        output = super().forward(input_ids=input_ids, **rest)
        found = output.logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None])
        likelier, rarer = (found.sum((1, 2)) / math.sqrt(CONTEXT)).chunk(2)
        output.loss = -nn.functional.logsigmoid(0.1 * (likelier - rarer)).mean()
        return output


def plan_of(setup: Setup) -> Plan:
    """The schedule; WSD decays over the last fifth."""
    kinds: dict[str, dict[str, Any]] = {
        "cosine": {"kind": "cosine", "final": 0.1 * setup.peak_lr},
        "constant": {"kind": "constant"},
        "wsd": {"kind": "wsd", "final": 0.1 * setup.peak_lr, "decay_steps": setup.steps // 5}}
    return Plan(peak=setup.peak_lr, total_steps=setup.steps, warmup_steps=setup.warmup, **kinds[setup.schedule])


def record(kind: Kind, seed: int, folder: Path) -> None:
    """Train one run into `folder`, with what is true of it beside: `<folder>.truth.json`.

    A run of two ranks is two processes; call it from a process that may spawn.
    """
    setup = kind.setup
    if setup.ranks == 1:
        _train(kind, seed, folder, 0)
    else:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
        torch.multiprocessing.spawn(_rank, args=(kind.name, seed, folder), nprocs=setup.ranks)
    truth = {"kind": kind.name, "seed": seed, "shape": kind.shape, "causes": kind.causes, "onset": kind.onset,
             "last": kind.last, "setup": asdict(setup)}
    folder.with_name(folder.name + ".truth.json").write_text(json.dumps(truth, indent=1))


def _rank(rank: int, name: str, seed: int, folder: Path) -> None:
    from benchmarks.detection.kinds import KINDS

    kind = KINDS[name]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=kind.setup.ranks)
    try:
        _train(kind, seed, folder, rank)
    finally:
        dist.destroy_process_group()


def _train(kind: Kind, seed: int, folder: Path, rank: int) -> None:
    setup = kind.setup
    corpus, tokenizer, rows, held_out = text(seed)
    torch.manual_seed(seed)
    model = build(setup, len(tokenizer))
    if setup.tuned:
        _tune(model, setup, Mixture(rows, corpus.shares, setup.rows, seed + 77))
    wrapped = nn.parallel.DistributedDataParallel(model) if setup.ranks > 1 else model
    plan = plan_of(setup)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.peak, betas=(0.9, 0.95), weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda done: float(plan.at(done + 1)) / plan.peak)
    tap = attach(wrapped, optimizer, run=folder, scheduler=scheduler, lr_plan=plan, domains=corpus.shares,
                 tokenizer=tokenizer, total_steps=setup.steps, collectors={"tokens": 30})
    mixture = Mixture(rows, corpus.shares, setup.rows, seed + 1000 * rank)
    evaluated = validation_batches(held_out, setup.rows)
    training = Training(setup, model, optimizer, scheduler, mixture, evaluated, tap, rank)
    try:
        _loop(kind, training, wrapped)
    finally:
        training.tap.close()


def _tune(model: nn.Module, setup: Setup, mixture: Mixture) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=10 * setup.peak_lr, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(setup.tuned):
        model(**mixture.draw()).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _loop(kind: Kind, training: Training, wrapped: nn.Module) -> None:
    setup = training.setup
    scaler = torch.amp.GradScaler("cpu", enabled=setup.half, init_scale=2.0**12, growth_interval=200)
    if setup.half:
        for parameter in training.model.parameters():
            parameter.register_hook(lambda gradient: gradient.half().to(gradient.dtype))
    for step in range(1, setup.steps + 1):
        began = time.perf_counter()
        if kind.change is not None and step >= (kind.onset or 1):
            kind.change(training, step - (kind.onset or 1))
        for _ in range(setup.micro_batches):
            loss = training.on_loss(_loss(training, wrapped)) / setup.micro_batches
            scaler.scale(loss).backward()
        training.on_gradients()
        scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        scaler.step(training.optimizer)
        scaler.update()
        training.on_update()
        training.scheduler.step()
        training.optimizer.zero_grad()
        training.step_time = time.perf_counter() - began
        if step % EVAL_EVERY == 0 and not setup.preference:
            _evaluate(training)


def _loss(training: Training, wrapped: nn.Module) -> torch.Tensor:
    batch = training.on_batch(training.mixture.draw())
    if training.setup.preference:
        other = training.mixture.draw()
        batch = {name: torch.cat([one, other[name]]) for name, one in batch.items()}
    loss: torch.Tensor = wrapped(**batch).loss
    return loss


@torch.no_grad()
def _evaluate(training: Training) -> None:
    training.model.eval()
    for batch in training.held_out:
        training.model(**batch)
    training.model.train()
