"""lighteval (0.10 and later): `results/<model>/results_<date>.json`, with the answers of the same date in
`details/<model>/<date>/details_<task>_<date>.parquet`, or in `<date>/` beside the results as on the Hub.

A row holds `doc`, `model_response` and `metric`. Neither keeps the document's id: an item is named by its query and
choices. Metrics of a whole corpus have no score of an item, and are scores of the task alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import (
    MOST_LINES,
    Asked,
    Found,
    checkpoint_of,
    cluster_of,
    counted,
    file_in,
    item_of,
    json_of,
    mapping,
    numeric,
)
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet

HEAD = 1 << 16
COLUMNS = ("doc.query", "doc.choices", "doc.specific", "metric", "model_response.input", "model_response.text",
           "model_response.logprobs")  # fmt: skip
BATCH = 1_000
LOWER = ("perplexity", "bits_per_byte", "loss", "brier", "error", "toxic", "ter_", "wer")
Row = dict[str, Any]


def is_results(path: Path) -> bool:
    """Whether a file is lighteval's results: the key that it writes first is looked for at the start."""
    if path.suffix != ".json":
        return False
    try:
        with path.open("rb") as file:
            return b'"config_general"' in file.read(HEAD)
    except OSError:
        return False


def read(path: Path, asked: Asked) -> Found:
    """All tasks of one results file. Raises UsageError."""
    data = json_of(path)
    results = mapping(data).get("results")
    if not isinstance(results, dict):
        raise UsageError(f"{path} holds no `results` of lighteval.")
    general = mapping(data.get("config_general"))
    model = mapping(general.get("model_config"))
    checkpoint, step = checkpoint_of(asked, path, *(str(x or "") for x in (
        general.get("model_name") or model.get("model_name"), model.get("revision"))))  # fmt: skip
    found, taken = Found(), set[str]()
    for full, values in results.items():
        if full == "all" or ":_average" in full or not isinstance(values, dict):
            continue
        name, shots = _parts(full)
        task = asked.task or (name if name not in taken else full)
        taken.add(name)
        config = mapping(mapping(data.get("config_tasks")).get(full))
        facts: Row = {"checkpoint": checkpoint, "step": step, "kind": "model", "family": family_of(task),
                      "harness": "lighteval", "version": str(mapping(data.get("versions")).get(full, "")),
                      "n_shot": shots, "filter": "none", "source": str(path)}  # fmt: skip
        place = _details(path, full)
        rows = [] if place is None else _rows(place)
        found.sheets += list(_sheets(task, values, rows, config, facts))
        found.notes += _claims(path.name, full, place, rows, config)
    if not found.sheets:
        raise UsageError(f"{path} holds no score of a task. Give the results of an evaluation that ended.")
    return found


def _parts(full: str) -> tuple[str, int | None]:
    """Task and number of examples shown: `gsm8k|5`; in older files `lighteval|gsm8k|5|0` and `harness|arc|25`."""
    parts = full.split("|")
    name, shots = (parts[1], parts[2]) if len(parts) in (3, 4) else (parts[0], parts[-1])
    return name or full, int(shots) if len(parts) > 1 and shots.isdecimal() and len(shots) < 6 else None


def _details(path: Path, full: str) -> Path | None:
    """The answers of the same date: another date is another measurement."""
    date = path.stem.removeprefix("results_")
    folders = [path.parent / date, path.parent]
    for root in path.parents:
        if root.name == "results":
            folders.append(root.parent / "details" / path.parent.relative_to(root) / date)
    places = (file_in(folder, f"details_{full}_{date}.parquet") for folder in folders)
    return next((place for place in places if place is not None), None)


def _rows(place: Path) -> list[Row]:
    try:
        with pq.ParquetFile(place) as file:
            names = set(file.schema_arrow.names)
            if not {"doc", "metric"} <= names:
                raise UsageError(f"{place} has the columns {', '.join(sorted(names)[:10])!s:.200}, not doc and metric "
                                 "as lighteval writes since 0.10. Read it as a table, with --columns.")  # fmt: skip
            if file.metadata.num_rows > MOST_LINES:
                raise UsageError(f"{place} has {file.metadata.num_rows:,} rows; at most {MOST_LINES:,} are read.")
            batches = file.iter_batches(BATCH, columns=list(COLUMNS))
            return [_row(row) for batch in batches for row in batch.to_pylist()]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{place} cannot be read: {str(error).splitlines()[0] if str(error) else error}.") from error


def _row(row: Mapping[str, Any]) -> Row:
    document, response = mapping(row.get("doc")), mapping(row.get("model_response"))
    query, choices = str(document.get("query") or ""), document.get("choices")
    options = [str(choice) for choice in choices] if isinstance(choices, list) else []
    texts, likelihoods = response.get("text"), response.get("logprobs")
    answer = str(texts[0])[:2_000] if isinstance(texts, list) and texts else None
    chosen = isinstance(likelihoods, list) and len(likelihoods) == len(options) > 1
    if chosen and not answer:
        known = [float("-inf") if numeric(v) is None else float(v) for v in likelihoods]  # type: ignore[union-attr]
        answer = options[known.index(max(known))]
    return {"item": item_of(query, *options), "text": query[:2_000], "answer": answer,
            "cluster": cluster_of(mapping(document.get("specific"))), "choices": len(options) if chosen else 0,
            "prompt": item_of(str(response.get("input"))) if response.get("input") else "",
            "metric": mapping(row.get("metric"))}  # fmt: skip


def _sheets(task: str, values: Mapping[str, Any], rows: list[Row], config: Mapping[str, Any],
            facts: Mapping[str, Any]) -> Iterator[Sheet]:  # fmt: skip
    metrics = [m for m in dict.fromkeys(k for row in rows for k in row["metric"])
               if any(numeric(row["metric"].get(m)) is not None for row in rows)]  # fmt: skip
    bare = [m for m, value in values.items()
            if m not in metrics and not m.endswith("_stderr") and numeric(value) is not None]  # fmt: skip
    names, prompts = counted(row["item"] for row in rows), sorted(f"{row['item']}:{row['prompt']}" for row in rows)
    options = [row["choices"] for row in rows]
    for rank, metric in enumerate((*metrics, *bare)):
        own = metric in metrics
        items = pd.DataFrame([
            {"item": item, "score": numeric(row["metric"].get(metric)), "answer": row["answer"],
             "cluster": row["cluster"], "text": row["text"]} for item, row in zip(names, rows, strict=True)
        ] if own else [])  # fmt: skip
        yield Sheet(
            task=task if not rank else f"{task}:{metric}", metric=metric, items=items,
            higher_is_better=_better(metric, config), aggregate=None if own else numeric(values[metric]),
            prompt_hash=item_of(*prompts) if own and all(row["prompt"] for row in rows) else "",
            chance=sum(1 / n for n in options) / len(options) if own and "acc" in metric and min(options) > 1 else None,
            **facts)  # fmt: skip


def _better(metric: str, config: Mapping[str, Any]) -> bool:
    told = config.get("metrics")
    for one in map(mapping, told if isinstance(told, list) else []):
        better, named = one.get("higher_is_better"), one.get("metric_name")
        known = metric == named or isinstance(named, list) and metric in named
        better = better.get(metric) if isinstance(better, dict) else better if known else None
        if isinstance(better, bool):
            return better
    return not any(word in metric.lower() for word in LOWER)


def _claims(name: str, full: str, place: Path | None, rows: list[Row], config: Mapping[str, Any]) -> Iterator[str]:
    if place is None:
        yield (f"{name}: there are no details of {full} of the same date: its score is known, and nothing can be "
               "compared item by item. Run lighteval with --save-details.")  # fmt: skip
        return
    said, original = config.get("effective_num_docs"), config.get("original_num_docs")
    if isinstance(said, int) and 0 <= said != len(rows):
        yield f"{name}: {full} claims {said:,} items, and its details hold {len(rows):,}."
    if isinstance(original, int) and original > len(rows):
        yield f"{name}: {len(rows):,} of the {original:,} items of {full} were asked."
    doubled = len(rows) - len({row["item"] for row in rows})
    if doubled:
        yield f"{name}: {doubled:,} items of {full} ask what an earlier one asks: they are items of their own."
