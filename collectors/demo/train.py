"""The demo run: a small mixture-of-experts language model trains for about two minutes on two CPU cores.

    trainvitals demo                                  the built-in text, with a fault halfway
    trainvitals demo --fault none --data my_texts     a healthy run on a folder of one's own

It is also an example of `tv.attach` in a plain PyTorch loop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from collectors.demo.batches import Batch, Mixture, Rows, split_rows, validation_batches
from collectors.demo.corpus import Corpus, check_domains, read_dataset, read_folder, skipped_line
from collectors.demo.faults import DEFAULT_FAULT, FAULTS, ONSET, Training
from collectors.demo.installation import read_installation
from collectors.demo.model import SMALL, VOCAB_SIZE, Size, build_model, proxy_size, train_tokenizer
from collectors.loop import Tap
from collectors.tap import attach
from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SMALL_VOCAB = 1024
RECENT_STEPS = 50
"""The board's number above its loss chart is a mean over so many rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """What `trainvitals demo` can set. Relative sizes are tuned for two CPU cores."""

    run: str | Path
    """Folder of the run to write."""
    steps: int = 400
    fault: str = DEFAULT_FAULT
    """A name in `faults.FAULTS`, or "none"."""
    data: str | Path | None = None
    """Folder with one file or sub-folder of text per domain."""
    dataset: str | None = None
    """Name or local path for `datasets.load_dataset`."""
    domain_column: str | None = None
    text_column: str = "text"
    seed: int = 0
    batch_rows: int = 16
    context: int = 128
    """Tokens per row."""
    peak_lr: float = 2e-3
    eval_every: int = 40
    part: int = 1
    """The model has one so-manyth of the demo's parameters."""
    small: bool = False
    """A vocabulary of 1,024 tokens and half the model."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"--steps {self.steps} is too few. Give 1 or more.")
        if self.fault != "none" and self.fault not in FAULTS:
            raise UsageError(f"Unknown fault {self.fault!r}. Use none, {', '.join(FAULTS)}.")
        if self.data is not None and self.dataset is not None:
            raise UsageError("--data and --dataset exclude each other. Give one of them.")
        if self.dataset is not None and not self.domain_column:
            raise UsageError("--dataset needs --domain-column: the column that says which domain a record is of.")

    @property
    def max_chars(self) -> int:
        """Characters to read per domain: what the run draws from all of them, within what start-up has time for."""
        return min(max(500_000, self.steps * self.batch_rows * self.context), 4_000_000)

    @property
    def onset(self) -> int:
        """First step (1-based) with the fault."""
        return max(2, round(ONSET * self.steps))


@dataclass(slots=True)
class DemoSummary:
    """What a demo run did."""

    run: str
    fault: str
    onset: int | None
    """First step with the fault."""
    steps: int = 0
    """Steps that were taken."""
    first_step_s: float = math.nan
    """Seconds from the call to the end of the first step: text, tokenizer, model and one step."""
    train_s: float = 0.0
    """Seconds from the end of the first step to the end of the last."""
    tokens: int = 0
    loss_first: float = math.nan
    loss_last: float = math.nan
    """Mean over the last `RECENT_STEPS` steps."""
    val_first: dict[str, float] = field(default_factory=dict)
    """Validation loss per domain before training, nats per token."""
    val_last: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    skipped: str = ""
    """What was left out of the data."""


def read_corpus(config: DemoConfig) -> Corpus:
    """The text that the configuration names.

    Raises:
        UsageError: it names none that can be read.
    """
    if config.data is not None:
        corpus = read_folder(config.data, config.max_chars)
    elif config.dataset is not None:
        corpus = read_dataset(config.dataset, config.domain_column or "", config.text_column, config.max_chars)
    else:
        corpus = read_installation(config.seed, config.max_chars)
    check_domains(corpus)
    return corpus


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is ready before the first step."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    unique_tokens: dict[str, int]
    """Training tokens that each domain holds."""
    held_out: dict[str, Rows]
    """Rows of each domain that are never trained on."""
    validation: list[Batch]
    plan: Plan
    training: Training


def prepare(config: DemoConfig) -> Job:
    """Read the text, train the tokenizer, build model, optimizer and schedule. Seeds torch's global generator.

    Models of any size see the same batches.

    Raises:
        UsageError: the text cannot be used.
    """
    corpus = read_corpus(config)
    tokenizer = train_tokenizer(corpus.documents.values(), SMALL_VOCAB if config.small else VOCAB_SIZE)
    rows, held_out = split_rows(corpus, tokenizer, config.context, config.seed)
    torch.manual_seed(config.seed)
    size = proxy_size(len(tokenizer), config.part) if config.part > 1 else SMALL if config.small else Size()
    model = build_model(len(tokenizer), config.context, size)
    plan = Plan(kind="cosine", peak=config.peak_lr, final=0.1 * config.peak_lr, total_steps=config.steps,
                warmup_steps=config.steps // 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.peak, betas=(0.9, 0.95), weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda done: float(plan.at(done + 1)) / plan.peak)
    mixture = Mixture(rows, corpus.shares, config.batch_rows, config.seed)
    return Job(corpus, tokenizer, {domain: found.ids_NT.size for domain, found in rows.items()},
               held_out, validation_batches(held_out, config.batch_rows), plan,
               Training(model, optimizer, scheduler, mixture))


def run_demo(config: DemoConfig, on_step: Callable[[int, float], None] | None = None) -> DemoSummary:
    """Train with the tap on, and print a line of progress now and then.

    `on_step` is called after every step with its number (from 1) and its loss in nats per token. Ctrl-C ends the run
    early and cleanly. The same seed, installation and thread count give the same losses.

    Raises:
        UsageError: the text cannot be used.
    """
    started = time.perf_counter()
    job = prepare(config)
    summary = DemoSummary(run=str(config.run), fault=config.fault,
                          onset=None if config.fault == "none" else config.onset, skipped=skipped_line(job.corpus),
                          val_first=evaluate(job))
    print(describe(job), flush=True)
    tap = attach_tap(config, job)
    progress = Progress(config, summary, started, on_step)
    try:
        for step in range(1, config.steps + 1):
            progress.after(step, train_step(config, job.training, tap, step))
            if step % config.eval_every == 0 or step == config.steps:
                summary.val_last = evaluate(job)
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        tap.close()
    return summary


def attach_tap(config: DemoConfig, job: Job) -> Tap:
    """The only lines that a training script of one's own needs, beside `tap.close()`."""
    training = job.training
    return attach(training.model, training.optimizer, run=config.run, scheduler=training.scheduler, lr_plan=job.plan,
                  domains=job.corpus.shares, domain_tokens=job.unique_tokens, tokenizer=job.tokenizer,
                  total_steps=config.steps, collectors={"tokens": max(1, config.steps // 20)})


def train_step(config: DemoConfig, training: Training, tap: Tap, step: int) -> float:
    """One optimizer step; returns its cross-entropy in nats per token, as the board shows it."""
    began = time.perf_counter()
    if config.fault != "none" and step >= config.onset:
        FAULTS[config.fault](training, step - config.onset)
    batch = training.on_batch(training.mixture.draw())
    output = training.model(**batch)
    output.loss.backward()
    tap.clip_grad_norm_(1.0)
    training.optimizer.step()
    training.scheduler.step()
    training.optimizer.zero_grad()
    training.step_time_s = time.perf_counter() - began
    # The model adds the balancing loss to what is trained on; the board draws it apart.
    return float(output.loss.detach() - training.model.balance_coef * output.aux_loss.detach())


@torch.no_grad()
def evaluate(job: Job) -> dict[str, float]:
    """Validation loss per domain, nats per token. The tap sees the same forward passes and records them."""
    model = job.training.model
    domains = list(job.corpus.documents)
    total, count = torch.zeros(len(domains)), torch.zeros(len(domains))
    model.eval()
    for batch in job.validation:
        logits = model(**batch).logits[:, :-1]
        nats = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none")
        domain = batch["domain"].repeat_interleave(logits.shape[1])
        total.index_add_(0, domain, nats)
        count.index_add_(0, domain, torch.ones_like(nats))
    model.train()
    return dict(zip(domains, (total / count).tolist(), strict=True))


def describe(job: Job) -> str:
    """What is about to train on what, in two lines."""
    params = sum(parameter.numel() for parameter in job.training.model.parameters())
    shares = ", ".join(f"{domain} {share:.0%}" for domain, share in job.corpus.shares.items())
    line = f"OLMoE, {params / 1e6:.1f} M parameters, on {job.corpus.source}: {shares}"
    skipped = skipped_line(job.corpus)
    return f"{line}\n{skipped}" if skipped else line


class Progress:
    """Keeps the summary up to date and prints a line every ten seconds."""

    def __init__(self, config: DemoConfig, summary: DemoSummary, started: float,
                 on_step: Callable[[int, float], None] | None) -> None:
        self.config, self.summary, self.started, self.on_step = config, summary, started, on_step
        self.losses: deque[float] = deque(maxlen=RECENT_STEPS)
        self.printed_at, self.printed_step = time.perf_counter(), 0

    def after(self, step: int, loss: float) -> None:
        now = time.perf_counter()
        summary = self.summary
        if step == 1:
            summary.first_step_s, summary.loss_first = now - self.started, loss
        self.losses.append(loss)
        summary.steps, summary.loss_last = step, sum(self.losses) / len(self.losses)
        summary.tokens += self.config.batch_rows * self.config.context
        summary.train_s = now - self.started - summary.first_step_s
        if step in (1, self.config.steps) or now - self.printed_at >= 10:
            rate = (step - self.printed_step) * self.config.batch_rows * self.config.context / (now - self.printed_at)
            print(f"step {step:>5}/{self.config.steps}  loss {loss:6.3f} nats/token (last {len(self.losses)} steps: "
                  f"{summary.loss_last:.3f})  {rate:8,.0f} tokens/s", flush=True)
            self.printed_at, self.printed_step = now, step
        if self.on_step is not None:
            self.on_step(step, loss)
