"""Steps that are fractions, as whole numbers: those of a series times one power of ten."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from collectors.importers.importer import BlindSpot
from trainvitals.untrusted import MOST_STEP

MOST_DECIMALS = 6
"""What Neptune keeps: https://docs.neptune.ai/attributes/series."""


def factor_of(steps: Iterable[Any]) -> int:
    """The smallest power of ten, up to 10**`MOST_DECIMALS`, that makes these steps whole."""
    places = 0
    for step in steps:
        while places < MOST_DECIMALS and not _whole(step, 10**places):
            places += 1
    return int(10**places)


def _whole(step: Any, factor: int) -> bool:
    if not isinstance(step, (int, float, Decimal)) or not math.isfinite(step):
        return True
    value = step * factor
    return abs(value - round(value)) < Decimal("0.000001") * factor if isinstance(value, Decimal) \
        else abs(value - round(value)) < 1e-6


def scaled(step: Any, factor: int) -> int | None:
    """The step times the factor, rounded; None where it is no number or beyond all steps."""
    if isinstance(step, bool) or not isinstance(step, (int, float, Decimal)) or not math.isfinite(step):
        return None
    value = round(step * factor)
    return value if abs(value) < MOST_STEP else None


def scaled_steps(factor: int, names: Sequence[str]) -> tuple[BlindSpot, ...]:
    """What series hide whose steps are not steps."""
    return (BlindSpot("steps", tuple(names[:20]),
                      f"Some steps of {', '.join(names[:3])} are fractions, such as epochs: a step is 1/{factor:,} of "
                      "one",
                      "Log by the optimizer's step"),)
