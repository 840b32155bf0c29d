"""Judges the recorded runs and counts: what was found, how soon, where it was put, what was cried of nothing.

A fault is *found* by a warning or failure that says it began at the fault: not more than `EARLY` steps before its onset
(an estimate has an error) unless its own interval holds the onset, and before its end or, of one that stays, before the
run's. Every alarm of a healthy run,
and every one that begins earlier than that, is false. Answers about throughput count only for the faults that are about
it: the machine that recorded the runs did other work, and what they say of that is true.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from benchmarks.detection.cut import Until
from benchmarks.detection.kinds import KINDS
from benchmarks.detection.rules import RULES, Rule, episodes
from checks.finding import Finding
from checks.judge import Report, run_checks
from trainvitals.store import Run, open_run

EARLY = 10
"""Steps by which an onset may be estimated too early."""
LOOKS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 60, 90, 130, 200, 269)
"""Steps behind the onset at which the run is judged as it was then."""
LATE_ANSWER = 40
"""An effect of a fault that is over may still begin so many steps later."""

Judge = Callable[[Any], Report]


@dataclass(frozen=True, slots=True)
class Truth:
    """What was done to a run."""

    kind: str
    seed: int
    shape: str | None
    causes: tuple[str, ...]
    onset: int | None
    last: int | None
    steps: int

    @property
    def healthy(self) -> bool:
        """Whether an alarm would be false anywhere."""
        return self.shape is None

    def covers(self, finding: Finding) -> bool:
        """Whether an alarm can be the fault's."""
        if self.onset is None or finding.steps is None:
            return False
        if finding.onset is not None and finding.onset[0] <= self.onset <= finding.onset[1]:
            return True
        return self.onset - EARLY <= finding.steps[0] <= (self.last + LATE_ANSWER if self.last else self.steps)


@dataclass(frozen=True, slots=True)
class Score:
    """One run, judged."""

    truth: Truth
    found: str
    """The worst level that an alarm gave to the fault; "" where none did."""
    first: Finding | None
    """The alarm that was told to have moved first."""
    delay: int | None
    """Steps behind the onset at which an alarm of the fault stood for the first time, at one of `LOOKS`."""
    onset_error: int | None
    """Steps from the onset to the earliest one that an alarm names."""
    false: tuple[Finding, ...]
    rows: int
    """Steps without a fault."""

    @property
    def right_cause(self) -> bool:
        """Whether what was told to have moved first is one of the causes, a check or its area."""
        return self.first is not None and bool({self.first.check, self.first.area} & {*self.truth.causes})


def score_run(folder: Path, judge: Judge = run_checks) -> Score:
    """Judge one run whole, and as it was at `LOOKS`."""
    truth = read_truth(folder)
    run = open_run(folder)
    alarms = _alarms(judge(run), truth)
    own = [finding for finding in alarms if not truth.healthy and truth.covers(finding)]
    false = tuple(finding for finding in alarms if finding not in own)
    rows = truth.steps if truth.healthy or truth.onset is None else truth.onset
    return Score(
        truth, found=("fail" if any(f.level == "fail" for f in own) else "warn") if own else "",
        first=min(own, key=_moved) if own else None, delay=_delay(run, truth, judge) if own else None,
        onset_error=_onset(own) - truth.onset if own and truth.onset is not None else None, false=false, rows=rows)


def _moved(finding: Finding) -> tuple[int, int]:
    from checks.judge import DOWNSTREAM

    onset = finding.steps[0] if finding.steps else 0
    return onset, DOWNSTREAM.index(finding.area)


def _onset(findings: Iterable[Finding]) -> int:
    return min(finding.steps[0] for finding in findings if finding.steps)


def _alarms(report: Report, truth: Truth) -> list[Finding]:
    return [finding for finding in report.findings if finding.level in ("warn", "fail")
            and (finding.area != "throughput" or "throughput" in truth.causes)]


def _delay(run: Run, truth: Truth, judge: Judge) -> int | None:
    assert truth.onset is not None
    for look in LOOKS:
        if truth.onset + look > truth.steps:
            return None
        if any(truth.covers(finding) for finding in _alarms(judge(Until(run, truth.onset + look)), truth)):
            return look
    return None


def read_truth(folder: Path) -> Truth:
    """What was done to the run in `folder`."""
    raw = json.loads(folder.with_name(folder.name + ".truth.json").read_text())
    # What is a right answer is for today's list to say; what was done to the run, for the run's own file.
    kind = KINDS[raw["kind"]]
    return Truth(kind.name, raw["seed"], kind.shape, kind.causes, raw["onset"], raw["last"], raw["setup"]["steps"])


def upper_rate(false: int, rows: int, per: int) -> float:
    """Upper 95 % bound of a Poisson rate, exact: https://doi.org/10.2307/2333958 (Garwood 1936)."""
    return float(chi2.ppf(0.95, 2 * false + 2)) / 2 / rows * per


def print_scores(folder: Path) -> None:
    """Judge every run below `folder`, and print a line per kind and the totals by shape of fault."""
    folders = sorted(path.with_name(path.name.removesuffix(".truth.json")) for path in folder.glob("*.truth.json"))
    scores = [score_run(one) for one in folders]
    print(f"{len(scores)} runs of {len({s.truth.kind for s in scores})} kinds\n")
    print("| fault | found (fail) | delay, steps | onset error, steps | right cause first | what was said first |")
    print("| --- | --- | --- | --- | --- | --- |")
    faulty = [score for score in scores if not score.truth.healthy]
    for kind in dict.fromkeys(score.truth.kind for score in faulty):
        print(_line(kind, [score for score in faulty if score.truth.kind == kind]))
    for shape in ("point", "jump", "ramp"):
        print(_line(f"**all {shape}s**", [score for score in faulty if score.truth.shape == shape]))
    _print_false(scores)
    print_rules(folders)


def _line(name: str, scores: list[Score]) -> str:
    found = [score for score in scores if score.found]
    fails = sum(score.found == "fail" for score in found)
    delays = [score.delay for score in found if score.delay is not None]
    errors = [abs(score.onset_error) for score in found if score.onset_error is not None]
    said = ", ".join(dict.fromkeys(score.first.check for score in found if score.first)) if "**" not in name else ""
    right = sum(score.right_cause for score in found)
    return (f"| {name} | {len(found)} of {len(scores)} ({fails}) | {_median(delays)} | {_median(errors)} | "
            f"{right} of {len(scores)} | {said} |")


def _median(values: list[int]) -> str:
    return f"{statistics.median(values):g}" if values else "-"


def print_rules(folders: list[Path]) -> None:
    """The libraries' rules on the loss and gradient norm of the same runs."""
    print("\n| rule | found, of faults that are in loss or norm | of all | delay, steps | false per 10,000 rows |")
    print("| --- | --- | --- | --- | --- |")
    for name, rule in RULES.items():
        found, shown, delays, false, rows, all_found = 0, 0, list[int](), 0, 0, 0
        for folder in folders:
            truth, begun = read_truth(folder), _alarmed(open_run(folder), rule)
            own = [step for step in begun if not truth.healthy and truth.onset is not None
                   and truth.onset <= step <= (truth.last or truth.steps) + LATE_ANSWER]
            rows += truth.steps if truth.healthy else truth.onset or 0
            false += len([step for step in begun if truth.healthy or step < (truth.onset or 0)])
            if truth.healthy:
                continue
            all_found += bool(own)
            if {"loss", "optimisation"} & {*truth.causes}:
                shown += 1
                found += bool(own)
            delays += [own[0] - (truth.onset or 0)] if own else []
        faults = sum(not read_truth(folder).healthy for folder in folders)
        print(f"| {name} | {found} of {shown} | {all_found} of {faults} | {_median(delays)} | "
              f"{false / rows * 1e4:.1f} |")


def _alarmed(run: Run, rule: Rule) -> list[int]:
    name = "loss/train" if run.has("loss/train") else "loss/returned"
    loss = run.array(name)
    norm = dict(zip(run.array("grad/norm").steps.tolist(), run.array("grad/norm").values.tolist(), strict=True))
    norms = np.array([norm.get(step, np.nan) for step in loss.steps.tolist()])
    return [int(loss.steps[row]) for row in episodes(rule(np.asarray(loss.values, float), norms))]


def _print_false(scores: list[Score]) -> None:
    print("\n| healthy rows | rows | false `fail` | false `warn` | of |")
    print("| --- | --- | --- | --- | --- |")
    healthy = [score for score in scores if score.truth.healthy]
    for kind in dict.fromkeys(score.truth.kind for score in healthy):
        _false_line(kind, [score for score in healthy if score.truth.kind == kind])
    _false_line("before a fault", [score for score in scores if not score.truth.healthy])
    _false_line("**all**", scores)


def _false_line(name: str, scores: list[Score]) -> None:
    rows = sum(score.rows for score in scores)
    counts = {level: sum(f.level == level for s in scores for f in s.false) for level in ("fail", "warn")}
    of = ", ".join(sorted({f.check for s in scores for f in s.false}))
    bounds = {level: f"{count} (< {upper_rate(count, rows, 10_000):.1f} per 10,000)" for level, count in counts.items()}
    print(f"| {name} | {rows:,} | {bounds['fail']} | {bounds['warn']} | {of} |")
