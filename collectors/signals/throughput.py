"""How fast the job runs, and what it uses of the machine.

Metrics recorded:
    throughput/*   per step: wall time, wait for the first batch, tokens
    system/*       every 10 s, at the end of a step: memory of process and device, device utilisation

Wall times are taken on the host between the ends of two optimizer steps. On an asynchronous device the host runs
ahead by a bounded queue, so single steps may shift in time but their mean is right.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from collectors.batch import Batch
from collectors.signals.collector import Collector

SYSTEM_SECONDS = 10.0


class ThroughputCollector(Collector):
    """Step time, data wait and tokens."""

    name = "throughput"
    turn = 80  # late: what the others do in a step is part of its time

    def open(self) -> None:
        self.frame = self.tap.frame(
            "throughput", ["throughput/step_time", "throughput/data_wait", "throughput/tokens"])
        self.ended = float("nan")
        self.rewind()

    def rewind(self) -> None:
        self.tokens: int | Tensor = 0
        self.waited = float("nan")

    def forward(self, batch: Batch) -> None:
        if self.waited != self.waited:
            self.waited = time.perf_counter() - self.ended
        batch.notes[self.name] = batch.tokens

    def trained(self, batch: Batch) -> None:
        self.tokens = self.tokens + batch.notes.get(self.name, 0)

    def after_step(self, step: int) -> None:
        now = time.perf_counter()
        # The first step has no beginning to be timed from.
        if self.due(step) and self.ended == self.ended:
            self.emit(self.frame, step, {"throughput/step_time": now - self.ended,
                                         "throughput/data_wait": self.waited, "throughput/tokens": self.tokens})
        self.ended = now
        self.rewind()


class SystemCollector(Collector):
    """Memory and utilisation, by the clock."""

    name = "system"
    turn = 90

    def open(self) -> None:
        self.device = self.tap.device
        self.readings = dict(self._readings())
        self.frame = self.tap.frame("system", list(self.readings))
        self.next_time = 0.0

    def _readings(self) -> Iterator[tuple[str, Callable[[], float]]]:
        """What this machine can tell, by field."""
        statm, device = Path("/proc/self/statm"), self.device
        if statm.exists():
            yield "system/rss_bytes", lambda: int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if device.type == "cuda":
            yield "system/device_peak_bytes", lambda: torch.cuda.max_memory_allocated(device)
            yield "system/device_reserved_bytes", lambda: torch.cuda.memory_reserved(device)
            if importlib.util.find_spec("pynvml") is not None:
                yield "system/device_utilization", lambda: torch.cuda.utilization(device) / 100

    def after_step(self, step: int) -> None:
        now = time.monotonic()
        if now < self.next_time or not self.due(step):
            return
        self.next_time = now + SYSTEM_SECONDS
        self.emit(self.frame, step, {name: read() for name, read in self.readings.items()})
