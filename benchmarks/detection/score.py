"""Judges the recorded runs: what was found, how soon, where it was put, what was cried of nothing.

A fault is *found* by a warning or failure that says it began at the fault: not more than `EARLY` steps before its onset
(an estimate has an error) unless its own interval holds the onset, and before its end or, of one that stays, before the
run's. Every alarm of a healthy run, and every one that begins earlier than that, is false. Healthy steps are those of
healthy runs alone: until its fault, a faulty run is the healthy one of its setup and seed once more, so what it alarms
of there counts once, and its rows do not. Answers about throughput count only for the faults that are about it, from
their onset on: the machine that recorded the runs did other work, and what they say of that is true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.detection.cut import Until
from benchmarks.detection.kinds import KINDS
from checks.finding import Finding
from checks.judge import Report, run_checks
from trainvitals.store import open_run

EARLY = 10
"""Steps by which an onset may be estimated too early."""
LOOKS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 60, 90, 130, 200, 269)
"""Steps behind the onset at which the run is judged as it was then."""
LATE_ANSWER = 40
"""An effect of a fault that is over may still begin so many steps later."""

Judge = Callable[..., Report]
"""As `run_checks`."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What was done to a run."""

    kind: str
    seed: int
    shape: str | None
    causes: tuple[str, ...]
    onset: int | None
    last: int | None
    """Last step of the fault; None of one that stays."""
    steps: int
    """Last step of the run."""
    rows: int
    """Healthy ones, that no other run holds too."""
    twin: str = ""
    """What runs share that are the same until a fault."""
    quiet_machine: bool = False
    """Whether nothing else ran on the machine, so that answers about throughput can be false."""

    @property
    def healthy(self) -> bool:
        """Whether an alarm would be false anywhere."""
        return self.shape is None

    def covers(self, finding: Finding) -> bool:
        """Whether an alarm can be the fault's."""
        if self.healthy or self.onset is None or finding.steps is None:
            return False
        if finding.onset is not None and finding.onset[0] <= self.onset <= finding.onset[1]:
            return True
        return self.onset - EARLY <= finding.steps[0] <= (self.last + LATE_ANSWER if self.last else self.steps)


@dataclass(frozen=True, slots=True)
class Score:
    """One run, judged."""

    truth: Truth
    own: tuple[Finding, ...]
    """Alarms of the fault."""
    false: tuple[Finding, ...]
    answered: frozenset[str]
    """Checks that had an answer."""
    first: Finding | None = None
    """What the fault's first incident says moved first."""
    delays: Mapping[str, int] = field(default_factory=dict)
    """Check -> steps behind the onset, of `LOOKS`, at which an alarm of the fault stood; else to the end."""

    @property
    def found(self) -> str:
        """The worst level that an alarm gave to the fault; "" where none did."""
        return max((f.level for f in self.own), default="", key=("warn", "fail").index)

    @property
    def delay(self) -> int | None:
        """Steps until the first alarm."""
        return min(self.delays.values(), default=None)

    @property
    def onset_error(self) -> int | None:
        """Steps from the onset to the earliest one that an alarm names."""
        began = min((f.steps[0] for f in self.own if f.steps), default=None)
        return None if began is None or self.truth.onset is None else began - self.truth.onset

    @property
    def inside(self) -> bool | None:
        """Whether the earliest alarm that states an interval of its onset has the onset in it; None: none does."""
        stated = [f.onset for f in sorted(self.own, key=lambda f: f.steps or (0, 0)) if f.onset is not None]
        if not stated or self.truth.onset is None:
            return None
        return stated[0][0] <= self.truth.onset <= stated[0][1]

    @property
    def right_cause(self) -> bool:
        """Whether what was told to have moved first is one of the causes, a check or its area."""
        return self.first is not None and bool({self.first.check, self.first.area} & {*self.truth.causes})


def folders(below: Path) -> list[Path]:
    """The recorded runs below a folder."""
    return sorted(path.with_name(path.name.removesuffix(".truth.json")) for path in below.glob("*.truth.json"))


def scores(below: Path, judge: Judge = run_checks) -> Iterator[Score]:
    """Every run of known kind, judged."""
    for folder in folders(below):
        yield score_run(open_run(folder), read_truth(folder), judge)


def score_run(run: Any, truth: Truth, judge: Judge = run_checks, looks: Sequence[int] = LOOKS) -> Score:
    """Judge one run whole, and as it was so many steps behind the onset."""
    report = judge(run)
    alarms = [f for f in report.findings if f.level in ("warn", "fail") and _counts(f, truth)]
    own = tuple(f for f in alarms if truth.covers(f))
    false = tuple(f for f in alarms if f not in own)
    answered = frozenset(f.check for f in report.findings if f.level != "unknown")
    first = _first(report, own)
    return Score(truth, own, false, answered, first, _delays(run, truth, {f.check for f in own}, judge, looks))


def _counts(finding: Finding, truth: Truth) -> bool:
    if finding.area != "throughput" or truth.quiet_machine:
        return True
    return "throughput" in truth.causes and truth.covers(finding)


def _first(report: Report, own: tuple[Finding, ...]) -> Finding | None:
    about = [i for i in report.incidents if any(report.findings[place] in own for place in i.findings)]
    incident = min(about, key=lambda i: i.steps[0], default=None)
    return report.findings[incident.findings[0]] if incident else None


def _delays(run: Any, truth: Truth, checks: set[str], judge: Judge, looks: Sequence[int]) -> dict[str, int]:
    if truth.onset is None:
        return {}
    found: dict[str, int] = {}
    for look in looks:
        left = checks - set(found)
        if not left or truth.onset + look > truth.steps:
            break
        then = judge(Until(run, truth.onset + look), left).findings
        found |= {f.check: look for f in then if f.level in ("warn", "fail") and truth.covers(f)}
    # What stood at no look stands at the end: later than it came, never sooner.
    return {check: truth.steps - truth.onset for check in checks} | found


def read_truth(folder: Path) -> Truth:
    """What was done to the run in `folder`."""
    raw = json.loads(folder.with_name(folder.name + ".truth.json").read_text())
    # What is a right answer is for today's list to say; what was done to the run, for the run's own file.
    kind = KINDS[raw["kind"]]
    steps, twin = raw["setup"]["steps"], json.dumps([raw["setup"], raw["seed"]], sort_keys=True)
    rows = steps if kind.healthy else 0
    return Truth(kind.name, raw["seed"], kind.shape, kind.causes, raw["onset"], raw["last"], steps, rows, twin)


def false_alarms(known: Iterable[Score]) -> list[Finding]:
    """Of several runs; what runs of one setup and seed say of the same step before a fault counts once."""
    each = {(score.truth.twin or id(score), f.check, f.steps): f for score in known for f in score.false}
    return list(each.values())


def of_kinds(known: Iterable[Score], kinds: Iterable[str]) -> list[Score]:
    """Those of these kinds."""
    wanted = set(kinds)
    return [score for score in known if score.truth.kind in wanted]
