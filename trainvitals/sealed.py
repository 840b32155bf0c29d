"""JSON that says whether it is whole, and a bounded reader of JSON that nobody vouches for.

A sealed object carries, under the key `crc32`, the CRC-32 of all its other keys in canonical form. What is read is what
was sealed, or one is told: the seal covers values, not spelling, so a card may be re-indented by hand, but not changed
unseen.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

SEAL_KEY = "crc32"
MOST_BYTES = 8 << 20
"""No card, finding or forecast is larger: the largest that are known have a few hundred kB."""
MOST_DEPTH = 64
MOST_DIGITS = 40
"""Of a whole number: a 128-bit seed has 39."""
MOST_STEP = 2**62
"""Steps are smaller than this, in either direction."""
MOST_RANKS = 2**31

State = Literal["whole", "unsealed", "broken"]
"""Matches its checksum; has none (written by hand or by an older version); does not match it."""


def seal(record: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The record as JSON gives it back, with its checksum as last key. `default` as in `json.dumps`."""
    plain = json.loads(json.dumps(record, default=default))
    plain.pop(SEAL_KEY, None)
    return {**plain, SEAL_KEY: _checksum(plain)}


def opened(data: bytes | str, most: int = MOST_BYTES) -> tuple[dict[str, Any], State]:
    """A sealed object without its seal, and what the seal says. Raises ValueError for what is no JSON object."""
    record = parse(data, most)
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    said = record.pop(SEAL_KEY, None)
    if said is None:
        return record, "unsealed"
    return record, "whole" if said == _checksum(record) else "broken"


def parse(data: bytes | str, most: int = MOST_BYTES) -> Any:
    """JSON of bounded size, depth and length of numbers. Raises ValueError, and nothing else, for any other bytes."""
    if len(data) > most:
        raise ValueError(f"it has {len(data):,} bytes, more than the {most:,} that are read")
    try:
        value = json.loads(data, parse_int=_digits)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    text = data if isinstance(data, bytes) else data.encode(errors="replace")
    if text.count(b"[") + text.count(b"{") <= MOST_DEPTH:
        return value
    layer, depth = [value], 0
    while layer := [inner for item in layer if isinstance(item, (dict, list))
                    for inner in (item.values() if isinstance(item, dict) else item)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
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


def _checksum(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def _digits(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)
