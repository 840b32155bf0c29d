"""How exactly a log prints its numbers, measured from the numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_DISTINCT = 8
"""Fewer different numbers may be round by themselves."""
MOST_DIGITS = 9


def rounding_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest error that printing has made in each value: 0 where the numbers show no rounding. values: [n].

    Numbers with the same count of decimals err by half of the last one, numbers with the same count of significant
    digits by half of theirs; where both fit the coarser digits decide, as a printf format would.
    """
    known = np.unique(np.abs(values[np.isfinite(values) & (values != 0)]))
    error = np.zeros(len(values))
    if len(known) < LEAST_DISTINCT:
        return error
    top = int(np.floor(np.log10(known[-1])))
    for decimals in range(-top, -top + MOST_DIGITS + 3):
        unit = 10.0**-decimals
        if np.allclose(np.round(known / unit) * unit, known, rtol=1e-9, atol=0):
            # As many digits in small numbers as in large ones are significant digits, not decimals.
            if known[0] / unit < 10 or decimals + top < 4:
                error[:] = 0.5 * unit
            break
    for digits in range(1, MOST_DIGITS):
        units = 10.0 ** (np.floor(np.log10(known)) - digits + 1)
        if np.allclose(np.round(known / units) * units, known, rtol=1e-9, atol=0):
            own = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(values), 1e-300))) - digits + 1)
            error = np.maximum(error, np.where(values != 0, 0.5 * own, 0.0))
            break
    return error
