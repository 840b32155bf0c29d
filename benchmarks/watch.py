"""What `trainvitals watch` tells of simulated runs, in simulated time: faults, and days without any.

    python -m benchmarks.watch faults            # about two minutes of one core
    python -m benchmarks.watch healthy --days 30 # about five minutes

Rows of loss, gradient norm and step time, 5 s a step; a pause of 40 s every 100 steps stands for checkpoints. Nothing
in the watcher was set on these runs; its conventions (twice the longest pause, at least a minute) are in checks/watch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Table
from checks.watch.message import Message
from checks.watch.state import State
from checks.watch.watcher import Options, Watcher
from tests.watch.simulated import Simulated

SEEDS, BEFORE, MINUTES = 3, 600, 12
"""Runs of each fault, steps before it, and minutes that are watched from it on."""
LOOK, SPARSE_LOOK = 15.0, 600.0
ALL = Options(busy_share=None)
Fault = Callable[[Simulated], Callable[[], None]]
"""Brings a fault about, and gives what the run then does between two looks."""


def steps(run: Simulated) -> None:
    run.run(int(LOOK / run.step_seconds), pause=40.0, every=100)


def loss_up(run: Simulated) -> Callable[[], None]:
    run.factor = 1.3
    return lambda: steps(run)


def loss_spike(run: Simulated) -> Callable[[], None]:
    run.factor = 3.0
    run.run(2)
    run.factor = 1.0
    return lambda: steps(run)


def gradient_up(run: Simulated) -> Callable[[], None]:
    run.gradient = 20.0
    return lambda: steps(run)


def slower(run: Simulated) -> Callable[[], None]:
    run.step_seconds *= 2
    return lambda: run.run(1)


def silent(run: Simulated) -> Callable[[], None]:
    return lambda: run.idle(LOOK)


def hung(run: Simulated) -> Callable[[], None]:
    return lambda: run.idle(LOOK, reports=True)


def retried(run: Simulated) -> Callable[[], None]:
    again = Simulated(run.path, 99, start_step=run.step - 50, now=run.now + 60)
    run.writer.close(run_ended=False)

    def go() -> None:
        steps(again)
        run.now = again.now

    return go


FAULTS: dict[str, Fault] = {
    "loss 30 % up, lasting": loss_up, "loss times 3 for 2 steps": loss_spike, "gradient norm times 20": gradient_up,
    "steps twice as long": slower, "nothing comes any more": silent, "reports, but no step": hung,
    "job started again 50 steps back": retried}  # fmt: skip


def faults() -> Table:
    table = Table("Faults", ("fault", "told", "minutes until told", "messages, per run", "as"), notes=(
        f"{SEEDS} runs each, a look every {LOOK:g} s; told within {MINUTES} minutes."))
    for name, fault in FAULTS.items():
        delays, counts, words = list[float](), list[str](), set[str]()
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory() as base:
                told = _after(Path(base), fault, seed)
            delays += [told[0][0] / 60] if told else []
            counts.append(str(len(told)))
            words |= {f"{m.kind} {m.what}" for _, m in told}
        table.rows.append((name, f"{len(delays)} of {SEEDS}", ", ".join(f"{d:.1f}" for d in delays), ", ".join(counts),
                           "; ".join(sorted(words))))  # fmt: skip
    return table


def _after(base: Path, fault: Fault, seed: int) -> list[tuple[float, Message]]:
    """Messages with the seconds since the fault; -1 for one that came before it."""
    # Two hours ago where another attempt follows: it starts by the clock of this machine, after these rows.
    run = Simulated(base / "run", seed, now=time.time() - (2 * 3600 if fault is retried else 0))
    watcher, early = Watcher([str(base)], State(), ALL, print), list[Message]()
    for _ in range(BEFORE // 20):
        run.run(20, pause=40.0, every=100)
        early += watcher.look(run.now)
    began, found = run.now, list[tuple[float, Message]]()
    go = fault(run)
    while run.now - began < MINUTES * 60:
        go()
        found += [(run.now - began, m) for m in watcher.look(run.now)]
    return [(-1.0, m) for m in early] + found


def healthy(days: float) -> Table:
    """Runs of three days each."""
    told, looks, done, seed = list[Message](), 0, 0.0, 0
    while done < days * 86_400:
        with tempfile.TemporaryDirectory() as base:
            run = Simulated(Path(base, "run"), seed, now=time.time() - 4 * 86_400)
            watcher, began = Watcher([base], State(), ALL, print), run.now
            while run.now - began < min(3 * 86_400, days * 86_400 - done):
                run.run(int(SPARSE_LOOK / run.step_seconds), pause=40.0, every=100)
                told += watcher.look(run.now)
                looks += 1
            done += run.now - began
            run.writer.close()
        seed += 1
    return Table("Days without a fault", ("run-days", "looks", "false messages", "as"), [
        (f"{done / 86_400:.1f}", f"{looks:,}", str(len(told)), "; ".join(sorted({m.title for m in told})))],
        notes=f"Runs of three days, a look every {SPARSE_LOOK / 60:g} minutes.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watch", description=__doc__)
    parser.add_argument("what", choices=("faults", "healthy"))
    parser.add_argument("--days", type=float, default=30.0)
    args = parser.parse_args()
    print((faults() if args.what == "faults" else healthy(args.days)).markdown())


if __name__ == "__main__":
    main()
