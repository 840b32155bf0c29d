"""What makes a table of runs unfit to be fitted, each rule with its sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from checks.scaling._cells import number
from checks.scaling._files import clip
from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN
from checks.scaling.levenberg import Floats
from checks.scaling.sheet import Sheet
from trainvitals.errors import UsageError

UNIT_FLOOR = {"N": 1e5, "D": 1e6, "C": 1e12}
"""A column whose largest value is smaller than this counts millions, billions or more, not units."""
UNIT_CEILING = {"N": 1e14, "D": 1e16, "C": 1e31}
"""A hundred times the largest run there is; a header that says billions over values in units lies far above."""
UNIT_NAME = {"N": "parameters", "D": "tokens", "C": "FLOPs"}
UNIT_GAP = 300.0
"""No ladder jumps this far from one size to the next; a column of mixed units does."""
PERPLEXITY = 20.0
"""Nats per token that no training run ends at: ln of a vocabulary of 5e8."""
ANNEAL_ALIKE = 0.03
"""Learning rates at the end, as shares of the peak, that count as the same state."""
FLOPS_AGREE = 2.0


def check_units(values: Floats, key: str, column: str, where: str) -> None:
    unit, column = UNIT_NAME[key], clip(column)
    if values.max() < UNIT_FLOOR[key]:
        raise UsageError(
            f"Column {column!r} of {where} ends at {values.max():g}, which cannot be {unit}: it looks like millions or "
            f"billions. Give {unit} as plain numbers, 7e9 for 7 billion, or name the unit: '{key} (B)'."
        )
    if values.max() > UNIT_CEILING[key]:
        raise UsageError(
            f"Column {column!r} of {where} comes to {values.max():.3g} {unit}, more than any run has. Check its values "
            "against the unit in its name."
        )
    ordered = np.sort(values)
    jump = ordered[1:] / ordered[:-1]
    if len(jump) and jump.max() > UNIT_GAP and ordered[0] < UNIT_FLOOR[key]:
        i = int(jump.argmax())
        raise UsageError(
            f"Column {column!r} of {where} mixes units: it jumps from {ordered[i]:g} to {ordered[i + 1]:g}. Give all "
            f"rows in {unit}."
        )


def check_losses(loss: Floats, sheet: Sheet) -> None:
    if loss.min() > PERPLEXITY:
        raise UsageError(
            f"The losses of {sheet.where} are {loss.min():.3g} to {loss.max():.3g}, which look like perplexities. "
            "Give the loss in nats per token, the logarithm of the perplexity."
        )
    if (bad := np.flatnonzero(loss > PERPLEXITY).tolist()):
        raise UsageError(
            f"{sheet.place(bad[0])} has a loss of {loss[bad[0]]:.3g}, where the lowest is {loss.min():.3g}. "
            "Give nats per token in every row, and delete runs that diverged."
        )


def check_repeats(n: Floats, d: Floats, loss: Floats, sheet: Sheet) -> None:
    seen: dict[tuple[float, float, float], int] = {}
    for i, run in enumerate(zip(n.tolist(), d.tolist(), loss.tolist(), strict=True)):
        if (first := seen.setdefault(run, i)) != i:
            raise UsageError(
                f"{sheet.place(i)} repeats {sheet.counts} {sheet.lines[first]:,}: same N, D and loss. Delete one, "
                "since a run listed twice counts twice."
            )


def tokens_of(values: Mapping[str, Floats], chosen: Mapping[str, str], sheet: Sheet) -> tuple[Floats, Floats]:
    """N, and D without the tokens of the warm-up; D from C where the table has no tokens."""
    n, where = values["N"], sheet.where
    d = values["D"] if "D" in values else values["C"] / (FLOPS_PER_PARAMETER_TOKEN * n)
    if "D" not in values and d.max() < UNIT_FLOOR["D"]:
        raise UsageError(
            f"C / (6 N) in {where} gives at most {d.max():.3g} tokens. Give {clip(chosen['C'])!r} in FLOPs and "
            f"{clip(chosen['N'])!r} in parameters."
        )
    if "D" in values and "C" in values:
        _check_flops(values["C"] / (FLOPS_PER_PARAMETER_TOKEN * n * d), clip(chosen["C"]), sheet)
    if "warmup_tokens" not in values:
        return n, d
    warm = values["warmup_tokens"]
    if (bad := np.flatnonzero((warm >= d) | (warm < 0)).tolist()):
        raise UsageError(
            f"{sheet.place(bad[0])} has {warm[bad[0]]:.3g} warm-up tokens of {d[bad[0]]:.3g} in all. Give the tokens "
            "before the end of the warm-up, in tokens."
        )
    return n, d - warm


def _check_flops(ratio: Floats, column: str, sheet: Sheet) -> None:
    middle = float(np.median(ratio))
    # Attention and the output head move all rows by some tens of percent; another unit by powers of ten.
    if middle > 10 or middle < 0.1:
        raise UsageError(
            f"Column {column!r} of {sheet.where} is {middle:.3g} times 6 N D. Give N in parameters, D in tokens and C "
            "in FLOPs, or leave C out."
        )
    if (bad := np.flatnonzero(np.abs(np.log(ratio / middle)) > np.log(FLOPS_AGREE)).tolist()):
        raise UsageError(
            f"{sheet.place(bad[0])} mixes units: its {column!r} is {ratio[bad[0]]:.3g} times 6 N D, where the other "
            f"rows have {middle:.3g}. Correct the row's N, D or C."
        )


def annealed_alike(
    sheet: Sheet, chosen: Mapping[str, str], names: Sequence[str], counted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Runs whose learning rate had come as far down as the others', and a sentence per run that had not.

    Only the rows in `counted` are judged: checkpoints of a run are not its end.
    """
    everything = np.ones(len(sheet), dtype=bool)
    if "anneal" in chosen:
        words = [cell.strip() for cell in sheet.texts(chosen["anneal"])]
        column = clip(chosen["anneal"])
    elif {"final_lr", "peak_lr"} <= chosen.keys():
        read = sheet.numbers((chosen["final_lr"], chosen["peak_lr"]))
        (last, told), (peak, _) = read[chosen["final_lr"]], read[chosen["peak_lr"]]
        words = [f"{a / b:.3g}" if t and b > 0 else "" for a, b, t in zip(last, peak, told, strict=True)]
        column = "lr_fraction"
    else:
        return everything, ()
    if (absent := [i for i, word in enumerate(words) if not word and counted[i]]):
        raise UsageError(f"{sheet.place(absent[0])} has no value in column {column!r}. Fill it in or delete the row.")
    shares = [_share(word) for word in words]
    numeric = np.array([np.nan if share is None else share for share in shares])
    if np.isfinite(numeric[counted]).all():
        middle = float(np.median(numeric[counted]))
        usual, keep = f"{middle:g}", np.abs(numeric - middle) <= ANNEAL_ALIKE
    else:
        often = Counter(word for word, one in zip(words, counted, strict=True) if one)
        # Of as many yes as no, yes: finished runs are annealed.
        usual = max(often, key=lambda word: (often[word], word))
        keep = np.array([word == usual for word in words])
    return keep | ~counted, tuple(
        f"{names[i]} is not annealed alike: {column} is {clip(words[i])}, where the others have {clip(usual)}."
        for i in np.flatnonzero(~keep & counted).tolist()
    )


def _share(word: str) -> float | None:
    """A share of 1; percentages are shares of 100."""
    found = number(word.rstrip("% "))
    return None if found is None else found / 100 if word.endswith("%") else found
