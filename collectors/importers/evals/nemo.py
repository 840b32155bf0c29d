"""NeMo Evaluator: a bundle `eval-<time>-<benchmark>.json` with the answers in `results.jsonl` of the same folder.

`problem_idx` is a position in the benchmark, so an item is named by its prompt and expected answer. The harness gives a
reward of 0 to what its own infrastructure lost (`error_category` infra_error or system, a solver or a judge that gave
up): here those have no score. A used-up budget of turns is the workflow's own failure and keeps its 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import (
    Asked,
    Found,
    checkpoint_of,
    cluster_of,
    counted,
    item_of,
    json_of,
    lines_of,
    mapping,
    numeric,
)
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet

ROWS = "results.jsonl"
LOST = ("infra_error", "tool_infra", "system")
UNSOLVED = "solve_failed"
"""Method of a row whose solver gave up, be it for a rate limit or a crashed agent: nothing was verified."""
HEADLINES = ("pass@1", "mean_reward")
CLOSE = 1e-3
"""Scores of a bundle are rounded to four digits."""
MOST_REPEATS = 1_000_000
Row = dict[str, Any]


def is_bundle(path: Path) -> bool:
    """Whether a file is a bundle, by its name and keys."""
    if path.suffix != ".json" or not path.name.startswith("eval-"):
        return False
    try:
        data = json_of(path)
    except UsageError:
        return True
    return isinstance(data, dict) and isinstance(data.get("benchmark"), dict) and "name" in data["benchmark"]


def read(path: Path, asked: Asked) -> Found:
    """The reward of one benchmark, and a further result for each extra scorer. Raises UsageError."""
    data = json_of(path)
    benchmark, config = mapping(mapping(data).get("benchmark")), mapping(mapping(data).get("config"))
    if not isinstance(benchmark.get("name"), str):
        raise UsageError(f"{path} names no benchmark, so it is no bundle of NeMo Evaluator.")
    checkpoint, step = checkpoint_of(asked, path, str(config.get("model") or ""))
    task = asked.task or benchmark["name"]
    system = config.get("system_prompt")
    facts: Row = {"checkpoint": checkpoint, "step": step, "family": family_of(task), "source": str(path),
                  "harness": f"nemo-evaluator {mapping(data).get('sdk_version', '')}".strip(), "version": "",
                  "n_shot": None, "filter": "none", "chance": None,
                  "prompt_hash": item_of(system) if isinstance(system, str) else ""}  # fmt: skip
    found = Found()
    rows = _rows(path, found.notes)
    if not rows:
        value = next((numeric(mapping(mapping(benchmark.get("scores")).get(h)).get("value")) for h in HEADLINES
                      if h in mapping(benchmark.get("scores"))), None)  # fmt: skip
        found.notes.append(f"{path.name} has no answers in {ROWS} beside it: nothing can be compared item by item.")
        if value is not None:
            found.sheets.append(Sheet(task=task, metric="reward", higher_is_better=True, kind="model",
                                      items=pd.DataFrame(), aggregate=value, **facts))  # fmt: skip
        return found
    facts["kind"] = "workflow" if any(row["tools"] for row in rows) else "model"
    found.notes += _claims(path.name, mapping(data), benchmark, rows)
    for scorer in ("", *sorted({name for row in rows for name in row["scorers"]})):
        scores = [row["scorers"].get(scorer) if scorer else row["score"] for row in rows]
        found.sheets.append(Sheet(
            task=f"{task}:{scorer}" if scorer else task, metric=scorer or "reward", higher_is_better=True,
            items=pd.DataFrame(rows).drop(columns=["place", "reward", "tools", "scorers", "own"]).assign(score=scores),
            **facts))  # fmt: skip
    return found


def _rows(path: Path, notes: list[str]) -> list[Row]:
    place = path.with_name(ROWS)
    if not place.is_file():
        return []
    others = sum(1 for _ in path.parent.glob("eval-*.json"))
    if others > 1:
        raise UsageError(f"{path.parent} holds {others} bundles and one {ROWS}: whose answers those are is not known. "
                         "Give each bundle a folder of its own.")  # fmt: skip
    taken: dict[tuple[int, int], Row] = {}
    doubled = 0
    for number, row in lines_of(place):
        at = row.get("problem_idx") if isinstance(row, dict) else None
        if not isinstance(at, int) or row.get("repeat", 0) not in range(MOST_REPEATS):
            raise UsageError(f"{place}, line {number:,} names no problem_idx, so it is no answer of NeMo Evaluator.")
        key = at, row.get("repeat", 0)
        doubled += key in taken
        taken[key] = _row(row)
    rows = [taken[key] for key in sorted(taken)]
    if doubled:
        notes.append(f"{path.name}: {doubled:,} answers name a problem and repeat that an earlier line has, too: the "
                     "last one counts.")  # fmt: skip
    unnamed = sum(row["item"] is None for row in rows)
    if unnamed:
        notes.append(f"{path.name}: {unnamed:,} of {len(rows):,} answers hold no prompt: these items are named by "
                     "their place in the benchmark, so another version of it would pair other questions.")  # fmt: skip
    _name(rows)
    return rows


def _name(rows: list[Row]) -> None:
    """Items: by content, and where two problems ask the same, by how often that came before."""
    content = {row["place"]: row["item"] or f"problem {row['place']}" for row in rows}
    names = dict(zip(content, counted(content.values()), strict=True))
    for row in rows:
        row["item"] = names[row["place"]]


def _row(row: Mapping[str, Any]) -> Row:
    details, prompt = mapping(row.get("scoring_details")), row.get("prompt")
    error, own = _error(details)
    latency, metadata = numeric(row.get("latency_ms")), mapping(row.get("metadata"))
    used = [mapping(document.get("final_metrics")) for document in _documents(row)]
    answer = row.get("extracted_answer")
    reward = numeric(row.get("reward"))
    return {
        "place": row["problem_idx"],
        "item": item_of(prompt, str(row.get("expected_answer"))) if isinstance(prompt, str) and prompt else None,
        "sample": row.get("repeat", 0),
        "score": None if error else reward,
        "reward": reward,
        "answer": str(answer if answer is not None else row.get("model_response") or "")[:2_000],
        "cluster": cluster_of(metadata) or cluster_of(details),
        # The harness writes 0 for what it does not know.
        "latency_s": latency / 1000 if latency else None,
        "tokens_in": _total(used, "total_prompt_tokens"),
        "tokens_out": _total(used, "total_completion_tokens"),
        "error": error,
        "text": prompt[:2_000] if isinstance(prompt, str) else None,
        "own": own,
        "tools": _uses_tools(row),
        "scorers": {str(name): None if error or mapping(value).get("error") else numeric(mapping(value).get("reward"))
                    for name, value in details.items() if str(name).startswith("scorer:")},
    }  # fmt: skip


def _error(details: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What left an answer without a score, and whether it ended in an error that is the workflow's own."""
    category, judge = details.get("error_category"), mapping(details.get("judge"))
    if category in LOST or details.get("method") == UNSOLVED:
        return str(details.get("error") or category or UNSOLVED)[:500], False
    if judge.get("error"):
        return f"judge: {judge['error']}"[:500], False
    return None, category is not None


def _documents(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    trajectory = row.get("trajectory")
    yield from (mapping(part) for part in (trajectory if isinstance(trajectory, list) else []))


def _uses_tools(row: Mapping[str, Any]) -> bool:
    """Whether its trajectory (ATIF: documents of steps) holds a call of a tool or what one gave back."""
    for document in _documents(row):
        steps = document.get("steps")
        for step in map(mapping, steps if isinstance(steps, list) else [document]):
            if step.get("tool_calls") or step.get("observation") or step.get("role") == "tool":
                return True
    return False


def _total(used: Iterable[Mapping[str, Any]], key: str) -> float | None:
    counts = [count for part in used if (count := numeric(part.get(key))) is not None]
    return sum(counts) if counts else None


def _claims(name: str, data: Mapping[str, Any], benchmark: Mapping[str, Any], rows: list[Row]) -> Iterator[str]:
    lost, own = sum(row["error"] is not None for row in rows), sum(row["own"] for row in rows)
    problems = {row["place"] for row in rows}
    if lost:
        yield (f"{name}: {lost:,} of {len(rows):,} answers were lost to errors of the harness, which gives them 0: "
               "here they have no score.")  # fmt: skip
    if own:
        yield (f"{name}: {own:,} answers ended in an error of the workflow itself, as of a used-up budget: their score "
               "counts.")  # fmt: skip
    if isinstance(data.get("n_results"), int) and data["n_results"] != len(rows):
        yield f"{name} claims {data['n_results']:,} answers, and {ROWS} holds {len(rows):,} different ones."
    samples, repeats = benchmark.get("samples"), benchmark.get("repeats")
    if isinstance(samples, int) and samples != len(problems):
        yield f"{name} claims {samples:,} problems, and {ROWS} holds {len(problems):,}."
    if isinstance(repeats, int) and repeats * len(problems) > len(rows):
        yield f"{name}: {repeats * len(problems) - len(rows):,} of {repeats} answers a problem are missing."
    for headline in HEADLINES:
        said = numeric(mapping(mapping(benchmark.get("scores")).get(headline)).get("value"))
        rewards = pd.DataFrame({"at": [r["place"] for r in rows], "reward": [r["reward"] for r in rows]}).astype(float)
        mean = float((rewards.groupby("at")["reward"].mean()).mean())
        if said is not None and not abs(said - mean) <= CLOSE:
            yield f"{name} claims {headline} {said:g}, and its answers give {mean:.4g}: they are of another run."
