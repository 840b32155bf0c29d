"""What watching costs per training step, on the demo's model and text.

    python -m benchmarks overhead

Two copies of the model train side by side in one process, on the same batches: one as it is, one watched. Every batch
gives one pair of step times, and who goes first alternates (ABBA), so that what else the machine does meets both alike.
The median of the paired differences is the cost; its interval is a bootstrap over pairs.

Threads and processes that work beside the loop (our writer, wandb's service) would fall on both copies, so their
processor time is read from their own clocks.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.nn.utils.clip_grad import clip_grad_norm_ as torch_clip
from torch.optim.lr_scheduler import LambdaLR

import trainvitals as tv
from benchmarks.report import Table
from collectors.demo.train import DemoConfig, Job, prepare
from collectors.loop import CADENCES

SECONDS, SECONDS_FOR_ALL = 7.0, 25.0
"""Measuring time per row, and for the rows that sum up all collectors."""
WARM_UP_PAIRS, LEAST_PAIRS, BATCHES = 3, 10, 64
OFF = dict.fromkeys(CADENCES, 0)
EVERY_STEP = dict.fromkeys(CADENCES, 1)
SLOW = {name: every for name, every in CADENCES.items() if every > 1}


@dataclass
class Side:
    """One of the two copies, with the places where a watcher may stand."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    clip: Callable[[], Any] = lambda: None
    after_backward: Callable[[int], Any] = lambda step: None
    after_step: Callable[[int], Any] = lambda step: None
    close: Callable[[], Any] = lambda: None
    keep_domain: bool = False

    @classmethod
    def of(cls, job: Job) -> Side:
        """A fresh copy of the demo's model at its start."""
        model = copy.deepcopy(job.training.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=job.plan.peak, betas=(0.9, 0.95), weight_decay=0.1)
        scheduler = LambdaLR(optimizer, lambda done: float(job.plan.at(done + 1)) / job.plan.peak)
        parameters = list(model.parameters())
        return cls(model, optimizer, scheduler, clip=lambda: torch_clip(parameters, 1.0))

    def train(self, batch: Mapping[str, torch.Tensor], step: int) -> tuple[float, float]:
        """One step; wall and processor seconds, all threads of this process."""
        inputs = {name: value for name, value in batch.items() if self.keep_domain or name != "domain"}
        wall, cpu = time.perf_counter(), time.process_time()
        loss = self.model(**inputs).loss
        loss.backward()
        self.after_backward(step)
        self.clip()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        loss.item()
        self.after_step(step)
        return time.perf_counter() - wall, time.process_time() - cpu


# -- watchers ----------------------------------------------------------------------------------------------------------


Watcher = Callable[[Side, Job, Path], None]


def collectors(cadences: Mapping[str, int]) -> Watcher:
    def watch(side: Side, job: Job, folder: Path) -> None:
        tap = tv.attach(side.model, side.optimizer, folder, scheduler=side.scheduler, domains=job.corpus.shares,
                        domain_tokens=job.unique_tokens, tokenizer=job.tokenizer, collectors=cadences)
        side.keep_domain, side.close = True, tap.close
        side.clip = lambda: tap.clip_grad_norm_(1.0)

    return watch


def item_norms(side: Side, job: Job, folder: Path) -> None:
    side.after_backward = lambda step: [p.grad.norm().item() for p in side.model.parameters() if p.grad is not None]


def tensorboard_histograms(side: Side, job: Job, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(step: int) -> None:
        for name, parameter in side.model.named_parameters():
            writer.add_histogram(f"weights/{name}", parameter, step)
            if parameter.grad is not None:
                writer.add_histogram(f"gradients/{name}", parameter.grad, step)

    side.after_backward, side.close = log, writer.close


def wandb_watch(side: Side, job: Job, folder: Path) -> None:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(mode="offline", dir=str(folder), project="bench",
                     settings=wandb.Settings(silent=True, console="off", x_disable_stats=True))
    run.watch(side.model, log="all", log_freq=1)
    side.after_step = lambda step: run.log({"step": step}, step=step)
    side.close = run.finish


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass
class Pairs:
    """Seconds per step of both sides, one entry per pair."""

    plain: list[tuple[float, float]] = field(default_factory=list)
    watched: list[tuple[float, float]] = field(default_factory=list)
    background_s: float = 0.0
    same_weights: bool = False

    def extra_ms(self, clock: int, keep: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Paired differences in milliseconds; clock 0 is the wall, 1 the processor."""
        return (np.array(self.watched)[keep, clock] - np.array(self.plain)[keep, clock]) * 1e3

    @property
    def background_ms(self) -> float:
        return self.background_s / len(self.plain) * 1e3

    def step_ms(self, clock: int) -> float:
        return float(np.median(np.array(self.plain)[:, clock])) * 1e3


def background_cpu_s() -> float:
    """Processor seconds of this process's other Python threads and of its children."""
    threads = [t.ident for t in threading.enumerate() if t is not threading.main_thread() and t.ident]
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return (sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in threads)
            + sum(times.user + times.system for times in children))


def measure(job: Job, batches: list[dict[str, torch.Tensor]], watcher: Watcher, folder: Path, seconds: float) -> Pairs:
    """Train both copies for about so many seconds."""
    plain, watched = Side.of(job), Side.of(job)
    pairs = Pairs()
    watcher(watched, job, folder)
    try:
        began, background, step = time.perf_counter(), 0.0, 0
        while step < WARM_UP_PAIRS + LEAST_PAIRS or time.perf_counter() - began < seconds:
            if step == WARM_UP_PAIRS:
                began, background = time.perf_counter(), background_cpu_s()
            batch = batches[step % len(batches)]
            sides = (plain, watched) if step % 2 else (watched, plain)
            took = {id(side): side.train(batch, step + 1) for side in sides}
            step += 1
            if step > WARM_UP_PAIRS:
                pairs.plain.append(took[id(plain)])
                pairs.watched.append(took[id(watched)])
        pairs.background_s = background_cpu_s() - background
        pairs.same_weights = all(torch.equal(a, b) for a, b in
                                 zip(plain.model.parameters(), watched.model.parameters(), strict=True))
    finally:
        with quiet():
            watched.close()
    return pairs


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what a tool prints at its end, native code included, out of the tables."""
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(values, (2_000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


# -- the table ---------------------------------------------------------------------------------------------------------


def row(name: str, pairs: Pairs, extra: np.ndarray | None = None, share_of_slow: float = 0.0) -> list[str]:
    """A table row; `share_of_slow` ms are added for collectors that are not due at every step."""
    extra = pairs.extra_ms(0) if extra is None else extra
    step_ms = pairs.step_ms(0)
    median, (low, high) = float(np.median(extra)) + share_of_slow, interval(extra) + np.array(share_of_slow)
    total = median + pairs.background_ms
    cpu = float(np.median(pairs.extra_ms(1))) / pairs.step_ms(1)
    return [name, f"{median:+.2f} ({low:+.2f} to {high:+.2f})", f"{median / step_ms:+.1%}",
            f"{pairs.background_ms:.2f}", f"{total / step_ms:+.1%}", f"{cpu:+.1%}", str(len(pairs.plain)),
            "yes" if pairs.same_weights else "no"]


def run(quick: bool) -> list[Table]:
    factor = 0.3 if quick else 1.0
    with tempfile.TemporaryDirectory(prefix="tv-bench-") as base:
        job = prepare(DemoConfig(run=base))
        batches = [job.training.mixture.draw() for _ in range(BATCHES)]

        def of(name: str, watcher: Watcher, seconds: float = SECONDS) -> Pairs:
            print(f"overhead: {name} ...", file=sys.stderr, flush=True)
            return measure(job, batches, watcher, Path(base, name), factor * seconds)

        rows, plain_ms = [], []
        for name in CADENCES:
            alone = OFF | {name: 1} | ({"router": 1} if name == "router_domain" else {})
            pairs = of(name, collectors(alone))
            plain_ms.append(pairs.step_ms(0))
            rows.append(row("router, with domains" if name == "router_domain" else name, pairs))
        every = of("every", collectors(EVERY_STEP), SECONDS_FOR_ALL)
        usual = of("usual", collectors({}), SECONDS_FOR_ALL)
        rows.append(row("**all, at every step**", every))
        # Steps at which a slow collector is due are left out, and charged their share of "all, at every step".
        steps = WARM_UP_PAIRS + 1 + np.arange(len(usual.plain))
        ordinary = usual.extra_ms(0, ~np.any([steps % n == 0 for n in SLOW.values()], axis=0))
        slow_ms = (float(np.median(every.extra_ms(0))) - float(np.median(ordinary))) / min(SLOW.values())
        rows.append(row("**all, at their default cadence**", usual, ordinary, max(slow_ms, 0.0)))
        rows.append(row("gradient norm per tensor with `.item()`, every step", of("item", item_norms)))
        rows.append(row("TensorBoard histograms of weights and gradients, every step",
                        of("tensorboard", tensorboard_histograms)))
        rows.append(row("`wandb.watch(log=\"all\", log_freq=1)`, offline", of("wandb", wandb_watch)))
    params = sum(p.numel() for p in job.training.model.parameters())
    return [Table(
        f"Cost per step: OLMoE, {params / 1e6:.1f} M parameters, {batches[0]['input_ids'].numel():,} tokens per step",
        ["watcher", "wall, ms per step (95 % of median)", "of the step", "background CPU, ms per step",
         "wall + background", "CPU in the loop", "pairs", "same weights"], rows,
        notes=f"A plain step takes {np.median(plain_ms):.0f} ms on {torch.get_num_threads()} threads. Two copies of "
              "the model on the same batches, taking turns (ABBA); the difference is the median over pairs. Background "
              "is the processor time of other threads and processes, counted as if it took time from the loop. "
              f"Default cadences: {', '.join(f'{n} every {e}' for n, e in SLOW.items())}, the others at every step. "
              "Same weights: both copies ended bit-identical.")]
