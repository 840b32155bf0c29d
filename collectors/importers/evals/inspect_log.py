"""Inspect: a log of one task, `.json` or `.eval` (a zip of JSON files, zstd-compressed of late).

A sample has an id, an epoch and scores by scorer; a score of several values is several metrics. A sample with an error
has no score: it is missing, not wrong. A log of a killed job has samples and no header, and is told as unfinished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import Asked, Found, checkpoint_of, json_of, mapping, numeric, parsed
from collectors.importers.evals.zipped import member, members
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partial, incorrect, no answer, as Inspect's `value_to_float` counts them."""
STEPS = ("checkpoint_step", "step", "global_step", "training_step")
CLUSTERS = ("subject", "category", "passage", "topic", "attack", "attack_family", "cluster")


def is_log(path: Path) -> bool:
    """Whether a file is a log of Inspect."""
    if path.suffix == ".eval":
        return True
    try:
        data = json_of(path) if path.suffix == ".json" else None
    except UsageError:
        return False
    return isinstance(data, dict) and isinstance(data.get("eval"), dict) and "task" in data["eval"]


def read(path: Path, asked: Asked) -> Found:
    """All scores of a log, one result each. Raises UsageError."""
    header, samples, notes = _zip(path) if path.suffix == ".eval" else _json(path)
    spec = mapping(header.get("eval"))
    meta = {**mapping(spec.get("task_args")), **mapping(spec.get("model_args")), **mapping(spec.get("metadata"))}
    told = next((int(meta[k]) for k in STEPS if isinstance(meta.get(k), int | float)), None)
    asked = Asked(told if asked.step is None else asked.step, asked.checkpoint, asked.task)
    checkpoint, step = checkpoint_of(asked, path, str(spec.get("model") or ""))
    task = asked.task or str(spec.get("task") or path.stem)
    found = Found(notes=[f"{path.name}: {note}" for note in notes])
    if not samples:
        found.notes.append(f"{path.name} holds no sample.")
        return found
    facts: dict[str, Any] = {"checkpoint": checkpoint, "step": step, "family": family_of(task), "source": str(path),
             "harness": f"inspect {mapping(spec.get('packages')).get('inspect_ai', '')}".strip(),
             "version": str(spec.get("task_version", "")),
             "kind": "workflow" if any(_uses_tools(s) for s in samples) else "model"}  # fmt: skip
    for rank, (scorer, key) in enumerate(_metrics(samples)):
        metric = scorer if key is None else f"{scorer}.{key}"
        found.sheets.append(Sheet(
            task=task if not rank else f"{task}:{metric}", metric=metric, higher_is_better=True, n_shot=None,
            prompt_hash="", filter="none", chance=None, items=_table(samples, scorer, key), **facts))  # fmt: skip
    failed = sum(bool(s.get("error")) for s in samples)
    if failed:
        found.notes.append(f"{path.name}: {failed:,} of {len(samples):,} samples ended in an error: none has a score.")
    return found


def _json(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    data = json_of(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path} is no log of Inspect.")
    samples = [s for s in data.get("samples") or [] if isinstance(s, dict)]
    return data, samples, _state(data, samples)


def _zip(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    inside = members(path)
    name = "header.json" if "header.json" in inside else "_journal/start.json"
    if name not in inside:
        raise UsageError(f"{path} has neither header.json nor _journal/start.json, so it is no log of Inspect.")
    header = _object(path, name, member(path, inside[name]))
    samples = [_object(path, name, member(path, info)) for name, info in inside.items()
               if name.startswith("samples/") and name.endswith(".json")]  # fmt: skip
    if "header.json" not in inside:
        return header, samples, [f"the job did not end: {len(samples):,} samples were written before it was killed"]
    return header, samples, _state(header, samples)


def _object(path: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        found = parsed(data, len(data) + 1)
    except ValueError as error:
        raise UsageError(f"{name} of {path} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{name} of {path} is no object.")
    return found


def _state(header: Mapping[str, Any], samples: list[dict[str, Any]]) -> list[str]:
    notes = []
    if header.get("status") not in ("success", None):
        notes.append(f"its status is {header.get('status')!s:.40}")
    if header.get("invalidated"):
        notes.append("it was invalidated by its authors")
    claimed = mapping(header.get("results")).get("total_samples")
    if isinstance(claimed, int) and claimed != len(samples):
        notes.append(f"it claims {claimed:,} samples and holds {len(samples):,}")
    return notes


def _metrics(samples: list[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    seen: dict[tuple[str, str | None], None] = {}
    for sample in samples:
        for scorer, score in mapping(sample.get("scores")).items():
            value = mapping(score).get("value")
            keys = list(value) if isinstance(value, dict) else [None]
            seen |= dict.fromkeys((scorer, key) for key in keys)
    yield from seen or {("score", None): None}


def _table(samples: list[dict[str, Any]], scorer: str, key: str | None) -> pd.DataFrame:
    rows = []
    for sample in samples:
        score = mapping(mapping(sample.get("scores")).get(scorer))
        value = score.get("value")
        usage = [mapping(u) for u in mapping(sample.get("model_usage")).values()]
        meta = mapping(sample.get("metadata"))
        epoch = sample.get("epoch")
        rows.append({
            "item": str(sample.get("id")),
            "sample": epoch - 1 if isinstance(epoch, int) else 0,
            "score": _value(None if sample.get("error") else value.get(key) if isinstance(value, dict) else value),
            "answer": score.get("answer"),
            "cluster": next((meta[c] for c in CLUSTERS if c in meta), None),
            "latency_s": numeric(sample.get("working_time")),
            "tokens_in": sum(numeric(u.get("input_tokens")) or 0.0 for u in usage) if usage else None,
            "tokens_out": sum(numeric(u.get("output_tokens")) or 0.0 for u in usage) if usage else None,
            "error": mapping(sample.get("error")).get("message") or None,
            "text": _text(sample.get("input")),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _value(value: Any) -> float:
    number = numeric(value)
    if number is not None:
        return number
    if isinstance(value, str):
        if value in LETTERS:
            return LETTERS[value]
        try:
            return float(value)
        except ValueError:
            return {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}.get(value.lower(), float("nan"))
    return float("nan")


def _uses_tools(sample: Mapping[str, Any]) -> bool:
    messages = sample.get("messages")
    return isinstance(messages, list) and any(mapping(m).get("role") == "tool" for m in messages)


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        value = next((mapping(m).get("content") for m in value if mapping(m).get("role") == "user"), None)
    return value[:2_000] if isinstance(value, str) else None

