"""Runs of results alone, for the pages about evals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tests.review.staged import sheet, staged, with_items
from trainvitals.evals import write_sheets

HOSTILE = ("<script>window.__xss = 1</script><img src=x onerror='window.__xss = 1'>",
           "**b** [x](javascript:1) $$\\frac{1}{0}$$ :rocket:", "\u202eevil", "=1+1", "A" * 1_000_000)  # fmt: skip
N = 600


def make_results(root: Path) -> Path:
    """`run`: two checkpoints with a loss in code, hostile texts, and a workflow. `bare`: scores without items."""
    sheets = staged(root)
    rng = np.random.default_rng(0)
    before = (rng.random(N) < 0.7).astype(float)
    after = before * (rng.random(N) > 0.2)
    for step, scores in ((1000, before), (2000, after)):
        one = sheet("code", step, scores, family="code")
        texts = list(HOSTILE) + ["sort a list"] * (N - len(HOSTILE))
        sheets["code", step] = with_items(one, answer=texts, text=texts)
        sheets["agent", step] = with_items(
            sheet("agent", step, rng.random(N) < 0.5, kind="workflow", family="agentic workflow"),
            tool=["search", "python"] * (N // 2), session=[f"s{i // 5}" for i in range(N)],
            latency_s=rng.lognormal(0, 0.3, N) * (1.0 if step == 1000 else 2.0))  # fmt: skip
    write_sheets(root / "run", list(sheets.values()))
    bare = [dataclasses.replace(sheet("qa", step, []), aggregate=0.5 + step / 1e6) for step in (1, 2)]
    write_sheets(root / "bare", bare)
    return root
