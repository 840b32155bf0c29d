"""JSON that says whether it is whole.

A sealed object carries, under the key `crc32`, the CRC-32 of all its other keys in canonical form. What is read is what
was sealed, or one is told: the seal covers values, not spelling, so a card may be re-indented by hand, but not changed
unseen.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from trainvitals.untrusted import parse_json

SEAL_KEY = "crc32"
MOST_BYTES = 8 << 20
"""No card, finding or forecast is larger: the largest that are known have a few hundred kB."""

State = Literal["whole", "unsealed", "broken"]
"""Matches its checksum; has none (written by hand or by an older version); does not match it."""


def seal(record: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The record as JSON gives it back, with its checksum as last key. `default` as in `json.dumps`."""
    plain = json.loads(json.dumps(record, default=default))
    plain.pop(SEAL_KEY, None)
    return {**plain, SEAL_KEY: _checksum(plain)}


def opened(data: bytes | str, most: int = MOST_BYTES) -> tuple[dict[str, Any], State]:
    """A sealed object without its seal, and what the seal says. Raises ValueError for what is no JSON object."""
    record = parse_json(data, most, finite=False)
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    said = record.pop(SEAL_KEY, None)
    if said is None:
        return record, "unsealed"
    return record, "whole" if said == _checksum(record) else "broken"


def _checksum(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"
