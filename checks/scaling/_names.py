"""What a column is called, and what its name says of units: `N (M)`, `params_b`, `tokens (billions)`, `val_bpb`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from checks.scaling._files import clip, listed
from trainvitals.errors import UsageError

SCALES: Mapping[str, float] = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "g": 1e9,
    "billion": 1e9, "t": 1e12, "tn": 1e12, "trillion": 1e12,
}
FLOP_SCALES: Mapping[str, float] = {
    "": 1.0, "k": 1e3, "m": 1e6, "mega": 1e6, "g": 1e9, "giga": 1e9, "t": 1e12, "tera": 1e12, "p": 1e15, "peta": 1e15,
    "e": 1e18, "exa": 1e18, "z": 1e21, "zetta": 1e21, "y": 1e24, "yotta": 1e24,
}
PF_DAY = 1e15 * 86400
_BRACKETS = re.compile(r"^(?P<base>.*?\S)\s*[\(\[](?P<unit>[^()\[\]]*)[\)\]]\s*$")
_SUFFIX = re.compile(
    r"^(?P<base>.+?)_(?:in_)?(?P<unit>k|m|mn|b|bn|t|thousands?|millions?|billions?|trillions?|1e[0-9]+)$"
)
_PREFIX = re.compile(r"^(?P<unit>thousands?|millions?|billions?|trillions?)_(?:of_)?(?P<base>.+)$")
_FLOP = re.compile(r"^(?P<base>(?:\w+_)?)(?P<scale>kilo|mega|giga|tera|peta|exa|zetta|yotta|[kmgtpezy])?_?flops?$")
_POWER = re.compile(r"^[x×*]?\s*(?:10\s*(?:\^|\*\*)\s*([0-9]+)|1e\+?([0-9]+)|(10+))$")
_LOSS_UNITS: Sequence[tuple[str, str]] = (
    ("bits/byte", r"(?<![a-z])bpb(?![a-z])|bits?_(?:per_)?byte"),
    ("bits/token", r"(?<![a-z])bpt(?![a-z])|bits?_(?:per_)?tok"),
    ("nats/token", r"(?<![a-z])nats(?![a-z])|nats?_(?:per_)?tok"),
)
UNITS = tuple(unit for unit, _ in _LOSS_UNITS)


@dataclass(frozen=True, slots=True)
class Named:
    """A column's name without its unit."""

    word: str
    """The whole name but for what stands in brackets: lower case, words divided by underscores."""
    base: str
    """The same without a unit at its end."""
    scale: float = 1.0
    """What its values are multiplied by."""
    loss_unit: str = ""
    """nats/token, bits/token or bits/byte, where the name says."""


def plain(name: str) -> str:
    """Lower case, with one underscore for everything that divides words."""
    return re.sub(r"[\s\-./:]+", "_", name.strip().lower()).strip("_")


def read_name(column: str, where: str) -> Named:
    """Name and unit of a column.

    Raises:
        UsageError: it names a power of ten in a way that is not understood.
    """
    base, unit = column, ""
    if found := _BRACKETS.match(column):
        base, unit = found["base"], found["unit"]
    word = plain(base)
    loss_unit = next((u for u, pattern in _LOSS_UNITS if re.search(pattern, plain(column))), "")
    if unit:
        scale = _scale(unit)
        if scale is None and re.search(r"10|e[0-9]", unit):
            raise UsageError(f"{where} has a column {clip(column)!r} in a unit that is not understood. Write it as "
                             "(M), (B), (T) or (1e9).")
        return Named(word, word, scale or 1.0, loss_unit)
    for pattern in (_SUFFIX, _PREFIX):
        if (found := pattern.match(word)) and (scale := _scale(found["unit"])):
            return Named(word, found["base"], scale, loss_unit)
    if re.search(r"pf_?s?_?days?$", word):
        return Named(word, "flops", PF_DAY)
    if found := _FLOP.match(word):
        return Named(word, f"{found['base']}flops", FLOP_SCALES[found["scale"] or ""])
    return Named(word, word, 1.0, loss_unit)


def _scale(unit: str) -> float | None:
    """The factor that a unit stands for; None where it is none."""
    word = re.sub(r"^(?:in|of)\s+", "", unit.strip().lower())
    word = re.sub(r"\s*(?:param(?:eter)?s?|tokens?|toks?)$", "", word).strip()
    if found := _POWER.match(word):
        return float(10 ** min(int(found[1] or found[2] or len(found[3]) - 1), 30))
    if re.fullmatch(r"pf[\-/ ]?s?[\-/ ]?days?", word):
        return PF_DAY
    if (flop := _FLOP.match(plain(word))) and not flop["base"]:
        return FLOP_SCALES[flop["scale"] or ""]
    return SCALES.get(word) or SCALES.get(word.removesuffix("s"))


def parse_columns(text: str, keys: Iterable[str]) -> dict[str, str]:
    """`N=params,loss=val loss` as a dictionary; a comma divides only where a key and `=` follow it.

    Raises:
        UsageError: a part is not KEY=COLUMN with a known key.
    """
    known = list(keys)
    found: dict[str, str] = {}
    for part in re.split(rf",(?=\s*(?:{'|'.join(known)})\s*=)", text):
        key, sign, column = (p.strip() for p in part.partition("="))
        if not sign or not column or key not in known:
            raise UsageError(
                f"--columns cannot use {clip(part.strip())!r}. Write KEY=COLUMN with keys of {', '.join(known)}, "
                "separated by commas."
            )
        if key in found or column in found.values():
            raise UsageError(f"--columns names {key if key in found else clip(column)!r} twice. Give each its own "
                             "column.")
        found[key] = column
    return found


def say_columns(chosen: Mapping[str, str]) -> str:
    """`--columns` as a shell takes it."""
    return '--columns "' + ",".join(f"{key}={column}" for key, column in chosen.items()) + '"'


def one_of(candidates: Sequence[str], key: str, where: str, others: Mapping[str, str]) -> str:
    """The only candidate; UsageError with the line to use where there are several."""
    if len(candidates) == 1:
        return candidates[0]
    said = listed((repr(clip(c)) for c in candidates), 5)
    raise UsageError(
        f"{where} has several columns for {key}: {said}. Say which: {say_columns({**others, key: candidates[0]})}."
    )
