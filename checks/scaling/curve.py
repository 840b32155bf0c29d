"""Loss curves with the learning rate of every step, and the schedules that runs are planned on.

    curve = read_curve("cosine.csv")                      # columns step, loss and, where known, lr and tokens
    plan = read_schedule("cosine:total=72000,warmup=2160,peak=3e-4,final=3e-5", curve)

Step n is the n-th optimizer step. Legend: n logged rows, T steps of a schedule.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS = {
    "step": ("step", "steps", "iteration", "iter", "global_step"),
    "loss": ("loss", "train_loss", "val_loss", "loss/train", "loss/val"),
    "lr": ("lr", "learning_rate", "lr/used"),
    "tokens": ("tokens", "tokens_seen", "data/tokens_seen"),
}
"""Names that a column may have, whatever their case."""

MOST_STEPS = 100_000_000

SHAPES = ("constant", "linear", "cosine", "wsd")
PLAN_NUMBERS = {"total": "total_steps", "warmup": "warmup_steps", "decay": "decay_steps", "peak": "peak",
                "final": "final"}
"""Keys of `kind:key=value,...`, and what `Plan` calls them."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A logged loss and the rate of every step up to its last row."""

    name: str
    steps: Ints
    """[n], rising"""
    losses: Floats
    """[n]; NaN and infinities as logged"""
    rates: Floats
    """[T] of steps 1 to T, T >= the last step; empty where no rate is known yet"""
    tokens: Floats | None = None
    """[n] tokens seen"""
    future: Floats = field(default_factory=lambda: np.zeros(0))
    """Rates of the whole run where the file goes on past its last loss: [T]"""
    assumed: tuple[str, ...] = ()
    """What was filled in, one sentence each."""

    @property
    def last_step(self) -> int:
        """Step of the last row; 0 without rows."""
        return int(self.steps[-1]) if len(self.steps) else 0

    def until(self, step: int) -> Curve:
        """The curve as it was at `step`."""
        n = int(np.searchsorted(self.steps, step, side="right"))
        tokens = None if self.tokens is None else self.tokens[:n]
        return replace(self, steps=self.steps[:n], losses=self.losses[:n], tokens=tokens)

    def after(self, step: int) -> Curve:
        """The rows after `step`; the rates stay."""
        n = int(np.searchsorted(self.steps, step, side="right"))
        tokens = None if self.tokens is None else self.tokens[n:]
        return replace(self, steps=self.steps[n:], losses=self.losses[n:], tokens=tokens)

    def thinned(self, most_rows: int) -> Curve:
        """At most so many rows, medians of blocks of neighbouring rows: noise falls, and a lone spike has no say."""
        size = -(-len(self.steps) // most_rows)
        if size <= 1:
            return self
        edges = np.arange(len(self.steps) % size, len(self.steps) + 1, size)
        blocks = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        steps = np.array([int(round(float(np.mean(self.steps[b])))) for b in blocks])
        return replace(self, steps=steps, losses=np.array([np.median(self.losses[b]) for b in blocks]), tokens=None)


def read_curve(path: str | Path) -> Curve:
    """A curve from a CSV file with a header.

    Rows whose loss is empty say only the rate: past the last loss they are the planned future. `nan` and `inf` are
    losses that were not finite, and stay.

    Raises:
        UsageError: no such file, a column that is missing or not numeric, steps that do not rise.
    """
    path = Path(path)
    table = _read(path)
    columns = table.columns
    for needed in ("step", "loss"):
        if needed not in columns:
            raise UsageError(
                f"{path} has no column for the {needed} (looked for {', '.join(COLUMNS[needed])}). Rename one."
            )
    steps = _steps(table)
    losses, said = columns["loss"]
    rates = columns.get("lr", (np.full(len(steps), np.nan), np.zeros(len(steps), bool)))[0]
    if not said.any():
        raise UsageError(f"{path} has no loss in any row. Give a file with at least one.")
    known = said & (steps >= 1)
    tokens = columns["tokens"][0][known] if "tokens" in columns else None
    last = int(steps[said][-1])
    dense, assumed = _dense(steps, rates)
    future = dense if len(dense) > last else np.zeros(0)
    return Curve(path.name, steps[known], losses[known], dense[:last], tokens, future, assumed)


def with_schedule(curve: Curve, rates: Floats) -> Curve:
    """The curve with its rates taken from a schedule, for logs that hold none. rates: [T]."""
    return replace(curve, rates=rates[: curve.last_step])


def read_schedule(spec: str, curve: Curve) -> Floats:
    """The planned rates of steps 1 to T: [T].

    `spec` is one of

    - a CSV file with columns step and lr for the whole run (a loss column is ignored); linear between rows, and from
      0 at step 0 where the first row comes later;
    - `kind:key=value,...` with kind constant, linear, cosine or wsd and keys total, warmup, peak, final, decay, such as
      `wsd:total=24000,warmup=2160,peak=3e-4,final=3e-5,decay=4000`. A missing peak is the highest rate that the curve
      has logged; a missing warmup is the step that it was first logged at, where that is not the first row;
    - a `trainvitals.schedules.Plan` as JSON, or a .json file with one; a missing peak or warm-up as above.

    Raises:
        UsageError: none of these, or a plan without a length or a rate.
    """
    rates = _planned(spec, curve)
    if not rates.any():
        raise UsageError("--schedule has no rate above zero. Give the learning rate of the whole run.")
    return rates


def _planned(spec: str, curve: Curve) -> Floats:
    if spec.lstrip().startswith("{"):
        return rates_of(_plan_from_json(spec, "--schedule", curve))
    path = Path(spec)
    if path.suffix == ".json" and path.is_file():
        return rates_of(_plan_from_json(_text(path), spec, curve))
    if path.is_file():
        table = _read(path)
        if "step" not in table.columns or "lr" not in table.columns:
            raise UsageError(f"{path} is no schedule: it needs columns step and lr for the whole run.")
        dense, _ = _dense(_steps(table), table.columns["lr"][0])
        return dense
    kind, _, rest = spec.partition(":")
    if kind not in SHAPES:
        raise UsageError(
            f"--schedule {spec!r} is neither a file nor a plan. Give a CSV with columns step and lr, or "
            "constant, linear, cosine or wsd with a length, such as cosine:total=72000,warmup=2160,final=3e-5."
        )
    return rates_of(_plan(kind, rest, curve))


def rates_of(plan: Plan) -> Floats:
    """The plan's rate at every step: [T].

    Raises:
        UsageError: the plan says no length.
    """
    total = plan.steps[-1] if plan.kind == "table" else plan.total_steps
    if total < 1:
        raise UsageError(f"The {plan.kind} plan has no length. Say how many steps the run will take: total=...")
    if total > MOST_STEPS:
        raise UsageError(f"The plan has {total:,} steps; at most {MOST_STEPS:,} are read. Count optimizer steps.")
    return plan.at(np.arange(1, total + 1))


def _plan(kind: str, rest: str, curve: Curve) -> Plan:
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, _, text = part.partition("=")
        name = PLAN_NUMBERS.get(key.removesuffix("_steps"))
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if name is None or not math.isfinite(number) or number < 0:
            raise UsageError(f"--schedule: {part!r} is not one of {', '.join(f'{n}=NUMBER' for n in PLAN_NUMBERS)}.")
        if name in values or (name.endswith("steps") and number != int(number)):
            raise UsageError(f"--schedule: {part!r} is given twice, or is no whole number of steps.")
        values[name] = int(number) if name.endswith("steps") else number
    return _completed(kind, values, curve)


def _completed(kind: str, values: dict[str, Any], curve: Curve) -> Plan:
    """The plan with these numbers, a missing peak or warm-up taken from the curve; UsageError if it is none."""
    if len(curve.rates):
        values.setdefault("peak", float(curve.rates.max()))
        values.setdefault("warmup_steps", int(np.argmax(curve.rates >= 0.999 * curve.rates.max())) + 1)
    if values.get("peak", 0.0) <= 0:
        raise UsageError("--schedule needs a peak above zero. Give it, or a curve with an lr column.")
    if not values.get("total_steps"):
        raise UsageError(f"--schedule {kind} needs total_steps: how many steps the run will take.")
    if kind == "wsd" and not values.get("decay_steps"):
        raise UsageError("--schedule wsd needs decay_steps: how long the last phase takes.")
    plan = Plan(kind=kind, **values)  # type: ignore[arg-type]
    if plan.warmup_steps + plan.decay_steps > plan.total_steps:
        raise UsageError(f"--schedule: warm-up and decay are longer than its {plan.total_steps:,} steps.")
    if plan.final > plan.peak:
        raise UsageError(f"--schedule: final={plan.final:g} is above the peak of {plan.peak:g}.")
    return plan


def _plan_from_json(text: str, where: str, curve: Curve) -> Plan:
    try:
        raw = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is not a plan: a JSON object with kind, peak, total_steps is needed.")
    kind = raw.pop("kind", None)
    values = {key: _plan_value(key, value, where) for key, value in raw.items()}
    if kind == "table":
        return Plan.from_json({"kind": kind} | values)
    if kind not in SHAPES:
        raise UsageError(f"{where} is not a plan: its kind is {kind!r}. Use {', '.join(SHAPES)} or table.")
    return _completed(kind, values, curve)


def _plan_value(key: str, value: object, where: str) -> Any:
    """A value of a JSON plan, whose numbers are all read as float, in the type that `Plan` has for it."""
    series = key in ("steps", "rates")
    if not series and key not in PLAN_NUMBERS.values():
        raise UsageError(f"{where} is not a plan: it has no key {key!r}. Use kind, {', '.join(PLAN_NUMBERS.values())}.")
    items: list[Any] = value if isinstance(value, list) else [value]
    number = int if key.endswith("steps") else float
    sound = all(isinstance(v, float) and 0 <= v < math.inf and v == number(v) for v in items)
    if not sound or series != isinstance(value, list):
        kind = ("a list of " if series else "a ") + ("whole number" if number is int else "number") + "s" * series
        raise UsageError(f"{where} is not a plan: {key} must be {kind} of zero or more.")
    return tuple(map(number, items)) if series else number(items[0])


@dataclass(frozen=True, slots=True)
class _Table:
    """The known columns of a CSV file."""

    path: Path
    lines: list[int]
    """[rows] where in the file each row stands: blank lines are no rows"""
    columns: dict[str, tuple[Floats, NDArray[np.bool_]]]
    """Values [rows] with NaN where empty, and where anything was written"""

    def place(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"


def _read(path: Path) -> _Table:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Give the path of a CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file ({error}).") from error
    if len(rows) < 2:
        raise UsageError(f"{path} has no rows below its header.")
    header = [cell.strip().lower() for cell in rows[0][1]]
    table = _Table(path, [line for line, _ in rows[1:]], {})
    for name, aliases in COLUMNS.items():
        at = next((header.index(alias) for alias in aliases if alias in header), None)
        if at is not None:
            cells = [row[at].strip() if at < len(row) else "" for _, row in rows[1:]]
            table.columns[name] = _numbers(table, header[at], cells), np.array([bool(cell) for cell in cells])
    return table


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not JSON in UTF-8 ({error}). Save it as such.") from error


def _numbers(table: _Table, column: str, cells: list[str]) -> Floats:
    values = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell) if cell else np.nan
        except ValueError as error:
            raise UsageError(f"{table.place(i)}: {cell!r} in column {column} is not a number.") from error
    return values


def _steps(table: _Table) -> Ints:
    values = table.columns["step"][0]
    if not np.isfinite(values).all():
        raise UsageError(f"{table.place(int(np.argmax(~np.isfinite(values))))}: the step is missing.")
    split = np.flatnonzero(values != np.floor(values))
    if len(split):
        raise UsageError(
            f"{table.place(split[0])}: step {values[split[0]]:g} is no whole number. Count optimizer steps."
        )
    falls = np.flatnonzero(np.diff(values) <= 0)
    if len(falls):
        raise UsageError(
            f"{table.place(falls[0] + 1)}: step {values[falls[0] + 1]:g} comes after step {values[falls[0]]:g}. "
            "Sort the rows, and keep one per step."
        )
    if values[-1] > MOST_STEPS or values[0] < 0:
        raise UsageError(f"{table.path}: steps must lie between 0 and {MOST_STEPS:,}; tokens are not steps.")
    return values.astype(np.int64)


def _dense(steps: Ints, rates: Floats) -> tuple[Floats, tuple[str, ...]]:
    """Rates of steps 1 to the last known one, linear between rows; [0] where none is known."""
    known = np.isfinite(rates)
    if not known.any() or steps[known][-1] < 1:
        return np.zeros(0), ()
    at, rate = steps[known], np.maximum(rates[known], 0.0)
    dense = np.interp(np.arange(1, int(at[-1]) + 1), at, rate)
    first = int(at[0])
    if first <= 1:
        return dense, ()
    # A log that begins late still had a warm-up; leaving it out shifts forecasts of other schedules by .1.
    dense[:first] = rate[0] * np.arange(1, first + 1) / first
    return dense, (f"The rate of steps 1 to {first - 1:,} is not in the file: a linear warm-up from 0 is assumed.",)


__all__ = ["Curve", "rates_of", "read_curve", "read_schedule", "with_schedule"]
