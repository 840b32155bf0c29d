"""lm-evaluation-harness: `results_<date>.json`, with `samples_<task>_<date>.jsonl` of the same date beside it.

A row of the samples is one document under one filter. `doc_id` is a position, `doc_hash` the document (repeated ones
share it), `prompt_hash` the first request's context alone: an item is (doc_hash, its occurrence). A filter and a metric
beyond the first are tasks of their own: `task@filter`, `task:metric`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from collectors.importers.evals import lighteval
from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import (
    Asked,
    Found,
    checkpoint_of,
    counted,
    file_in,
    json_of,
    lines_of,
    mapping,
    numeric,
)
from collectors.importers.evals.lm_eval_metrics import scores_of
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet
from trainvitals.evals.sheet import NO_ITEMS

_DATED = re.compile(r"_(\d{4}-\d\d-\d\dT[\d-]+\.\d+)$")
COUNTS = ("sample_len", "sample_count", "alias", "name")
CLUSTERS = ("subject", "passage", "passage_id", "category", "topic", "source", "task", "article_id")
"""Fields of a document that items share, the first that there is: their errors are not independent."""
LOWER = ("perplexity", "bits_per_byte", "loss", "brier", "likelihood_diff", "ter")
CHOICE = re.compile(r"^gen_args_\d+$")


def is_results(path: Path) -> bool:
    """Whether a file is a harness' results, by its name or its keys."""
    # lighteval's files have the same names, and most of the keys.
    if path.suffix != ".json" or lighteval.is_results(path):
        return False
    if path.name.startswith("results_"):
        return True
    try:
        data = json_of(path)
    except UsageError:
        return False
    return isinstance(data, dict) and isinstance(data.get("results"), dict) and ("versions" in data or "config" in data)


def read(path: Path, asked: Asked) -> Found:
    """All tasks of one results file. Raises UsageError."""
    data = json_of(path)
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, dict):
        raise UsageError(f"{path} holds no `results` of lm-evaluation-harness.")
    config = mapping(data.get("config"))
    model = str(data.get("model_name") or config.get("model_args") or "")
    checkpoint, step = checkpoint_of(asked, path, model, path.parent.name)
    found = Found()
    groups = mapping(data.get("groups"))
    for task, values in sorted(_flat(results)):
        if task in groups:
            continue
        facts = _facts(data, task, path, checkpoint, step)
        samples = _samples(path, task)
        if samples is None:
            found.sheets += list(_aggregates(task, values, facts))
            continue
        found.sheets += list(_items(task, samples, values, facts))
        found.notes += _claims(data, task, found.sheets)
    if not any(len(sheet.items) for sheet in found.sheets):
        found.notes.append(f"{path.name} has no samples beside it: scores of tasks are known, of items not, so nothing "
                           "can be compared item by item. Run the harness with --log_samples.")
    return found


def _flat(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Task and values; BLOOM's files nest results[task][date]."""
    for task, values in results.items():
        if isinstance(values, dict) and values and all(isinstance(v, dict) for v in values.values()):
            yield str(task), values[max(values)]
        elif isinstance(values, dict):
            yield str(task), values


def _facts(data: Mapping[str, Any], task: str, path: Path, checkpoint: str, step: int | None) -> dict[str, Any]:
    def of(key: str) -> Any:
        table = data.get(key)
        return table.get(task) if isinstance(table, dict) else None

    shots = of("n-shot")
    return {"checkpoint": checkpoint, "step": step, "kind": "model", "family": family_of(task),
            "harness": f"lm-eval {data.get('lm_eval_version') or ''}".strip(), "version": str(of("versions") or ""),
            "n_shot": int(shots) if isinstance(shots, int | float) and shots == shots else None, "source": str(path),
            "better": of("higher_is_better") or {}, "chance": None}  # fmt: skip


def _samples(path: Path, task: str) -> Path | None:
    """The samples of the same date: another date is another measurement."""
    dated = _DATED.search(path.stem)
    if dated is None:
        return None
    return file_in(path.parent, f"samples_{task}_{dated[1]}.jsonl")


def _aggregates(task: str, values: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Sheet]:
    first = True
    for key, value in values.items():
        metric, _, filter_ = str(key).partition(",")
        number = numeric(value)
        if number is None or metric in COUNTS or "_stderr" in metric:
            continue
        name = task if first else f"{task}:{metric}" + (f"@{filter_}" if filter_ not in ("", "none") else "")
        first = False
        yield _sheet(name, metric, filter_ or "none", "", pd.DataFrame({"item": [], "score": []}), facts,
                     {"aggregate": number})  # fmt: skip


def _items(task: str, path: Path, values: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Sheet]:
    by_filter: dict[str, list[Mapping[str, Any]]] = {}
    for number, row in lines_of(path):
        if not isinstance(row, dict) or "doc_id" not in row and "doc_hash" not in row:
            raise UsageError(f"{path}, line {number:,} is no sample of lm-evaluation-harness.")
        by_filter.setdefault(str(row.get("filter", "none")), []).append(row)
    for place, (filter_, rows) in enumerate(by_filter.items()):
        rows.sort(key=_place)
        for rank, metric in enumerate(_metrics(rows)):
            shown, scores = scores_of(metric, [row.get(metric) for row in rows])
            name = task + (f":{shown}" if rank else "") + (f"@{filter_}" if place else "")
            better = facts["better"].get(metric) if isinstance(facts["better"], dict) else None
            said = numeric(values.get(f"{metric},{filter_}"))
            if np.isfinite(scores).any() or rank == 0 and said is None:
                items = _table(rows, scores)
                yield _sheet(name, shown, filter_, _prompts(rows), items, facts, {}, better, _chance(rows, metric))
            elif said is not None:
                yield _sheet(name, shown, filter_, _prompts(rows), NO_ITEMS, facts, {"aggregate": said}, better)


def _place(row: Mapping[str, Any]) -> tuple[str, int]:
    # Several GPUs write their documents one after the other: only the document's own position orders repeated ones.
    position = row.get("doc_id")
    return str(row.get("doc_hash", "")), position if isinstance(position, int) else 0


def _metrics(rows: list[Mapping[str, Any]]) -> list[str]:
    named = rows[0].get("metrics")
    return [str(m) for m in named] if isinstance(named, list) and named else [
        key for key, value in rows[0].items() if numeric(value) is not None and key not in ("doc_id",)][:8]


def _table(rows: list[Mapping[str, Any]], scores: NDArray[np.float64]) -> pd.DataFrame:
    documents = [mapping(row.get("doc")) for row in rows]
    cluster = next((c for c in CLUSTERS if any(c in d for d in documents)), None)
    keys = counted(str(row.get("doc_hash") or row.get("doc_id")) for row in rows)
    return pd.DataFrame({
        "item": keys,
        "score": scores,
        "answer": [_answer(row.get("filtered_resps")) for row in rows],
        "cluster": [None if cluster is None else d.get(cluster) for d in documents],
        "text": [_question(d) for d in documents],
    })  # fmt: skip


def _answer(value: Any) -> str | None:
    if isinstance(value, list):
        # Of choices, the one with the highest likelihood: [["-1.5", "False"], ...].
        if value and all(isinstance(v, list) and v for v in value):
            likelihoods = [float(v[0]) if _is_number(v[0]) else float("-inf") for v in value]
            return str(likelihoods.index(max(likelihoods)))
        value = value[0] if value else None
    return None if value is None else str(value)[:2_000]


def _is_number(text: Any) -> bool:
    try:
        return float(text) == float(text)
    except (TypeError, ValueError):
        return False


def _question(document: Mapping[str, Any]) -> str | None:
    for key in ("question", "query", "q", "text", "prompt", "input", "ctx", "problem", "sentence", "goal"):
        if isinstance(document.get(key), str):
            return str(document[key])[:2_000]
    return None


def _prompts(rows: list[Mapping[str, Any]]) -> str:
    """Of all prompts of the task in the order of their items: few-shot draws and templates show in it."""
    parts = [f"{row.get('doc_hash')}:{row.get('prompt_hash')}" for row in rows]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16] if rows[0].get("prompt_hash") else ""


def _chance(rows: list[Mapping[str, Any]], metric: str) -> float | None:
    """One over the number of choices, where every item has as many requests as choices."""
    if metric not in ("acc", "acc_norm"):
        return None
    counts = [len([k for k in row["arguments"] if CHOICE.match(k)]) for row in rows
              if isinstance(row.get("arguments"), dict)]
    return sum(1 / c for c in counts) / len(counts) if counts and min(counts) > 1 else None


def _claims(data: Mapping[str, Any], task: str, sheets: list[Sheet]) -> list[str]:
    counts = data.get("n-samples")
    said = counts.get(task) if isinstance(counts, dict) else None
    effective = said.get("effective") if isinstance(said, dict) else None
    found = next((len(s.items) for s in sheets if s.task == task), 0)
    notes = []
    if isinstance(effective, int) and effective != found:
        notes.append(f"{task}: the results claim {effective:,} items, and the samples hold {found:,}.")
    if isinstance(said, dict) and isinstance(said.get("original"), int) and said["original"] > found:
        notes.append(f"{task}: {found:,} of its {said['original']:,} items were asked.")
    return notes


def _sheet(task: str, metric: str, filter_: str, prompts: str, items: pd.DataFrame, facts: Mapping[str, Any],
           more: Mapping[str, Any], better: Any = None, chance: float | None = None) -> Sheet:
    higher = better if isinstance(better, bool) else not any(word in metric.lower() for word in LOWER)
    known = {k: v for k, v in facts.items() if k not in ("better", "chance")}
    return Sheet(task=task, metric=metric, higher_is_better=higher, prompt_hash=prompts, filter=filter_, chance=chance,
                 items=items, aggregate=more.get("aggregate"), **known)
