"""The answer of a fit: the law, how sure it is, and how good the ladder behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from checks.finding import Level
from checks.scaling.bootstrap import RESAMPLES, Interval, intervals, optimum_intervals, resample
from checks.scaling.chinchilla import BestFit, Consensus, Law, fit_law
from checks.scaling.identifiability import Identifiability, identify
from checks.scaling.levenberg import Floats, Loss, objective, predict_log
from checks.scaling.reference import REFERENCES
from checks.scaling.rolling import Backtest, backtest
from checks.scaling.table import Ladder

PASS_MAD, WARN_MAD = 0.005, 0.01
"""Scatter of the log loss: 0.49 % on the 240 points of Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102."""
PASS_E_WIDTH = 0.06
"""Relative width of E's 95 % interval: 5.6 % on the same points."""
FEWEST_TO_JUDGE = 10
"""Runs below which five constants leave too few residuals to judge."""


@dataclass(frozen=True)
class FitResult:
    """A fitted ladder. What costs time (bootstrap, profiles, backtest) is worked out when first asked for."""

    ladder: Ladder
    loss: Loss
    best: BestFit
    tied: bool = False
    resamples: int = RESAMPLES
    seed: int = 0

    @property
    def law(self) -> Law:
        return self.best.law

    @cached_property
    def laws(self) -> Law | None:
        """Bootstrap draws, each field of shape (resamples,); None where no bootstrap was asked for."""
        if not self.resamples:
            return None
        points = self.ladder.points()
        return resample(points, self.best, self.loss, resamples=self.resamples, tied=self.tied, seed=self.seed)

    @cached_property
    def intervals(self) -> dict[str, Interval] | None:
        """95 % bootstrap intervals of the constants and of the exponent of N*."""
        return None if self.laws is None else intervals(self.laws)

    def optimum_intervals(self, flops: float) -> dict[str, Interval] | None:
        """95 % bootstrap intervals of N*, D* and D*/N*."""
        return None if self.laws is None else optimum_intervals(self.laws, flops)

    @cached_property
    def identifiability(self) -> Identifiability:
        return identify(self.ladder.points(), self.best, self.loss)

    @cached_property
    def backtest(self) -> Backtest | None:
        """Errors of prediction; None where the ladder is too small to hold runs out."""
        return backtest(self.ladder.points(), self.best, self.loss, tied=self.tied)

    @property
    def largest_flops(self) -> float:
        return float(self.ladder.flops.max())

    @cached_property
    def residual(self) -> Floats:
        """Log observed loss minus log predicted, (n,)."""
        points = self.ladder.points()
        return np.asarray(points.log_loss - predict_log(self.best.theta, points.log_n, points.log_d))

    @property
    def residual_mad(self) -> float:
        """Robust standard deviation of the residuals: 1.4826 median |residual|."""
        return float(1.4826 * np.median(np.abs(self.residual)))

    def objective_of(self, law: Law) -> float:
        """This fit's objective for other constants."""
        points = self.ladder.points()
        away = predict_log(law.theta(), points.log_n, points.log_d) - points.log_loss
        return float(objective(away, points.weight, self.loss))

    @cached_property
    def judgement(self) -> tuple[Level, str]:
        """Level of the fit and the sentence that says why."""
        if len(self.ladder) < FEWEST_TO_JUDGE:
            return "unknown", (
                f"{len(self.ladder)} runs leave {len(self.ladder) - 5} residuals beyond the law's five constants: too "
                f"few to judge the fit. Add runs up to {FEWEST_TO_JUDGE} or more."
            )
        mad = self.residual_mad
        said = f"Residuals scatter by {100 * mad:.2g} %"
        if reasons := self.identifiability.reasons:
            return "fail", f"{reasons[0]} {said}, which says nothing about this."
        width = math.nan
        if self.intervals is not None:
            low, high = self.intervals["E"]
            width = (high - low) / self.law.E
            said += f" and E is known to {100 * width:.2g} %"
        if mad > WARN_MAD:
            return "fail", f"{said}: the runs do not lie on one curve. Look for runs that differ in data or schedule."
        alone = self.best.consensus.reached == 1
        if self.ladder.refused or alone or mad > PASS_MAD or not width <= PASS_E_WIDTH:
            why = (
                "; ".join(self.ladder.refused) if self.ladder.refused
                else "one start alone found this optimum" if alone
                else "no bootstrap was asked for" if math.isnan(width)
                else "usable, with care when extrapolating"
            )
            return "warn", f"{said}: {why.rstrip('.')}."
        return "pass", f"{said}: a sound fit."

    def to_json(self, flops: float | None = None) -> dict[str, Any]:
        """Strict JSON: constants, intervals, judgement, and the runs themselves, from which the rest can be redone.

        Args:
            flops: Budget at which the optimum is given; the ladder's largest by default.
        """
        at = flops or self.largest_flops
        level, summary = self.judgement
        best = self.law.optimum(at)
        spans = self.optimum_intervals(at)
        return {
            **self.law.to_json(),
            "n_exponent": self.law.n_exponent,
            "level": level,
            "summary": summary,
            "objective": self.best.objective,
            "loss": self.loss,
            "tied": self.tied,
            "runs": len(self.ladder),
            "sizes": self.ladder.sizes,
            "intervals": None if self.intervals is None else {k: _finite(v) for k, v in self.intervals.items()},
            "interval_level": 0.95,
            "bootstrap": self.resamples,
            "seed": self.seed,
            "consensus": {"starts": self.best.consensus.starts, "reached": self.best.consensus.reached,
                          "share": self.best.consensus.share, "within": self.best.consensus.within},
            "identifiable": self.identifiability.identifiable,
            "not_identifiable": list(self.identifiability.reasons),
            "profiles": {p.name: {"low": p.low, "high": p.high} for p in self.identifiability.profiles},
            "residual_mad": self.residual_mad,
            "backtest": None if self.backtest is None else self.backtest.to_json(),
            "optimum": {"flops": at, "N": float(best.n), "D": float(best.d), "loss": float(best.loss),
                        "tokens_per_parameter": float(best.tokens_per_parameter),
                        "intervals": None if spans is None else {k: _finite(v) for k, v in spans.items()}},
            "references": {r.name: self.objective_of(r.law) for r in REFERENCES.values() if not self.tied},
            "refused": list(self.ladder.refused),
            "columns": dict(self.ladder.columns),
            "points": {"name": list(self.ladder.names), "N": self.ladder.n.tolist(), "D": self.ladder.d.tolist(),
                       "loss": self.ladder.loss.tolist(), "weight": self.ladder.weight.tolist()},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FitResult:
        """The fit that `to_json` gave, without fitting again.

        Raises:
            KeyError, TypeError, ValueError: it is not such a dictionary.
        """
        points = raw["points"]
        n, d, loss, weight = (np.array(points[key], dtype=float) for key in ("N", "D", "loss", "weight"))
        ladder = Ladder(n, d, loss, weight, tuple(map(str, points["name"])), dict(raw["columns"]),
                        tuple(raw["refused"]))
        law = Law.from_json(raw)
        constants = np.array([law.E, law.A, law.B, law.alpha, law.beta])
        sound = all(v.shape == (len(points["name"]),) and np.isfinite(v).all() for v in (n, d, loss, weight))
        if not sound or not len(n) or min(n.min(), d.min(), loss.min()) <= 0 or weight.min() < 0:
            raise ValueError("the runs are not of one length, finite and positive")
        if not np.isfinite(constants).all() or constants.min() <= 0 or raw["loss"] not in get_args(Loss):
            raise ValueError("the constants are not finite and positive, or the loss is not known")
        agreed = raw["consensus"]
        best = BestFit(law, law.theta(), float(raw["objective"]),
                       Consensus(int(agreed["starts"]), int(agreed["reached"]), float(agreed["within"])))
        return cls(ladder, raw["loss"], best, bool(raw["tied"]), int(raw["bootstrap"]), int(raw["seed"]))


def fit_ladder(
    ladder: Ladder, loss: Loss = "huber", *, tied: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> FitResult:
    """Fit the law to a ladder; about 20 ms for 240 runs, the rest is worked out when asked for."""
    return FitResult(ladder, loss, fit_law(ladder.points(), loss, tied=tied), tied, resamples, seed)


def _finite(span: Interval) -> list[float | None]:
    """JSON has no infinity: an end that is open is null."""
    return [value if math.isfinite(value) else None for value in span]
