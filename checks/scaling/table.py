"""A ladder of finished runs, read from a CSV file: parameters, tokens, final loss, one row per run.

Every reason not to fit is one sentence that names the row or the column and the remedy: a fit that quietly used a
wrong unit looks like any other.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN
from checks.scaling.levenberg import Floats, Points
from checks.scaling.runs import run_table
from checks.scaling.table_rules import (
    UNIT_FLOOR,
    annealed_alike,
    check_losses,
    check_repeats,
    check_units,
    row,
)
from trainvitals.errors import UsageError

WELL_KNOWN: Mapping[str, tuple[str, ...]] = {
    "N": ("n", "params", "parameters", "n_params", "num_params", "model_size", "model_params", "params_total"),
    "D": ("d", "tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens", "tokens_seen"),
    "C": ("c", "flop", "flops", "compute", "training_flop", "training_flops", "train_flops", "total_flops"),
    "loss": ("loss", "l", "final_loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss"),
    "weight": ("weight", "weights"),
    "warmup_tokens": ("warmup_tokens",),
    "anneal": ("anneal", "annealed", "anneal_state", "lr_fraction", "final_lr_fraction"),
    "final_lr": ("final_lr", "last_lr", "lr_end"),
    "peak_lr": ("peak_lr", "max_lr"),
    "unique": ("u", "unique", "unique_tokens"),
    "name": ("name", "run", "run_name", "id"),
}
"""Column names understood without --columns, compared in lower case with spaces as underscores."""

_QUANTITIES: tuple[str, ...] = ("N", "D", "C", "loss")
FEWEST_RUNS = 6
"""One more than the law's five constants."""
FLOPS_AGREE = 2.0
MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Ladder:
    """The runs to fit; arrays of shape (n,)."""

    n: Floats
    """Parameters."""
    d: Floats
    """Tokens trained on, warm-up tokens left out where the table tells them."""
    loss: Floats
    """Nats per token."""
    weight: Floats
    names: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which column of the table each quantity came from."""
    refused: tuple[str, ...] = ()
    """One sentence per run that the table holds and the fit leaves out."""
    unique: Floats | None = None
    """Different tokens among those of D, where the table has a column for them; NaN where a cell is blank."""

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


def read_ladder(path: str | Path, columns: Mapping[str, str] | None = None) -> Ladder:
    """Read and check a table of finished runs.

    Args:
        path: CSV file with a header, one row per run; or a folder of run folders.
        columns: Column of each quantity (keys of `WELL_KNOWN`); what is not given is guessed by name. N may be the
            count with or without embeddings, as long as it is the same one in every row.

    Raises:
        UsageError: the file cannot be read, or says something that must not be fitted.
    """
    place = Path(path)
    if place.is_dir():
        return ladder(run_table(place), columns, where=str(path))
    frame, lines = _read(place)
    return ladder(frame, columns, where=str(path), lines=lines)


def ladder(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    where: str = "the table",
    lines: Sequence[int] | None = None,
) -> Ladder:
    """Check a data frame as `read_ladder` does a file.

    `lines` are what messages number its rows by, from 2 where None: the header is row 1.
    """
    if len(frame) > MOST_RUNS:
        raise UsageError(f"{where} has {len(frame):,} rows; a ladder has one per finished run, at most {MOST_RUNS:,}.")
    frame = frame.set_axis(range(2, len(frame) + 2) if lines is None else list(lines))
    chosen = _columns(frame, dict(columns or {}), where)
    values = {key: _numbers(frame, chosen[key], where) for key in _QUANTITIES if key in chosen}
    for key in ("N", "D", "C"):
        if key in values:
            check_units(values[key], key, chosen[key], where)
    check_losses(values["loss"], chosen["loss"], where, frame.index)
    n, d = _sizes_and_tokens(values, chosen, where, frame.index)
    if "warmup_tokens" in chosen:
        warm = _numbers(frame, chosen["warmup_tokens"], where, positive=False)
        if (bad := np.flatnonzero((warm >= d) | (warm < 0)).tolist()):
            raise UsageError(
                f"{row(frame.index[bad[0]])} of {where} has {warm[bad[0]]:.3g} warm-up tokens of {d[bad[0]]:.3g} in "
                "all. Give the tokens before the end of the warm-up, in tokens."
            )
        d = d - warm
    weight = _numbers(frame, chosen["weight"], where) if "weight" in chosen else np.ones(len(d))
    names = tuple(str(v) for v in frame[chosen["name"]]) if "name" in chosen else tuple(
        row(line).lower() for line in frame.index
    )
    check_repeats(n, d, values["loss"], where, frame.index)
    if "anneal" not in chosen and {"final_lr", "peak_lr"} <= chosen.keys():
        last, peak = (_numbers(frame, chosen[key], where, positive=key == "peak_lr") for key in ("final_lr", "peak_lr"))
        frame, chosen = frame.assign(lr_fraction=np.round(last / peak, 3)), chosen | {"anneal": "lr_fraction"}
    keep, refused = annealed_alike(frame, chosen, names, where)
    unique = _numbers(frame, chosen["unique"], where, blank=True)[keep] if "unique" in chosen else None
    found = Ladder(
        n[keep], d[keep], values["loss"][keep], weight[keep],
        tuple(name for name, kept in zip(names, keep, strict=True) if kept), chosen, refused, unique,
    )
    _check_design(found, where)
    return found


def parse_columns(text: str) -> dict[str, str]:
    """`N=params,loss=val loss` as a dictionary.

    Raises:
        UsageError: a part is not KEY=COLUMN with a known key.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, sign, column = (p.strip() for p in part.partition("="))
        if not sign or not column or key not in WELL_KNOWN:
            raise UsageError(
                f"--columns cannot use {part.strip()!r}. Write KEY=COLUMN with keys of {', '.join(WELL_KNOWN)}, "
                "separated by commas."
            )
        if key in found or column in found.values():
            raise UsageError(f"--columns names {key if key in found else column!r} twice. Give each its own column.")
        found[key] = column
    return found


def _read(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """The rows that say anything, and the line of the file that each one ends on."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give a CSV file with a header and one row per run.")
    try:
        frame = pd.read_csv(path, skipinitialspace=True)
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{path} is empty. Give a CSV file with a header and one row per run.") from error
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a CSV file: {str(error).strip().splitlines()[0]}. Give a comma-separated text file with a "
            "header and one row per run."
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if frame.shape[1] == 1:
        raise UsageError(
            f"{path} has one column, {str(frame.columns[0])[:60]!r}. Give a comma-separated file with at least N, D "
            "and loss."
        )
    said = frame.dropna(how="all")
    if said.empty:
        raise UsageError(f"{path} has a header and no rows. Give one row per run.")
    lines = _lines(path, len(frame))
    return said.reset_index(drop=True), [lines[i] for i in said.index]


def _lines(path: Path, rows: int) -> list[int]:
    """Line of each row that pandas found below the header, of which it skips the blank ones; 2, 3, ... if unclear."""
    plain = list(range(2, rows + 2))
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            found = [reader.line_num for cells in reader if len(cells) > 1 or "".join(cells).strip(" \t")][1:]
    except (UnicodeDecodeError, csv.Error):  # pandas also reads compressed files
        return plain
    return found if len(found) == rows else plain


def _columns(frame: pd.DataFrame, given: dict[str, str], where: str) -> dict[str, str]:
    have = [str(c) for c in frame.columns]
    listed = ", ".join(have[:12]) + (", ..." if len(have) > 12 else "")
    for key, column in given.items():
        if column not in have:
            raise UsageError(f"{where} has no column {column!r} for {key}. It has {listed}.")
    plain = {re.sub(r"[\s\-]+", "_", c.strip().lower()): c for c in reversed(have)}
    chosen = dict(given)
    for key, names in WELL_KNOWN.items():
        if key not in chosen and (hit := next((plain[name] for name in names if name in plain), None)):
            chosen[key] = hit
    missing = [key for key in ("N", "loss") if key not in chosen]
    if "D" not in chosen and "C" not in chosen:
        missing.append("D (or C)")
    if missing:
        example = ",".join(f"{m.split()[0]}=COLUMN" for m in missing)
        raise UsageError(f"{where} has no column for {', '.join(missing)}. Name it with --columns {example}; the "
                         f"columns are {listed}.")
    return {key: column for key, column in chosen.items() if key != "C" or "D" not in given or "C" in given}


def _numbers(
    frame: pd.DataFrame, column: str, where: str, *, positive: bool = True, blank: bool = False
) -> Floats:
    """The column's numbers, finite and, where `positive`, above zero; with `blank`, NaN where a cell is blank."""
    raw = frame[column]
    values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=float)
    for i in np.flatnonzero(~np.isfinite(values) & ~(blank & raw.isna())).tolist():
        at = f"{row(frame.index[i])} of {where}"
        if pd.isna(raw.iloc[i]):
            raise UsageError(f"{at} has no value in column {column!r}. Fill it in or delete the row.")
        raise UsageError(
            f"{at} has {str(raw.iloc[i])!r} in column {column!r}, which is not a finite number. Write "
            "plain numbers, 7e9 for 7B."
        )
    if positive and (bad := np.flatnonzero(values <= 0).tolist()):
        raise UsageError(
            f"{row(frame.index[bad[0]])} of {where} has {values[bad[0]]:g} in column {column!r}, and a value above "
            "zero is needed. Correct it or delete the row."
        )
    return np.asarray(values)


def _sizes_and_tokens(
    values: Mapping[str, Floats], chosen: Mapping[str, str], where: str, lines: Sequence[int]
) -> tuple[Floats, Floats]:
    n = values["N"]
    if "D" not in values:
        d = values["C"] / (FLOPS_PER_PARAMETER_TOKEN * n)
        if d.max() < UNIT_FLOOR["D"]:
            raise UsageError(
                f"C / (6 N) in {where} gives at most {d.max():.3g} tokens. Give {chosen['C']!r} in FLOPs and "
                f"{chosen['N']!r} in parameters."
            )
        return n, d
    d = values["D"]
    if "C" in values:
        ratio = values["C"] / (FLOPS_PER_PARAMETER_TOKEN * n * d)
        middle = float(np.median(ratio))
        # Attention and the output head move all rows by some tens of percent; another unit by powers of ten.
        if middle > 10 or middle < 0.1:
            raise UsageError(
                f"Column {chosen['C']!r} of {where} is {middle:.3g} times 6 N D. Give N in parameters, D in tokens and "
                "C in FLOPs, or leave C out."
            )
        if (bad := np.flatnonzero(np.abs(np.log(ratio / middle)) > np.log(FLOPS_AGREE)).tolist()):
            raise UsageError(
                f"{row(lines[bad[0]])} of {where} mixes units: its {chosen['C']!r} is {ratio[bad[0]]:.3g} times 6 N "
                f"D, where the other rows have {middle:.3g}. Correct the row's N, D or C."
            )
    return n, d


def _check_design(found: Ladder, where: str) -> None:
    if len(found) < FEWEST_RUNS:
        left = f" after {len(found.refused)} that are not annealed alike" if found.refused else ""
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
