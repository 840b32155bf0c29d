"""A curve from a file: a plain table of steps and losses, or what a tracker exports.

Understood without --columns, from their documented layouts:

- Weights & Biases, the CSV of a chart: `Step, RUN - train/loss, RUN - train/loss__MIN, RUN - train/loss__MAX`
- TensorBoard, the CSV or JSON of a scalar: `Wall time, Step, Value`
- MLflow, a metric file without a header (`time value step`), and its CSV: `Run, ..., key, value, step, timestamp`
- Neptune (`step, value, timestamp`), Comet (`metricName, metricValue, step`), trackio (Parquet, CSV or JSON lines)
- Hugging Face's trainer_state.json (`log_history`)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve import MOST_STEPS, Curve, Floats, Ints, dense
from checks.scaling._files import clip, listed
from checks.scaling._names import one_of, parse_columns, plain, read_name
from checks.scaling.sheet import Sheet, read_sheet
from trainvitals.errors import UsageError

STEP = ("step", "steps", "iteration", "iter", "global_step", "train_global_step", "trainer_global_step", "train_step",
        "optimizer_step", "_step")
TRAINING = ("loss", "train_loss", "training_loss", "loss_train", "lm_loss", "train_lm_loss", "train_ce_loss",
            "train_cross_entropy", "train_crossentropyloss", "train_loss_step", "loss_step")
VALIDATION = ("val_loss", "loss_val", "valid_loss", "validation_loss", "eval_loss")
NAMELESS = ("value",)
"""What trackers call the numbers of a file that holds one metric."""
LR = ("lr", "learning_rate", "lr_used", "train_lr", "train_learning_rate", "lr_adamw", "lr_adam", "lr_sgd",
      "optim_learning_rate_group0", "lr_group_0", "lr_0")
TOKENS = ("tokens", "tokens_seen", "data_tokens_seen", "num_tokens", "total_tokens", "train_tokens",
          "throughput_total_tokens", "consumed_tokens", "num_input_tokens_seen")
KEYS = ("step", "loss", "lr", "tokens")
METRIC = ("key", "metric", "metric_name", "metricname", "tag")
VALUE = ("value", "metric_value", "metricvalue")
RUN = ("run", "run_name", "run_id", "experiment", "experiment_key", "experiment_name")
MOST_KEYS = 2_000


def read_curve(path: str | Path, columns: Mapping[str, str] | None = None) -> Curve:
    """A curve from a table in any format of `read_sheet`.

    Rows whose loss is empty say only the rate: past the last loss they are the planned future. `nan` and `inf` are
    losses that were not finite, and stay.

    Args:
        path: the file.
        columns: column of each quantity (`KEYS`); what is not given is guessed by name.

    Raises:
        UsageError: no such file, a column that is missing or not numeric, steps that do not rise.
    """
    sheet = _wide(read_sheet(path))
    chosen, assumed = _columns(sheet, columns or {})
    for key, names in (("step", STEP), ("loss", (*TRAINING, *VALIDATION))):
        if key not in chosen:
            raise UsageError(
                f"{path} has no column for the {key} (looked for {listed(names, 5)}). Name it with --columns "
                f"{key}=COLUMN; the columns are {sheet.names()}."
            )
    steps, read = _rows(sheet, chosen)
    losses, said = read["loss"]
    if not said.any():
        raise UsageError(f"{path} has no loss in any row. Give a file with at least one.")
    known = said & (steps >= 1)
    rates = read.get("lr", (np.full(len(steps), np.nan), known))[0]
    every, filled = dense(steps, rates)
    last = int(steps[said][-1])
    return Curve(
        Path(path).name, steps[known], losses[known], every[:last],
        read["tokens"][0][known] if "tokens" in read else None,
        every if len(every) > last else np.zeros(0), (*assumed, *filled),
        unit=read_name(chosen["loss"], str(path)).loss_unit,
    )  # fmt: skip


def read_rates(path: str | Path) -> tuple[Ints, Floats]:
    """Steps and rates of a schedule in a file: two arrays [n].

    Raises:
        UsageError: it cannot be read, or has not both columns.
    """
    sheet = _wide(read_sheet(path))
    chosen = {key: column for key, column in _columns(sheet, {})[0].items() if key in ("step", "lr")}
    if len(chosen) < 2:
        raise UsageError(f"{path} is no schedule: it needs columns step and lr for the whole run. It has "
                         f"{sheet.names()}.")
    steps, read = _rows(sheet, chosen)
    return steps, read["lr"][0]


def curve_columns(text: str) -> dict[str, str]:
    """`step=_step,loss=train/loss` as a dictionary; UsageError where a part is no KEY=COLUMN."""
    return parse_columns(text, KEYS)


def _columns(sheet: Sheet, given: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which column holds what, and a sentence on every choice that another reader might have made otherwise."""
    for key, column in given.items():
        sheet.texts(column, key)
    chosen, assumed = dict(given), []
    words = {name: _word(name) for name in dict.fromkeys(sheet.header) if _word(name)}
    for key, known in (("step", STEP), ("loss", TRAINING), ("lr", LR), ("tokens", TOKENS)):
        hits = [] if key in chosen else _hits(sheet, words, known)
        if key == "loss" and key not in chosen:
            hits = hits if any(any(sheet.texts(hit)) for hit in hits) else _hits(sheet, words, VALIDATION) or hits
            if not hits and (hits := _hits(sheet, words, NAMELESS)):
                assumed.append(f"The file does not name its metric: {hits[0]!r} is taken to be the loss.")
        if key in ("lr", "tokens") and len(hits) > 1 and "loss" in chosen:
            run = chosen["loss"].rpartition(" - ")[0]
            hits = [name for name in hits if name.rpartition(" - ")[0] == run][:1]
        if hits:
            chosen[key] = one_of(hits, key, sheet.where, {k: v for k, v in chosen.items() if k != key})
    others = [name for name in words if words[name] in (*TRAINING, *VALIDATION) and name != chosen.get("loss")]
    if "loss" not in given and "loss" in chosen and others:
        assumed.append(f"The loss is column {clip(chosen['loss'])!r}; {listed((clip(n) for n in others), 3)} "
                       f"{'is' if len(others) == 1 else 'are'} there too (--columns loss=...).")
    return chosen, tuple(assumed)


def _hits(sheet: Sheet, words: Mapping[str, str], known: tuple[str, ...]) -> list[str]:
    """Columns that have the first of the known names that any column has; blank columns only where no other has."""
    for only_said in (True, False):
        for word in known:
            hits = [name for name in words if words[name] == word and (any(sheet.texts(name)) or not only_said)]
            if hits:
                return hits
    return []


def _word(name: str) -> str:
    """What a tracker's column is of: without the run before it; nothing for the ends of a chart's band."""
    if name.endswith(("__MIN", "__MAX")):
        return ""
    word = plain(read_name(name.rpartition(" - ")[2], "").word)
    return ("_step" if name.strip() == "_step" else word).removeprefix("metrics_")


def _rows(sheet: Sheet, chosen: Mapping[str, str]) -> tuple[Ints, dict[str, tuple[Floats, NDArray[np.bool_]]]]:
    """Steps, and the other columns, of the rows that say more than a step.

    Rows of one step that complement each other are one row.
    """
    read = sheet.numbers(chosen.values())
    steps, _ = read[chosen["step"]]
    found = {key: read[column] for key, column in chosen.items() if key != "step"}
    keep = np.flatnonzero(np.any([said for _, said in found.values()], axis=0))
    if not len(keep):
        return np.zeros(0, np.int64), {key: (values[keep], said[keep]) for key, (values, said) in found.items()}
    steps, found = steps[keep], {key: (values[keep], said[keep]) for key, (values, said) in found.items()}
    places = keep
    starts = np.flatnonzero(np.concatenate([[True], steps[1:] != steps[:-1]]))
    if len(starts) < len(steps) and all(np.add.reduceat(said, starts).max() <= 1 for _, said in found.values()):
        found = {key: _merged(values, said, starts) for key, (values, said) in found.items()}
        steps, places = steps[starts], places[starts]
    _check_steps(steps, sheet, places, chosen["step"])
    return steps.astype(np.int64), found


def _merged(values: Floats, said: NDArray[np.bool_], starts: NDArray[np.intp]) -> tuple[Floats, NDArray[np.bool_]]:
    merged = np.add.reduceat(np.where(said, values, 0.0), starts)
    told = np.logical_or.reduceat(said, starts)
    return np.where(told, merged, np.nan), told


def _check_steps(steps: Floats, sheet: Sheet, places: NDArray[np.intp], column: str) -> None:
    def at(i: int) -> str:
        return sheet.place(int(places[i]))

    if (bad := np.flatnonzero(~np.isfinite(steps)).tolist()):
        raise UsageError(f"{at(bad[0])}: the step is missing. Fill in column {clip(column)!r} or delete the row.")
    if (bad := np.flatnonzero(steps != np.floor(steps)).tolist()):
        raise UsageError(f"{at(bad[0])}: step {steps[bad[0]]:g} is no whole number. Count optimizer steps.")
    if (bad := np.flatnonzero(np.diff(steps) <= 0).tolist()):
        i = bad[0]
        run = next((name for name in sheet.header if plain(name) in RUN and len(set(sheet.texts(name))) > 1), "")
        remedy = (f"Column {clip(run)!r} names several runs: keep the rows of one." if run
                  else "Sort the rows, and keep one per step.")
        raise UsageError(f"{at(i + 1)}: step {steps[i + 1]:g} comes after step {steps[i]:g}. {remedy}")
    if steps[-1] > MOST_STEPS or steps[0] < 0:
        raise UsageError(f"{sheet.where}: steps must lie between 0 and {MOST_STEPS:,}; tokens are not steps.")


def _wide(sheet: Sheet) -> Sheet:
    """One column per metric where the sheet has one row per metric and step."""
    words = {plain(name): name for name in reversed(sheet.header)}
    metric, value, step = (next((words[w] for w in known if w in words), "") for known in (METRIC, VALUE, STEP))
    if not metric or not value or not step:
        return sheet
    run = next((words[w] for w in RUN if w in words), "")
    keys, steps, values = sheet.texts(metric), sheet.texts(step), sheet.texts(value)
    if run and len(set(sheet.texts(run))) > 1:
        keys = [f"{r} - {key}" for r, key in zip(sheet.texts(run), keys, strict=True)]
    names = list(dict.fromkeys(keys))
    if len(names) > MOST_KEYS:
        raise UsageError(f"{sheet.where} has {len(names):,} metrics; at most {MOST_KEYS:,} are read. Keep the loss.")
    rows: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for line, at, key, cell in zip(sheet.lines, steps, keys, values, strict=True):
        lines.setdefault(at, line)
        if rows.setdefault(at, {}).setdefault(key, cell) != cell:
            raise UsageError(f"{sheet.where}: {sheet.counts} {line:,} gives {clip(key)!r} at step {clip(at)} again. "
                             "Keep one row per step.")
    cells = (list(rows), *([row.get(name, "") for row in rows.values()] for name in names))
    return Sheet(sheet.where, (step, *names), tuple(lines.values()), cells, sheet.delimiter, sheet.counts)
