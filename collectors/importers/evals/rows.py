"""Items as rows: CSV, Parquet, JSONL with a column mapping, and the event lines of OpenAI's evals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import Asked, Found, checkpoint_of, lines_of, mapping, numeric
from trainvitals.errors import UsageError
from trainvitals.evals import COLUMNS, Sheet

ALIASES = {
    "item": ("item", "id", "item_id", "sample_id", "question_id", "doc_id", "example_id", "task_id"),
    "score": ("score", "acc", "correct", "accuracy", "exact_match", "is_correct", "passed", "reward", "jailbroken"),
    "cluster": ("cluster", "subject", "category", "subtask", "passage", "attack"),
    "answer": ("answer", "prediction", "output", "response"),
    "latency_s": ("latency_s", "latency", "seconds", "duration_s"),
    "text": ("text", "question", "prompt", "input", "goal"),
}  # fmt: skip
"""Names that columns go by, the first that there is."""
MOST_BYTES = 4 << 30


def is_events(path: Path) -> bool:
    """Whether a JSONL file holds the events of OpenAI's evals."""
    if path.suffix != ".jsonl":
        return False
    try:
        first = next((row for _, row in lines_of(path)), None)
    except UsageError:
        return False
    return isinstance(first, dict) and ("spec" in first or {"run_id", "sample_id", "type"} <= set(first))


def read_events(path: Path, asked: Asked) -> Found:
    """One result of OpenAI's evals: a sample's `match`, or its `metrics`; one with an error alone is missing."""
    spec: dict[str, Any] = {}
    scores: dict[str, dict[str, Any]] = {}
    for _, row in lines_of(path):
        if not isinstance(row, dict):
            continue
        spec = row["spec"] if isinstance(row.get("spec"), dict) else spec
        if "sample_id" not in row:
            continue
        one = scores.setdefault(str(row["sample_id"]), {"item": str(row["sample_id"]), "score": None})
        data = mapping(row.get("data"))
        if row.get("type") in ("match", "metrics"):
            value = next((numeric(data[k]) for k in ("correct", "score", "accuracy") if k in data), None)
            one |= {"score": value if value is not None else one["score"], "answer": data.get("picked"), "error": None}
        elif row.get("type") == "error" and one["score"] is None:
            one["error"] = str(data.get("message") or data or "error")[:500]
    functions = spec.get("completion_fns")
    model = str(functions[0]) if isinstance(functions, list) and functions else ""
    checkpoint, step = checkpoint_of(asked, path, model)
    task = asked.task or str(spec.get("eval_name") or path.stem)
    missing = sum(one["score"] is None for one in scores.values())
    return Found([_sheet(task, checkpoint, step, "match", "openai evals", path, pd.DataFrame(list(scores.values())))],
                 [f"{path.name}: {missing:,} of {len(scores):,} samples have no score."] if missing else [])


def read_table(path: Path, asked: Asked) -> Found:
    """Rows of a table as the items of one task, or of several where a column names the task.

    Raises:
        UsageError: no column is the item or the score; the message names those that there are.
    """
    table = _frame(path)
    names = {ours: _column(table, ours, asked) for ours in (*COLUMNS, "task", "step", "checkpoint")}
    if asked.step is not None or asked.checkpoint:
        names["step"] = names["checkpoint"] = None
    for needed in ("item", "score"):
        if names[needed] is None:
            raise UsageError(f"{path} has no column for the {needed}. Say which one with --columns {needed}=NAME; "
                             f"there are {', '.join(map(str, list(table.columns)[:20]))}.")  # fmt: skip
    data = pd.DataFrame({ours: _values(table, theirs) for ours, theirs in names.items() if theirs is not None})
    found = Found()
    keys = [name for name in ("task", "checkpoint", "step") if name in data]
    for values, rows in data.groupby(keys, sort=True, dropna=False) if keys else [((), data)]:
        told = dict(zip(keys, values if isinstance(values, tuple) else (values,), strict=True))
        step = told.get("step")
        said = Asked(int(step) if asked.step is None and step is not None and step == step else asked.step,
                     asked.checkpoint or str(told.get("checkpoint") or ""))
        checkpoint, at = checkpoint_of(said, path)
        task = asked.task or str(told.get("task") or path.name.split(".")[0])
        items = rows.drop(columns=keys)
        metric = "score" if "score" in asked.columns else str(names["score"])
        found.sheets.append(_sheet(task, checkpoint, at, metric, "table", path, items, asked.lower))
        doubled = int(items["item"].duplicated().sum()) if "sample" not in items else 0
        if doubled:
            found.notes.append(f"{path.name}: {doubled:,} rows of {task} name an item that another row names too; they "
                               "are taken for further samples of it.")
            items["sample"] = items.groupby("item").cumcount()
    return found


def _frame(path: Path) -> pd.DataFrame:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} has {path.stat().st_size:,} bytes; at most {MOST_BYTES:,} are read.")
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pandas()
        if path.suffix == ".jsonl":
            return pd.DataFrame([row for _, row in lines_of(path) if isinstance(row, dict)])
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except (OSError, ValueError, pa.ArrowException, UnicodeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}.") from error


def _values(table: pd.DataFrame, name: Any) -> Any:
    if name in table:
        return table[name]
    parts = [table[part].astype(str) for part in str(name).split("+")]
    return parts[0].str.cat(parts[1:], sep="/")


def _column(table: pd.DataFrame, ours: str, asked: Asked) -> Any:
    if ours in asked.columns:
        if not all(part in table for part in asked.columns[ours].split("+")) and asked.columns[ours] not in table:
            raise UsageError(f"--columns {ours}={asked.columns[ours]}: there is no such column. There are "
                             f"{', '.join(map(str, list(table.columns)[:20]))}.")  # fmt: skip
        return asked.columns[ours]
    known = {str(name).lower(): name for name in table.columns}
    return next((known[alias] for alias in ALIASES.get(ours, (ours,)) if alias in known), None)


def _sheet(task: str, checkpoint: str, step: int | None, metric: str, harness: str, path: Path,
           items: pd.DataFrame, lower: bool = False) -> Sheet:
    lower = lower or any(word in metric.lower() for word in ("loss", "perplexity", "error", "violation", "jailbroken"))
    return Sheet(task=task, checkpoint=checkpoint, step=step, kind="model", family=family_of(task), metric=metric,
                 higher_is_better=not lower, harness=harness, version="", n_shot=None, prompt_hash="", filter="none",
                 source=str(path), chance=None, items=items)
