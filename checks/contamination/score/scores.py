"""Scores per item, read from whatever an evaluation left behind, and put beside the items of the audit.

    scores = read_scores(["mine=results/samples_gsm8k_2026-01-05T10-00-00.jsonl"], controls=["old=old_model.csv"])
    matched = match_scores(items, scores)

A score belongs to one item of one benchmark and one model. Whatever does not fit is counted and said, never dropped.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from checks.contamination.records import Problem
from checks.contamination.score.score_files import SAMPLES, Row, read_rows
from trainvitals.errors import UsageError

COLUMNS = ["source", "model", "control", "benchmark", "named", "item_id", "positional", "score", "text"]
SAME_TEXT = 0.9
"""Share of a file's documents that must be found in the items they were matched with; convention."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores as read, not yet matched with items."""

    rows: pd.DataFrame
    """`COLUMNS`: one row per source, model, benchmark and item; score float64 in [0, 1]. `benchmark` is empty where
    the file does not tell; `named` says whether the file itself names it; `positional` whether the id may be a
    position; `text` is part of the item, where given."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """Scores beside the items of the audit."""

    rows: pd.DataFrame
    """benchmark, model, control, item_id, score, verdict, overlap (the item's containment score): one row per model
    and scored item."""
    unscored: dict[tuple[str, str], int]
    """(benchmark, model) -> items of the benchmark that have no score."""
    unmatched: dict[tuple[str, str], int]
    """(benchmark, model) -> scores whose item is not in the benchmark."""
    problems: tuple[Problem, ...]


def read_scores(specs: Sequence[str | Path], controls: Sequence[str | Path] = ()) -> ScoreTable:
    """Read score files of the models under audit and of control models, which are known not to have seen the data.

    Args:
        specs: `PATH` or `MODEL=PATH`. A path may be a glob, a URL or a folder of lm-eval's `samples_*.jsonl`. Read are
            lm-eval samples, JSON {item: score} or {model: {item: score}}, and JSONL, CSV or Parquet with a column for
            the item (item_id, id, doc_id, task_id), one for the score (score, correct, acc, exact_match ...) and
            optionally model and benchmark. Scores are numbers from 0 to 1, or true and false.
        controls: the same, for control models.

    Raises:
        UsageError: a file that cannot be read as scores, a score outside [0, 1], or two files for one model.
    """
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for is_control, group in ((False, specs), (True, controls)):
        for spec in group:
            given, path = _split_spec(str(spec))
            for source in _sources(path):
                found, said = read_rows(source)
                problems += said
                rows += [_row(row, source, given, is_control) for row in found]
    table = pd.DataFrame(rows, columns=COLUMNS).astype(
        {"score": "float64", "control": bool, "named": bool, "positional": bool}
    )
    _refuse_clashes(table)
    scored, said = _drop_missing(table)
    once, repeated = _average_repeats(scored)
    return ScoreTable(once, (*problems, *said, *repeated))


def _split_spec(spec: str) -> tuple[str, str]:
    """Model and path. Both may hold `=`, as in lm-eval's `pretrained=org/model`: what is there decides."""
    if _is_there(spec):
        return "", spec
    cuts = [found.start() for found in re.finditer("=", spec) if found.end() < len(spec)]
    for cut in cuts:
        if _is_there(spec[cut + 1 :]):
            return spec[:cut], spec[cut + 1 :]
    name, _, path = spec.partition("=")
    return (name, path) if path and not re.search(r"[/\\]", name) else ("", spec)


def _is_there(path: str) -> bool:
    """Whether a path names something: a URL is taken at its word."""
    if re.match(r"[a-z][a-z0-9+.-]*://", path):
        return True
    return os.path.exists(path) or bool(glob.glob(path, recursive=True))


def _sources(path: str) -> list[str]:
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).rglob("samples_*.jsonl"))
        if not found:
            raise UsageError(f"The folder {path} holds no samples_*.jsonl. Name the score files themselves.")
        return found
    if "://" not in path and not os.path.exists(path):
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise UsageError(f"There is no score file {path}. Check the path.")
        return found
    return [path]


def _row(row: Row, source: str, given: str, is_control: bool) -> dict[str, Any]:
    path = Path(source)
    sample = SAMPLES.fullmatch(path.name)
    # lm-eval writes the samples of one model into a folder of the model's name.
    own = path.parent.name if sample and path.parent.name else path.name.split(".")[0]
    return {
        "source": source,
        "model": row.model or given or own,
        "control": is_control,
        "benchmark": row.benchmark or (sample["task"] if sample else path.name.split(".")[0]),
        "named": bool(row.benchmark),
        "item_id": row.item_id,
        "positional": row.positional,
        "score": row.score,
        "text": row.text,
    }


def _refuse_clashes(table: pd.DataFrame) -> None:
    both = table.groupby("model")["control"].nunique()
    if (both > 1).any():
        name = both.index[both > 1][0]
        raise UsageError(f"The model {name!r} is given by --scores and by --control. Name it once.")
    files = table.groupby(["model", "benchmark", "item_id"])["source"].nunique()
    if (files > 1).any():
        model, benchmark, item = files.index[files > 1][0]
        first, second = table.loc[(table["model"] == model) & (table["item_id"] == item), "source"].unique()[:2]
        raise UsageError(
            f"{first} and {second} both score item {item!r} of model {model!r}. Give one of them, or name the models "
            "with MODEL=PATH."
        )


def _drop_missing(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    missing = table[table["score"].isna()]
    said = [
        Problem(str(source), f"{len(part):,} rows", "Rows without a score were left out.", len(part))
        for source, part in missing.groupby("source")
    ]
    return table[table["score"].notna()], said


def _average_repeats(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    keys = ["source", "model", "control", "benchmark", "named", "item_id"]
    said = []
    for source, part in table[table.duplicated(keys)].groupby("source"):
        items = part["item_id"].nunique()
        said.append(
            Problem(str(source), f"{items:,} items", "Items scored more than once: the mean of their scores is used.")
        )
    return table.groupby(keys, as_index=False, sort=False).agg(
        {"score": "mean", "text": "first", "positional": "first"}
    )[COLUMNS], said


def match_scores(items: pd.DataFrame, table: ScoreTable) -> Matched:
    """Find the item of each score. items: the columns of items.parquet, each benchmark in its own order.

    A file that names no benchmark is given to the one that its name hints at or that its item ids fit. lm-eval's doc_id
    is a position: where not every id fits, positions are tried, and where there is text of the documents, it decides.
    """
    parts: list[pd.DataFrame] = []
    problems: list[Problem] = []
    unscored: dict[tuple[str, str], int] = {}
    unmatched: dict[tuple[str, str], int] = {}
    files: dict[tuple[str, str], str] = {}
    known = {str(name): part for name, part in items.groupby("benchmark", sort=False)}
    for (source, label, named, model), part in table.rows.groupby(
        ["source", "benchmark", "named", "model"], sort=False
    ):
        found, why = _fit(part, label, named, known)
        if found is None:
            problems.append(Problem(source, f"model {model}", why, len(part)))
            continue
        name = str(found["benchmark"].iloc[0])
        files.setdefault((name, model), source)
        if lost := len(part) - len(found):
            unmatched[name, model] = unmatched.get((name, model), 0) + lost
            problems.append(Problem(source, f"model {model}", f"Scores of items that {name} does not hold.", lost))
        parts.append(found)
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=_MATCHED)
    for (name, model), part in rows.groupby(["benchmark", "model"], sort=False):
        unscored[name, model] = len(known[name]) - part["item_id"].nunique()
        if missing := unscored[name, model]:
            what = f"{missing:,} of the {len(known[name]):,} items of {name} have no score: the others speak for them."
            problems.append(Problem(files[name, model], f"model {model}", what))
    return Matched(rows.reset_index(drop=True), unscored, unmatched, (*table.problems, *problems))


_MATCHED = ["benchmark", "model", "control", "item_id", "score", "verdict", "overlap"]


def _fit(
    part: pd.DataFrame, label: str, named: bool, known: dict[str, pd.DataFrame]
) -> tuple[pd.DataFrame | None, str]:
    """The scores of one file and model with their items; or None and the sentence why not."""
    pool = _candidates(label, named, known)
    if not pool:
        return None, f"Scores of {label}, which is not a benchmark of this audit ({', '.join(known)}): not used."
    ids = set(part["item_id"])
    hits = {name: len(ids & set(known[name]["item_id"])) for name in pool}
    most = max(hits.values())
    best = [name for name in pool if hits[name] == most]
    if len(best) > 1:
        return None, f"The item ids fit {' and '.join(best)} alike: not used. Add a column `benchmark`."
    items = known[best[0]]
    told = bool((part["text"] != "").any())
    positions = {str(i) for i in range(len(items))}
    by_position = most < len(ids) and ids <= positions
    if told:
        joined = [part.merge(_keyed(items, by_position=way), on="item_id") for way in (False, True)]
        found = max(joined, key=lambda rows: _same_text(rows) * len(rows))
        if _same_text(found) < SAME_TEXT:
            return None, f"The documents are not the items of {best[0]} of that number: not used. Score by item id."
    elif by_position and not part["positional"].all():
        return None, (
            f"The ids fit the positions of {best[0]}'s items, and not all fit its ids (such as "
            f"{items['item_id'].iloc[0]!r}): not used. Score by item id, or call the column doc_id if it counts from 0."
        )
    elif most == 0 and not by_position:
        return None, f"None of the item ids is one of {best[0]} (such as {items['item_id'].iloc[0]!r}): not used."
    else:
        found = part.merge(_keyed(items, by_position=by_position), on="item_id")
    return found.assign(item_id=found["own_id"], benchmark=best[0])[_MATCHED], ""


def _candidates(label: str, named: bool, known: dict[str, pd.DataFrame]) -> list[str]:
    """Benchmarks that a label may mean. One that the file states must fit; a file name is only a hint."""
    words = _words(label)
    same = [name for name in known if _words(name) == words]
    if named and not same:
        # gsm8k and gsm8k_test are one benchmark; arc_easy and arc_challenge are two.
        return [name for name in known if all(a == b for a, b in zip(_words(name), words, strict=False))]
    return same or [name for name in known if _words(name)[:1] and _words(name)[0] in words] or list(known)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word]


def _keyed(items: pd.DataFrame, *, by_position: bool) -> pd.DataFrame:
    keys = [str(i) for i in range(len(items))] if by_position else items["item_id"]
    overlap = items["score"].fillna(0.0).astype("float64").round(6)
    return pd.DataFrame(
        {
            "item_id": keys,
            "own_id": items["item_id"],
            "verdict": items["verdict"],
            "overlap": overlap,
            "item_text": items["text"].fillna(""),
        }
    )


def _same_text(found: pd.DataFrame) -> float:
    """Share of documents of which a string is part of the item's text."""
    if found.empty:
        return 0.0
    pairs = zip(found["text"], found["item_text"], strict=True)
    return float(np.mean([_any_part(text.split("\0"), " ".join(item.split())) for text, item in pairs]))


def _any_part(strings: list[str], item: str) -> bool:
    return any(string in item for string in strings)
