"""The tables of the detection benchmark: by fault, by class and shape of fault, by family of healthy runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.detection.kinds import FAMILIES
from benchmarks.detection.rules import RULES, episodes
from benchmarks.detection.score import LATE_ANSWER, Score, Truth, false_alarms, folders, of_kinds, read_truth, scores
from checks.certificates import upper_bound
from trainvitals.store import Run, open_run

HEAD = """# The detection benchmark

Made by `python -m benchmarks.detection score runs/detection`, from {runs} runs of {kinds} kinds that
`python -m benchmarks.detection record` trains: language models of 0.2 M parameters on two cores, one planted fault
each, and healthy ones. *Found*: a warning or failure that begins at the fault, or whose stated interval holds its
onset. *Right cause first*: what the incident says moved first is in one of the fault's areas. Medians over what was
found; onset in its interval is counted over alarms that state one. Throughput counts only where it is the fault: the
machine was shared.

## Faults
"""
HEALTHY = """
## Healthy runs

Upper 95 % bounds of Clopper and Pearson. Up to its fault, a faulty run is a healthy one of its setup and seed once
more: those rows are not counted twice.
"""
RULED = """
## Rules of training libraries on the same runs

Written from their sources (benchmarks/detection/rules.py), on loss and gradient norm. *Found* is any alarm between the
onset and the end: a rule that alarms in every healthy run finds by chance.
"""
Alarms = Callable[[Path], list[int] | None]
"""Run folder -> steps at which something alarmed; None where it could not read the run."""


def print_scores(below: Path) -> None:
    """Judge every run below a folder, and print all tables."""
    known = list(scores(below))
    print(HEAD.format(runs=len(known), kinds=len({s.truth.kind for s in known})))
    print("| fault | found (`fail`) | delay, steps | onset error, steps | onset in its interval | right cause first | "
          "said first |\n" + "| --- " * 7 + "|")
    faulty = [score for score in known if not score.truth.healthy]
    for kind in dict.fromkeys(score.truth.kind for score in faulty):
        print(_line(kind, of_kinds(faulty, [kind]), said=True))
    for name, kinds in FAMILIES.items():
        print(_line(f"**{name}**", of_kinds(faulty, kinds)))
    for shape in ("point", "jump", "ramp"):
        print(_line(f"**{shape}s**", [score for score in faulty if score.truth.shape == shape]))
    print(_line("**all faults**", faulty))
    _print_false(known)
    print(RULED)
    print_rules(below)


def _line(name: str, chosen: list[Score], said: bool = False) -> str:
    found = [score for score in chosen if score.found]
    fails = sum(score.found == "fail" for score in found)
    delays = [score.delay for score in found if score.delay is not None]
    errors = [abs(score.onset_error) for score in found if score.onset_error is not None]
    stated = [score.inside for score in found if score.inside is not None]
    first = ", ".join(dict.fromkeys(score.first.check for score in found if score.first)) if said else ""
    return (f"| {name} | {len(found)} of {len(chosen)} ({fails}) | {median(delays)} | {median(errors)} | "
            f"{sum(stated)} of {len(stated)} | {sum(s.right_cause for s in found)} of {len(chosen)} | {first} |")


def median(values: Iterable[float]) -> str:
    """In a cell of a table."""
    known = list(values)
    return f"{statistics.median(known):g}" if known else "-"


def _print_false(known: list[Score]) -> None:
    print(HEALTHY)
    print("| healthy steps | runs | steps | false `fail` | false `warn` | of |\n" + "| --- " * 6 + "|")
    healthy = [score for score in known if score.truth.healthy]
    for kind in dict.fromkeys(score.truth.kind for score in healthy):
        _false_line(kind, of_kinds(healthy, [kind]))
    _false_line("before a fault (rows of the runs above)", [score for score in known if not score.truth.healthy])
    _false_line("**all**", known)


def _false_line(name: str, chosen: list[Score]) -> None:
    rows = sum(score.truth.rows for score in chosen)
    false = false_alarms(chosen)
    cells = [f"{count} (< {1e4 * upper_bound(count, rows):.2g} per 10,000)" if rows else str(count)
             for count in (sum(f.level == level for f in false) for level in ("fail", "warn"))]
    of = ", ".join(sorted({f.check for f in false}))
    print(f"| {name} | {len(chosen)} | {rows:,} | {' | '.join(cells)} | {of} |")


def print_rules(below: Path) -> None:
    """The libraries' rules on the loss and gradient norm of the same runs."""
    print_peers(below, {name: _asked(name) for name in RULES}, "rule")


def print_peers(below: Path, peers: Mapping[str, Alarms], title: str) -> None:
    """What others find and cry of nothing on the same runs: episodes of alarms, each at its step."""
    print(f"| {title} | found, of faults in loss or norm | of all | delay, steps | healthy runs with an alarm | false "
          "alarms | per 10,000 steps | could not read |\n" + "| --- " * 8 + "|")
    runs = [(folder, read_truth(folder)) for folder in folders(below)]
    for name, alarms in peers.items():
        answers = [(truth, alarms(folder)) for folder, truth in runs]
        read = [(truth, steps) for truth, steps in answers if steps is not None]
        faults = [(truth, [step for step in steps if _own(truth, step)]) for truth, steps in read if not truth.healthy]
        shown = [own for truth, own in faults if {"loss", "optimisation"} & {*truth.causes}]
        healthy = [steps for truth, steps in read if truth.healthy]
        false = sum(map(len, healthy))
        rows = sum(truth.rows for truth, _ in read)
        delays = [own[0] - (truth.onset or 0) for truth, own in faults if own]
        found, cried = sum(bool(own) for _, own in faults), sum(map(bool, healthy))
        print(f"| {name} | {sum(map(bool, shown))} of {len(shown)} | {found} of {len(faults)} | {median(delays)} | "
              f"{cried} of {len(healthy)} | {false} | {1e4 * false / max(rows, 1):.2g} "
              f"(< {1e4 * upper_bound(false, max(rows, 1)):.2g}) | {len(answers) - len(read)} |", flush=True)


def _own(truth: Truth, step: int) -> bool:
    if truth.healthy or truth.onset is None:
        return False
    return truth.onset <= step <= (truth.last + LATE_ANSWER if truth.last else truth.steps)


def _asked(name: str) -> Alarms:
    def alarms(folder: Path) -> list[int]:
        steps, loss, norms = loss_and_norm(open_run(folder))
        return [int(steps[row]) for row in episodes(RULES[name](loss, norms))]

    return alarms


def loss_and_norm(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, training loss and gradient norm; NaN where a step has none."""
    loss = run.array("loss/train" if run.has("loss/train") else "loss/returned")
    norm = run.array("grad/norm")
    known = dict(zip(norm.steps.tolist(), norm.values.tolist(), strict=True))
    norms = np.array([known.get(step, np.nan) for step in loss.steps.tolist()], float)
    return loss.steps, np.asarray(loss.values, float), norms
