"""report.html: the decision first, then every requirement. One file that loads nothing, runs nothing and prints.

It is made from decision.json and the policy alone, byte for byte, so that verification can make it again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.contamination.report.text import Html, join, plural, prose, table, tag, text
from checks.review.policy import Policy
from checks.review.row import Row, figure

STYLES = (Path(__file__).parents[1] / "report" / "templates" / "report.css", Path(__file__).parent / "review.css")
LEVEL = {"GO": "pass", "NO-GO": "fail", "UNDECIDED": "unknown"}
SIGNS = {"pass": "✓", "warn": "!", "fail": "✕", "unknown": "?", "waived": "W"}
WORDS = {"pass": "holds", "warn": "holds, with a warning", "fail": "fails", "unknown": "not known", "waived": "waived"}
SENTENCES = {
    "GO": "Every requirement of the policy holds. The model may be released.",
    "NO-GO": "At least one requirement fails beyond chance. The model must not be released as it is.",
    "UNDECIDED": "Nothing fails beyond chance, but what is there does not show that every requirement holds.",
}
GROUPS = (
    ("Tasks", ("task", "family", "slice", "together")),
    ("Safety", ("safety", "judge", "secrets")),
    ("Latency and cost", ("latency", "cost")),
    ("Training", ("training",)),
    ("Waivers", ("waiver",)),
)
ORDER = ("fail", "unknown", "warn", "waived", "pass")
MOST_SHOWN = 5
METHOD = (
    "A score is compared on the same items for both checkpoints. The bound is the one-sided 95 % bound of the "
    "difference (t, over clusters where items share one, exact where few items differ); a task holds where that bound "
    "is above the margin. Rows that test for a loss are corrected together (Holm), so that chance alone makes them "
    "block at most 5 % of reviews of an unchanged model; a GO needs every row and no correction. Safety limits are "
    "one-sided Clopper-Pearson bounds. Latency quantiles are bootstrapped by session. Not known is never a pass."
)


def report_page(record: Mapping[str, Any], policy: Policy) -> str:
    """The page."""
    rows = [Row.from_json(raw) for raw in record["rows"]]
    sections = [
        (name, _rows([r for r in rows if r.kind in kinds]))
        for name, kinds in GROUPS
        if any(r.kind in kinds for r in rows)
    ]
    body = join(
        [
            _first(record, rows),
            *(tag("section", tag("h2", name), content) for name, content in sections),
            tag("section", tag("h2", "Since the last review"), _last(record)) if record.get("last") else None,
            tag("section", tag("h2", "Waivers of the policy"), _waivers(policy)) if policy.waivers else None,
            tag(
                "section",
                tag("h2", "What could not be read"),
                tag("ul", *(tag("li", text(str(p))) for p in record["problems"])),
            )
            if record.get("problems")
            else None,
            tag("section", tag("h2", "How this was decided, and how to verify it"), _method(record)),
        ]
    )
    style = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)
    sha = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html(
                f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{sha}'; "
                "base-uri 'none'; form-action 'none'\">"
            ),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'),
            tag("title", f"{str(record['candidate'])[:60]}: release review, {record['decision']}"),
            tag("style", Html(style)),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _first(record: Mapping[str, Any], rows: Sequence[Row]) -> Html:
    """What somebody reads who reads nothing else."""
    decision = record["decision"]
    level = LEVEL[decision]
    bad = [r for r in rows if r.verdict in ("fail", "unknown", "warn")]
    bad.sort(key=lambda r: ("fail", "unknown", "warn").index(r.verdict))
    listed = [
        tag(
            "li",
            tag("span", SIGNS[r.verdict], class_=f"sign {r.verdict}"),
            tag("span", tag("b", text(r.name, 80)), ": ", text(r.sentence, 500)),
        )
        for r in bad[:MOST_SHOWN]
    ]
    if not rows:
        listed = [tag("li", "The policy asks for nothing, so nothing was judged.")]
    more = len(bad) - MOST_SHOWN
    steps = [f" (step {s:,})" if s is not None else "" for s in record.get("steps") or (None, None)]
    counts = {v: sum(r.verdict == v for r in rows) for v in ("pass", "warn", "fail", "unknown", "waived")}
    tiles = [
        tag("li", tag("small", WORDS[v]), tag("b", f"{n:,}"), tag("small", f"of {plural(len(rows), 'requirement')}"))
        for v, n in counts.items()
        if n
    ]
    changes = list(record["what_would_change_it"])
    return tag(
        "header",
        tag(
            "p",
            tag("b", "TrainVitals release review"),
            tag("span", text(str(record["run"]), 80)),
            tag("time", str(record["created"])[:16].replace("T", " ") + " UTC"),
            class_="brand",
        ),
        tag(
            "div",
            tag("h1", decision),
            tag("p", SENTENCES[decision], class_="says"),
            tag(
                "ul",
                *listed,
                tag("li", f"and {plural(more, 'more row')} below") if more > 0 else None,
                class_="shortly",
            )
            if listed
            else None,
            tag(
                "p",
                f"Candidate {record['candidate'] or 'none'}{steps[1]}, held against "
                f"{record['baseline'] or 'no baseline'}{steps[0]}.",
                class_="facts",
            ),
            class_=f"decision {level}",
        ),
        tag(
            "div",
            tag("h2", "What goes with it"),
            tag("ul", *(tag("li", text(str(line), 900)) for line in record["company"][:8])),
            class_="change",
        )
        if record.get("company")
        else None,
        tag("ul", *tiles, class_="tiles") if tiles else None,
        tag(
            "div",
            tag("h2", "What would change it" if decision != "GO" else "What to watch"),
            tag("ol", *(tag("li", text(str(c), 500)) for c in changes[:8])),
            class_="change",
        )
        if changes
        else None,
        tag(
            "div",
            tag("h2", "Sign-off"),
            tag(
                "p",
                f"This page is worth what its signatures are: "
                f"{plural(record['needed_signers'], 'trusted signer')} needed. They lie beside it in signatures/; "
                "`trainvitals review --verify` checks them.",
                class_="quiet",
            ),
            class_="change",
        ),
    )


def _rows(rows: Sequence[Row]) -> Html:
    cells = [
        (
            tag(
                "td",
                tag(
                    "span",
                    SIGNS[r.verdict],
                    class_=f"sign {r.verdict if r.verdict != 'waived' else 'warn'}",
                    title=WORDS[r.verdict],
                ),
            ),
            tag("td", tag("b", text(r.name, 100)), tag("div", text(r.sentence, 900), class_="quiet"), _small(r)),
            tag("td", figure(r, r.value), class_="num"),
            tag("td", _interval(r), class_="num"),
            tag("td", figure(r, r.threshold), class_="num"),
            tag("td", f"{r.n:,}" if r.n else "–", class_="num"),
        )
        for r in sorted(rows, key=lambda r: ORDER.index(r.verdict))
    ]
    return table(("", "Requirement", "Seen", "95 % bounds", "Limit", "n"), cells, class_="review")


def _small(r: Row) -> Html | None:
    parts = [
        f"{r.clusters:,} clusters" if r.clusters and r.clusters != r.n else "",
        r.se_kind,
        f"p {r.p_holm:.2g} after Holm" if r.p_holm is not None else "",
        r.source and f"from {r.source}",
        f"alarms kept quiet by {', '.join(r.masked[:5])}" if r.masked else "",
    ]
    words = " · ".join(p for p in parts if p)
    return tag("small", text(words, 400)) if words else None


def _interval(r: Row) -> str:
    return "–" if r.low is None and r.high is None else f"{figure(r, r.low)} to {figure(r, r.high)}"


def _waivers(policy: Policy) -> Html:
    return table(
        ("Row", "Reason", "Owner", "Approver", "Expires"),
        [
            (text(w.row, 100), text(w.reason, 600), text(w.owner, 80), text(w.approver, 80), text(str(w.expires)))
            for w in policy.waivers
        ],
    )


def _last(record: Mapping[str, Any]) -> Html:
    last = record["last"]
    lines = [
        *last["changed"],
        *(f"{n}: asked for now" for n in last["added"]),
        *(f"{n}: no longer asked for" for n in last["gone"]),
    ]
    return join(
        [
            tag("p", f"The last review said {last['decision']} (SHA-256 of its decision {last['digest'][:16]}...)."),
            tag("ul", *(tag("li", text(line)) for line in lines)) if lines else tag("p", "No row has another answer."),
        ]
    )


def _method(record: Mapping[str, Any]) -> Html:
    digests = record["digests"]
    return join(
        [
            tag("p", prose(METHOD)),
            table(
                ("What", "SHA-256"),
                [
                    ("policy.toml", digests["policy.toml"]),
                    ("index.json (all evidence)", digests["index.json"]),
                    ("decision that this page shows", _digest(record)),
                ],
                class_="facts-table",
            ),
            tag(
                "p",
                text(
                    f"Made by {record['tool']}. `trainvitals review --verify FOLDER --trusted-keys KEYS` judges the "
                    "evidence again, compares every row, makes this page again, and checks who signed.",
                    600,
                ),
                class_="quiet",
            ),
        ]
    )


def _digest(record: Mapping[str, Any]) -> str:
    from_file = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return hashlib.sha256(from_file.encode()).hexdigest()
