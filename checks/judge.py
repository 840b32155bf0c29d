"""Run the checks over a run, and turn what they say into a verdict per area and one alarm per incident.

report = run_checks(open_run("runs/x"))
report.verdicts["loss"].level, report.incidents[0].summary
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from checks.finding import Finding, Incident, Level, Moved
from checks.masking import run_length
from checks.reading import Snapshot
from checks.registry import AREAS, Check, all_checks
from checks.stream.book import bounds_instead, scan_settings
from checks.twins.known import known_twins, own_rows
from checks.twins.whose import whose
from trainvitals.errors import UsageError

if TYPE_CHECKING:
    from trainvitals.store import Run

CAUSES: Mapping[str, str] = {
    "loss": "learning",
    "optimisation": "learning",
    "routing": "learning",
    "data": "learning",
    "scaling": "planning",
    "throughput": "machine",
    "telemetry": "telemetry",
}
"""Areas whose faults can cause one another share a cause: a data shift moves routers, gradients and the loss."""

DOWNSTREAM = ("data", "optimisation", "routing", "loss", "scaling", "throughput", "telemetry")
"""Areas from cause to effect."""

MOVES_FIRST = ("lr.jump", "lr.plan")
"""Checks whose faults can cause every other of learning."""

PRIMARY: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss.divergence",),
    "optimisation": ("grad.explosion",),
    "routing": ("router.collapse",),
    "data": ("data.mix",),
    "throughput": ("throughput.drop",),
    "telemetry": ("telemetry.health",),
}
"""Area -> the checks that must have answered before it is `pass`; in other areas any one."""

ONSET_ERROR_STEPS = 2
"""How far the located onset of a step-like fault may be off."""

_RANK: Mapping[str, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One area's worst level. `unknown` counts answers that a missing precondition kept back."""

    level: Level
    """Worst of warn and fail; else pass where the area's primary check answered; else unknown."""
    findings: int
    unknown: int
    ongoing: int
    """Warnings and failures that still stand at the last row."""
    answered: int = 0
    """Checks that gave an answer other than unknown."""
    asked: int = 0
    """Checks of the area that were asked."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the checks say about one version of a run."""

    findings: tuple[Finding, ...]
    """Worst first, then by onset."""
    incidents: tuple[Incident, ...]
    """Worst first, then by onset."""
    verdicts: Mapping[str, Verdict]
    version: str
    """Store version the findings belong to."""
    step: int | None
    """Last step seen."""

    @property
    def level(self) -> Level:
        """Worst verdict of all areas; without an alarm, `pass` needs the loss to pass where it was asked."""
        worst = _worst(v.level for v in self.verdicts.values())
        loss = self.verdicts.get("loss")
        return "unknown" if worst == "pass" and loss is not None and loss.level == "unknown" else worst

    @property
    def unknown(self) -> int:
        """Answers that are missing."""
        return sum(v.unknown for v in self.verdicts.values())

    def to_json(self) -> list[dict[str, Any]]:
        """The findings as strict JSON; `incident` is the position of the incident that a finding belongs to."""
        home = {i: number for number, incident in enumerate(self.incidents) for i in incident.findings}
        return [finding.to_json() | {"incident": home.get(i)} for i, finding in enumerate(self.findings)]

    def answer_json(self) -> dict[str, Any]:
        """What `trainvitals check --json` prints: level, areas with how much was answered, incidents, findings."""
        return {
            "level": self.level,
            "step": self.step,
            "areas": {
                area: {"level": v.level, "answered": v.answered, "asked": v.asked}
                for area, v in self.verdicts.items()
            },
            "incidents": [incident.to_json() for incident in self.incidents],
            "findings": self.to_json(),
        }

    def summary_json(self) -> dict[str, Any]:
        """Version, step, verdicts and incidents as strict JSON."""
        return {
            "version": self.version,
            "step": self.step,
            "level": self.level,
            "verdicts": {area: asdict(v) for area, v in self.verdicts.items()},
            "incidents": [incident.to_json() for incident in self.incidents],
        }


def run_checks(
    run: Run,
    only: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Judge a run as it is at its last refresh.

    Args:
        run: any run; finished, live or imported.
        only: names of checks or of areas; all where None.
        settings: check, or `scan.NAME` -> threshold -> value, in place of the defaults, as `Policy.settings`.
        progress: called after each check with how many have answered, and of how many.

    Raises:
        UsageError: `only` or `settings` names something that does not exist.
    """
    chosen = _choose(only)
    wrong = set(settings or ()) - {c.name for c in all_checks()} - set(scan_settings())
    if wrong:
        raise UsageError(f"No check is called {', '.join(sorted(wrong))}. See `trainvitals check --help`.")
    bounds_instead(settings or {})  # raises what would otherwise be the answer of every check
    snapshot = Snapshot(run, settings)
    found: list[Finding] = []
    for done, one in enumerate(chosen, 1):
        found += one.run(snapshot, (settings or {}).get(one.name))  # type: ignore[arg-type]
        if progress is not None:
            progress(done, len(chosen))
    findings = tuple(sorted(with_twins(snapshot, found), key=_order))  # type: ignore[arg-type]
    return Report(
        findings, incidents(findings, lag_steps(run)), _verdicts(findings, chosen), run.version, run.last_step
    )


def with_twins(run: Run, found: Sequence[Finding]) -> list[Finding]:
    """The findings, each alarm of learning with what the run's twins show at its steps, in `details["whose"]`."""
    def asked(f: Finding) -> bool:
        learning = CAUSES[f.area] == "learning" and f.check != "loss.twin"
        return f.level in ("warn", "fail") and learning and f.steps is not None

    twins = known_twins(run) if any(map(asked, found)) else []
    if not twins:
        return list(found)
    answers = {f.steps: whose(own_rows(run), twins, *f.steps) for f in found if asked(f) and f.steps}
    return [replace(f, details={**f.details, "whose": told.to_json()})
            if asked(f) and f.steps and (told := answers[f.steps]) else f for f in found]  # fmt: skip


def lag_steps(run: Run) -> int:
    """Findings whose onsets lie this close may be one incident: 5 % of the run, between 20 and 1,000 steps.

    BLOOM-176B's gradient norm moved 4 steps before its loss, OPT's activations thousands: convention in between.
    """
    return min(max(run_length(run) // 20, 20), 1000)


def incidents(findings: Sequence[Finding], lag: int) -> tuple[Incident, ...]:
    """Merge alarms that share a cause and begin within `lag` steps of the one before; order what moved first."""
    groups: dict[str, list[list[int]]] = {}
    alarms = [i for i, f in enumerate(findings) if f.level in ("warn", "fail")]
    for i in sorted(alarms, key=lambda i: (_onset(findings[i]), findings[i].check)):
        of_cause = groups.setdefault(CAUSES[findings[i].area], [])
        if of_cause and _onset(findings[i]) - _onset(findings[of_cause[-1][-1]]) <= lag:
            of_cause[-1].append(i)
        else:
            of_cause.append([i])
    merged = [_incident(findings, group) for of_cause in groups.values() for group in of_cause]
    return tuple(sorted(merged, key=lambda c: (-_RANK[c.level], c.steps[0])))


def _incident(findings: Sequence[Finding], members: list[int]) -> Incident:
    first = _onset(findings[members[0]])
    last = max(f.steps[1] if f.steps else first for f in (findings[i] for i in members))
    members = _causes_first(findings, sorted(members, key=lambda i: _moved_key(findings[i], first)))
    group = [findings[i] for i in members]
    order = tuple(
        Moved(check=f.check, label=_label(f), step=_onset(f), lag_steps=max(_onset(f) - _onset(group[0]), 0))
        for f in group
    )
    then = ", ".join(f"{m.check} {_later(m.lag_steps)}" for m in _once(order)[1:])
    return Incident(
        level=_worst(f.level for f in group),
        summary=f"{group[0].summary} Then {then}." if then else group[0].summary,
        steps=(first, last),
        ongoing=any(f.ongoing for f in group),
        areas=tuple(dict.fromkeys(f.area for f in group)),
        order=order,
        findings=tuple(members),
        twins=next((str(f.details["whose"]["words"]) for f in group if "whose" in f.details), ""),
    )


def _moved_key(finding: Finding, first: int) -> tuple[int, int, int, str]:
    # An onset is known to within a step or two; among those that tie, what can cause the others goes first.
    at = _onset(finding)
    return (0 if at - first <= ONSET_ERROR_STEPS else at), _rank(finding), at, finding.check


def _causes_first(findings: Sequence[Finding], members: list[int]) -> list[int]:
    """Move what can cause the others before each effect that may, by its interval, have begun later."""
    ordered: list[int] = []
    for i in members:
        cause, began = _rank(findings[i]), _interval(findings[i])[0]
        place = len(ordered)
        while place and _rank(findings[ordered[place - 1]]) > cause:
            if began > _interval(findings[ordered[place - 1]])[1] + ONSET_ERROR_STEPS:
                break
            place -= 1
        ordered.insert(place, i)
    return ordered


def _rank(finding: Finding) -> int:
    return -1 if finding.check in MOVES_FIRST else DOWNSTREAM.index(finding.area)


def _interval(finding: Finding) -> tuple[int, int]:
    return finding.onset or (_onset(finding), _onset(finding))


def _later(lag: int) -> str:
    return "at the same time" if lag == 0 else f"{lag:,} step{'' if lag == 1 else 's'} later"


def _once(order: tuple[Moved, ...]) -> list[Moved]:
    return list({m.check: m for m in reversed(order)}.values())[::-1]


def _label(finding: Finding) -> str | None:
    return next((e.label for e in finding.evidence if e.label is not None), None)


def _onset(finding: Finding) -> int:
    return finding.steps[0] if finding.steps else 0


def _order(finding: Finding) -> tuple[int, int, int, str]:
    level = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}[finding.level]
    return level, _onset(finding), AREAS.index(finding.area), finding.check


def _worst(levels: Iterable[Level]) -> Level:
    known = [level for level in levels if level != "unknown"]
    return max(known, key=_RANK.__getitem__) if known else "unknown"


def verdict(area: str, findings: Sequence[Finding]) -> Verdict:
    """What the findings of one area come to. findings: of this area, at least one of each check that was asked."""
    asked = {f.check for f in findings}
    answered = {f.check for f in findings if f.level != "unknown"}
    level = _worst(f.level for f in findings)
    needed = asked & set(PRIMARY.get(area, ()))
    if level == "pass" and not needed <= answered:
        level = "unknown"
    return Verdict(
        level,
        len(findings),
        sum(f.level == "unknown" for f in findings),
        sum(f.ongoing and f.level in ("warn", "fail") for f in findings),
        len(answered),
        len(asked),
    )


def _verdicts(findings: Sequence[Finding], chosen: Sequence[Check]) -> dict[str, Verdict]:
    areas = dict.fromkeys(c.area for c in chosen)
    return {area: verdict(area, [f for f in findings if f.area == area]) for area in areas}


def _choose(only: Iterable[str] | None) -> tuple[Check, ...]:
    checks = all_checks()
    if only is None:
        return checks
    wanted = {only} if isinstance(only, str) else set(only)
    wrong = wanted - {c.name for c in checks} - set(AREAS)
    if wrong:
        raise UsageError(
            f"No check or area is called {', '.join(sorted(wrong))}. Checks: {', '.join(c.name for c in checks)}."
        )
    return tuple(c for c in checks if c.name in wanted or c.area in wanted)
