"""Every Eval Ever (schema 0.2 and 0.3): `<uuid>.json` of a model's scores, with the samples in `<uuid>_samples.jsonl`.

A sample that was scored by several metrics has a row for each, joined to its metric by `evaluation_result_id`.
`sample_id` is often a position and converters hash `sample_hash` each in its own way: an item is named by its input and
references, or by the document's hash where lm-evaluation-harness gave one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import (
    Asked,
    Found,
    checkpoint_of,
    cluster_of,
    file_in,
    item_of,
    json_of,
    lines_of,
    mapping,
    numeric,
)
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet

ITEM = "trainvitals_item"
"""In the metadata of a sample that we wrote: what the item is called here."""
STEPS = ("checkpoint_step", "step", "global_step", "training_step")
HEAD = 1 << 20
CLOSE = 1e-3
NOT_ITEM = ("result", "place", "kind", "choices", "prompt", "filter", "placed")
Row = dict[str, Any]


def is_log(path: Path) -> bool:
    """Whether a file is a model's scores: the keys are looked for in its first MiB before it is read whole."""
    if path.suffix != ".json":
        return False
    try:
        with path.open("rb") as file:
            if b'"evaluation_id"' not in file.read(HEAD):
                return False
        data = json_of(path)
    except (OSError, UsageError):
        return False
    return isinstance(data, dict) and isinstance(data.get("evaluation_results"), list) and "model_info" in data


def read(path: Path, asked: Asked) -> Found:
    """Every result of a log, with its samples where there are some. Raises UsageError."""
    data = json_of(path)
    model, library = mapping(data.get("model_info")), mapping(data.get("eval_library"))
    more = mapping(model.get("additional_details"))
    told = next((int(more[k]) for k in STEPS if str(more.get(k)).isdecimal() and len(str(more[k])) < 13), None)
    asked = Asked(told if asked.step is None else asked.step, asked.checkpoint, asked.task)
    checkpoint, step = checkpoint_of(asked, path, *(str(x or "") for x in (
        model.get("id"), model.get("name"), more.get("revision"), more.get("checkpoint"))))  # fmt: skip
    facts: Row = {"checkpoint": checkpoint, "step": step, "source": str(path),
                  "harness": f"{library.get('name', '')} {library.get('version', '')}".strip()}  # fmt: skip
    found = Found()
    results = [r for r in data["evaluation_results"] if isinstance(r, dict)]
    by_result = _samples(path, data, results, found.notes)
    bare, taken = 0, set[str]()
    for number, result in enumerate(results):
        rows = by_result.pop(number, [])
        name, config = _task(result, path), mapping(result.get("metric_config"))
        metric = str(config.get("metric_name") or config.get("metric_id") or "score")
        options = chain((name, f"{name}:{metric}", f"{name}:{result.get('evaluation_result_id')}"),
                        (f"{name}:{metric}#{n}" for n in count(number)))  # fmt: skip
        task = next(option for option in options if option not in taken)
        taken.add(task)
        found.sheets.append(_sheet(asked.task if asked.task and not number else task, metric, result, rows, facts))
        found.notes += _claims(path.name, task, result, rows)
        bare += not rows
    lost = sum(len(rows) for rows in by_result.values())
    if lost:
        found.notes.append(f"{path.name}: {lost:,} rows belong to none of its results: they are left out.")
    if bare:
        found.notes.append(f"{path.name}: {bare:,} of {len(results):,} results have no samples: their score is known, "
                           "and nothing can be compared item by item.")  # fmt: skip
    return found


def _task(result: Mapping[str, Any], path: Path) -> str:
    """Of a scorer ("match") that many datasets share, the dataset's name, too."""
    name = str(result.get("evaluation_name") or path.stem)
    dataset = str(mapping(result.get("source_data")).get("dataset_name") or "")
    alike = dataset.casefold() in name.casefold() or name.casefold() in dataset.casefold()
    return name if alike else f"{dataset}/{name}"


def _sheet(task: str, metric: str, result: Mapping[str, Any], rows: list[Row], facts: Mapping[str, Any]) -> Sheet:
    config, generation = mapping(result.get("metric_config")), mapping(result.get("generation_config"))
    arguments, more = mapping(generation.get("generation_args")), mapping(generation.get("additional_details"))
    tools = mapping(arguments.get("agentic_eval_config")).get("available_tools")
    if config.get("has_unknown_level"):
        rows = [row | {"score": None} if row["score"] == -1 else row for row in rows]
    shots = next((str(more[k]) for k in ("n_shot", "num_fewshot", "n-shot") if k in more), "")
    prompts = sorted(f"{row['item']}:{row['prompt']}" for row in rows if row["prompt"])
    options = [row["choices"] for row in rows]
    items = pd.DataFrame(_named(rows))
    agent = tools or more.get("kind") == "workflow" or any(row["kind"] == "workflow" for row in rows)
    return Sheet(
        task=task, metric=metric, higher_is_better=config.get("lower_is_better") is not True,
        kind="workflow" if agent else "model",
        family=family_of(task), n_shot=int(shots) if shots.isdecimal() and len(shots) < 6 else None,
        prompt_hash=item_of(*prompts) if prompts and len(prompts) == len(rows) else str(more.get("prompt_hash") or ""),
        filter=str(more.get("filter") or (rows[0]["filter"] if rows else "none")),
        version=str(more.get("task_version") or ""),
        chance=sum(1 / n for n in options) / len(options) if "acc" in metric.lower() and min(options, default=0) > 1
        else None, items=items.drop(columns=list(NOT_ITEM)) if rows else items,
        aggregate=None if rows else numeric(mapping(result.get("score_details")).get("score")), **facts)  # fmt: skip


def _samples(path: Path, data: Mapping[str, Any], results: list[Any], notes: list[str]) -> dict[int, list[Row]]:
    """Rows by the number of their result; -1 of those that belong to none."""
    details = mapping(data.get("detailed_evaluation_results"))
    # The path is the one in its authors' repository: only its last part says something here.
    named = str(details.get("file_path") or "").replace("\\", "/").rsplit("/", 1)[-1]
    place = file_in(path.parent, f"{path.stem}_samples.jsonl") or file_in(path.parent, named)
    if place is None:
        if details:
            notes.append(f"{path.name} names samples in {named or 'a file'!r:.80}, which is not beside it.")
        return {}
    _check(place, details)
    by_id = {r["evaluation_result_id"]: n for n, r in enumerate(results)
             if isinstance(r.get("evaluation_result_id"), str)}  # fmt: skip
    by_name: dict[str, list[int]] = {}
    for number, result in enumerate(results):
        by_name.setdefault(str(result.get("evaluation_name")), []).append(number)
    found: dict[int, list[Row]] = {}
    total = 0
    for line, row in lines_of(place):
        total += 1
        if not isinstance(row, dict) or not isinstance(row.get("evaluation"), dict):
            raise UsageError(f"{place}, line {line:,} is no sample of Every Eval Ever.")
        if row.get("evaluation_id") != data.get("evaluation_id"):
            raise UsageError(f"{place}, line {line:,} belongs to {str(row.get('evaluation_id'))!r:.80}, not to the log "
                             f"beside it. Fetch both files of one evaluation.")  # fmt: skip
        alike = by_name.get(str(row.get("evaluation_name")), [])
        joined = by_id.get(str(row.get("evaluation_result_id")), alike[0] if len(alike) == 1 else -1)
        found.setdefault(joined, []).append(_row(row))
    if isinstance(details.get("total_rows"), int) and details["total_rows"] != total:
        notes.append(f"{path.name} claims {details['total_rows']:,} rows, and {place.name} holds {total:,}.")
    return found


def _check(place: Path, details: Mapping[str, Any]) -> None:
    kind, said = details.get("hash_algorithm"), details.get("checksum")
    if kind not in ("sha256", "md5") or not isinstance(said, str):
        return
    try:
        with place.open("rb") as file:
            made = hashlib.file_digest(file, kind).hexdigest()
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror or error}.") from error
    if made != said.lower():
        raise UsageError(f"{place} is not the file that its log names: the {kind} differs. Fetch both files again.")


def _row(row: Mapping[str, Any]) -> Row:
    evaluation, question = row["evaluation"], mapping(row.get("input"))
    metadata, usage = mapping(row.get("metadata")), mapping(row.get("token_usage"))
    latency = numeric(mapping(row.get("performance")).get("latency_ms"))
    error = str(row["error"])[:500] if row.get("error") else None
    answers = row.get("answer_attribution")
    answer = mapping(answers[-1]).get("extracted_value") if isinstance(answers, list) and answers else None
    item, placed = _item(row, question, metadata)
    agentic = row.get("interaction_type") == "agentic" or bool(numeric(evaluation.get("tool_calls_count")))
    return {
        "item": item, "placed": placed, "place": str(row.get("sample_id")),
        "score": None if error or _filled_in(metadata) else numeric(evaluation.get("score")),
        "answer": None if answer is None else str(answer)[:2_000],
        "cluster": cluster_of(metadata),
        "latency_s": None if latency is None else latency / 1000,
        "tokens_in": numeric(usage.get("input_tokens")), "tokens_out": numeric(usage.get("output_tokens")),
        "error": error, "text": str(question.get("raw") or "")[:2_000],
        "kind": "workflow" if agentic else "model",
        "choices": len(question["choices"]) if isinstance(question.get("choices"), list) else 0,
        "prompt": str(metadata.get("prompt_hash") or ""), "filter": str(metadata.get("filter") or "none"),
        "result": row.get("evaluation_result_id"),
    }  # fmt: skip


def _item(row: Mapping[str, Any], question: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, bool]:
    """What the item is called, and whether that is but the place that its sample's id is."""
    for key in (ITEM, "doc_hash"):
        if isinstance(metadata.get(key), str) and metadata[key]:
            return metadata[key], False
    references = question.get("reference")
    content = [str(question.get("raw") or ""), *map(str, references if isinstance(references, list) else [])]
    return (item_of(*content), False) if any(content) else (f"sample {row.get('sample_id')}", True)


def _filled_in(metadata: Mapping[str, Any]) -> bool:
    """Whether no metric of lm-evaluation-harness was a number: its converter writes a score of 0 then."""
    try:
        metrics = json.loads(metadata["lm_eval_metrics"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    return isinstance(metrics, dict) and not any(numeric(value) is not None for value in metrics.values())


def _named(rows: list[Row]) -> list[Row]:
    """Rows of one sample are answers to one item; other samples that ask the same are items of their own."""
    samples: dict[str, dict[str, int]] = {}
    answers: dict[tuple[str, str], int] = {}
    made = []
    for row in sorted(rows, key=lambda r: (len(r["place"]), r["place"])):
        alike = samples.setdefault(row["item"], {})
        number = alike.setdefault(row["place"], len(alike))
        key = row["item"], row["place"]
        answers[key] = answers.get(key, -1) + 1
        name = row["item"] if number == 0 else f"{row['item']}#{number}"
        made.append(row | {"item": name, "sample": answers[key]})
    return made


def _claims(name: str, task: str, result: Mapping[str, Any], rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    details = mapping(result.get("score_details"))
    said = mapping(details.get("uncertainty")).get("num_samples")
    different = len({(row["item"], row["place"]) for row in rows})
    if isinstance(said, int) and said not in (different, len(rows)):
        yield f"{name}: {task} claims {said:,} samples, and {different:,} are there."
    if len(rows) > different:
        yield (f"{name}: {len(rows) - different:,} rows of {task} name a sample that another row names too: they are "
               "taken for further answers to it.")  # fmt: skip
    failed = sum(row["error"] is not None for row in rows)
    if failed:
        yield f"{name}: {failed:,} of {len(rows):,} rows of {task} ended in an error: none has a score."
    if any(row["placed"] for row in rows):
        yield f"{name}: samples of {task} hold no input: these items are named by their sample's id alone."
    score, scores = numeric(details.get("score")), [row["score"] for row in rows if row["score"] is not None]
    if score is not None and scores and len(scores) == len(rows):
        mean = sum(scores) / len(scores)
        if not abs(mean - score) <= CLOSE * max(1.0, abs(score)):
            yield f"{name}: {task} has a score of {score:.4g}, and its samples have a mean of {mean:.4g}."
