"""The schedule that a run is planned on, as a command names it: a file, a few words, or a plan in JSON.

    plan = read_schedule("cosine:total=72000,warmup=2160,peak=3e-4,final=3e-5", curve)

Legend: T steps of a schedule.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from checks.scaling._curve import MOST_STEPS, Curve, Floats, dense
from checks.scaling._files import clip, parse_json, read_file
from checks.scaling.curve_table import read_rates
from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

SHAPES = ("constant", "linear", "cosine", "wsd")
PLAN_NUMBERS = {"total": "total_steps", "warmup": "warmup_steps", "decay": "decay_steps", "peak": "peak",
                "final": "final"}
"""Keys of `kind:key=value,...`, and what `Plan` calls them."""


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
    if path.suffix == ".json" and _exists(path):
        return rates_of(_plan_from_json(_text(path), spec, curve))
    if _exists(path):
        return dense(*read_rates(path))[0]
    kind, _, rest = spec.partition(":")
    if kind not in SHAPES:
        raise UsageError(
            f"--schedule {clip(spec, 80)!r} is neither a file nor a plan. Give a CSV with columns step and lr, or "
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
            known = ", ".join(f"{name}=NUMBER" for name in PLAN_NUMBERS)
            raise UsageError(f"--schedule: {clip(part)!r} is not one of {known}.")
        if name in values or (name.endswith("steps") and number != int(number)):
            raise UsageError(f"--schedule: {clip(part)!r} is given twice, or is no whole number of steps.")
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
    raw = parse_json(text, where, "Give a plan with kind, peak and total_steps.")
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is not a plan: a JSON object with kind, peak, total_steps is needed.")
    kind = raw.pop("kind", None)
    values = {key: _plan_value(key, value, where) for key, value in raw.items()}
    if kind == "table":
        return Plan.from_json({"kind": kind} | values)
    if kind not in SHAPES:
        raise UsageError(f"{where} is not a plan: its kind is {clip(repr(kind))}. Use {', '.join(SHAPES)} or table.")
    return _completed(kind, values, curve)


def _plan_value(key: str, value: object, where: str) -> Any:
    """A value of a JSON plan, whose numbers are all read as float, in the type that `Plan` has for it."""
    series = key in ("steps", "rates")
    if not series and key not in PLAN_NUMBERS.values():
        known = ", ".join(PLAN_NUMBERS.values())
        raise UsageError(f"{where} is not a plan: it has no key {clip(key)!r}. Use kind, {known}.")
    listed: list[Any] = value if isinstance(value, list) else [value]
    items: list[Any] = [_float(item) for item in listed]
    number = int if key.endswith("steps") else float
    sound = all(isinstance(v, float) and 0 <= v < math.inf and v == number(v) for v in items)
    if not sound or series != isinstance(value, list):
        kind = ("a list of " if series else "a ") + ("whole number" if number is int else "number") + "s" * series
        raise UsageError(f"{where} is not a plan: {key} must be {kind} of zero or more.")
    return tuple(map(number, items)) if series else number(items[0])


def _float(value: object) -> object:
    """A whole number of JSON as a float, infinite where it is too large for one; anything else as it is."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _exists(path: Path) -> bool:
    """Whether something is there, pipes and devices included; a plan in words may be no path at all."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not JSON in UTF-8 ({error}). Save it as such.") from error
