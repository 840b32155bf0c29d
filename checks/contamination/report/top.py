"""The first screen of the report: the decision, and for each benchmark the score to trust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.contamination import reach
from checks.contamination.recall.plant import ANY
from checks.contamination.records import VERDICTS
from checks.contamination.report.charts import score_plot, verdict_bar
from checks.contamination.report.text import Html, figure, percent, percents, plural, prose, size, tag, text
from checks.contamination.score.decision import coverage, decide_benchmark, lost_records, primary

BADGES = {
    "fail": ("✕", "Contaminated"),
    "warn": ("!", "Suspects to look at"),
    "unknown": ("?", "Undecided"),
    "pass": ("✓", "No match found"),
}


def top(audit: Mapping[str, Any]) -> Html:
    """The first screen: the decision, and each benchmark with the score to trust."""
    decision, corpus = audit["decision"], audit["corpus"]
    sign, word = BADGES[decision["level"]]
    rows = [_benchmark_row(b, corpus) for b in audit["benchmarks"]]
    head = ("Benchmark", "Verdicts", "Contaminated", "Score", "Which score to trust")
    columns = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    return tag(
        "header",
        tag(
            "p", tag("b", "Contamination audit"), f"{audit['tool']['name']} {audit['tool']['version']}", class_="brand"
        ),
        tag(
            "div",
            tag("p", tag("span", sign, class_="sign"), word, class_="badge"),
            tag("h1", text(decision["sentence"], 1200)),
            tag("p", prose(facts(audit)), class_="facts"),
            class_=f"decision {decision['level']}",
        ),
        tag("div", tag("table", columns, tag("tbody", *rows), class_="benchmarks"), class_="scroll"),
        tag(
            "p",
            *(tag("span", v, class_=f"key-{v}") for v in VERDICTS),
            "Intervals are 95 %. Score: the model named in the row; “clean” leaves out contaminated, suspect and "
            "untestable items.",
            class_="legend",
        ),
    )


def facts(audit: Mapping[str, Any]) -> str:
    """How much was searched, what was lost, and what a search of this kind finds on this text."""
    corpus = audit["corpus"]
    lost = lost_records(corpus)
    return " · ".join(
        (
            f"Searched {plural(corpus['documents'], 'document')} ({size(corpus['text_bytes'])} of "
            f"{size(corpus['text_bytes'] + (corpus.get('unsearched_bytes') or 0))} of text) in "
            f"{reach.shards_searched(corpus)}",
            f"{plural(lost, 'record')} could not be read" if lost else "no record lost",
            f"{recall(audit)}.",
        )
    )


def recall(audit: Mapping[str, Any]) -> str:
    """What share of planted copies the audit finds; that it was not measured, where it was not."""
    table = (audit.get("inject") or {}).get("table", ())
    found = {row["edit"]: row["recall"] for row in table if row["detector"] == ANY and row["recall"] is not None}
    if "verbatim" not in found:
        return "recall on your data was not measured"
    weakest = min(found, key=lambda edit: found[edit])
    rest = f", {percent(found[weakest])} of the hardest kind ({weakest})" if found[weakest] < found["verbatim"] else ""
    return f"finds {percent(found['verbatim'])} of copies planted verbatim{rest}"


def _benchmark_row(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> Html:
    verdicts, share, model = benchmark["verdicts"], benchmark["share"], primary(benchmark)
    counts = [tag("span", f"{verdicts[v]:,}", class_=f"key-{v}", title=v) for v in VERDICTS]
    others = sum(not s["control"] for s in benchmark["scores"]) - 1
    who = None if model is None else str(model["model"])[:60] + (f" (+{others} below)" if others > 0 else "")
    plot = (
        score_plot(model["subsets"])
        if model and model["subsets"]["whole"]["n"]
        else tag("span", "no scores given", class_="quiet")
    )
    return tag(
        "tr",
        tag(
            "th",
            tag("b", text(str(benchmark["name"]), 60)),
            tag("small", plural(benchmark["items"], "item")),
            scope="row",
        ),
        tag(
            "td",
            verdict_bar(verdicts),
            tag("p", *counts, class_="counts"),
            tag("small", f"{benchmark['eligible']:,} testable, {verdicts['untestable']:,} untestable"),
            class_="verdicts",
        ),
        tag(
            "td",
            tag("b", percent(share["value"])),
            tag("small", percents(share["low"], share["high"])) if share["value"] is not None else None,
            tag("small", "of testable items"),
            class_="share",
        ),
        tag("td", tag("small", who) if who else None, plot, class_="plot"),
        _trust(benchmark, corpus, model),
    )


def _trust(benchmark: Mapping[str, Any], corpus: Mapping[str, Any], model: Mapping[str, Any] | None) -> Html:
    decision = decide_benchmark(benchmark, corpus)
    subset = decision.trusted
    if model is not None and not subset and decision.level == "fail" and model["subsets"]["clean"]["n"]:
        both = [f"{figure(model['subsets'][name]['value'], 2)} on {words}"
                for name, words in (("whole", "all"), ("clean", "clean items"))]
        shown = [tag("b", ", ".join(both)), tag("small", text(model["reading"], 240))]
        return tag("td", *shown, class_=f"trust {decision.level}")
    if model is None or not subset:
        return tag("td", tag("p", text(decision.sentence, 240), class_="advice"), class_=f"trust {decision.level}")
    score, whole, clean = (model["subsets"][name] for name in (subset, "whole", "clean"))
    digits = 3 if subset == "clean" and figure(score["value"], 2) == figure(whole["value"], 2) else 2
    scored = coverage(benchmark)
    on_all = f"on {scored}" if scored else f"on all {plural(score['n'], 'item')}"
    shown = [
        tag("b", figure(score["value"], digits), class_="trusted"),
        tag("span", f"[{figure(score['low'], digits)}, {figure(score['high'], digits)}]", class_="quiet"),
        tag("p", f"on {score['n']:,} clean items" if subset == "clean" else on_all),
    ]
    if decision.level == "fail":
        if subset == "clean":
            shown.append(
                tag("p", "not ", tag("s", figure(whole["value"], digits)), f" on {scored or 'all'}", class_="not")
            )
        shown.append(tag("small", text(model["reading"], 240)))
    if decision.level == "warn":
        without = f" Without them: {figure(clean['value'], 2)}." if clean["n"] else ""
        suspects = plural(benchmark["verdicts"]["suspect"], "suspect")
        shown.append(tag("p", f"only once the {suspects} below are looked at.{without}", class_="advice"))
    return tag("td", *shown, class_=f"trust {decision.level}")
