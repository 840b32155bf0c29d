"""A release that goes wrong overnight, for real: a model trains, and is asked the same questions at every checkpoint.

The first checkpoint that counts is the baseline, the last the candidate. Between them the `code` text no longer reaches
the loader, and a tool of the workflow around the model has become slow; `healthy` leaves out both. Nothing about either
is written down: what the review says, it found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from collectors.demo.batches import Rows
from collectors.demo.train import (
    DemoConfig,
    DemoSummary,
    Job,
    Progress,
    attach_tap,
    describe,
    evaluate,
    prepare,
    train_step,
)
from collectors.evals import NextToken, Text
from collectors.evals import evaluate as ask
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet, write_sheets

STARVED = "code"
CHECKPOINTS, FIRST, BASELINE = 20, 6, 12
"""Checkpoints, the first that is asked (the course before is too steep to tell noise from), and the baseline."""
DOMAINS = {"code": "code", "docs": "knowledge", "math": "math"}
"""Domains with a task, and the family that it is of."""
TEXTS, TOKENS = 200, 14
"""Held-out texts of a task, and tokens of each."""
REQUESTS, SLOW_S, LIMIT_S = 80, 0.15, 0.1
"""Calls of the tool, what the fault adds to each, and the limit of their 95th percentile, seconds."""
MARGIN = 0.03
POLICY = """# What a release of this demo needs. Scores run from 0 to 1.
version = 1
baseline = "step-{baseline}"
candidate = "step-{candidate}"

{tasks}
[latency.search]
p95_s = {limit}
"""


@dataclass(frozen=True, slots=True)
class Story:
    """What was staged."""

    run: Path
    policy: Path
    baseline: int
    candidate: int
    """Steps of the two checkpoints."""
    summary: DemoSummary


def small_config(run: Path, **chosen: Any) -> DemoConfig:
    """The demo's settings for a story, which trains a smaller model for longer; what was chosen counts."""
    steps = int(chosen.get("steps", 480))
    known: dict[str, Any] = {"steps": steps, "fault": "none", "small": True, "context": 64, "peak_lr": 6e-3,
                             "eval_every": max(1, steps // CHECKPOINTS)}  # fmt: skip
    return DemoConfig(run=run, **known | chosen)


def release(config: DemoConfig, healthy: bool, on_step: Callable[[int, float], None] | None = None) -> Story:
    """Train, ask at every checkpoint, and write the policy that the release is to be held against.

    Raises:
        UsageError: the text cannot be used, or has no domain that the story is about.
    """
    started = time.perf_counter()
    every = max(1, config.steps // CHECKPOINTS)
    if config.steps < CHECKPOINTS:
        raise UsageError(f"--steps {config.steps} is too few for {CHECKPOINTS} checkpoints. Give as many or more.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small waits for a second thread longer than it works
    try:
        return _staged(config, healthy, started, every, on_step)
    finally:
        torch.set_num_threads(threads)


def _staged(config: DemoConfig, healthy: bool, started: float, every: int,
            on_step: Callable[[int, float], None] | None) -> Story:
    baseline, candidate = BASELINE * every, CHECKPOINTS * every
    job = prepare(config)
    if STARVED not in job.held_out:
        raise UsageError(f"The story needs a domain called {STARVED}; this text has {', '.join(job.held_out)}.")
    tasks = [questions(domain, rows, job) for domain, rows in job.held_out.items() if domain in DOMAINS]
    print(describe(job), flush=True)
    summary = DemoSummary(run=str(config.run), fault="none", onset=None)
    tap = attach_tap(config, job)
    progress = Progress(config, summary, started, on_step)
    try:
        for step in range(1, candidate + 1):
            if step == baseline + 1 and not healthy:
                starve(job)
            progress.after(step, train_step(config, job.training, tap, step))
            if step % config.eval_every == 0:
                summary.val_last = evaluate(job)
            if step % every == 0 and step >= FIRST * every:
                ask(job.training.model, job.tokenizer, tasks, run=config.run, step=step, context=config.context)
            if step in (baseline, candidate):
                write_sheets(config.run, [workflow(job, step, slow=step == candidate and not healthy)])
    finally:
        tap.close()
    policy = Path(config.run) / "release.toml"
    wanted = "".join(f"[tasks.{task.name}]\nmargin = {MARGIN}\n\n" for task in tasks)
    policy.write_text(POLICY.format(baseline=baseline, candidate=candidate, tasks=wanted, limit=LIMIT_S), "utf-8")
    return Story(Path(config.run), policy, baseline, candidate, summary)


def starve(job: Job) -> None:
    """The loader draws no more of the starved domain; the others share what it had."""
    at = list(job.held_out).index(STARVED)
    shares = job.training.mixture.shares.copy()
    shares[at] = 0
    job.training.mixture.shares = shares / shares.sum()


def questions(domain: str, rows: Rows, job: Job) -> NextToken:
    """What comes next in text of this domain that was never trained on?"""
    picked = np.unique(np.linspace(0, len(rows) - 1, TEXTS).astype(int))
    texts = dict.fromkeys(job.tokenizer.decode(rows.ids_NT[at][:TOKENS]) for at in picked)
    return NextToken(f"{domain}_next_token", [Text(text, domain) for text in texts], family=DOMAINS[domain])


def workflow(job: Job, step: int, slow: bool) -> Sheet:
    """A workflow's calls of a search tool, each timed: which held-out documents hold a word of the question?"""
    texts = [job.tokenizer.decode(ids) for rows in job.held_out.values() for ids in rows.ids_NT[:40]]
    words = [max(text.split() or ["text"], key=len)[:20] for text in texts]
    rows = []
    for number in range(REQUESTS):
        word = words[number % len(words)]
        began = time.perf_counter()
        if slow:
            time.sleep(SLOW_S)
        hits = sum(word in text for text in texts)
        rows.append({"item": f"search-{number}", "score": float(hits > 0), "answer": str(hits), "tool": "search",
                     "session": f"session-{number}", "latency_s": time.perf_counter() - began})  # fmt: skip
    return Sheet(task="search_workflow", checkpoint=f"step-{step}", step=step, kind="workflow",
                 family="agentic workflow", metric="found", higher_is_better=True, harness="trainvitals demo",
                 version="1", n_shot=0, prompt_hash="", filter="none", source="the demo's search tool", chance=None,
                 items=pd.DataFrame(rows))  # fmt: skip
