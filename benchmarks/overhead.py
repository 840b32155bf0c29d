"""What watching costs per training step, on the demo's model and text.

    python -m benchmarks overhead

Two copies of the model train side by side in one process, on the same batches: one as it is, one watched. Every batch
gives one pair of step times, and who goes first alternates (ABBA), so that what else the machine does meets both alike.
The median of the paired differences is the cost; its interval is a bootstrap over pairs.

Threads and processes that work beside the loop (our writer, wandb's service) would fall on both copies, so their
processor time is read from their own clocks. On a busy machine the paired times are noise of several per cent; the time
that the loop's thread spends inside the tap, by that thread's own processor clock, is then the figure to trust.
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
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch.nn.utils.clip_grad import clip_grad_norm_ as torch_clip
from torch.optim.lr_scheduler import LambdaLR

import trainvitals as tv
from benchmarks.report import Table
from collectors.demo.train import DemoConfig, Job, prepare
from collectors.loop import CADENCES

SECONDS, SECONDS_FOR_ALL = 7.0, 90.0
"""Measuring time per row, and for the rows that sum up all collectors."""
WARM_UP_PAIRS, LEAST_PAIRS, BATCHES = 3, 10, 64
OFF = dict.fromkeys(CADENCES, 0)
CLOCKS = ("wall", "cpu", "inside")
EVERY_STEP = dict.fromkeys(CADENCES, 1)
SLOW = {name: every for name, every in CADENCES.items() if every > 1}


class Times(NamedTuple):
    """Seconds of one step."""

    wall: float
    cpu: float
    """Of all threads of this process."""
    inside: float
    """Processor time of the loop's thread inside the watcher."""


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
    inside_s: Callable[[], float] = lambda: 0.0
    """Processor seconds that this thread has spent inside the watcher, where that is known."""
    keep_domain: bool = False

    @classmethod
    def of(cls, job: Job) -> Side:
        """A fresh copy of the demo's model at its start."""
        model = copy.deepcopy(job.training.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=job.plan.peak, betas=(0.9, 0.95), weight_decay=0.1)
        scheduler = LambdaLR(optimizer, lambda done: float(job.plan.at(done + 1)) / job.plan.peak)
        parameters = list(model.parameters())
        return cls(model, optimizer, scheduler, clip=lambda: torch_clip(parameters, 1.0))

    def train(self, batch: Mapping[str, torch.Tensor], step: int) -> Times:
        """One step."""
        inputs = {name: value for name, value in batch.items() if self.keep_domain or name != "domain"}
        wall, cpu, inside = time.perf_counter(), time.process_time(), self.inside_s()
        loss = self.model(**inputs).loss
        loss.backward()
        self.after_backward(step)
        self.clip()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        loss.item()
        self.after_step(step)
        return Times(time.perf_counter() - wall, time.process_time() - cpu, self.inside_s() - inside)


# -- watchers ----------------------------------------------------------------------------------------------------------


Watcher = Callable[[Side, Job, Path], None]


def collectors(cadences: Mapping[str, int]) -> Watcher:
    def watch(side: Side, job: Job, folder: Path) -> None:
        tap = tv.attach(side.model, side.optimizer, folder, scheduler=side.scheduler, domains=job.corpus.shares,
                        domain_tokens=job.unique_tokens, tokenizer=job.tokenizer, collectors=cadences)
        clock = Inside(tap.guard)
        # Everything that the tap does in the loop goes through its guard.
        tap.guard = clock  # type: ignore[method-assign]
        side.keep_domain, side.close, side.inside_s = True, tap.close, lambda: clock.seconds
        side.clip = lambda: tap.clip_grad_norm_(1.0)

    return watch


class Inside:
    """Stands in for a function and adds up the processor time of its outermost calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.running = function, 0.0, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.running:
            return self.function(*args, **kwargs)
        self.running, began = True, time.thread_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.running, self.seconds = False, self.seconds + time.thread_time() - began


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
    """What the steps of both sides took, one entry per pair."""

    plain: list[Times] = field(default_factory=list)
    watched: list[Times] = field(default_factory=list)
    background_s: float = 0.0
    same_weights: bool = False

    def extra_ms(self, clock: str, keep: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Paired differences in milliseconds of one clock: "wall", "cpu" or "inside"."""
        return np.array([(getattr(w, clock) - getattr(p, clock)) * 1e3
                         for w, p in zip(self.watched, self.plain, strict=True)])[keep]

    @property
    def background_ms(self) -> float:
        return self.background_s / len(self.plain) * 1e3

    def step_ms(self, clock: str) -> float:
        return float(np.median([getattr(step, clock) for step in self.plain])) * 1e3


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


def interval(values: np.ndarray) -> np.ndarray:
    """95 % bootstrap interval of the median: its two ends."""
    draws = np.random.default_rng(0).choice(values, (2_000, len(values)))
    return np.percentile(np.median(draws, axis=1), [2.5, 97.5])


# -- the table ---------------------------------------------------------------------------------------------------------


def row(name: str, pairs: Pairs, ordinary: slice | np.ndarray = slice(None), slow: Mapping[str, float] | None = None
        ) -> list[str]:
    """A table row. Only `ordinary` pairs count; `slow` ms per clock are added for what is due at other steps."""
    wall = pairs.extra_ms("wall", ordinary)
    slow = slow or dict.fromkeys(CLOCKS, 0.0)
    added = {clock: float(np.median(pairs.extra_ms(clock, ordinary))) + slow[clock] for clock in CLOCKS}
    low, high = interval(wall) + slow["wall"]
    step_ms = pairs.step_ms("wall")
    undisturbed_ms = float(np.percentile([step.wall for step in pairs.plain], 10)) * 1e3
    inside = [f"{added['inside']:.2f}", f"{(added['inside'] + pairs.background_ms) / undisturbed_ms:.1%}"] \
        if added["inside"] else ["", ""]
    return [name, f"{added['wall']:+.2f} ({low:+.2f} to {high:+.2f})", f"{added['wall'] / step_ms:+.1%}", *inside,
            f"{pairs.background_ms:.2f}", f"{added['cpu'] / pairs.step_ms('cpu'):+.1%}", str(len(pairs.plain)),
            "yes" if pairs.same_weights else "no"]


def slow_share(every: Pairs, usual: Pairs, ordinary: np.ndarray) -> dict[str, float]:
    """Milliseconds per step and clock of the collectors that are not due at every step.

    A step at which the most frequent of them is due is taken to cost what a step with all of them costs.
    """
    more = {clock: np.median(every.extra_ms(clock)) - np.median(usual.extra_ms(clock, ordinary)) for clock in CLOCKS}
    return {clock: max(0.0, float(ms)) / min(SLOW.values()) for clock, ms in more.items()}


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
            plain_ms.append(pairs.step_ms("wall"))
            rows.append(row("router, with domains" if name == "router_domain" else name, pairs))
        every = of("every", collectors(EVERY_STEP), SECONDS_FOR_ALL)
        usual = of("usual", collectors({}), SECONDS_FOR_ALL)
        rows.append(row("**all, at every step**", every))
        # Steps at which a slow collector is due are left out, and charged by `slow_share`.
        steps = WARM_UP_PAIRS + 1 + np.arange(len(usual.plain))
        ordinary = ~np.any([steps % n == 0 for n in SLOW.values()], axis=0)
        rows.append(row("**all, at their default cadence**", usual, ordinary, slow_share(every, usual, ordinary)))
        rows.append(row("gradient norm per tensor with `.item()`, every step", of("item", item_norms)))
        rows.append(row("TensorBoard histograms of weights and gradients, every step",
                        of("tensorboard", tensorboard_histograms)))
        rows.append(row("`wandb.watch(log=\"all\", log_freq=1)`, offline", of("wandb", wandb_watch)))
    params = sum(p.numel() for p in job.training.model.parameters())
    return [Table(
        f"Cost per step: OLMoE, {params / 1e6:.1f} M parameters, {batches[0]['input_ids'].numel():,} tokens per step",
        ["watcher", "paired wall time, ms (95 % interval)", "of the step", "inside the tap, ms",
         "inside + background, of the step", "background, ms", "paired CPU time", "pairs", "same weights"], rows,
        notes=f"A plain step takes {np.median(plain_ms):.0f} ms on {torch.get_num_threads()} threads. Two copies of "
              "the model on the same batches, taking turns (ABBA); the difference is the median over pairs. Inside the "
              "tap: by the clock of the loop's thread. Background: processor time of other threads and processes. "
              "Inside + background is their share of an undisturbed step, the 10th percentile of the plain ones. "
              f"Default cadences: {', '.join(f'{n} every {e}' for n, e in SLOW.items())}, the others at every step. "
              "Same weights: both copies ended bit-identical.")]
