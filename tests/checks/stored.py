"""A published log as a run folder, through the real writer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainvitals.store import Run, RunWriter, open_run


def store(path: Path, rows: Iterable[Any], columns: Iterable[str], validation: Iterable[Any] = ()) -> Run:
    """Write rows of `columns`: `step`, `loss`, `grad` and `lr` where they are among them; validation losses after."""
    writer = RunWriter(path, when_full="wait", flush_seconds=60)
    columns = list(columns)
    loss = writer.frame("loss", ["loss/sum", "loss/tokens"])
    grad = writer.frame("grad", ["grad/sumsq"])
    rate = writer.frame("lr", ["lr/used"], labels={"group": ["0"]})
    for row in rows:
        named = dict(zip(columns, row, strict=True))
        step = int(named["step"])
        loss.append(step, {"loss/sum": named["loss"], "loss/tokens": 1})
        if "grad" in named:
            grad.append(step, {"grad/sumsq": named["grad"] ** 2})
        if "lr" in named:
            rate.append(step, {"lr/used": [named["lr"]]})
    val = writer.frame("eval", ["loss/val_sum", "loss/val_tokens"])
    for step, value in validation:
        val.append(int(step), {"loss/val_sum": value, "loss/val_tokens": 1})
    writer.close()
    return open_run(path)
