"""What makes a table of runs unfit to be fitted, each rule with its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from checks.scaling.levenberg import Floats
from trainvitals.errors import UsageError

UNIT_FLOOR = {"N": 1e5, "D": 1e6, "C": 1e12}
"""A column whose largest value is smaller than this counts millions, billions or more, not units."""
UNIT_NAME = {"N": "parameters", "D": "tokens", "C": "FLOPs"}
UNIT_GAP = 300.0
"""No ladder jumps this far from one size to the next; a column of mixed units does."""
PERPLEXITY = 20.0
"""Nats per token that no training run ends at: ln of a vocabulary of 5e8."""
ANNEAL_ALIKE = 0.03
"""Learning rates at the end, as shares of the peak, that count as the same state."""


def check_units(values: Floats, key: str, column: str, where: str) -> None:
    unit = UNIT_NAME[key]
    if values.max() < UNIT_FLOOR[key]:
        raise UsageError(
            f"Column {column!r} of {where} ends at {values.max():g}, which cannot be {unit}: it looks like millions or "
            f"billions. Give {unit} as plain numbers, 7e9 for 7 billion."
        )
    ordered = np.sort(values)
    jump = ordered[1:] / ordered[:-1]
    if len(jump) and jump.max() > UNIT_GAP and ordered[0] < UNIT_FLOOR[key]:
        i = int(jump.argmax())
        raise UsageError(
            f"Column {column!r} of {where} mixes units: it jumps from {ordered[i]:g} to {ordered[i + 1]:g}. Give all "
            f"rows in {unit}."
        )


def check_losses(loss: Floats, column: str, where: str, lines: Sequence[int]) -> None:
    if loss.min() > PERPLEXITY:
        raise UsageError(
            f"Column {column!r} of {where} holds {loss.min():.3g} to {loss.max():.3g}, which look like perplexities. "
            "Give the loss in nats per token, the logarithm of the perplexity."
        )
    if (bad := np.flatnonzero(loss > PERPLEXITY).tolist()):
        raise UsageError(
            f"{row(lines[bad[0]])} of {where} has a loss of {loss[bad[0]]:.3g}, where the lowest is {loss.min():.3g}. "
            "Give nats per token in every row, and delete runs that diverged."
        )


def check_repeats(n: Floats, d: Floats, loss: Floats, where: str, lines: Sequence[int]) -> None:
    seen: dict[tuple[float, float, float], int] = {}
    for i, run in enumerate(zip(n.tolist(), d.tolist(), loss.tolist(), strict=True)):
        if (first := seen.setdefault(run, i)) != i:
            raise UsageError(
                f"{row(lines[i])} of {where} repeats {row(lines[first]).lower()}: same N, D and loss. Delete one, "
                "since a run listed twice counts twice."
            )


def annealed_alike(
    frame: pd.DataFrame, chosen: Mapping[str, str], names: Sequence[str], where: str
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Runs whose learning rate had come as far down as the others', and a sentence per run that had not."""
    everything = np.ones(len(frame), dtype=bool)
    if "anneal" not in chosen:
        return everything, ()
    raw = frame[chosen["anneal"]]
    if (absent := np.flatnonzero(raw.isna()).tolist()):
        raise UsageError(
            f"{row(frame.index[absent[0]])} of {where} has no value in column {chosen['anneal']!r}. Fill it in or "
            "delete the row."
        )
    numeric = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=float)
    if np.isfinite(numeric).all() and raw.dtype != bool:
        usual: object = f"{np.median(numeric):g}"
        keep = np.abs(numeric - np.median(numeric)) <= ANNEAL_ALIKE
    else:
        usual = raw.mode().iloc[-1]  # of as many yes as no, yes: finished runs are annealed
        keep = (raw == usual).to_numpy(dtype=bool)
    return keep, tuple(
        f"{names[i]} is not annealed alike: {chosen['anneal']} is {raw.iloc[i]}, where the others have {usual}."
        for i in np.flatnonzero(~keep).tolist()
    )


def row(line: int) -> str:
    """A run as a spreadsheet numbers it: by its line in the file, of which the header is the first."""
    return f"Row {line}"
