"""Incidents and findings: what was observed, what it is held against, what shows it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.contamination.report.text import Html, join, plural, prose, table, tag, text
from checks.finding import Evidence, Finding, Incident, Statistic, Threshold
from checks.judge import Report
from checks.registry import all_checks
from checks.report.charts import Band, curve, figure
from checks.report.figures import quantity, short, span
from checks.report.verdict import SIGNS, WORDS

if TYPE_CHECKING:
    from trainvitals.store import Run

MOST_ALARMS, MOST_ROWS = 100, 200
CHARTS_EACH = 2
WORDS_AT_MOST = 900


@dataclass(slots=True)
class Drawn:
    """How many charts may still be drawn, so that the file stays small whatever the run."""

    left: int = 110


def incidents(run: Run, report: Report, drawn: Drawn) -> Html:
    """Every incident with its findings, worst first."""
    if not report.incidents:
        return tag("p", "No check raised an alarm. What could not be judged is below.", class_="quiet")
    shown: list[Html] = []
    alarms = 0
    for number, incident in enumerate(report.incidents):
        alarms += len(incident.findings)
        if alarms > MOST_ALARMS and shown:
            rest = len(report.incidents) - number
            shown.append(tag("p", f"{plural(rest, 'more incident')} left out here: `trainvitals check` lists them.",
                             class_="quiet"))
            break
        shown.append(_incident(run, report, incident, number, drawn))
    return join(shown)


def _incident(run: Run, report: Report, incident: Incident, number: int, drawn: Drawn) -> Html:
    order = [tag("li", tag("b", moved.check), tag("span", f" {moved.label}") if moved.label else None,
                 f" at step {moved.step:,}", f", {moved.lag_steps:,} later" if moved.lag_steps else "")
             for moved in incident.order[:12]]
    more = len(incident.order) - len(order)
    if more > 0:
        order.append(tag("li", f"and {more:,} more"))
    return tag(
        "article",
        tag("h3", tag("span", SIGNS[incident.level], class_="sign"), text(incident.summary, 600)),
        tag("p", f"{span(incident.steps, incident.ongoing)} · "
                 f"{'still there' if incident.ongoing else 'over'} · {', '.join(incident.areas)}", class_="quiet"),
        tag("p", text(incident.twins, WORDS_AT_MOST)) if incident.twins else None,
        join([tag("h4", "What moved first"), tag("ol", *order, class_="order")]) if len(order) > 1 else None,
        *(_alarm(run, report.findings[i], i, drawn) for i in incident.findings),
        class_=f"incident {incident.level}",
        id=f"incident-{number}",
    )


def _alarm(run: Run, finding: Finding, number: int, drawn: Drawn) -> Html:
    return tag(
        "section",
        tag("h4", tag("span", SIGNS[finding.level], class_="sign"), f"{WORDS[finding.level]}: {finding.check}"),
        tag("p", text(finding.summary, WORDS_AT_MOST)),
        _rests_on(finding),
        *_evidence(run, finding, drawn),
        tag("p", tag("b", "What it means. "), text(finding.what_it_means, WORDS_AT_MOST))
        if finding.what_it_means else None,
        tag("p", tag("b", "What to do. "), text(finding.what_to_do, WORDS_AT_MOST)) if finding.what_to_do else None,
        class_=f"finding {finding.level}",
        id=f"finding-{number}",
    )


def _rests_on(finding: Finding) -> Html:
    rows = [("observed", _observed(finding.statistic)), ("held against", _limits(finding.threshold)),
            ("rests on", text(f"{plural(finding.n, 'point')}") if finding.n else None),
            ("where", text(span(finding.steps, finding.ongoing))),
            ("planned events beside it", text(", ".join(f"{m.kind} at step {m.step:,}" for m in finding.masked[:5]))
             if finding.masked else None)]
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in rows if value is not None),
               class_="rests")


def _observed(statistic: Statistic | None) -> Html | None:
    if statistic is None:
        return None
    parts = [text(f"{statistic.name}: ", 120), tag("b", quantity(statistic.value, statistic.unit), class_="statistic")]
    if statistic.low is not None and statistic.high is not None:
        parts.append(text(f" (interval {short(statistic.low)} to {short(statistic.high)})"))
    return join(parts)


def _limits(threshold: Threshold | None) -> Html | None:
    if threshold is None:
        return None
    said = [join([f"{word} at ", quantity(value, threshold.unit)])
            for word, value in (("warns", threshold.warn), ("fails", threshold.fail)) if value is not None]
    source = threshold.source
    link = tag("a", source, href=source) if source.startswith("https://") else text(source)
    limits = join(join([", " if i else "", part]) for i, part in enumerate(said))
    return join([limits, " · " if said else "", "basis: ", link])


def _evidence(run: Run, finding: Finding, drawn: Drawn) -> Iterable[Html]:
    """Charts of what shows the finding; of what its check reads, where it names nothing."""
    evidence: Sequence[Evidence] = finding.evidence
    if not evidence:
        reads = next((check.reads for check in all_checks() if check.name == finding.check), ())
        evidence = [Evidence(name, finding.steps) for name in reads[:1]]
    for shown in evidence[:CHARTS_EACH]:
        steps = shown.steps or finding.steps
        caption = f"{shown.signal}{f' · {shown.place}' if shown.place else ''}"
        if drawn.left <= 0:
            yield tag("p", text(f"Chart of {caption} left out to keep the file small."), class_="quiet")
            continue
        found = curve(run, shown.signal, _around(run, steps), shown.label)
        if found is None:
            yield tag("p", text(f"{caption} has no rows in {span(steps)}."), class_="quiet")
            continue
        drawn.left -= 1
        band = [Band(*steps, finding.level, finding.summary)] if steps else []
        yield figure(found, "", band, title=caption)


def _around(run: Run, steps: tuple[int, int] | None) -> tuple[int, int] | None:
    if steps is None:
        return None
    first, last = steps
    room = max(last - first, 25)
    return max(first - room, run.first_step or 0), min(last + room // 2, max(run.last_step or last, last))


def unknown(findings: Sequence[Finding]) -> Html:
    """What could not be judged, and what would be needed."""
    rows = [(f.check, text(f.summary, 400), text(f.what_to_do, 500)) for f in findings if f.level == "unknown"]
    if not rows:
        return tag("p", "Every check had what it needs.", class_="quiet")
    shown = table(("Check", "What is missing", "How to get it"), rows[:MOST_ROWS], class_="wide")
    return join([shown, _more(len(rows))])


def passed(findings: Sequence[Finding]) -> Html:
    """What was looked at and in order, and how far from an alarm it is."""
    rows = [(f.check, text(f.summary, 400),
             tag("td", _observed(f.statistic) or "–"), tag("td", _limits(f.threshold) or "–"),
             plural(f.n, "point")) for f in findings if f.level == "pass"]
    if not rows:
        return tag("p", "No check passed.", class_="quiet")
    shown = table(("Check", "What was found", "Observed", "Held against", "Rests on"), rows[:MOST_ROWS], class_="wide")
    return join([shown, _more(len(rows))])


def _more(n: int) -> Html | None:
    return tag("p", f"{n - MOST_ROWS:,} more are left out.", class_="quiet") if n > MOST_ROWS else None


def hidden(run: Run) -> Html:
    """What the record itself cannot show: blind spots of its log, and what of it cannot be read."""
    imported, problems = run.imported, run.problems()
    parts: list[Html] = []
    if imported is not None:
        rows = [(spot.kind, text(", ".join(spot.signals), 200), text(spot.says, 500), text(spot.remedy, 400))
                for spot in imported.blind]
        said = f"The run was read from {imported.title}: {imported.source}."
        parts.append(tag("p", text(said, 500)))
        parts.append(table(("Hidden", "Signals", "Why", "How to see it"), rows, class_="wide") if rows else
                     tag("p", "No blind spot is known of this format.", class_="quiet"))
        parts += [tag("p", text(note, 500), class_="note") for note in imported.notes[:20]]
    if problems:
        parts.append(tag("ul", *(tag("li", text(sentence, 500)) for sentence in problems[:60])))
    if not parts:
        parts.append(tag("p", prose("The run was written by TrainVitals itself, and all of it could be read."),
                         class_="quiet"))
    return join(parts)
