"""report.html: one file that an auditor can open without a network, print and sign.

It is made from the audit folder alone, so it can be made again, and it can be checked: it lists the hashes of what it
was made from. Nothing is loaded from anywhere, and its content security policy admits its own style and script only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.report import pairs as report_pairs
from checks.contamination.report import sections as report_sections
from checks.contamination.report import top as report_top
from checks.contamination.report.text import Html, join, tag
from trainvitals.errors import RunDamaged

_TEMPLATES = Path(__file__).parent / "templates"
_SOURCES = ("items.parquet", "matches.parquet", "sweep.parquet", "audit.json")
_ITEM_COLUMNS = [
    "benchmark",
    "item_id",
    "verdict",
    "evidence_kind",
    "rule",
    "score",
    "best_document",
    "detector",
    "documents",
    "longest",
    "text",
]


def write_report(folder: Path) -> Path:
    """Write report.html into the audit folder, from its items, matches and sweep tables and its audit.json.

    Raises:
        RunDamaged: a table or audit.json is missing or cannot be read.
    """
    folder = Path(folder)
    try:
        audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        items = pq.read_table(folder / "items.parquet", columns=_ITEM_COLUMNS).to_pandas()
        sweep = pq.read_table(folder / "sweep.parquet").to_pandas()
        hashes = {name: _sha256(folder / name) for name in (*_SOURCES, *_exports(folder))}
        page = _page(audit, items, report_pairs.best_matches(folder, items), sweep, hashes)
    except (OSError, pa.ArrowInvalid, json.JSONDecodeError, KeyError) as error:
        raise RunDamaged(f"No report can be made of {folder}: {error}. Run the audit again.") from error
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def _exports(folder: Path) -> list[str]:
    found = [folder / "replace.csv", folder / "drop_documents.csv", *sorted((folder / "clean").glob("*.jsonl"))]
    return [path.relative_to(folder).as_posix() for path in found if path.exists()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _page(
    audit: Mapping[str, Any],
    items: pd.DataFrame,
    best: report_pairs.Best,
    sweep: pd.DataFrame,
    hashes: Mapping[str, str],
) -> str:
    sections = [
        ("searched", "What was searched", report_sections.searched(audit)),
        ("recall", "How much this audit finds", report_sections.recall(audit)),
        ("contaminated", "Contaminated items beside their documents", report_pairs.contaminated(items, best)),
        ("suspect", "Suspects", report_pairs.suspects(items, best)),
        ("untestable", "Untestable items", report_pairs.untestable(items)),
        ("scores", "Scores by model", report_sections.scores(audit)),
        ("sweep", "Gain at every threshold", report_sections.sweeps(audit, sweep)),
        ("rules", "Beside the rules of the literature", report_sections.rules(audit)),
        ("method", "Method", report_sections.method()),
        ("settings", "Settings and versions", report_sections.settings(audit)),
        ("record", "Record and signatures", report_sections.record(hashes)),
    ]
    links = [tag("a", title, href=f"#{key}") for key, title, _ in sections]
    body = join(
        [
            report_top.top(audit),
            tag("nav", *links, aria_label="Sections"),
            *(tag("section", tag("h2", title), content, id=key) for key, title, content in sections),
        ]
    )
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'),
            tag("title", "Contamination audit: " + ", ".join(str(b["name"]) for b in audit["benchmarks"])[:120]),
            tag("style", Html(style)),
        ]
    )
    end = tag("script", Html(script))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}{end}</body></html>\n'


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
