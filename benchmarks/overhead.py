"""What watching costs per training step, on the demo's model and text.

    python -m benchmarks overhead              one run, about five minutes where a step takes 0.2 s
    python -m benchmarks overhead --runs 3     three in one table, the other tools only once

Copies of the model train side by side in one process, on the same batches: a plain one, watched ones, and a second
plain one. They take turns, and every round takes them in another order, so that what else the machine does meets all
alike. A round gives one difference to the plain step for each of them.

Cost is the median of the differences, with a bootstrap interval, plus what the tap does at some steps only: the mean
less the median of the processor time that the loop's thread spends inside it. What the second plain copy seems to cost
is the error of the method. Where that is too large for an answer the table says "unknown".

Beside the times stands a count that no other job can disturb: the functions that a step calls more than a plain one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.overhead_sides import (
    PEERS,
    Side,
    Watcher,
    background_cpu_s,
    counted,
    installed,
    nobody,
    quiet,
    tapped,
)
from benchmarks.report import Table
from collectors.demo.train import DemoConfig, Job, prepare
from collectors.loop import CADENCES
from collectors.transfer import FIRST_STEPS

ROUNDS, PEER_ROUNDS, QUICK = 240, 12, 0.1
WARM_UP_ROUNDS, PEER_WARM_UP, COUNTED_STEPS, BATCHES = FIRST_STEPS + 2, 4, 12, 64
EVERY_STEP = dict.fromkeys(CADENCES, 1)
OUR_SIDES: dict[str, Watcher] = {
    "**all, at their default cadence**": tapped({}),
    "**all, at every step**": tapped(EVERY_STEP),
    "a second plain copy": nobody,
}
PLACEBO = "a second plain copy"
FINE = 0.005
"""Part of a step that the error may be, of the method and of the interval, for a number to be given."""


@dataclass(frozen=True)
class Cost:
    """What one watcher costs, per step."""

    name: str
    step_ms: float
    """A plain step."""
    differences_ms: NDArray[np.float64]
    """Wall time, watched less plain, [rounds]."""
    cpu_ms: float
    """Processor time of all threads, watched less plain."""
    inside_ms: NDArray[np.float64]
    """Processor time of the loop's thread inside the tap, [rounds]; empty of what is not ours."""
    background_ms: float
    """Processor time of other threads and processes, of all watchers of the run."""
    calls: float
    """Functions called, watched less plain."""
    same_weights: bool

    @property
    def periodic_ms(self) -> float:
        """What the median does not show because it is done at some steps only."""
        return float(self.inside_ms.mean() - np.median(self.inside_ms)) if self.inside_ms.size else 0.0

    @property
    def cost_ms(self) -> float:
        return float(np.median(self.differences_ms)) + self.periodic_ms

    @property
    def interval_ms(self) -> tuple[float, float]:
        """95 % bootstrap interval over rounds."""
        draws = np.random.default_rng(0).choice(self.differences_ms, (2_000, self.differences_ms.size))
        low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5]) + self.periodic_ms
        return float(low), float(high)

    @property
    def half_width_ms(self) -> float:
        low, high = self.interval_ms
        return (high - low) / 2


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(job: Job, batches: list[dict[str, torch.Tensor]], watchers: Mapping[str, Watcher], folder: Path,
            rounds: int, warm_up: int) -> list[Cost]:
    """Train a plain copy and one for each watcher, for so many rounds after the first."""
    plain, sides = Side.of(job), {name: Side.of(job) for name in watchers}
    for number, (name, watch) in enumerate(watchers.items()):
        watch(sides[name], job, folder / str(number))
    everyone = [plain, *sides.values()]
    orders = _orders(len(everyone))
    try:
        for turn in range(warm_up + rounds):
            if turn == warm_up:
                background = background_cpu_s()
            for i in next(orders):
                everyone[i].train(batches[turn % len(batches)])
        background_ms = (background_cpu_s() - background) / rounds * 1e3
        same = {name: plain.same_weights(side) for name, side in sides.items()}
        calls = {id(side): _calls(side, batches) for side in everyone}
    finally:
        with quiet():
            for side in sides.values():
                side.close()

    def times(side: Side, clock: str) -> NDArray[np.float64]:
        return np.array([getattr(t, clock) for t in side.times[warm_up:warm_up + rounds]]) * 1e3

    return [Cost(name, float(np.median(times(plain, "wall"))), times(side, "wall") - times(plain, "wall"),
                 float(np.median(times(side, "cpu") - times(plain, "cpu"))),
                 times(side, "inside") if side.inside else np.empty(0), background_ms,
                 calls[id(side)] - calls[id(plain)], same[name]) for name, side in sides.items()]


def _orders(sides: int) -> Iterator[tuple[int, ...]]:
    """Turns to take: each order is followed by its mirror image (ABBA), over and over."""
    while True:
        for order in permutations(range(sides)):
            if order[0] < order[-1]:
                yield order
                yield order[::-1]


def _calls(side: Side, batches: list[dict[str, torch.Tensor]]) -> float:
    side.drain()
    counts: list[int] = []
    with counted(counts):
        for batch in batches[:COUNTED_STEPS]:
            side.train(batch)
        side.drain()
    return counts[0] / COUNTED_STEPS


# -- the table ---------------------------------------------------------------------------------------------------------


COLUMNS = ("run", "watcher", "cost, ms per step (95 % interval)", "of the step", "inside the tap, ms",
           "CPU in the step, ms", "CPU beside it, ms", "more calls per step", "rounds", "same weights")


def rows(run: str, costs: list[Cost]) -> Iterator[list[str]]:
    """Table rows of what was measured side by side."""
    error_ms = next((abs(c.cost_ms) for c in costs if c.name == PLACEBO), 0.0)
    for cost in costs:
        low, high = cost.interval_ms
        # Of what costs a third of a step nobody asks for the hundredth.
        fine_ms = max(FINE * cost.step_ms, 0.1 * abs(cost.cost_ms))
        known = cost.half_width_ms <= fine_ms and error_ms <= fine_ms
        share = f"{cost.cost_ms / cost.step_ms:+.1%} ({low / cost.step_ms:+.1%} to {high / cost.step_ms:+.1%})"
        noise = f"unknown: the machine was too noisy (±{cost.half_width_ms:.1f} ms; two plain copies {error_ms:.1f} ms)"
        yield [run, cost.name, f"{cost.cost_ms:+.2f} ({low:+.2f} to {high:+.2f})" if known else noise,
               share if known else "unknown", f"{cost.inside_ms.mean():.2f}" if cost.inside_ms.size else "",
               f"{cost.cpu_ms:+.1f}", "" if cost.name == PLACEBO else f"{cost.background_ms:.2f}",
               f"{cost.calls:+,.0f}", f"{cost.differences_ms.size}", "yes" if cost.same_weights else "no"]


def run(quick: bool, runs: int = 1) -> list[Table]:
    factor = QUICK if quick else 1.0
    found: list[list[str]] = []
    step_ms: list[float] = []
    absent = [package for package, _ in PEERS.values() if not installed(package)]
    with tempfile.TemporaryDirectory(prefix="tv-bench-") as base:
        job = prepare(DemoConfig(run=base))
        batches = [job.training.mixture.draw() for _ in range(BATCHES)]

        def of(name: str, watchers: Mapping[str, Watcher], rounds: int) -> None:
            print(f"overhead: {name} ...", file=sys.stderr, flush=True)
            costs = measure(job, batches, watchers, Path(base, f"{len(found)}"), max(4, round(factor * rounds)),
                            WARM_UP_ROUNDS if watchers is OUR_SIDES else PEER_WARM_UP)
            step_ms.append(costs[0].step_ms)
            found.extend(rows(name if watchers is OUR_SIDES else "", costs))

        for number in range(1, runs + 1):
            of(str(number), OUR_SIDES, ROUNDS)
        for name, (package, watcher) in PEERS.items():
            if installed(package):
                of(name, {name: watcher}, PEER_ROUNDS)
    params = sum(p.numel() for p in job.training.model.parameters())
    slow = ", ".join(f"{name} every {every}" for name, every in CADENCES.items() if every > 1)
    return [Table(
        f"Cost per step: OLMoE, {params / 1e6:.1f} M parameters, {batches[0]['input_ids'].numel():,} tokens per step",
        COLUMNS, found,
        notes=f"A plain step takes {np.median(step_ms):.0f} ms on {torch.get_num_threads()} threads. Copies of the "
              "model on the same batches, taking turns in every order and its mirror image (ABBA). Cost: median "
              "difference of wall time to the plain copy of the round, plus mean less median of the time inside the "
              "tap. A number is given where its interval, and what the second plain copy seems to cost, are within "
              f"{FINE:.1%} of a step (or a tenth of the cost); else it is unknown. Inside the tap: by the clock of the "
              "loop's thread, mean. CPU in the step: of all threads, median difference. Beside it: of other threads "
              "and processes, for all watchers of the run together. More calls: functions called per step more than by "
              f"the plain copy; a machine's load does not change it. Default cadences: {slow}, the others at every "
              "step. Same weights: bit-identical to the plain copy's at the end."
              + (f" Not installed, not measured: {', '.join(absent)}." if absent else ""))]
