"""How good a fit is: its level, and one bounded sentence that says why and what it rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Level
from checks.scaling._files import clip, listed
from checks.scaling.levenberg import Floats

if TYPE_CHECKING:
    from checks.scaling.fit import FitResult
    from checks.scaling.table import Ladder

PASS_MAD, WARN_MAD = 0.005, 0.01
"""Scatter of the log loss: 0.49 % on the 240 points of Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102."""
PASS_E_WIDTH = 0.06
"""Relative width of E's 95 % interval: 5.6 % on the same points."""
FEWEST_TO_JUDGE = 10
"""Runs below which five constants leave too few residuals to judge."""
TOGETHER = 0.15
"""Von Neumann's ratio (https://doi.org/10.1214/aoms/1177731677) of residuals in the order of the table, of which
independent rows have 1: below it they move together as checkpoints of one run do. Real ladders lie at .3 and above."""
FEWEST_PAIRS = 10
EXACT_MAD = 1e-4
"""Scatter below which what is left is no run's noise, and its order says nothing."""
MOST_NAMED = 2


def judge(fit: FitResult) -> tuple[Level, str]:
    """Level of a fit, and the sentence behind it; no longer than some 600 characters."""
    if len(fit.ladder) < FEWEST_TO_JUDGE:
        return "unknown", (
            f"{len(fit.ladder)} runs leave {len(fit.ladder) - 5} residuals beyond the law's five constants: too "
            f"few to judge the fit. Add runs up to {FEWEST_TO_JUDGE} or more."
        )
    mad = fit.residual_mad
    said = f"Residuals scatter by {100 * mad:.2g} %"
    if reasons := fit.identifiability.reasons:
        return "fail", f"{reasons[0]} {said}, which says nothing about this."
    width = math.nan
    if fit.intervals is not None:
        low, high = fit.intervals["E"]
        width = (high - low) / fit.law.E
        said += f" and E is known to {100 * width:.2g} %"
    if mad > WARN_MAD:
        return "fail", f"{said}: the runs do not lie on one curve. Look for runs that differ in data or schedule."
    alone = fit.best.consensus.reached == 1
    doubts = [
        fit.unit_doubt,
        listed((clip(sentence.rstrip("."), 150) for sentence in fit.ladder.refused), MOST_NAMED, between="; "),
        "rows of one size move together as checkpoints of one run do: if they are, keep the last of each run"
        if runs_together(fit) else "",
        _disagreement(fit),
        "one start alone found this optimum" if alone else "",
        "no bootstrap was asked for" if math.isnan(width) else "",
        "usable, with care when extrapolating" if mad > PASS_MAD or width > PASS_E_WIDTH else "",
    ]
    if why := [doubt.rstrip(".") for doubt in doubts if doubt]:
        return "warn", f"{said}: {listed(why, MOST_NAMED, between='; ')}. {rests_on(fit.ladder)}"
    return "pass", f"{said}: a sound fit. {rests_on(fit.ladder)}{_second_opinion(fit)}"


def rests_on(ladder: Ladder) -> str:
    """What a fit was made of: runs, spans and the unit."""
    spans = (("N", ladder.n), ("D", ladder.d), ("FLOPs", ladder.flops))
    said = ", ".join(f"{name} {values.min():.2g} to {values.max():.2g}" for name, values in spans)
    unit = ladder.unit or "a unit nobody stated, taken for nats/token"
    return f"It rests on {len(ladder)} runs of {ladder.sizes} sizes, {said}, losses in {unit}."


def runs_together(fit: FitResult) -> bool:
    """Whether following rows of one size differ by far less than the residuals scatter."""
    if fit.residual_mad < EXACT_MAD:
        return False
    ratio = neighbour_ratio(fit.ladder.n, fit.ladder.d, fit.residual)
    return ratio is not None and ratio < TOGETHER


def neighbour_ratio(n: Floats, d: Floats, residual: Floats) -> float | None:
    """Mean square of differences between following rows of one size and rising D over twice the residuals' own.

    1 for independent rows; None with fewer than ten such pairs. n, d, residual: (runs,) in the order of the table.
    """
    pairs = np.flatnonzero((np.abs(np.diff(np.log(n))) < 0.01) & (np.diff(d) > 0))
    if len(pairs) < FEWEST_PAIRS:
        return None
    # Medians: a lone outlier among a hundred runs would decide means.
    between = np.median(np.diff(residual)[pairs] ** 2)
    rows = np.unique(np.concatenate([pairs, pairs + 1]))
    return float(between / (2 * np.median((residual[rows] - np.median(residual)) ** 2)))


def _exponents(fit: FitResult) -> tuple[tuple[float, float], tuple[float, float]] | None:
    iso = fit.isoflop
    if iso is None or iso.interval is None or not np.isfinite(iso.interval).all() or fit.intervals is None:
        return None
    return fit.intervals["n_exponent"], iso.interval


def _disagreement(fit: FitResult) -> str:
    """Where parabolas per budget contradict the law; empty where they do not or cannot tell."""
    if (both := _exponents(fit)) is None or (both[0][0] <= both[1][1] and both[1][0] <= both[0][1]):
        return ""
    assert fit.isoflop is not None and fit.isoflop.n_exponent is not None
    (low, high), (iso_low, iso_high) = both
    return (
        f"IsoFLOP parabolas say N* ~ C^{fit.isoflop.n_exponent:.2f} ({iso_low:.2f} to {iso_high:.2f}), the law "
        f"C^{fit.law.n_exponent:.2f} ({low:.2f} to {high:.2f})"
    )


def _second_opinion(fit: FitResult) -> str:
    if _exponents(fit) is None:
        return ""
    assert fit.isoflop is not None and fit.isoflop.n_exponent is not None
    return f" IsoFLOP parabolas agree: N* ~ C^{fit.isoflop.n_exponent:.2f}, by the law C^{fit.law.n_exponent:.2f}."
