"""The answer of a fit: the law, how sure it is, and how good the ladder behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from checks.finding import Level
from checks.scaling import units
from checks.scaling._files import clip, parse_json
from checks.scaling._names import UNITS
from checks.scaling.bootstrap import MOST_RESAMPLES, RESAMPLES, Interval, intervals, optimum_intervals, resample
from checks.scaling.chinchilla import BestFit, Consensus, Law, fit_law
from checks.scaling.identifiability import Identifiability, identify
from checks.scaling.isoflop import IsoFlop, isoflop
from checks.scaling.judgement import judge, rests_on
from checks.scaling.levenberg import Floats, Loss, objective, predict_log
from checks.scaling.reference import REFERENCES
from checks.scaling.rolling import Backtest, backtest
from checks.scaling.table import MOST_RUNS, Ladder
from trainvitals.errors import UsageError


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
        return None if self.laws is None else intervals(self.laws, self.law)

    def optimum_intervals(self, flops: float) -> dict[str, Interval] | None:
        """95 % bootstrap intervals of N*, D* and D*/N*."""
        return None if self.laws is None else optimum_intervals(self.laws, flops, self.law)

    @cached_property
    def identifiability(self) -> Identifiability:
        return identify(self.ladder.points(), self.best, self.loss, self.ladder.unit)

    @cached_property
    def isoflop(self) -> IsoFlop | None:
        """Parabolas per budget; None where too few runs share their compute."""
        try:
            return isoflop(self.ladder, self.law)
        except UsageError:
            return None

    @cached_property
    def unit_doubt(self) -> str:
        """Why the unit of the losses is in doubt; empty where it is not."""
        return units.doubt(self.ladder.unit, self.law, self.ladder.n, self.ladder.d, self.ladder.loss)

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
        return judge(self)

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
            "rests_on": rests_on(self.ladder),
            "unit": self.ladder.unit or None,
            "unit_doubt": self.unit_doubt or None,
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
            "isoflop": None if self.isoflop is None else self.isoflop.to_json(at),
            "references": {} if self.tied or self.unit_doubt or self.ladder.unit == "bits/byte"
            else {r.name: self.objective_of(r.law) for r in REFERENCES.values()},
            "refused": list(self.ladder.refused),
            "columns": dict(self.ladder.columns),
            "points": {"name": list(self.ladder.names), "N": self.ladder.n.tolist(), "D": self.ladder.d.tolist(),
                       "loss": self.ladder.loss.tolist(), "weight": self.ladder.weight.tolist()},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FitResult:
        """The fit that `to_json` gave, without fitting again.

        Raises:
            KeyError, TypeError, ValueError, ArithmeticError, AttributeError: it is not such a dictionary.
        """
        points = raw["points"]
        n, d, loss, weight = (np.array(points[key], dtype=float) for key in ("N", "D", "loss", "weight"))
        unit = raw.get("unit") or ""
        ladder = Ladder(n, d, loss, weight, tuple(clip(str(name)) for name in points["name"]), dict(raw["columns"]),
                        tuple(clip(str(said), 300) for said in raw["refused"]), unit=unit)
        law = Law.from_json(raw)
        constants = np.array([law.E, law.A, law.B, law.alpha, law.beta])
        sound = all(v.shape == (len(points["name"]),) and np.isfinite(v).all() for v in (n, d, loss, weight))
        if not sound or not 0 < len(n) <= MOST_RUNS or min(n.min(), d.min(), loss.min()) <= 0 or weight.min() < 0:
            raise ValueError("the runs are not of one length, finite and positive")
        if not np.isfinite(constants).all() or constants.min() <= 0 or raw["loss"] not in get_args(Loss):
            raise ValueError("the constants are not finite and positive, or the loss is not known")
        if unit not in ("", *UNITS):
            raise ValueError("the unit is not known")
        if not 0 <= int(raw["bootstrap"]) <= MOST_RESAMPLES:
            raise ValueError("the number of resamples is out of bounds")
        agreed = raw["consensus"]
        best = BestFit(law, law.theta(), float(raw["objective"]),
                       Consensus(int(agreed["starts"]), int(agreed["reached"]), float(agreed["within"])))
        return cls(ladder, raw["loss"], best, bool(raw["tied"]), int(raw["bootstrap"]), int(raw["seed"]))


def parse_fit(content: bytes, where: str) -> FitResult:
    """The fit in a file that `scaling fit --json` wrote.

    Raises:
        UsageError: it is something else.
    """
    remedy = "Write it again with `trainvitals scaling fit --json`."
    try:
        return FitResult.from_json(parse_json(content.decode(), where, remedy))
    except UsageError as error:
        raise UsageError(f"{where} is not the output of `trainvitals scaling fit --json`. {error}") from error
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError) as error:
        raise UsageError(f"{where} is not the output of `trainvitals scaling fit --json`; write it again.") from error


def fit_ladder(
    ladder: Ladder, loss: Loss = "huber", *, tied: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> FitResult:
    """Fit the law to a ladder; about 20 ms for 240 runs, the rest is worked out when asked for."""
    return FitResult(ladder, loss, fit_law(ladder.points(), loss, tied=tied), tied, resamples, seed)


def _finite(span: Interval) -> list[float | None]:
    """JSON has no infinity: an end that is open is null."""
    return [value if math.isfinite(value) else None for value in span]
