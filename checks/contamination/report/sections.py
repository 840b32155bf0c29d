"""The sections of the report that come from audit.json and the sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from checks.contamination import reach
from checks.contamination.report import paragraphs as words
from checks.contamination.report.charts import legend, sweep_plot
from checks.contamination.report.text import (
    Html,
    figure,
    join,
    percent,
    percents,
    plural,
    prose,
    size,
    table,
    tag,
    text,
)

SHARDS = 50
PROBLEMS = 200
COLUMNS = 4
"""Columns whose left-out bytes are named for each shard."""


def searched(audit: Mapping[str, Any]) -> Html:
    """Corpus, shards, benchmarks and every problem with its place."""
    corpus = audit["corpus"]
    totals = table(
        ("Records", "Documents searched", "Skipped", "Bytes read", "Text searched", "Text not searched", "Not text",
         "Shards"),
        [
            [
                f"{corpus['records']:,}",
                f"{corpus['documents']:,}",
                f"{corpus['skipped']:,}",
                size(corpus["bytes_read"]),
                size(corpus["text_bytes"]),
                size(corpus.get("unsearched_bytes") or 0),
                size(corpus.get("no_text_bytes") or 0),
                reach.shards_searched(corpus).partition(" shard")[0],
            ]
        ],
    )
    shards = table(
        ("Shard", "Kind", "Columns read", "Bytes", "Records", "Documents", "Skipped", "Text searched", "Not searched",
         "Not text", "SHA-256"),
        [
            [
                tag("code", s["shard"]),
                s["kind"],
                text(", ".join(s.get("columns") or ()) or "–", 80),
                f"{s['bytes']:,}",
                f"{s['records']:,}",
                f"{s['documents']:,}",
                f"{s['skipped']:,}",
                size(s["text_bytes"]),
                _by_column(s.get("unsearched")),
                _by_column(s.get("no_text")),
                tag("code", s["sha256"] or "–", class_="hash"),
            ]
            for s in corpus["shards"][:SHARDS]
        ],
    )
    benchmarks = table(
        ("Benchmark", "Read from", "Items", "Roles", "Revision (SHA-256)"),
        [
            [
                text(str(b["name"]), 80),
                tag("code", b["source"]),
                f"{b['items']:,}",
                ", ".join(f"{column} as {role}" for column, role in b["roles"].items()),
                tag("code", b["sha256"], class_="hash"),
            ]
            for b in audit["benchmarks"]
        ],
    )
    return join(
        [
            tag("p", str(audit["searched"])),
            totals,
            tag("p", "Corpus SHA-256 ", tag("code", corpus["sha256"], class_="hash")),
            _cut(corpus),
            *(tag("p", said) for said in corpus.get("left_out") or ()),
            *(tag("p", said) for b in audit["benchmarks"] if (said := reach.itself(b))),
            _problems([*corpus["problems"], *(p for b in audit["benchmarks"] for p in b["problems"])]),
            tag("h3", "Benchmarks"),
            benchmarks,
            tag("h3", "Shards", _more(len(corpus["shards"]), SHARDS, "shards")),
            shards,
        ]
    )


def _by_column(counted: Mapping[str, int] | None) -> Html:
    """Bytes and what they are, the most first."""
    if not counted:
        return tag("td", "–")
    names = [f"{name} {size(n)}" for name, n in list(counted.items())[:COLUMNS]]
    more = f", {len(counted) - COLUMNS:,} more" if len(counted) > COLUMNS else ""
    return tag("td", size(sum(counted.values())), tag("small", text(", ".join(names) + more, 200)))


def _cut(corpus: Mapping[str, Any]) -> Html | None:
    cut = corpus.get("matches_cut") or 0
    return tag("p", f"Further matches that were counted but are not listed: {cut:,}.") if cut else None


def _more(n: int, shown: int, noun: str) -> Html | None:
    return tag("small", f"The first {shown:,} of {n:,} {noun}; all are in audit.json.") if n > shown else None


def _problems(problems: Sequence[Mapping[str, Any]], title: str = "Problems while reading") -> Html:
    if not problems:
        return tag("p", "No problem was met while reading.")
    ordered = sorted(problems, key=lambda p: (not p.get("gap"), -int(p["records"] or 0)))
    rows = [
        [tag("code", p["source"]), text(str(p["place"])), text(str(p["what"]), 400), f"{p['records']:,}"]
        for p in ordered[:PROBLEMS]
    ]
    return join(
        [
            tag("h3", title, _more(len(problems), PROBLEMS, "problems")),
            table(("File", "Place", "What, and what was done", "Records skipped"), rows),
        ]
    )


def recall(audit: Mapping[str, Any]) -> Html:
    """What became of the items planted by --inject."""
    inject = audit.get("inject")
    if not inject:
        return tag(
            "p",
            "Recall on your data was not measured: run the audit with ",
            tag("code", "--inject"),
            " to plant known items in a copy of your own text and see how many are found.",
        )
    if "table" not in inject:
        return tag("p", str(inject["reason"]))
    by_place = {(row["edit"], row["detector"]): row for row in inject["table"]}
    detectors = list(dict.fromkeys(detector for _, detector in by_place))
    lines = []
    for edit in dict.fromkeys(edit for edit, _ in by_place):
        own = [by_place.get((edit, detector)) for detector in detectors]
        planted = max(row["planted"] for row in own if row)
        lines.append([edit, f"{planted:,}", *(_recall_cell(row) for row in own)])
    alarms = inject["false_alarms"]
    said = (
        f"Of {plural(alarms['items'], 'item')} that were planted nowhere, {alarms['contaminated']:,} were called "
        f"contaminated and {alarms['suspect']:,} suspect: {percent(alarms['value'])}, interval "
        f"{percents(alarms['low'], alarms['high'])}."
    )
    heads = (f"{detector.capitalize()} detector" for detector in detectors)
    return join(
        [
            tag("p", words.RECALL),
            table(("Edit", "Planted", *heads), lines, "recall"),
            tag("p", tag("b", "False alarms. "), said),
        ]
    )


def _recall_cell(row: Mapping[str, Any] | None) -> Html:
    if row is None or row["recall"] is None:
        return tag("td", "–")
    return tag(
        "td",
        tag("b", percent(row["recall"])),
        tag("small", percents(row["low"], row["high"])),
        class_=f"heat{min(int(row['recall'] * 5), 4)}",
    )


def scores(audit: Mapping[str, Any]) -> Html:
    """Every model on every subset, with the tests."""
    parts: list[Html] = []
    for benchmark in audit["benchmarks"]:
        if not benchmark["scores"]:
            continue
        parts += [tag("h3", text(str(benchmark["name"]), 80)), _score_table(benchmark["scores"])]
        parts += [
            tag("p", tag("b", text(s["model"], 80)), ": ", s["reading"], _unmatched(s), class_="reading")
            for s in benchmark["scores"]
            if s["subsets"]["dirty"]["n"] or _unmatched(s)
        ]
    if problems := audit.get("score_problems"):
        parts.append(_problems(problems, "Problems while reading the scores"))
    if not parts:
        return tag(
            "p",
            "No scores were given: run the audit with ",
            tag("code", "--scores"),
            " and ",
            tag("code", "--control"),
            " to see what the contamination is worth.",
        )
    parts.append(tag("p", prose(words.SCORES), class_="note"))
    return join(parts)


def _score_table(found: Sequence[Mapping[str, Any]]) -> Html:
    """Subsets of every model; the tests too where any contaminated item is scored."""
    dirty = any(s["subsets"]["dirty"]["n"] for s in found)
    rows = []
    for s in found:
        name = tag("td", tag("b", text(s["model"], 80)), tag("small", "control model") if s["control"] else None)
        rows.append([name, *(_estimate(s["subsets"][subset]) for subset in _SUBSETS), *(_tests(s) if dirty else ())])
    return table(("Model", *_SUBSETS.values(), *(_TESTS if dirty else ())), rows, "models")


_SUBSETS = {
    "whole": "All",
    "clean": "Clean",
    "dirty": "Contaminated",
    "not_dirty": "Without contaminated",
    "not_clean": "Contaminated + suspect",
    "untestable": "Untestable",
}
_TESTS = ("Llama-2 Z", "Contaminated less clean", "z", "Beyond controls", "p (Holm)")


def _tests(s: Mapping[str, Any]) -> Sequence[object]:
    return (
        figure(s["llama2_z"]["dirty"], 1),
        _gap(s["gap"]),
        figure(s["gap"] and s["gap"]["z"], 1),
        _gap(s["versus_control"]),
        figure(s["p_holm"], 4),
    )


def _estimate(e: Mapping[str, Any]) -> Html:
    if not e["n"]:
        return tag("td", "–")
    return tag(
        "td",
        figure(e["value"]),
        tag("small", f"{figure(e['low'])} to {figure(e['high'])}"),
        tag("small", f"n {e['n']:,}"),
        class_="num",
    )


def _gap(g: Mapping[str, Any] | None) -> Html:
    if g is None:
        return tag("td", "–")
    return tag("td", f"{g['value']:+.3f}", tag("small", f"{g['low']:+.3f} to {g['high']:+.3f}"), class_="num")


def _unmatched(s: Mapping[str, Any]) -> str:
    said = []
    if s["unscored"]:
        said.append(f"{plural(s['unscored'], 'item')} without a score")
    if s["unmatched"]:
        said.append(f"{plural(s['unmatched'], 'score')} without an item")
    return f" Left out: {', '.join(said)}." if said else ""


def sweeps(audit: Mapping[str, Any], rows: pd.DataFrame) -> Html:
    """Estimated performance gain over the threshold, by benchmark."""
    parts: list[Html] = []
    for benchmark in audit["benchmarks"]:
        own = rows[rows["benchmark"] == benchmark["name"]]
        if own["model"].notna().sum() == 0:
            continue
        models = list(dict.fromkeys(own["model"].dropna()))
        controls = [s["model"] for s in benchmark["scores"] if s["control"]]
        parts.append(
            tag(
                "figure",
                tag("figcaption", tag("b", text(str(benchmark["name"]), 80)), legend(models, controls)),
                sweep_plot(own, controls),
            )
        )
    if not parts:
        return tag("p", "No scores were given, so there is no gain to show.")
    return join([tag("p", prose(words.SWEEP)), tag("div", *parts, class_="figures")])


def rules(audit: Mapping[str, Any]) -> Html:
    """What the any-hit rules of the literature would have said."""
    rows = []
    for b in audit["benchmarks"]:
        hits = [f"{b['any_hit'][n]:,} of {b['eligible_n'][n]:,}" for n in ("3", "5", "8", "13")]
        rows.append(
            [
                text(str(b["name"]), 80),
                tag("td", tag("b", f"{b['verdicts']['contaminated']:,}"), class_="num"),
                f"{b['verdicts']['suspect']:,}",
                *hits,
                f"{b['covered8']:,}",
            ]
        )
    head = (
        "Benchmark",
        "Contaminated here",
        "Suspect here",
        "Any 3-gram",
        "Any 5-gram",
        "Any 8-gram",
        "Any 13-gram",
        "70 % of 8-grams",
    )
    return join(
        [
            table(head, rows),
            tag("p", prose(words.RULES), class_="note"),
        ]
    )


def method() -> Html:
    """How a verdict comes about, in words."""
    return tag("dl", *(join([tag("dt", name), tag("dd", prose(said))]) for name, said in words.METHOD))


def settings(audit: Mapping[str, Any]) -> Html:
    """Thresholds, detector settings, versions, command and seed."""
    groups = [("Thresholds", audit["thresholds"]), ("Detectors", audit["detectors"]), ("Versions", audit["versions"])]
    cards = [
        tag(
            "div",
            tag("h3", title),
            table(("Name", "Value"), [[name, tag("code", _plain(v))] for name, v in values.items()]),
        )
        for title, values in groups
    ]
    return join(
        [
            tag("div", *cards, class_="cards"),
            tag(
                "p",
                "Seed ",
                tag("code", str(audit["seed"])),
                ". When, with which command and engine the audit was made: ",
                tag("code", "provenance.json"),
                ".",
            ),
        ]
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def record(hashes: Mapping[str, str]) -> Html:
    """Hashes of the files this report was made from, and lines to sign on."""
    rows = [[tag("code", name), tag("code", digest, class_="hash")] for name, digest in hashes.items()]
    lines = [
        tag(
            "div",
            *(tag("p", tag("span", label), class_="line") for label in (role, "Name", "Date", "Signature")),
            class_="sign-off",
        )
        for role in ("Audited by", "Reviewed by")
    ]
    return join(
        [
            tag("p", "This report was made from these files; compare their SHA-256 before you rely on it."),
            table(("File", "SHA-256"), rows),
            *lines,
        ]
    )
