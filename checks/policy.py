"""A policy: thresholds of the checks, read from a TOML file that people write or `trainvitals calibrate` made.

    [lr.jump]
    warn_factor = 1.5

    [scan.loss]          # the scan of losses, which loss.spike, loss.divergence, loss.fall and others share
    warn = 0.01          # log units: +1 %

What the file does not name keeps its shipped value. `checks/policy.toml` names everything, with the false-alarm rate
that was measured for it.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from checks.registry import all_checks
from checks.stream.book import scan_settings
from trainvitals.errors import UsageError

SHIPPED = Path(__file__).with_name("policy.toml")
MOST_BYTES = 1 << 20
SHARES = ("share", "tvd", "degree", "distance", "ceiling", "score", "starved", "tolerance", "alpha", "penalty", "fair")
"""Words in the name of a setting that lies between 0 and 1."""

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds in place of the shipped ones."""

    settings: Settings = field(default_factory=dict)
    """Check, or `scan.NAME` -> setting -> value: what differs from the shipped value, nothing else."""
    path: str = ""

    @property
    def digest(self) -> str:
        """Names the thresholds, whatever the file is called; "" for those that are shipped."""
        if not self.settings:
            return ""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]


@cache
def shipped() -> Settings:
    """Every setting that a policy can name, with its shipped value."""
    known = {check.name: check.defaults for check in all_checks()}
    return {name: found for name, found in (known | scan_settings()).items() if found}


def read(path: str | Path) -> Policy:
    """The policy in a file.

    Raises:
        UsageError: no such file, no TOML, an unknown check or setting (with the nearest name), a value of another type
            or out of its range, or a warning that comes after its failure.
    """
    raw = _parsed(path)
    changed: dict[str, dict[str, Any]] = {}
    for name, given in _sections(raw, path):
        changed[name] = {key: value for key, value in given.items() if value != shipped()[name][key]}
    return Policy({name: given for name, given in changed.items() if given}, str(path))


def _parsed(path: str | Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The policy {path} cannot be read: {error.strerror or error}.") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"The policy {path} is larger than {MOST_BYTES:,} bytes, so it is none.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The policy {path} is not TOML: {error}.") from error


def _sections(raw: dict[str, Any], path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for first, group in raw.items():
        if not isinstance(group, dict):
            raise UsageError(f"{path}: {first} = ... stands outside a section. Write it below one such as [lr.jump].")
        for second, given in group.items():
            name = f"{first}.{second}"
            if name not in shipped():
                raise UsageError(f"{path}: {_no_section(name, given)}")
            if not isinstance(given, dict):
                raise UsageError(f"{path}: {name} is a section. Write [{name}] and its settings below.")
            for key, value in given.items():
                _refuse(name, key, value, path)
            _refuse_order(name, {**shipped()[name], **given}, path)
            yield name, given


def _no_section(name: str, given: Any) -> str:
    if name in {check.name for check in all_checks()}:
        scanned = name.startswith(("loss.", "grad."))
        return f"{name} has nothing to set.{' See [scan.loss] and [scan.gradient].' if scanned else ''}"
    return f"no check or scan is called {name}.{_nearest(name, shipped())}"


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f" Did you mean {near[0]}?" if near else f" There are {', '.join(known)}."


def _refuse(name: str, key: str, value: Any, path: str | Path) -> None:
    defaults = shipped()[name]
    if key not in defaults:
        raise UsageError(f"{path}: {name} has no setting {key}.{_nearest(key, defaults)}")
    wanted = _wanted(name, key)
    if not wanted:
        raise UsageError(f"{path}: {name} takes {key} from the program that calls it. Leave it out.")
    at = f"{path}: {key} of {name} is {json.dumps(value, default=str)[:60]}"
    if not _fits(value, wanted):
        raise UsageError(f"{at}. Give {wanted}.")
    low, high = limits(name, key)
    for number in value.values() if isinstance(value, dict) else [value]:
        if isinstance(number, int | float) and not low <= number <= high:
            raise UsageError(f"{at}. Give {wanted} {_between(low, high)}.")


def _wanted(name: str, key: str) -> str:
    """What a setting is, in words; "" where a file cannot hold it."""
    default = shipped()[name][key]
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int):
        return "a whole number"
    if isinstance(default, float):
        return "a number"
    function = next(check.function for check in all_checks() if check.name == name)
    annotation = str(inspect.signature(function).parameters[key].annotation)
    known = {"float | None": "a number", "Mapping[str, float] | None": "a table of numbers"}
    return known.get(annotation, "")


def _fits(value: Any, wanted: str) -> bool:
    if wanted == "true or false":
        return isinstance(value, bool)
    if wanted == "a table of numbers":
        return isinstance(value, dict) and all(_fits(number, "a number") for number in value.values())
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (wanted == "a number" or isinstance(value, int))


def limits(name: str, key: str) -> tuple[float, float]:
    """Smallest and largest sensible value of a numeric setting."""
    default = shipped()[name][key]
    if isinstance(default, int) and not isinstance(default, bool):
        return 1, math.inf
    if key.endswith("factor"):
        return 1.0, math.inf
    if any(word in key for word in SHARES) and isinstance(default, float) and default <= 1:
        return 1e-12, 1.0
    return 0.0, math.inf


def _between(low: float, high: float) -> str:
    return f"of at least {low:g}" if math.isinf(high) else f"above 0 and at most {high:g}"


def pairs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings that belong together as warning and failure."""
    named = [(key, key.replace("warn", "fail")) for key in settings if "warn" in key]
    named += [(key, f"fail_{key}") for key in settings]
    return [(a, b) for a, b in named if b in settings]


def _refuse_order(name: str, settings: Mapping[str, Any], path: str | Path) -> None:
    defaults = shipped()[name]
    for warn, fail in pairs(defaults):
        if (settings[warn] < settings[fail]) != (defaults[warn] < defaults[fail]):
            side = "above" if defaults[warn] < defaults[fail] else "below"
            raise UsageError(f"{path}: {fail} of {name} is {settings[fail]:g} and must lie {side} {warn}, which is "
                             f"{settings[warn]:g}.")
    if {"k", "n"} <= set(settings) and settings["k"] > settings["n"]:
        raise UsageError(f"{path}: k of {name} is {settings['k']} of n = {settings['n']}. k counts some of n.")

