"""report.html: a run's health as one file that opens without a network, prints, and needs no script.

Everything is in the file. Its content security policy admits nothing but its own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.contamination.report.text import Html, join, prose, table, tag, text
from checks.judge import Report
from checks.report import findings as told
from checks.report.charts import Band, curve, figure
from checks.report.figures import date, short
from checks.report.verdict import top
from trainvitals import __version__
from trainvitals.catalogue import FIELDS, SIGNALS

if TYPE_CHECKING:
    from trainvitals.store import Run

TEMPLATE = Path(__file__).parent / "templates" / "report.css"
CHARTS = ("loss/train", "loss/val", "loss/domain", "grad/norm", "grad/norm_clipped", "update/ratio", "lr/used",
          "router/max_vio", "router/entropy", "router/dead", "data/domain_share", "data/padding_share", "tokens/js",
          "throughput/tokens_per_s", "throughput/step_time", "throughput/data_wait_share", "throughput/mfu")
MOST_CHARTS, MOST_EVENTS, MOST_FACTS = 28, 80, 120
HOW_TO_READ = (
    "A line is the mean of a bucket of steps, and the band around it reaches from the smallest to the largest value "
    "in the bucket, so that a spike of one step is seen however long the run is. Red triangles are steps with values "
    "that are NaN or infinite. A line is broken where there are no rows. Shaded steps are those of an incident; dotted "
    "lines are events of the run. An answer is unknown where what it needs was never logged or is hidden by the log: "
    "it is not a pass."
)


def report_page(run: Run, report: Report, now: float) -> str:
    """The page.

    Args:
        run: as it was judged.
        report: what the checks said of it.
        now: when, Unix seconds.
    """
    name = run.card.name or run.name
    drawn = told.Drawn()
    bands = [Band(*i.steps, i.level, i.summary) for i in report.incidents]
    marks = _marks(run)
    overview = _overview(run, bands, marks)
    sections = [
        ("incidents", "Incidents", told.incidents(run, report, drawn)),
        ("unknown", "What could not be judged", told.unknown(report.findings)),
        ("hidden", "What the record cannot show", told.hidden(run)),
        ("signals", "Signals", _signals(run, bands, marks)),
        ("passed", "What was looked at and in order", told.passed(report.findings)),
        ("events", "Events and branches", _events(run)),
        ("card", "Run card", _card(run)),
        ("method", "How to read this", _method(run, report)),
    ]
    body = join([
        top(run, report, name, overview, now),
        tag("nav", *(tag("a", title, href=f"#{key}") for key, title, _ in sections), aria_label="Sections"),
        *(tag("section", tag("h2", title), content, id=key) for key, title, content in sections),
    ])
    style = TEMPLATE.read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    head = join([
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'),
        tag("title", f"{name[:80]}: health report"),
        tag("style", Html(style)),
    ])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _overview(run: Run, bands: list[Band], marks: list[tuple[int, str]]) -> Html:
    for signal in ("loss/train", "loss/returned", "loss/val", "grad/norm"):
        found = curve(run, signal)
        if found is not None:
            return figure(found, "incidents shaded" if bands else "", bands, marks, 190.0, class_="overview")
    return tag("p", "There is no loss in this record.", class_="quiet")


def _signals(run: Run, bands: list[Band], marks: list[tuple[int, str]]) -> Html:
    listed = run.signals()
    known = dict(zip(listed["name"], listed["meaning"], strict=True))
    own = [name for name in known if name not in SIGNALS and name not in FIELDS]
    shown: list[Html] = []
    for name in [*(name for name in CHARTS if name in known), *(name for name in own if name not in CHARTS)]:
        if len(shown) >= MOST_CHARTS:
            shown.append(tag("p", f"{len(known):,} signals in all; the board draws the others.", class_="quiet"))
            break
        found = curve(run, name)
        if found is not None:
            shown.append(figure(found, str(known[name]), bands, marks))
    return tag("div", *shown, class_="figures") if shown else tag("p", "No signal has data.", class_="quiet")


def _marks(run: Run) -> list[tuple[int, str]]:
    events = run.events()
    shown = events[~events["kind"].isin(["started", "closed"]) & events["step"].notna()]
    return [(int(row.step), str(row.kind)) for row in shown.head(MOST_EVENTS).itertuples()]


def _events(run: Run) -> Html:
    events, branches = run.events(), run.branches()
    first = events.head(MOST_EVENTS)
    known = first["step"].notna()
    steps = [f"{int(step):,}" if there else "–" for step, there in zip(first["step"], known, strict=True)]
    rows = [(step, tag("td", date(row.time)), text(str(row.kind), 60), text(str(row.message), 300))
            for step, row in zip(steps, first.itertuples(), strict=True)]
    parts = [table(("Step", "Time", "Kind", "Message"), rows, class_="wide") if rows else
             tag("p", "No event was written.", class_="quiet")]
    if len(events) > MOST_EVENTS:
        parts.append(tag("p", f"{len(events) - MOST_EVENTS:,} more events are left out.", class_="quiet"))
    if len(branches):
        parts.append(tag("p", "Attempts that were left for an earlier step; their rows are kept, and not judged:"))
        parts.append(table(("From step", "To step", "Left at"), [
            (f"{row.from_step:,}", f"{row.to_step:,}", f"{row.kept_until:,}") for row in branches.itertuples()]))
    return join(parts)


def _card(run: Run) -> Html:
    rows: list[tuple[object, object]] = []
    for name, value in _facts(run):
        if len(rows) >= MOST_FACTS:
            rows.append(("…", "more is left out"))
            break
        rows.append((text(name, 80), text(value, 300)))
    return table(("Fact", "Value"), rows, class_="facts-table") if rows else \
        tag("p", "The run has no card.", class_="quiet")


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is known of the run, nested notes laid flat."""
    card = run.card
    for name in card.__dataclass_fields__:
        value = getattr(card, name)
        if name in ("format", "notes") or value in (None, "", {}, 0.0, "unknown"):
            continue
        if name == "created":
            yield name, date(value)
        elif isinstance(value, Mapping):
            yield from _flat(name, value, 0)
        else:
            number = f"{value:,}" if isinstance(value, int) else short(value) if isinstance(value, float) else ""
            yield name, number or str(value)
    yield from _flat("", card.notes, 0)


def _flat(prefix: str, value: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix} · {key}" if prefix else str(key)
        if isinstance(item, Mapping) and depth < 4:
            yield from _flat(name, item, depth + 1)
        else:
            yield name, item if isinstance(item, str) else json.dumps(item, default=str, ensure_ascii=False)


def _method(run: Run, report: Report) -> Html:
    made = (f"Made by trainvitals {__version__} from {run.path}, version {report.version} of its data. "
            "`trainvitals check` gives the same findings as JSON.")
    return join([tag("p", prose(HOW_TO_READ)), tag("p", text(made, 600), class_="quiet")])
