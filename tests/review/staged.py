"""Runs with results of two checkpoints, and reviews of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from click.testing import CliRunner, Result

from trainvitals.cli import cli
from trainvitals.evals import Sheet, write_sheet

POLICY = """
baseline = "step-1000"
candidate = "step-2000"
[tasks.qa]
margin = 0.05
[tasks.code]
margin = 0.05
[safety.jail]
limit = 0.01
"""
N = 600


def sheet(task: str, step: int, scores: Any, **changes: Any) -> Sheet:
    """A result; items, answers and prompts are alike in every step."""
    n = len(scores)
    rng = np.random.default_rng(step + len(task))
    items = pd.DataFrame(
        {
            "item": [f"{task}-{i}" for i in range(n)],
            "score": np.asarray(scores, float),
            "sample": 0,
            "answer": rng.integers(0, 1000, n).astype(str),
            "cluster": None,
            "group": None,
            "latency_s": rng.lognormal(0, 0.4, n),
            "tokens_in": 100.0,
            "tokens_out": rng.integers(5, 50, n).astype(float),
            "cost_usd": 0.001,
            "session": None,
            "tool": None,
            "error": None,
            "text": None,
        }
    )
    known = dict(
        task=task,
        checkpoint=f"step-{step}",
        step=step,
        kind="model",
        family="reasoning",
        metric="acc",
        higher_is_better=True,
        harness="lm-eval",
        version="1",
        n_shot=0,
        prompt_hash="p",
        filter="none",
        source=f"{task}-{step}.jsonl",
        chance=0.25,
        items=items,
    )
    return Sheet(**{**known, **changes})


def scores(seed: int, share: float = 0.6, flips: float = 0.05, lost: float = 0.0, n: int = N) -> tuple[Any, Any]:
    """Scores before and after: `flips` of the items change either way, `lost` of them are lost beside."""
    rng = np.random.default_rng(seed)
    before = rng.random(n) < share
    after = np.where(rng.random(n) < flips, rng.permutation(before), before) & (rng.random(n) >= lost)
    return before.astype(float), after.astype(float)


def staged(folder: Path) -> dict[tuple[str, int], Sheet]:
    """Results that a review finds nothing wrong with."""
    found = {}
    for seed, task in enumerate(("qa", "code")):
        for step, values in zip((1000, 2000), scores(seed), strict=True):
            found[task, step] = sheet(task, step, values)
    for step in (1000, 2000):
        found["jail", step] = sheet(
            "jail", step, np.zeros(N), family="jailbreak", metric="violation", higher_is_better=False, chance=None
        )
    return found


def with_items(one: Sheet, **columns: Any) -> Sheet:
    """A result with other columns."""
    return dataclasses.replace(one, items=one.items.assign(**columns))


def written(folder: Path, sheets: dict[tuple[str, int], Sheet], policy: str = POLICY) -> Path:
    """The run folder, with release.toml in it."""
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    for one in sheets.values():
        write_sheet(run, one)
    (run / "release.toml").write_text(policy)
    return run


def command(*args: object) -> Result:
    """`trainvitals review ...`; errors that end the command line come back as they are."""
    return CliRunner().invoke(cli, ["review", *map(str, args)])


def reviewed(folder: Path, sheets: dict[tuple[str, int], Sheet], policy: str = POLICY) -> dict[str, Any]:
    """The review as JSON; its folder is `folder / "out"`."""
    done = command(written(folder, sheets, policy), "--out", folder / "out", "--json")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == {"GO": 0, "NO-GO": 2, "UNDECIDED": 3}[said["decision"]]
    return said
