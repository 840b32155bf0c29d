"""The copies of one model that train side by side in `benchmarks overhead`, and who watches each of them."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch.nn.utils.clip_grad import clip_grad_norm_ as torch_clip
from torch.optim.lr_scheduler import LambdaLR

import trainvitals as tv
from collectors.demo.train import Job


class Times(NamedTuple):
    """Seconds of one step."""

    wall: float
    cpu: float
    """Of all threads of this process."""
    inside: float
    """Processor time of the loop's thread inside the watcher."""


@dataclass
class Side:
    """One copy of the model, with the places where a watcher may stand."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    clip: Callable[[], Any] = lambda: None
    after_backward: Callable[[int], Any] = lambda step: None
    after_step: Callable[[int], Any] = lambda step: None
    drain: Callable[[], Any] = lambda: None
    """Do what the watcher has put off."""
    close: Callable[[], Any] = lambda: None
    inside: Inside | None = None
    keep_domain: bool = False
    done: int = 0
    times: list[Times] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job) -> Side:
        """A fresh copy of the demo's model at its start."""
        model = copy.deepcopy(job.training.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=job.plan.peak, betas=(0.9, 0.95), weight_decay=0.1)
        scheduler = LambdaLR(optimizer, lambda done: float(job.plan.at(done + 1)) / job.plan.peak)
        return cls(model, optimizer, scheduler, clip=lambda: torch_clip(model.parameters(), 1.0))

    def train(self, batch: Mapping[str, torch.Tensor]) -> None:
        """One step."""
        inputs = {name: value for name, value in batch.items() if self.keep_domain or name != "domain"}
        wall, cpu, inside = time.perf_counter(), time.process_time(), self.inside.seconds if self.inside else 0.0
        loss = self.model(**inputs).loss
        loss.backward()
        self.after_backward(self.done + 1)
        self.clip()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        loss.item()
        self.done += 1
        self.after_step(self.done)
        self.times.append(Times(time.perf_counter() - wall, time.process_time() - cpu,
                                (self.inside.seconds if self.inside else 0.0) - inside))

    def same_weights(self, other: Side) -> bool:
        """Bit by bit."""
        return all(torch.equal(a, b) for a, b in zip(self.model.parameters(), other.model.parameters(), strict=True))


# -- watchers ----------------------------------------------------------------------------------------------------------


Watcher = Callable[[Side, Job, Path], None]


def nobody(side: Side, job: Job, folder: Path) -> None:
    """A second plain copy: whatever it costs is the error of the measurement."""


def tapped(cadences: Mapping[str, int]) -> Watcher:
    """Our tap, with these steps between two rows of its collectors."""
    def watch(side: Side, job: Job, folder: Path) -> None:
        tap = tv.attach(side.model, side.optimizer, folder, scheduler=side.scheduler, domains=job.corpus.shares,
                        domain_tokens=job.unique_tokens, tokenizer=job.tokenizer, collectors=cadences)
        # Everything that the tap does in the loop goes through its guard.
        side.inside = Inside(tap.guard)
        tap.guard = side.inside  # type: ignore[method-assign, assignment]
        side.keep_domain, side.close, side.drain = True, tap.close, tap.transfer.drain
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


def norms(side: Side) -> dict[str, float]:
    """What the plainest loops do: a norm per tensor, each waited for."""
    return {name: p.grad.norm().item() for name, p in side.model.named_parameters() if p.grad is not None}


def item_norms(side: Side, job: Job, folder: Path) -> None:
    side.after_backward = lambda step: norms(side)


def trackio_norms(side: Side, job: Job, folder: Path) -> None:
    import trackio

    os.environ["TRACKIO_DIR"] = str(folder)
    with quiet():
        trackio.init(project="bench", name="run", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    side.after_backward, side.close = lambda step: trackio.log(norms(side), step=step), trackio.finish


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


PEERS: dict[str, tuple[str, Watcher]] = {
    "gradient norm per tensor with `.item()`, every step": ("torch", item_norms),
    "the same norms to trackio": ("trackio", trackio_norms),
    "TensorBoard histograms of weights and gradients, every step": ("tensorboard", tensorboard_histograms),
    "`wandb.watch(log=\"all\", log_freq=1)`, offline": ("wandb", wandb_watch),
}
"""Others, with the package that each needs."""


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what a tool prints, native code included, out of the tables."""
    sys.stdout.flush()
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)


# -- clocks and counts -------------------------------------------------------------------------------------------------


def background_cpu_s() -> float:
    """Processor seconds of this process's other Python threads and of its children."""
    threads = [t.ident for t in threading.enumerate() if t is not threading.main_thread() and t.ident]
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return (sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in threads)
            + sum(times.user + times.system for times in children))


@contextmanager
def counted(counts: list[int]) -> Iterator[None]:
    """Append how many functions this thread called meanwhile, Python's and those of extensions.

    It depends on the code alone, not on what else the machine does.
    """
    calls = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        counts.append(calls)
