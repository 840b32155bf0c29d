"""The first screen: is the run healthy? One sentence, what it rests on, and each area's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.report.text import Html, plural, prose, tag, text
from checks.finding import Finding, Level
from checks.judge import Report, Verdict
from checks.report.figures import date, quantity, short

if TYPE_CHECKING:
    from trainvitals.store import Run

SIGNS = {"fail": "✕", "warn": "!", "unknown": "?", "pass": "✓"}
WORDS = {"fail": "Failing", "warn": "Warning", "unknown": "Unknown", "pass": "Passing"}
TILES = (("loss/train", "loss"), ("loss/val", "validation loss"), ("grad/norm", "gradient norm"),
         ("throughput/tokens_per_s", "throughput"), ("throughput/mfu", "MFU"))
MOST_SHOWN = 4
"""Incidents on the first screen."""
RECENT = 50
"""Rows that a tile's mean is over."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to "is it healthy?"."""

    level: Level
    headline: str
    sentence: str


def decide(report: Report) -> Decision:
    """The worst that stands, else the worst that was, else what was looked at."""
    answered = [f for f in report.findings if f.level != "unknown"]
    base = _rests_on(report.findings)
    step = "" if report.step is None else f" at the last step, {report.step:,}"
    standing = [i for i in report.incidents if i.ongoing]
    if standing:
        level: Level = "fail" if any(i.level == "fail" for i in standing) else "warn"
        headline = "Not healthy" if level == "fail" else "Needs a look"
        return Decision(level, headline, f"{plural(len(standing), 'incident')} {_stands(standing)}{step}. {base}")
    if report.incidents:
        return Decision("warn", "Recovered", f"No incident stands{step}, but "
                        f"{plural(len(report.incidents), 'incident')} happened before. {base}")
    loss = report.verdicts.get("loss")
    if not answered:
        return Decision("unknown", "Cannot be judged", f"No check had what it needs. {base}")
    if loss is not None and 2 * loss.unknown > loss.findings:
        some = f"only {loss.findings - loss.unknown:,}" if loss.unknown < loss.findings else "none"
        return Decision("unknown", "Cannot be judged", f"Nothing is wrong in what was looked at, but {some} of the "
                        f"{plural(loss.findings, 'answer')} about the loss could be given. {base}")
    partly = len(answered) < len(report.findings)
    return Decision("pass", "No fault found" if partly else "Healthy", f"No check found a fault{step}. {base}")


def _stands(standing: Sequence[object]) -> str:
    return "stands" if len(standing) == 1 else "stand"


def _rests_on(findings: Sequence[Finding]) -> str:
    unknown = sum(f.level == "unknown" for f in findings)
    rest = f"; {unknown:,} {'is' if unknown == 1 else 'are'} unknown, for what is said below" if unknown else ""
    return f"This rests on {len(findings) - unknown:,} of {plural(len(findings), 'answer')}{rest}."


def top(run: Run, report: Report, name: str, overview: Html, now: float) -> Html:
    """Brand, decision, areas, the newest numbers and the chart of the loss."""
    decision = decide(report)
    return tag(
        "header",
        tag("p", tag("b", "TrainVitals"), tag("span", text(name, 80)), tag("time", date(now)), class_="brand"),
        tag(
            "div",
            tag("p", tag("span", SIGNS[decision.level], class_="sign"), WORDS[decision.level], class_="badge"),
            tag("h1", decision.headline),
            tag("p", prose(decision.sentence), class_="says"),
            _shortly(report),
            tag("p", prose(_facts(run, report)), class_="facts"),
            class_=f"decision {decision.level}",
        ),
        tag("ul", *(_area(area, verdict) for area, verdict in report.verdicts.items()), class_="areas"),
        _tiles(run),
        overview,
    )


def _shortly(report: Report) -> Html | None:
    """The incidents that stand, or those that are over where none does."""
    numbered = list(enumerate(report.incidents))
    standing = [(i, incident) for i, incident in numbered if incident.ongoing] or numbered
    if not standing:
        return None
    shown = [tag("li", tag("span", SIGNS[incident.level], class_=f"sign {incident.level}"),
                 tag("a", text(incident.summary, 300), href=f"#incident-{i}")) for i, incident in standing[:MOST_SHOWN]]
    more = len(standing) - len(shown)
    return tag("ul", *shown, tag("li", f"and {plural(more, 'more incident')} below") if more > 0 else None,
               class_="shortly")


def _area(area: str, verdict: Verdict) -> Html:
    answered = verdict.findings - verdict.unknown
    if verdict.ongoing:
        words = f"{verdict.ongoing:,} now"
    elif verdict.level in ("fail", "warn"):
        words = "over by now"
    else:
        words = f"{answered:,} of {verdict.findings:,} answered"
    if verdict.unknown and verdict.level in ("fail", "warn"):
        words += f", {verdict.unknown:,} unknown"
    return tag("li", tag("span", SIGNS[verdict.level], class_="sign"), tag("b", area), tag("small", words),
               class_=verdict.level)


def _tiles(run: Run) -> Html | None:
    from checks.reading import has, scalar

    tiles = []
    for signal, name in TILES:
        rows = scalar(run, signal).finite() if has(run, signal) else None
        if rows is not None and len(rows):
            n = min(RECENT, len(rows))
            with np.errstate(all="ignore"):
                mean = float(rows.values[-n:].mean())
            unit = run.array(signal, steps=(int(rows.steps[-1]), int(rows.steps[-1]))).signal.unit
            tiles.append(tag("li", tag("small", name), tag("b", quantity(mean, unit)),
                             tag("small", f"mean of the newest {plural(n, 'row')}")))
    return tag("ul", *tiles, class_="tiles") if tiles else None


def _facts(run: Run, report: Report) -> str:
    card = run.card
    done = "no step yet" if report.step is None else f"step {report.step:,}"
    total = f" of {card.total_steps:,}" if card.total_steps else ", planned steps unknown"
    imported = run.imported
    model = [card.model, f"{short(card.params_total)} parameters" if card.params_total else ""]
    return " · ".join(part for part in (
        done + (total if report.step is not None else ""),
        run.status if run.status != "unknown" else "state unknown",
        f"last row {date(run.last_time)}",
        *model,
        "" if card.hardware == "unknown" else f"{card.world_size:,} x {card.hardware}",
        f"read from {imported.title}" if imported else "",
    ) if part)
