"""One task of one checkpoint, as one run of a harness saw it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from trainvitals.errors import UsageError

TEXTS = ("item", "answer", "cluster", "group", "session", "tool", "error", "text")
NUMBERS = ("score", "latency_s", "tokens_in", "tokens_out", "cost_usd")
COLUMNS = ("item", "score", "sample", "answer", "cluster", "group", "latency_s", "tokens_in", "tokens_out", "cost_usd",
           "session", "tool", "error", "text")  # fmt: skip
"""`item` names the question and is the same for every checkpoint; `sample` counts answers to one item from 0. A `score`
is NaN where there is none, because of an `error` of the harness for instance; `cluster` is what items share (a subject,
a passage, an attack family), `group` a slice to look at. Texts are None where unknown."""
NO_ITEMS = pd.DataFrame({name: pd.Series(dtype=object if name in TEXTS else float if name in NUMBERS else "int64")
                         for name in COLUMNS})  # fmt: skip
KINDS = ("model", "workflow")
MOST_ITEMS, MOST_TEXT, MOST_NAME = 5_000_000, 20_000, 500


@dataclass(frozen=True)
class Sheet:
    """The result of a task."""

    task: str
    checkpoint: str
    step: int | None
    """Training step of the checkpoint; None where nobody knows."""
    kind: str
    """"model": the model alone; "workflow": with tools, retrieval or an agent around it. The two are never compared."""
    family: str
    """What is tested: reasoning, knowledge, code ..., jailbreak, privacy ...; "" where unknown."""
    metric: str
    higher_is_better: bool
    harness: str
    version: str
    """Of the task, as the harness counts it."""
    n_shot: int | None
    prompt_hash: str
    """Equal where all prompts of the task are; "" where unknown."""
    filter: str
    """What was made of the raw answer before it was scored."""
    source: str
    """The file that it came from."""
    chance: float | None
    """Score of guessing; None where unknown."""
    items: pd.DataFrame
    """`COLUMNS`, one row for each answer; empty where only an aggregate is known."""
    aggregate: float | None = None
    """The task's score as the harness says it, of a result without items."""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the items."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "items"}

    def digest(self) -> str:
        """Of what was measured, wherever it was read from: equal for the same results under the same settings."""
        told = {k: v for k, v in self.facts.items() if k != "source"}
        seen = hashlib.sha256(repr(sorted(told.items())).encode())
        ordered = self.items.sort_values(["item", "sample"], kind="stable")
        for name in COLUMNS:
            seen.update(pd.util.hash_pandas_object(ordered[name], index=False).to_numpy().tobytes())
        return seen.hexdigest()[:32]


def tidy(sheet: Sheet) -> Sheet:
    """The same with every column there and of its type.

    Raises:
        UsageError: a fact or column has a value that it can't have; the message names it.
    """
    if not sheet.task or not sheet.checkpoint:
        lacks = "task" if sheet.checkpoint else "checkpoint"
        raise UsageError(f"A result of {sheet.source or 'an evaluation'} names no {lacks}.")
    if sheet.kind not in KINDS:
        raise UsageError(f"A result is of a model or of a workflow around it, not {sheet.kind!r:.40}.")
    if len(sheet.items) > MOST_ITEMS:
        raise UsageError(f"{sheet.source} has {len(sheet.items):,} rows; at most {MOST_ITEMS:,} of a task are read.")
    facts: dict[str, Any] = {k: v[:MOST_NAME] if isinstance(v, str) else v for k, v in sheet.facts.items()}
    if facts["aggregate"] is not None and not np.isfinite(facts["aggregate"]):
        facts["aggregate"] = None
    given = sheet.items
    if not len(given):
        return Sheet(**facts, items=NO_ITEMS.copy())
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        values = given[name] if name in given else pd.Series([None] * len(given), dtype=object)
        if name in TEXTS:
            columns[name] = [None if v is None or v != v or v == "" else str(v)[:MOST_TEXT] for v in values]
        elif name in NUMBERS:
            columns[name] = _numbers(values, name, sheet)
        else:
            whole = _numbers(values, name, sheet)
            columns[name] = np.where(np.isfinite(whole), whole, 0).astype(np.int64)
    if "item" not in given:
        raise UsageError(f"The rows of {sheet.source or sheet.task} name no item, so nothing can be compared.")
    return Sheet(**facts, items=pd.DataFrame(columns).astype(dict.fromkeys(TEXTS, object)))


def _numbers(values: Any, name: str, sheet: Sheet) -> Any:
    found = pd.to_numeric(pd.Series(values).reset_index(drop=True), errors="coerce").to_numpy(float, na_value=np.nan)
    return np.where(np.isfinite(found), found, np.nan)
