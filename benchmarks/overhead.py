"""What watching costs per training step, on the demo's model and text.

    python -m benchmarks overhead              one run, about four minutes where a step takes 0.2 s
    python -m benchmarks overhead --runs 3     three in one table, the other tools only once

Copies of the model train side by side in one process, on the same batches: a plain one, watched ones, and a second
plain one. They take turns, and every round takes them in another order, so that what else the machine does meets all
alike. A round gives one difference to the plain step for each of them.

A round in which a plain copy was held up by something else is left out for all. Cost is the median of the differences
to the mean of the two plain copies, with a bootstrap interval, plus what the tap does at some steps only: the mean less
the median of the processor time that the loop's thread spends inside it. What the second plain copy seems to cost is
the error of the method. Where that is too large for an answer the table says "unknown".

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

ROUNDS, PEER_ROUNDS, QUICK = 200, 14, 0.1
WARM_UP_ROUNDS, PEER_WARM_UP, COUNTED_STEPS, BATCHES = FIRST_STEPS + 2, 4, 12, 64
EVERY_STEP = dict.fromkeys(CADENCES, 1)
OUR_SIDES: dict[str, Watcher] = {
    "**all, at their default cadence**": tapped({}),
    "**all, at every step**": tapped(EVERY_STEP),
    "a second plain copy": nobody,
}
PLACEBO = "a second plain copy"
FINE, RELATIVE = 0.005, 0.2
"""Part of a step, or of the cost itself, that the error may be for a number to be given: of the method, and half the
interval's width."""
HELD_UP = 4.0
"""Robust standard deviations above the median at which a plain copy's step was held up by something else."""


@dataclass(frozen=True)
class Cost:
    """What one watcher costs, per step."""

    name: str
    step_ms: float
    """A plain step."""
    differences_ms: NDArray[np.float64]
    """Wall time, watched less the mean of the plain copies (of a plain copy: less the other), [rounds that count]."""
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
    """Train a plain copy and one for each watcher, for so many rounds after the first. One watcher is the placebo."""
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

    first, second = times(plain, "wall"), times(sides[PLACEBO], "wall")
    calm = _not_held_up(first) & _not_held_up(second)

    def differences(name: str) -> NDArray[np.float64]:
        base = first if name == PLACEBO else (first + second) / 2
        return (times(sides[name], "wall") - base)[calm]

    return [Cost(name, float(np.median(first[calm])), differences(name),
                 float(np.median(times(side, "cpu") - times(plain, "cpu"))),
                 times(side, "inside") if side.inside else np.empty(0), background_ms,
                 calls[id(side)] - calls[id(plain)], same[name]) for name, side in sides.items()]


def _not_held_up(wall_ms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rounds of a plain copy that are no slower than its own spread explains, [rounds]."""
    middle = np.median(wall_ms)
    spread = 1.4826 * np.median(np.abs(wall_ms - middle))  # of a normal distribution, its standard deviation
    return np.asarray(wall_ms <= middle + HELD_UP * max(spread, 0.01 * middle))


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
        fine_ms = max(FINE * cost.step_ms, RELATIVE * abs(cost.cost_ms))
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
            table = rows(name if watchers is OUR_SIDES else "", costs)
            found.extend(row for row in table if watchers is OUR_SIDES or row[1] != PLACEBO)

        for number in range(1, runs + 1):
            of(str(number), OUR_SIDES, ROUNDS)
        for name, (package, watcher) in PEERS.items():
            if installed(package):
                of(name, {name: watcher, PLACEBO: nobody}, PEER_ROUNDS)
    params = sum(p.numel() for p in job.training.model.parameters())
    slow = ", ".join(f"{name} every {every}" for name, every in CADENCES.items() if every > 1)
    return [Table(
        f"Cost per step: OLMoE, {params / 1e6:.1f} M parameters, {batches[0]['input_ids'].numel():,} tokens per step",
        COLUMNS, found,
        notes=f"A plain step takes {np.median(step_ms):.0f} ms on {torch.get_num_threads()} threads. Copies of the "
              "model on the same batches, taking turns in every order and its mirror image (ABBA). Cost: median "
              "difference of wall time to the mean of the round's two plain copies, plus mean less median of the time "
              "inside the tap; rounds in which a plain copy was held up by something else do not count. A number is "
              "given where half its interval, and what the second plain copy seems to cost, are within "
              f"{FINE:.1%} of a step or {RELATIVE:.0%} of the cost; else it is unknown. Inside the tap: by the clock "
              "of the loop's thread, mean. CPU in the step: of all threads, median difference. Beside it: of other "
              "threads and processes, for all watchers of the run together. More calls: functions called per step "
              "more than by the plain copy; a machine's load does not change it. Default cadences: "
              f"{slow}, the others at every step. Same weights: bit-identical to the plain copy's at the end."
              + (f" Not installed, not measured: {', '.join(absent)}." if absent else ""))]
