"""In what a loss is counted, and whether a fit's own figures agree with it.

A law fits nats per token, bits per token and bits per byte equally well; what it says of them does not carry over: the
same E is 1.8 nats per token, 2.6 bits per token and .6 bits per byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from checks.scaling._names import UNITS
from checks.scaling.chinchilla import Law
from checks.scaling.levenberg import Floats
from checks.scaling.reference import REFERENCES
from trainvitals.errors import UsageError

BITS = 1 / math.log(2)
E_RANGES: Mapping[str, tuple[float, float]] = {"nats/token": (1.3, 2.4), "bits/byte": (0.38, 0.90)}
"""Published fits of text lie at 1.51 to 1.87 nats per token (https://arxiv.org/abs/2403.08540, 2404.10102, 2305.16264),
and tokenizers spread a text over 3.8 to 4.8 bytes per token; both ends with a margin of a fifth."""
ALIKE = (0.75, 1.33)
"""Losses over those that Besiroglu et al.'s law has for the same N and D: 1.44 times as high in bits per token, a third
of it in bits per byte."""
GIVE_UNIT = f"Say it with --unit {', '.join(UNITS[:-1])} or {UNITS[-1]}."


def settle(stated: str | None, named: str, column: str, where: str) -> str:
    """The unit of a column: stated, or named in its header; empty where neither tells.

    Raises:
        UsageError: the two contradict each other, or the unit is none.
    """
    if stated is not None and stated not in UNITS:
        raise UsageError(f"--unit is {stated!r}. Use {', '.join(UNITS)}.")
    if stated and named and stated != named:
        raise UsageError(f"--unit is {stated}, and column {column!r} of {where} is named in {named}. Correct one.")
    return stated or named


def in_nats(loss: Floats, unit: str) -> tuple[Floats, str]:
    """Losses and unit, bits per token turned into nats. Bits per byte stay: tokens per byte are not known."""
    return (loss / BITS, "nats/token") if unit == "bits/token" else (loss, unit)


def doubt(unit: str, law: Law, n: Floats, d: Floats, loss: Floats) -> str:
    """Why the unit of a fitted ladder is in doubt, one sentence or two; empty where it is not.

    `unit` is what was stated, empty where nothing was: then E and the level of the losses must both be those of nats
    per token.
    """
    low, high = E_RANGES[unit or "nats/token"]
    inside = low <= law.E <= high
    published = f"{low:g} to {high:g} that fits of text in {unit or 'nats/token'} have"
    if unit:
        return "" if inside else f"E = {law.E:.3g} {unit} lies outside the {published}: check the unit of the losses."
    level = float(np.median(loss / REFERENCES["besiroglu"].law.loss(n, d)))
    if not inside:
        return f"The unit of the losses is not known, and E = {law.E:.3g} lies outside the {published}. {GIVE_UNIT}"
    if not ALIKE[0] <= level <= ALIKE[1]:
        return (
            f"The unit of the losses is not known, and they are {level:.2g} times those that text has in nats/token at "
            f"these sizes. {GIVE_UNIT}"
        )
    return ""
