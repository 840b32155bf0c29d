"""Twins on public logs of one data order: who is recognised, and how much sooner a planted change is found.

    python -m benchmarks.twins          # half a minute of one core, after compiling

No threshold was set on the planted faults: the scan's bounds are those of `loss.divergence`, raw and with twins alike.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from checks.twins.backtest import said_alone, said_with
from checks.twins.culprits import culprits
from checks.twins.judge import controls, partings
from checks.twins.recognise import recognise
from tests.twins.logs import CURVES, Log, published, rows_of

PLACES = 50
Fault = Callable[[NDArray[np.float64]], NDArray[np.float64]]
FAULTS: dict[str, Fault] = {
    "level +0.03 nat": lambda r: 0.03 + 0 * r,
    "level +0.1 nat": lambda r: 0.1 + 0 * r,
    "climb to +0.1 nat in 200 rows": lambda r: 0.1 * np.minimum(r / 200, 1),
    "climb to +0.1 nat in 1,000 rows": lambda r: 0.1 * np.minimum(r / 1000, 1),
}
PAIRS = (("optimizers_a", "optimizers_b"), ("optimizers_b", "optimizers_a"), ("valueembed_a", "valueembed_b"),
         ("valueembed_b", "valueembed_c"))  # fmt: skip


def main() -> None:
    """Print all tables."""
    if not CURVES.is_dir():
        raise SystemExit(f"The published logs are not at {CURVES}.")
    logs = published()
    recognition(logs)
    healthy(logs)
    planted(logs)
    spikes(logs)


def recognition(logs: dict[str, Log]) -> None:
    """Every pair."""
    print("| a | b | twins | offset, steps | noise falls | evidence |\n|---|---|---|---|---|---|")
    for x, y in combinations(logs, 2):
        pair = recognise(rows_of(logs[x], x), rows_of(logs[y], y))
        gain = "" if pair.noise_ratio is None else f"{pair.noise_ratio:.1f} times"
        print(f"| {x} | {y} | {pair.twin} | {pair.offset_steps} | {gain} | {pair.evidence} |")


def healthy(logs: dict[str, Log]) -> None:
    """What twins say of the logs as they are."""
    print("\n| healthy run | twins | rows | said | raw |\n|---|---|---|---|---|")
    for x in logs:
        others = {y: log for y, log in logs.items() if y != x}
        mine = rows_of(logs[x], x)
        pairs = [(rows_of(log, y), recognise(mine, rows_of(log, y))) for y, log in others.items()]
        twins = [(t, p) for t, p in pairs if p.usable]
        said = [p for p in partings(controls(mine, twins)) if p.moved is not False]
        print(f"| {x} | {len(twins)} | {len(logs[x][0]):,} | {len(said)} | {len(said_alone(*logs[x]))} |")


def planted(logs: dict[str, Log]) -> None:
    """Recall and delay, with one twin and without."""
    print("\n| fault | found with a twin | found raw | delay with a twin, median / 90 % rows | raw |")
    print("|---|---|---|---|---|")
    for name, fault in FAULTS.items():
        soon, late = [], []
        for x, y in PAIRS:
            n = len(logs[x][0])
            for place in np.linspace(0.35 * n, 0.85 * n, PLACES // len(PAIRS) + 1).astype(int):
                steps, losses = logs[x][0], logs[x][1].copy()
                losses[place:] += fault(np.arange(len(losses) - place, dtype=float))
                run, twin = rows_of((steps, losses), x), rows_of(logs[y], y)
                said = said_with(run, [(twin, recognise(run, twin))])
                soon.append(first_after(said, int(steps[place])))
                late.append(first_after(said_alone(steps, losses), int(steps[place])))
        print(f"| {name} | {_share(soon)} | {_share(late)} | {delay_words(soon)} | {delay_words(late)} |")


def spikes(logs: dict[str, Log]) -> None:
    """Rows planted in all runs, and in one alone: rightly told as data, and as the run's own."""
    rng = np.random.default_rng(0)
    family = [name for name in logs if name.startswith("valueembed")]
    right = {"data": 0, "own": 0}
    total = 0
    for _ in range(10):
        runs = {name: (logs[name][0], logs[name][1].copy()) for name in family}
        places = rng.choice(np.arange(300, 1_500, 12), 20, replace=False)
        for place in places[:10]:
            for _, losses in runs.values():
                losses[place] *= 1.4 + 0.1 * rng.random()
        runs[family[0]][1][places[10:]] *= 1.45
        mine = rows_of(runs[family[0]], family[0])
        others = [rows_of(runs[name], name) for name in family[1:]]
        found = {c.step: c.cause for c in culprits(mine, [(t, recognise(mine, t)) for t in others])}
        for cause, which in (("data", places[:10]), ("own", places[10:])):
            right[cause] += sum(found.get(int(mine.steps[i])) == cause for i in which)
        total += 10
    print(f"\nSpikes in all runs, told as data: {right['data']} of {total};", end=" ")
    print(f"in one run, told as its own: {right['own']} of {total}.")


def first_after(said: list[int], onset: int) -> float:
    """Steps from a fault to the first word of it; infinite where there was none."""
    return min((step - onset for step in said if step >= onset), default=np.inf)


def _share(delays: list[float]) -> str:
    return f"{sum(np.isfinite(delays))} of {len(delays)}"


def delay_words(delays: list[float]) -> str:
    """Over all faults: one that was not found took longer than any."""
    middle, most = np.quantile(delays, [0.5, 0.9], method="inverted_cdf")
    return " / ".join("never" if not np.isfinite(v) else f"{v:,.0f}" for v in (middle, most))


if __name__ == "__main__":
    main()
