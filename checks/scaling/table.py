"""A ladder of finished runs, read from a table: parameters, tokens, final loss, one row per run.

Every reason not to fit is one sentence that names the row or the column and the remedy: a fit that quietly used a
wrong unit looks like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from checks.scaling import _names
from checks.scaling._files import clip
from checks.scaling.checkpoints import finals
from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN
from checks.scaling.levenberg import Floats, Points
from checks.scaling.runs import run_table
from checks.scaling.sheet import Sheet, read_sheet, sheet_of
from checks.scaling.table_rules import (
    annealed_alike,
    check_losses,
    check_repeats,
    check_units,
    tokens_of,
)
from checks.scaling.units import in_nats, settle
from trainvitals.errors import UsageError

WELL_KNOWN: Mapping[str, tuple[str, ...]] = {
    "N": ("n", "params", "parameters", "n_params", "num_params", "model_size", "model_params", "params_total"),
    "D": ("d", "tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens", "tokens_seen"),
    "C": ("c", "flops", "compute", "training_flops", "train_flops", "total_flops"),
    "loss": ("loss", "l", "final_loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss", "bpb",
             "val_bpb", "bits_per_byte", "loss_bpb"),
    "weight": ("weight", "weights"),
    "warmup_tokens": ("warmup_tokens",),
    "anneal": ("anneal", "annealed", "anneal_state", "lr_fraction", "final_lr_fraction"),
    "final_lr": ("final_lr", "last_lr", "lr_end"),
    "peak_lr": ("peak_lr", "max_lr"),
    "unique": ("u", "unique", "unique_tokens"),
    "name": ("run", "run_name", "name", "run_id", "id"),
}
"""Names of columns understood without --columns, in lower case with one underscore between words, units taken off."""

_SCALED: tuple[str, ...] = ("N", "D", "C", "warmup_tokens", "unique")
"""Quantities whose header may say that they count thousands, millions or billions."""
_QUANTITIES: tuple[str, ...] = ("N", "D", "C", "loss")
FEWEST_RUNS = 6
"""One more than the law's five constants."""
MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Ladder:
    """The runs to fit; arrays of shape (n,)."""

    n: Floats
    """Parameters."""
    d: Floats
    """Tokens trained on, warm-up tokens left out where the table tells them."""
    loss: Floats
    """In `unit`."""
    weight: Floats
    names: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which column of the table each quantity came from."""
    refused: tuple[str, ...] = ()
    """One sentence per run, or group of rows, that the table holds and the fit leaves out."""
    unique: Floats | None = None
    """Different tokens among those of D, where the table has a column for them; NaN where a cell is blank."""
    unit: str = ""
    """nats/token or bits/byte, as the table or its reader said; empty where nobody did."""

    @property
    def flops(self) -> Floats:
        return np.asarray(FLOPS_PER_PARAMETER_TOKEN * self.n * self.d)

    @property
    def sizes(self) -> int:
        """Distinct model sizes, to within 1 %."""
        return len(np.unique(np.round(np.log(self.n), 2)))

    def points(self) -> Points:
        return Points.of(self.n, self.d, self.loss, self.weight)

    def __len__(self) -> int:
        return len(self.loss)


def read_ladder(path: str | Path, columns: Mapping[str, str] | None = None, unit: str | None = None) -> Ladder:
    """Read and check a table of finished runs.

    Args:
        path: a table with a header, one row per run, in any format of `read_sheet`; or a folder of run folders.
        columns: Column of each quantity (keys of `WELL_KNOWN`); what is not given is guessed by name. N may be the
            count with or without embeddings, as long as it is the same one in every row.
        unit: what the loss is counted in (`units.UNITS`); what the header says where None.

    Raises:
        UsageError: the file cannot be read, or says something that must not be fitted.
    """
    place = Path(path)
    if place.is_dir():
        return ladder(run_table(place), columns, where=str(path), unit=unit or "nats/token")
    return _ladder(read_sheet(place), columns or {}, unit)


def ladder(
    frame: pd.DataFrame, columns: Mapping[str, str] | None = None, *, where: str = "the table", unit: str | None = None
) -> Ladder:
    """Check a data frame as `read_ladder` does a file; messages number its rows from 2, as below a header."""
    return _ladder(sheet_of(frame, where), columns or {}, unit)


def parse_columns(text: str) -> dict[str, str]:
    """`N=params,loss=val loss` as a dictionary.

    Raises:
        UsageError: a part is not KEY=COLUMN with a known key.
    """
    return _names.parse_columns(text, WELL_KNOWN)


def _ladder(sheet: Sheet, columns: Mapping[str, str], unit: str | None) -> Ladder:
    where = sheet.where
    if len(sheet) > MOST_RUNS:
        raise UsageError(f"{where} has {len(sheet):,} rows; a ladder has one per finished run, at most {MOST_RUNS:,}.")
    chosen = _columns(sheet, columns)
    named = {key: _names.read_name(column, where) for key, column in chosen.items()}
    values = _values(sheet, chosen, named)
    unit = settle(unit, named["loss"].loss_unit, chosen["loss"], where)
    values["loss"], unit = in_nats(values["loss"], unit)
    for key in ("N", "D", "C"):
        if key in values:
            check_units(values[key], key, chosen[key], where)
    check_losses(values["loss"], sheet)
    n, d = tokens_of(values, chosen, sheet)
    names = tuple(clip(name) for name in sheet.texts(chosen["name"])) if "name" in chosen else None
    places = [f"{sheet.counts} {line:,}" for line in sheet.lines]
    last, said = finals(n, d, names, named["name"].word if names else "", where, places)
    alike, refused = annealed_alike(sheet, chosen, names or places, last)
    check_repeats(n, d, values["loss"], sheet)
    keep = last & alike
    ones = np.ones(len(n))
    found = Ladder(
        n, d, values["loss"], values.get("weight", ones), names or tuple(places), dict(chosen),
        (*([said] if said else []), *refused), values.get("unique"), unit,
    )
    found = part(found, np.flatnonzero(keep))
    _check_design(found, where)
    return found


def part(whole: Ladder, keep: NDArray[np.intp]) -> Ladder:
    """The ladder with these runs only."""
    return replace(
        whole, n=whole.n[keep], d=whole.d[keep], loss=whole.loss[keep], weight=whole.weight[keep],
        names=tuple(whole.names[i] for i in keep), unique=None if whole.unique is None else whole.unique[keep],
    )


def _columns(sheet: Sheet, given: Mapping[str, str]) -> dict[str, str]:
    """Which column holds what: as given, else by name. The first of two columns alike; UsageError where they differ."""
    for key, column in given.items():
        sheet.texts(column, key)
    named = {column: _names.read_name(column, sheet.where) for column in dict.fromkeys(sheet.header) if column}
    chosen = dict(given)
    for key, known in WELL_KNOWN.items():
        if key in chosen:
            continue
        words = {column: name.base if key in _SCALED else name.word for column, name in named.items()}
        hits = [column for word in known for column in words if words[column] == word and column not in given.values()]
        if key == "name" or len({tuple(sheet.texts(column)) for column in hits}) == 1:
            hits = hits[:1]
        if hits:
            chosen[key] = hits[0] if key not in _QUANTITIES else _names.one_of(hits, key, sheet.where, given)
    missing = [key for key in ("N", "loss") if key not in chosen]
    if "D" not in chosen and "C" not in chosen:
        missing.append("D (or C)")
    if missing:
        example = ",".join(f"{m.split()[0]}=COLUMN" for m in missing)
        raise UsageError(f"{sheet.where} has no column for {', '.join(missing)}. Name it with --columns {example}; the "
                         f"columns are {sheet.names()}.")
    return {key: column for key, column in chosen.items() if key != "C" or "D" not in given or "C" in given}


def _values(sheet: Sheet, chosen: Mapping[str, str], named: Mapping[str, _names.Named]) -> dict[str, Floats]:
    """The quantities in plain units, warm-up tokens among them; blank cells are refused but for `unique`."""
    keys = [key for key in (*_QUANTITIES, "weight", "warmup_tokens", "unique") if key in chosen]
    read = sheet.numbers(chosen[key] for key in keys)
    found = {}
    for key in keys:
        values, said = read[chosen[key]]
        _check_cells(values, said, sheet, chosen[key], positive=key != "warmup_tokens", blank=key == "unique")
        found[key] = values * named[key].scale if key in _SCALED else values
    return found


def _check_cells(
    values: Floats, said: NDArray[np.bool_], sheet: Sheet, column: str, *, positive: bool, blank: bool
) -> None:
    for i in np.flatnonzero(~np.isfinite(values) & (said | (not blank))).tolist():
        if np.isnan(values[i]):
            raise UsageError(f"{sheet.place(i)} has no value in column {clip(column)!r}. Fill it in or delete the row.")
        raise UsageError(f"{sheet.place(i)} has {clip(sheet.texts(column)[i])!r} in column {clip(column)!r}, which is "
                         "not a finite number. Correct it or delete the row.")
    if positive and (bad := np.flatnonzero(values <= 0).tolist()):
        raise UsageError(
            f"{sheet.place(bad[0])} has {values[bad[0]]:g} in column {clip(column)!r}, and a value above zero is "
            "needed. Correct it or delete the row."
        )


def _check_design(found: Ladder, where: str) -> None:
    if len(found) < FEWEST_RUNS:
        unlike = sum("annealed alike" in said for said in found.refused)
        left = " beside their checkpoints" if len(found.refused) > unlike else ""
        left += f" after {unlike} that are not annealed alike" if unlike else ""
        raise UsageError(
            f"{where} has {len(found)} runs{left}, too few for the law's five constants. Give at least {FEWEST_RUNS}, "
            "of five sizes or more."
        )
    if found.sizes < 2:
        raise UsageError(
            f"{where} has one model size, {found.n[0]:.3g} parameters, so nothing tells how loss falls with N. Add "
            "runs of other sizes."
        )
    if np.ptp(np.log(found.d)) < 0.01:
        raise UsageError(
            f"{where} has one token count, {found.d[0]:.3g}, so nothing tells how loss falls with D. Add runs on other "
            "amounts of data."
        )
    if np.ptp(np.log(found.loss)) < 1e-6:
        raise UsageError(f"Every loss of {where} is {found.loss[0]:g}. Give the final loss of each run.")
