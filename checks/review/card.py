"""What is published beside a model: a section for its card, and metadata that the Hugging Face Hub reads.

`.eval_results` entries are those of huggingface_hub's `EvalResultEntry` (required: dataset.id, dataset.task_id, value);
`model-index` is the older form. `verified` and tokens are never set: only the Hub may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checks.review.evidence import Evidence
from checks.review.row import is_number


def write_cards(folder: Path, record: Mapping[str, Any], evidence: Evidence) -> None:
    """model_card.md, eval_results.yaml and model_index.yaml. YAML is written as JSON, which it holds."""
    scores = _scores(record, evidence)
    (folder / "model_card.md").write_text(_section(record, scores), encoding="utf-8")
    date = str(record["created"])[:10]
    entries = [
        {"dataset": {"id": s["task"], "task_id": s["metric"]}, "value": s["value"], "date": date, "notes": s["notes"]}
        for s in scores
    ]
    index = [
        {
            "name": str(record["candidate"]),
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"type": s["task"], "name": s["task"]},
                    "metrics": [{"type": s["metric"], "value": s["value"], "name": f"{s['metric']} ({s['notes']})"}],
                }
                for s in scores
            ],
        }
    ]
    for name, value in (("eval_results.yaml", entries), ("model_index.yaml", {"model-index": index})):
        (folder / name).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _scores(record: Mapping[str, Any], evidence: Evidence) -> list[dict[str, Any]]:
    found = []
    for row in record["rows"]:
        kind, _, task = row["name"].partition(".")
        sheet = evidence.candidate.get(task)
        if kind not in ("task", "safety") or sheet is None or row["verdict"] not in ("pass", "warn", "waived"):
            continue
        value = float(sheet.items["score"].mean())
        if is_number(value):
            shots = "" if sheet.n_shot is None else f", {sheet.n_shot}-shot"
            found.append(
                {
                    "task": task,
                    "metric": sheet.metric or "score",
                    "value": round(value, 6),
                    "notes": f"n {len(sheet.items)}{shots}, {sheet.harness} {sheet.version}".strip(),
                }
            )
    return found


def _section(record: Mapping[str, Any], scores: list[dict[str, Any]]) -> str:
    lines = [
        f"## Release review: {record['decision']}",
        "",
        f"Candidate `{_cell(record['candidate'])}` against `{_cell(record['baseline'])}`, "
        f"{str(record['created'])[:10]}, {record['tool']}. Policy `{record['digests']['policy.toml'][:12]}`, evidence "
        f"`{record['digests']['index.json'][:12]}` (SHA-256).",
        "",
        "| requirement | answer | n | what was seen |",
        "| --- | --- | ---: | --- |",
    ]
    lines += [
        f"| {_cell(r['name'])} | {r['verdict']} | {r['n'] or '–'} | {_cell(r['sentence'])} |" for r in record["rows"]
    ]
    if record["waivers"]:
        lines += ["", "### Waivers", ""]
        lines += [
            f"- {_cell(w['row'])}: {_cell(w['reason'])} ({_cell(w['owner'])}, until {w['expires']})"
            for w in record["waivers"]
        ]
    if scores:
        lines += ["", "### Scores", "", "| task | metric | score | protocol |", "| --- | --- | ---: | --- |"]
        lines += [
            f"| {_cell(s['task'])} | {_cell(s['metric'])} | {s['value']:.4f} | {_cell(s['notes'])} |" for s in scores
        ]
    lines += ["", "Verify with `trainvitals review --verify FOLDER --trusted-keys KEYS`.", ""]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text that ends no table cell and starts no markup."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")[:600]
