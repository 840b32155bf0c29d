"""What stands in a line of a log: numbers, who printed it, when, and JSON objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from trainvitals.untrusted import parse_json

NUMBER = rb"[-+]?(?:\d[\d,]*(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|[nN][aA][nN]|[iI][nN][fF](?:inity)?)"
_WRITER = re.compile(rb"\[[A-Za-z_]*\d+(?:\|\d+)?\]:|\[[Rr]ank[ _]?\d+\]|^\s{0,8}\d{1,6}: |\b[Rr]ank[ =:]\s?\d+|"
                     rb"\(\w{1,80} pid=\d+[^)]{0,80}\)")
_TIME = re.compile(rb"(\d{4}-\d\d-\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
_SUFFIX = {b"K": 1e3, b"M": 1e6, b"B": 1e9, b"G": 1e9, b"T": 1e12, b"P": 1e15}


def number(token: bytes) -> float | None:
    """The number that a log prints as `token`: 1,234.5, 1.2E-03, NaN, 3.4B; None where it is none."""
    token = token.strip()
    try:
        return float(token)
    except ValueError:
        pass
    token = token.replace(b",", b"")
    scale = _SUFFIX.get(token[-1:].upper(), 1.0) if len(token) > 1 else 1.0
    try:
        return float(token if scale == 1.0 else token[:-1]) * scale
    except ValueError:
        return None


def writer_of(prefix: bytes) -> str:
    """Which rank printed a line, from what stands before it: "[default7]:", "3: ", "[rank0]:"; "" if nothing says."""
    found = _WRITER.search(prefix)
    return found[0].strip().decode("ascii", "replace") if found else ""


def unmarked(line: bytes) -> bytes:
    """A line without what says which rank printed it."""
    return _WRITER.sub(b"", line, count=1)


def time_of(prefix: bytes) -> float:
    """Unix time of a line, from what stands before it; NaN without one. Without a time zone it is taken as UTC."""
    found = _TIME.search(prefix)
    if found is None:
        return float("nan")
    day, hours, minutes, seconds, fraction, zone = found.groups()
    time = _day(day) + int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(b"." + (fraction or b"0"))
    if zone and zone != b"Z":
        east = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        time += east if zone[:1] == b"-" else -east
    return time


@lru_cache(256)
def _day(day: bytes) -> float:
    try:
        return datetime.strptime(day.decode(), "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float("nan")


def json_of(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line ends with, a logger's prefix before it; None where there is none."""
    begin = line.find(b"{")
    if begin < 0 or not line.rstrip().endswith(b"}"):
        return None
    try:
        found = parse_json(line[begin:].decode("utf-8", "replace"), finite=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def numbers_of(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a JSON object, with the path of nested ones; NaN and infinity also where they are text."""
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Mapping) and "bucket_limits" not in value:
            numbers |= numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            numbers[prefix + name] = float(value)
        elif isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)
                                          and value.bit_length() < 1_000):
            numbers[prefix + name] = float(value)
    return numbers


def significant_digits(token: bytes) -> int:
    """How many significant digits a number is printed with: 0.000600 has 3, 2.198845E+00 has 7, zero and NaN none."""
    digits = re.split(rb"[eE]", token.strip(), maxsplit=1)[0].translate(None, b"+-.,")
    return len(digits.lstrip(b"0")) if digits.isdigit() else 0
