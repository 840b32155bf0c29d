"""JSON from a folder or an address, which anybody may have written: bounded in size and depth, every number usable.

    raw = parse_json(file.read())              # ValueError says what is wrong, in words
    if wrong := misfit(raw, {"step": int, "losses": [float]}):
        ...

Python's own parser takes NaN, Infinity, integers of four thousand digits and nesting up to the stack's end; each of
them raises somewhere later, far from the file that holds it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

MOST_BYTES = 64 << 20
MOST_DEPTH = 64
"""Objects and lists inside each other. The deepest file of ours, audit.json, has seven."""
MOST_DIGITS = 40
"""Of a whole number that is only kept: a 128-bit seed has 39."""
MOST_STEP = 2**62
"""Steps are smaller than this, in either direction."""
MOST_RANKS = 2**31
MOST_INTEGER = 2**63 - 1
"""What 64 bits hold, and with them every column and axis."""


def parse_json(text: str | bytes, most_bytes: int = MOST_BYTES, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    With `finite=False`, NaN, the infinities and whole numbers of up to `MOST_DIGITS` digits are taken as they are: what
    uses a number then asks for it with `whole` or `number`.

    Half characters (lone surrogates), which no encoder takes, become "\ufffd" or "?".

    Raises:
        ValueError: it is too long, no JSON, nested too deeply, or holds a number that is not finite or too large.
    """
    if len(text) > most_bytes:
        raise ValueError(f"it has {len(text) / 1e6:,.0f} MB, and at most {most_bytes / 1e6:,.0f} are read")
    try:
        found = (json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant) if finite
                 else json.loads(text, parse_int=_digits))
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels") from error
    return bounded(found) if finite else _shallow(found)


def bounded(value: Any) -> Any:
    """A value that some other parser made of JSON, after the same look; errors as in `parse_json`."""
    layer: list[Any] = [[value]]
    for _ in range(MOST_DEPTH + 2):
        layer = [inner for outer in layer for inner in _looked_through(outer)]
        if not layer:
            return value if not isinstance(value, str) else _whole(value)
    raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")


def _looked_through(outer: Any) -> Iterator[Any]:
    """The objects and lists in this one, after its numbers and characters have been seen to."""
    members: list[tuple[Any, Any]] = list(outer.items() if isinstance(outer, dict) else enumerate(outer))
    for key, value in members:
        if isinstance(value, (dict, list)):
            yield value
        elif isinstance(value, str):
            outer[key] = _whole(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"it holds {value}, and only finite numbers can be used")
        elif isinstance(value, int) and abs(value) > MOST_INTEGER:
            raise ValueError("it holds an integer of more than 64 bits")
        if isinstance(key, str) and _whole(key) != key:
            outer[_whole(key)] = outer.pop(key)


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MOST_INTEGER:
        raise ValueError(f"it holds an integer of {len(digits)} digits, more than 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds {digits[:20]}, which is beyond every number of 64 bits")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no JSON, and only finite numbers can be used")


def _digits(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _shallow(value: Any) -> Any:
    layer, depth = [value], 0
    while layer := [inner for item in layer if isinstance(item, (dict, list))
                    for inner in (item.values() if isinstance(item, dict) else item)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")
    return value


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from JSON in [low, high]. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high \
            or value != int(value):  # in this order: NaN and infinity are in no range
        raise ValueError(f"{name} is {shown(value)}, not a whole number from {low} to {high}")
    return int(value)


def number(value: Any, name: str) -> float:
    """A finite number from JSON. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} is {shown(value)}, not a finite number")
    return float(value)


def shown(value: Any) -> str:
    """A value of unknown origin in at most 60 printable characters."""
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return "an enormous whole number"  # Python refuses to spell those of more than 4,300 digits
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def misfit(value: Any, shape: Any, place: str = "") -> str:
    """The first place where a value is not of a shape, in words; empty where it fits.

    A shape is a type, [shape of every member], {name: shape} for an object that has at least these names, or a tuple
    of shapes of which one must fit; None fits `type(None)`. `True` is no number.
    """
    if isinstance(shape, tuple):
        told = [misfit(value, one, place) for one in shape]
        return "" if "" in told else told[0]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{place or 'it'} is no object"
        for name, inner in shape.items():
            where = f"{place}.{name}" if place else name
            if name not in value:
                return f"{where} is missing"
            if said := misfit(value[name], inner, where):
                return said
        return ""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place or 'it'} is no list"
        return next((said for i, one in enumerate(value) if (said := misfit(one, shape[0], f"{place}[{i}]"))), "")
    fits = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    return "" if fits else f"{place or 'it'} is {type(value).__name__}"
