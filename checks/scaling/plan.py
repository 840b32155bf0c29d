"""What to train with a given budget: size, tokens, the loss to expect, and what deviating from it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks.finding import Level
from checks.scaling._ladder import BELOW
from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN, Law
from checks.scaling.data_constrained import EPOCHS_AS_NEW, EPOCHS_SPENT, DataConstrained
from checks.scaling.fit import FitResult
from checks.scaling.reference import Reference
from trainvitals.errors import UsageError

FACTORS = (0.25, 0.5, 2.0, 4.0)
"""Sizes, as multiples of the optimum, whose cost a plan shows."""
SANE_FLOPS = (1e12, 1e32)


@dataclass(frozen=True, slots=True)
class Budget:
    """Compute, and what it takes in machines and money where that is known."""

    flops: float
    gpu_hours: float | None = None
    cost: float | None = None
    """In the currency of the price given."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A model `factor` times the optimal size, trained with the same compute."""

    factor: float
    n: float
    d: float
    loss: float
    penalty: float
    """Loss over the optimum's, minus 1."""
    wasted: float | None
    """Share of the compute that the optimum would have needed less for the same loss; None where data is repeated."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The best use of a budget under one law."""

    level: Level
    """pass: within what the law was tested on. warn: beyond it. unknown: the law is not determined."""
    summary: str
    source: str
    """Whose law it is."""
    law: Law
    budget: Budget
    n: float
    d: float
    loss: float
    band: float | None
    """Half-width of the 90 % band of the loss in log units; None where no backtest exists."""
    band_source: str
    intervals: Mapping[str, tuple[float, float]] | None
    """95 % bootstrap intervals of N, D and D/N; None for published constants."""
    deviations: tuple[Deviation, ...]
    caveats: tuple[str, ...]
    epochs: float | None = None
    """Passes over the unique tokens, where their number is given."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """90 % band of the loss."""
        if self.band is None:
            return None
        return self.loss * math.exp(-self.band), self.loss * math.exp(self.band)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON types."""
        span = self.intervals
        return {
            "level": self.level,
            "summary": self.summary,
            "source": self.source,
            "law": self.law.to_json(),
            "flops": self.budget.flops,
            "gpu_hours": self.budget.gpu_hours,
            "cost": self.budget.cost,
            "N": self.n,
            "D": self.d,
            "tokens_per_parameter": self.d / self.n,
            "loss": self.loss,
            "interval": None if self.interval is None else list(self.interval),
            "interval_level": 0.9,
            "band_source": self.band_source,
            "intervals": None if span is None
            else {k: [v if math.isfinite(v) else None for v in ends] for k, ends in span.items()},
            "deviations": [
                {"factor": x.factor, "N": x.n, "D": x.d, "tokens_per_parameter": x.d / x.n, "loss": x.loss,
                 "penalty": x.penalty, "wasted_compute": x.wasted} for x in self.deviations
            ],
            "epochs": self.epochs,
            "caveats": list(self.caveats),
        }


def budget(
    *,
    flops: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    peak_flops: float | None = None,
    mfu: float | None = None,
    price_per_gpu_hour: float | None = None,
) -> Budget:
    """Compute from FLOPs, or from GPUs x days x peak FLOP/s x MFU; hours and cost where they can be told.

    Raises:
        UsageError: neither is given, both are, or a number makes no sense.
    """
    machine = {"--gpus": gpus, "--days": days, "--peak-flops": peak_flops, "--mfu": mfu}
    for name, value in {"--flops": flops, "--price": price_per_gpu_hour, **machine}.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}. Give a number above zero.")
    if mfu is not None and mfu > 1:
        raise UsageError(f"--mfu is {mfu:g}. Give a share between 0 and 1, 0.4 for 40 %.")
    if peak_flops is not None and peak_flops < 1e9:
        raise UsageError(f"--peak-flops is {peak_flops:g}. Give FLOP/s of one GPU, 989e12 for an H100.")
    if flops is None:
        if missing := [name for name, value in machine.items() if value is None]:
            raise UsageError(f"Give --flops, or --gpus, --days, --peak-flops and --mfu; missing: {', '.join(missing)}.")
        assert gpus and days and peak_flops and mfu
        hours: float | None = gpus * days * 24
        flops = float(gpus * days * 86400 * peak_flops * mfu)
    elif gpus is not None or days is not None:
        raise UsageError("Give either --flops or --gpus and --days, since one follows from the other.")
    else:
        hours = flops / (peak_flops * mfu) / 3600 if peak_flops and mfu else None
    if price_per_gpu_hour is not None and hours is None:
        raise UsageError("--price needs the hours: give --peak-flops and --mfu too.")
    low, high = SANE_FLOPS
    if not low <= flops <= high:
        raise UsageError(f"{flops:.3g} FLOPs is not a training run. Give the total for the run, such as 1e21.")
    return Budget(flops, hours, hours * price_per_gpu_hour if hours and price_per_gpu_hour else None)


def plan_fit(fit: FitResult, spend: Budget, *, unique: float | None = None) -> Plan:
    """Plan with a ladder's own law; the band is the rolling-origin error at this distance from the ladder."""
    ratio = spend.flops / fit.largest_flops
    tested = fit.backtest
    caveats = list(fit.identifiability.reasons)
    quality, why = fit.judgement
    level: Level = "pass"
    summary = "The budget lies within what the ladder predicted in its own backtest."
    if tested is None:
        level, summary = "unknown", "The ladder is too small to hold runs out, so nothing tells how wrong it may be."
    elif caveats or quality in ("fail", "unknown"):
        level, summary = "unknown", caveats[0] if caveats else why
    elif ratio > tested.reach:
        level = "warn"
        summary = (
            f"The budget is {ratio:,.0f} times the ladder's largest run, and its backtest reached {tested.reach:,.0f} "
            "times; the band is extrapolated."
        )
    elif spend.flops < BELOW * float(fit.ladder.flops.min()):
        level = "warn"
        summary = (
            f"The budget is {float(fit.ladder.flops.min()) / spend.flops:,.0f} times smaller than the smallest run of "
            "the ladder, and no backtest tests a law downwards."
        )
    elif quality == "warn":
        level, summary = "warn", why
    band = None if tested is None else tested.band_at(ratio)
    said = "none: the ladder is too small to hold runs out" if tested is None else (
        f"rolling-origin backtest of the ladder, {len(tested.error)} predictions"
    )
    return _plan(fit.law, spend, level, summary, "your ladder", band, said, fit.optimum_intervals(spend.flops), caveats,
                 unique)


def plan_reference(published: Reference, spend: Budget, *, unique: float | None = None) -> Plan:
    """Plan with published constants. Their losses are of their own text and tokenizer."""
    low, high = published.flops
    inside = low <= spend.flops <= high
    level: Level = "pass" if inside else "warn"
    summary = (
        f"{published.name}: {spend.flops:.3g} FLOPs lie "
        + ("within" if inside else "outside") + f" the {low:.0e} to {high:.0e} of its runs."
    )
    band = published.band_at(spend.flops)
    said = published.band_source if band is not None else "none: nobody has backtested these constants"
    return _plan(published.law, spend, level, summary, published.name, band, said, None,
                 [published.caveat(spend.flops), published.note], unique)


def deviations(law: Law, flops: float, factors: Sequence[float] = FACTORS) -> tuple[Deviation, ...]:
    """What models of other sizes than the optimum, `factors` times it, lose at equal compute."""
    best = law.optimum(flops)
    found = []
    for factor in factors:
        n = float(best.n) * factor
        d = flops / FLOPS_PER_PARAMETER_TOKEN / n
        loss = float(law.loss(n, d))
        wasted = 1 - law.flops_for(loss) / flops
        found.append(Deviation(factor, n, d, loss, loss / float(best.loss) - 1, wasted))
    return tuple(found)


def _plan(
    law: Law, spend: Budget, level: Level, summary: str, source: str, band: float | None, band_source: str,
    intervals: Mapping[str, tuple[float, float]] | None, caveats: list[str], unique: float | None,
) -> Plan:
    best = law.optimum(spend.flops)
    if unique is not None and not (math.isfinite(unique) and unique > 0):
        raise UsageError(f"--unique is {unique:g}. Give the number of different tokens, above zero.")
    if unique is None or unique >= float(best.d):
        epochs = None if unique is None else 1.0
        return Plan(level, summary, source, law, spend, float(best.n), float(best.d), float(best.loss), band,
                    band_source, intervals, deviations(law, spend.flops), tuple(caveats), epochs)
    scarce = DataConstrained(law)
    n, d = scarce.optimum(spend.flops, unique)
    loss, epochs = float(scarce.loss(n, d, unique)), max(d / unique, 1.0)
    others = []
    for factor in FACTORS:
        other = float(scarce.loss(factor * n, d / factor, unique))
        others.append(Deviation(factor, factor * n, d / factor, other, other / loss - 1, None))
    if epochs > EPOCHS_AS_NEW:
        said = (
            f"{epochs:.3g} passes over the data: beyond {EPOCHS_AS_NEW:g} a repeated token is worth less, beyond "
            f"{EPOCHS_SPENT:g} next to nothing (Muennighoff et al. 2023, whose decay constants are used)."
        )
        level, summary = "unknown" if epochs > EPOCHS_SPENT or level == "unknown" else "warn", said
        caveats.append(said)
    # Neither the ladder's backtest nor its bootstrap has seen repeated data.
    return Plan(level, summary, source, law, spend, n, d, loss, None, "none: no backtest has repeated its data", None,
                tuple(others), tuple(caveats), epochs)
