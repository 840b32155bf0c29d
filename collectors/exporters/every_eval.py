"""`trainvitals evals export`: results of evaluations as logs of Every Eval Ever (schema 0.3.0, evalevalai.com).

    OUT/data/<run>/<run>/<checkpoint>/<uuid>.json             scores of one checkpoint by one harness
    OUT/data/<run>/<run>/<checkpoint>/<uuid>_samples.jsonl    their items

The schema has no missing score: an item without one is written with an `error` and a 0, which readers of `error` leave
out. Texts are stored up to a length, so `sample_hash` is not given; `metadata` holds the name that the item has here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trainvitals.errors import UsageError
from trainvitals.evals import Evals, Sheet, read_evals

SCHEMA = "0.3.0"
UNSCORED = "no score"
RESERVED = {"con", "prn", "aux", "nul", "data"}


@click.command(name="export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["every-eval-ever"]), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def export_(run: Path, format_: str, out: Path) -> None:
    """Write a run's results of evaluations for other tools, item by item.

    Example: trainvitals evals export runs/demo --format every-eval-ever --out shared
    """
    del format_
    evals = read_evals(run)
    if not evals.tasks:
        raise UsageError(f"{run} holds no results of evaluations. Import some with trainvitals evals import.")
    name = _part(run.resolve().name)
    for checkpoint in evals.checkpoints:
        for path, results, rows, left in write_logs(evals, checkpoint, name, out):
            if results:
                click.echo(f"{path}: {results} results of {checkpoint}, {rows:,} rows")
            for task in left:
                click.echo(f"  {task} has no score at all: the format cannot hold it, and it is left out.")
    for problem in evals.problems:
        click.echo(problem, err=True)
    if evals.problems:
        sys.exit(1)


def write_logs(evals: Evals, checkpoint: str, run: str, out: Path) -> Iterator[tuple[Path, int, int, list[str]]]:
    """A log for each harness that measured a checkpoint: its path, results, rows, and tasks that are left out.

    Where all of a harness' tasks are left out there is no log: the path is that of the folder, and nothing is counted.

    Raises:
        UsageError: the folder cannot be written.
    """
    times = {s.task: s.time for s in evals.summaries if s.checkpoint == checkpoint}
    by_harness: dict[str, list[Sheet]] = {}
    for task in sorted(times):
        sheet = evals.sheet(task, checkpoint)
        if sheet is not None:
            by_harness.setdefault(sheet.harness, []).append(sheet)
    for harness, sheets in sorted(by_harness.items()):
        kept = [sheet for sheet in sheets if np.isfinite(_mean(sheet))]
        left = [sheet.task for sheet in sheets if not np.isfinite(_mean(sheet))]
        if not kept:
            yield out, 0, 0, left
            continue
        seen = hashlib.sha256("".join(sheet.digest() for sheet in kept).encode()).digest()
        name = str(uuid.UUID(bytes=seen[:16], version=4))
        folder = Path("data", run, run, _part(checkpoint))
        time = str(max(times[sheet.task] for sheet in kept))
        identity = f"{run}/{run}_{_part(checkpoint)}/{time}"
        model = f"{run}/{_part(checkpoint)}"
        rows = [row for sheet in kept for row in _rows(sheet, identity, model)]
        samples = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
        log = _log(kept, harness, identity, model, checkpoint, time)
        try:
            (out / folder).mkdir(parents=True, exist_ok=True)
            if rows:
                log["detailed_evaluation_results"] = {
                    "format": "jsonl", "file_path": (folder / f"{name}_samples.jsonl").as_posix(),
                    "hash_algorithm": "sha256", "checksum": hashlib.sha256(samples).hexdigest(),
                    "total_rows": len(rows)}  # fmt: skip
                _write(out / folder / f"{name}_samples.jsonl", samples)
            _write(out / folder / f"{name}.json", json.dumps(log, indent=2, allow_nan=False).encode())
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from error
        yield out / folder / f"{name}.json", len(kept), len(rows), left


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def _part(name: str) -> str:
    """A name as one part of a path that every file system takes."""
    part = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:100].strip("._") or "run"
    return f"{part}_" if part.split(".")[0].lower() in RESERVED else part


def _mean(sheet: Sheet) -> float:
    """Of items, each the mean of its samples; of a result without items, what the harness said."""
    if not len(sheet.items):
        return float("nan") if sheet.aggregate is None else sheet.aggregate
    return float(sheet.items.groupby("item")["score"].mean().mean())


def _id(sheet: Sheet) -> str:
    return f"{sheet.task}::{sheet.metric}"


def _log(sheets: Sequence[Sheet], harness: str, identity: str, model: str, checkpoint: str,
         time: str) -> dict[str, Any]:
    library, _, version = harness.rpartition(" ") if " " in harness else (harness, "", "")
    step = {} if sheets[0].step is None else {"checkpoint_step": str(sheets[0].step)}
    return {
        "schema_version": SCHEMA, "evaluation_id": identity, "retrieved_timestamp": time,
        "source_metadata": {"source_name": "TrainVitals", "source_type": "evaluation_run",
                            "source_organization_name": "unknown", "evaluator_relationship": "other"},
        "eval_library": {"name": library or "unknown", "version": version or "unknown"},
        "model_info": {"name": checkpoint, "id": model, "additional_details": {
            "deployment_type": "unknown", "model_availability": "unknown", "checkpoint": checkpoint, **step}},
        "evaluation_results": [_result(sheet) for sheet in sheets],
    }  # fmt: skip


def _result(sheet: Sheet) -> dict[str, Any]:
    known = sheet.items["score"].dropna()
    binary = len(known) > 0 and bool(known.isin([0.0, 1.0]).all())
    told = {"filter": sheet.filter, "prompt_hash": sheet.prompt_hash, "task_version": sheet.version,
            "n_shot": "" if sheet.n_shot is None else str(sheet.n_shot), "kind": sheet.kind}  # fmt: skip
    items = sheet.items["item"].nunique()
    return {
        "evaluation_result_id": _id(sheet), "evaluation_name": sheet.task,
        "source_data": {"dataset_name": sheet.task, "source_type": "other"},
        "metric_config": {"metric_name": sheet.metric, "lower_is_better": not sheet.higher_is_better,
                          **({"score_type": "binary"} if binary else {})},
        "score_details": {"score": _mean(sheet), **({"uncertainty": {"num_samples": items}} if items else {})},
        "generation_config": {"additional_details": {k: v for k, v in told.items() if v}},
    }  # fmt: skip


def _rows(sheet: Sheet, identity: str, model: str) -> Iterator[dict[str, Any]]:
    for row in sheet.items.to_dict("records"):
        score, question, answer = row["score"], row["text"] or "", row["answer"] or ""
        scored = bool(np.isfinite(score))
        agent = sheet.kind == "workflow"
        talk = [{"turn_idx": 0, "role": "user", "content": question},
                {"turn_idx": 1, "role": "assistant", "content": answer}]  # fmt: skip
        known = np.isfinite(row["tokens_in"]) and np.isfinite(row["tokens_out"])
        used = (int(row["tokens_in"]), int(row["tokens_out"])) if known else (0, 0)
        yield {
            "schema_version": SCHEMA, "evaluation_id": identity, "model_id": model, "evaluation_name": sheet.task,
            "evaluation_result_id": _id(sheet), "sample_id": row["item"],
            "interaction_type": "agentic" if agent else "single_turn",
            "input": {"raw": question, "reference": []},
            **({"messages": talk} if agent else {"output": {"raw": [answer]}}),
            "answer_attribution": [{"turn_idx": int(agent), "source": "messages[1].content" if agent else "output.raw",
                                    "extracted_value": answer, "extraction_method": sheet.filter or "none",
                                    "is_terminal": True}],
            "evaluation": {"score": float(score) if scored else 0.0, "is_correct": bool(score == 1.0),
                           **({"num_turns": 2} if agent else {})},
            **({"token_usage": {"input_tokens": used[0], "output_tokens": used[1], "total_tokens": sum(used)}}
               if known else {}),
            **({"performance": {"latency_ms": row["latency_s"] * 1000}} if np.isfinite(row["latency_s"]) else {}),
            **({} if scored and not row["error"] else {"error": row["error"] or UNSCORED}),
            "metadata": {"trainvitals_item": row["item"],
                         **{k: row[k] for k in ("cluster", "group", "session", "tool") if row[k]}},
        }  # fmt: skip
