"""A ladder from run folders: what each finished run's card and signals say about N, D, its final loss and LR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trainvitals.errors import UsageError
from trainvitals.store import Run, list_runs, open_run

MOST_NAMED = 5
TOKENS = ("throughput/tokens", "loss/tokens")
FINISHED_SHARE = 0.95
"""Of the planned steps. Rows may be every k-th step only, and `lr_fraction` tells a schedule that was cut short."""
LAST_SHARE = 0.01
"""Share of the training rows whose mean is the final loss where no validation was logged."""


def run_table(folder: Path, paths: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per run below `folder`: name, N, D, loss, lr_fraction (the last learning rate over the largest).

    `paths` are the runs to take, all of them where None.

    N counts the parameters that a token passes through. The loss is the last validation loss, or for all runs the mean
    of the last training rows where one of them logged no validation: the two kinds are not mixed.

    Raises:
        UsageError: no run is there, some have not finished, or one lacks a quantity.
    """
    runs = [open_run(path) for path in (list_runs(folder) if paths is None else paths)]
    if not runs:
        raise UsageError(f"There is no run in {folder}. Give a folder of run folders, or a CSV file.")
    if early := [said for run in runs if (said := unfinished(run))]:
        more = f" and {len(early) - MOST_NAMED} more" if len(early) > MOST_NAMED else ""
        raise UsageError(
            f"A ladder has finished runs only: {', '.join(early[:MOST_NAMED])}{more}. Let them finish, or leave "
            "them out of the ladder."
        )
    signal = "loss/val" if all(run.has("loss/val") for run in runs) else "loss/train"
    return pd.DataFrame([_row(run, signal) for run in runs])


def unfinished(run: Run) -> str:
    """What keeps a run from being a row of a ladder; empty where nothing does."""
    done, planned = run.last_step or 0, run.card.total_steps
    status = run.status
    if status == "live":
        return f"{run.path} is still training"
    if planned and done < FINISHED_SHARE * planned:
        return f"{run.path} stopped at step {done:,} of {planned:,}"
    if status in ("silent", "unknown") and not planned:
        return f"{run.path} was cut off at step {done:,}"
    return ""


def _row(run: Run, signal: str) -> dict[str, object]:
    name = Path(run.path).name
    size = run.card.params_active or run.card.params_total
    if not size:
        raise UsageError(f"{run.path} does not say how many parameters it has. Set params_total in its run.json.")
    tokens = next((s for s in TOKENS if run.has(s)), None)
    if tokens is None or not run.has(signal):
        raise UsageError(f"{run.path} has no {signal if tokens else 'token counts'}. Leave it out of the ladder.")
    counted = run.array(tokens)
    # Rows may be every k-th step only: their mean stands for the steps between.
    seen = float(np.nanmean(counted.values)) * float(counted.steps[-1] - counted.steps[0] + 1)
    loss = run.array(signal).values
    loss = loss[np.isfinite(loss)]
    if not len(loss):
        raise UsageError(f"{run.path} has no finite {signal}. Leave it out of the ladder.")
    final = loss[-1] if signal == "loss/val" else loss[-max(1, int(LAST_SHARE * len(loss))) :].mean()
    found: dict[str, object] = {"name": name, "N": size, "D": seen, "loss": float(final)}
    if run.has("lr/used"):
        rate = run.array("lr/used").values.reshape(len(run.array("lr/used").steps), -1)[:, 0]
        found["lr_fraction"] = float(rate[-1] / np.nanmax(rate))
    return found
