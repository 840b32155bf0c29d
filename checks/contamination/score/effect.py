"""What contamination does to a score: subsets, their intervals, and the gap that control models do not show.

    whole       every scored item, the published number
    clean       verdict clean                     not_dirty   clean and suspect
    dirty       verdict contaminated              not_clean   contaminated and suspect
    untestable  its own subset: part of whole, of no other, so that no test or gain rests on it

The subsets share items, so only dirty against clean, which share none, is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

from checks.contamination.score.scores import Matched

Floats = NDArray[np.float64]

SUBSETS: Mapping[str, tuple[str, ...]] = {
    "whole": ("contaminated", "suspect", "clean", "untestable"),
    "clean": ("clean",),
    "dirty": ("contaminated",),
    "not_clean": ("contaminated", "suspect"),
    "not_dirty": ("suspect", "clean"),
    "untestable": ("untestable",),
}
MIN_ITEMS = 30
"""Dirty and clean items below which no gap is tested; convention: the normal approximation of a mean needs about 30."""
ALPHA = 0.05
MARGIN = 0.01
"""Points of 1 by which a leak may have moved the whole score and the score still stands; convention: what two decimals
show."""
RESAMPLES = 9_999
"""Of bootstrap and permutation; one observed value is added to make 10,000."""
DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval; None where there is no item."""

    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Score of contaminated less score of clean items, in points of 1."""

    value: float
    low: float
    high: float
    z: float | None
    """Two-sample z; None where the scores do not vary."""
    p: float
    """One-sided: contaminated items score higher. Permutation of the verdicts (Fisher's exact test for 0/1 scores)."""


Standing = Literal["raised", "stands", "open", "few", "no controls"]
"""What the controls say of the score on all items: the leak raised it; whatever the leak did, it moved it by no more
than MARGIN; they leave it open; too few items to compare; there is no control."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One model on one benchmark."""

    benchmark: str
    model: str
    control: bool
    binary: bool
    """Every score is 0 or 1."""
    subsets: dict[str, Estimate]
    unscored: int
    """Items without a score."""
    unmatched: int
    """Scores without an item."""
    llama2_z: dict[str, float | None]
    gap: Gap | None
    """None below `MIN_ITEMS` contaminated or clean items."""
    versus_control: Gap | None
    """The gap less the control models' gap on the same items: difference in differences."""
    log_odds: tuple[float, float, float] | None
    """The same difference in log-odds, low and high: a weak model gains more points on easy items than a strong control
    that has no room left, and no more log-odds."""
    controls: tuple[str, ...]
    p_holm: float | None
    """p of `versus_control`, or of `gap` without control models, after Holm over this model's benchmarks."""
    standing: Standing
    reading: str
    """What follows, in one sentence."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return asdict(self)


def measure(matched: Matched, *, seed: int = 0) -> dict[str, list[Effect]]:
    """The effects of each benchmark: models in the order of their files, control models last."""
    effects: dict[str, list[Effect]] = {}
    for name, rows in matched.rows.groupby("benchmark", sort=False):
        controls = rows[rows["control"]]
        models = [part for _, part in rows.sort_values("control", kind="stable").groupby("model", sort=False)]
        effects[str(name)] = [_effect(part, controls, matched, seed) for part in models]
    return _with_holm(effects)


def _effect(rows: pd.DataFrame, controls: pd.DataFrame, matched: Matched, seed: int) -> Effect:
    benchmark, model, control = (rows[name].iloc[0] for name in ("benchmark", "model", "control"))
    by_subset = {name: rows.loc[rows["verdict"].isin(v), "score"].to_numpy(float) for name, v in SUBSETS.items()}
    enough = min(len(by_subset["dirty"]), len(by_subset["clean"])) >= MIN_ITEMS
    against = None if control or controls.empty else _beside_controls(rows, controls)
    return Effect(
        benchmark=str(benchmark),
        model=str(model),
        control=bool(control),
        binary=is_binary(by_subset["whole"]),
        subsets={name: estimate(scores, seed) for name, scores in by_subset.items()},
        unscored=matched.unscored.get((benchmark, model), 0),
        unmatched=matched.unmatched.get((benchmark, model), 0),
        llama2_z={
            name: llama2_z(by_subset[name], by_subset["whole"]) for name in ("dirty", "clean", "not_clean", "not_dirty")
        },
        gap=gap(by_subset["dirty"], by_subset["clean"], seed) if enough else None,
        versus_control=_beyond(*against, seed) if against else None,
        log_odds=log_odds_beyond(*against) if against else None,
        controls=() if control else tuple(dict.fromkeys(controls["model"])),
        p_holm=None,
        standing="no controls",
        reading="",
    )


Beside = tuple[Floats, Floats]
"""Scores of a model and the mean scores of the control models, [n] each, on the same items."""


def _beside_controls(rows: pd.DataFrame, controls: pd.DataFrame) -> tuple[Beside, Beside] | None:
    """Dirty and clean items with the control models' scores; None below MIN_ITEMS of either.

    An item that a control model has not scored is left out, so that every difference rests on the same controls.
    """
    wide = controls.pivot(index="item_id", columns="model", values="score").dropna()
    both = rows.merge(wide.mean(axis=1).rename("expected"), left_on="item_id", right_index=True)
    dirty, clean = (both[both["verdict"].isin(SUBSETS[name])] for name in ("dirty", "clean"))
    if min(len(dirty), len(clean)) < MIN_ITEMS:
        return None
    return ((dirty["score"].to_numpy(float), dirty["expected"].to_numpy(float)),
            (clean["score"].to_numpy(float), clean["expected"].to_numpy(float)))


def _beyond(dirty: Beside, clean: Beside, seed: int) -> Gap:
    return gap(dirty[0] - dirty[1], clean[0] - clean[1], seed)


def log_odds_beyond(dirty: Beside, clean: Beside) -> tuple[float, float, float]:
    """Log-odds of dirty less clean items, less the controls' same difference, with a 95 % interval.

    Halves are added to hits and misses, and the variance is the sum of their reciprocals (Haldane 1956,
    https://doi.org/10.1111/j.1469-1809.1955.tb01285.x). Models agree on what is hard, so this interval is too wide
    rather than too narrow.
    """
    def odds(scores: Floats) -> tuple[float, float]:
        hits, misses = scores.sum() + 0.5, len(scores) - scores.sum() + 0.5
        return float(np.log(hits / misses)), float(1 / hits + 1 / misses)

    signed = [(sign, odds(part)) for sign, part in zip((1, -1, -1, 1), (*dirty, *clean), strict=True)]
    value = sum(sign * each for sign, (each, _) in signed)
    half = float(norm.ppf(0.975)) * float(np.sqrt(sum(variance for _, (_, variance) in signed)))
    return value, value - half, value + half


def is_binary(scores: Floats) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def estimate(scores: Floats, seed: int = 0) -> Estimate:
    """Mean of the scores with a 95 % interval: Wilson's for 0/1 scores, else the percentile bootstrap. scores: [n]."""
    n = len(scores)
    if n == 0:
        return Estimate(0, None, None, None)
    if is_binary(scores):
        low, high = wilson(scores.sum(), n)
    else:
        low, high = np.quantile(bootstrap_means(scores, np.random.default_rng(seed)), (0.025, 0.975))
    return Estimate(n, float(scores.mean()), float(low), float(high))


def wilson(hits: Any, n: Any) -> tuple[Any, Any]:
    """Wilson's 95 % interval of a proportion (https://doi.org/10.1080/01621459.1927.10502953). n > 0."""
    z = norm.ppf(0.975)
    share, square = np.asarray(hits) / n, z**2 / n
    middle = (share + square / 2) / (1 + square)
    half = z * np.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    # Where nothing or everything hit, rounding would leave the bound a hair inside.
    return np.where(share == 0, 0.0, middle - half), np.where(share == 1, 1.0, middle + half)


def contaminated_share(contaminated: int, eligible: int) -> dict[str, float | None]:
    """Share of contaminated among testable items with Wilson's interval, for audit.json; None without any."""
    if eligible == 0:
        return {"value": None, "low": None, "high": None}
    low, high = wilson(contaminated, eligible)
    return {"value": contaminated / eligible, "low": float(low), "high": float(high)}


def llama2_z(subset: Floats, whole: Floats) -> float | None:
    """(mean of subset - p) / sqrt(p (1 - p) / n), p = mean of whole (https://arxiv.org/abs/2307.09288, appendix A.6).

    It takes the whole, which the subset is part of, as known and as equally hard: a large Z may mean that contaminated
    items are easier. Only control models can tell. None where it is not defined.
    """
    if len(subset) == 0 or len(subset) == len(whole):
        return None
    p = float(whole.mean())
    sd = np.sqrt(p * (1 - p) / len(subset))
    return float((subset.mean() - p) / sd) if sd > 0 else None


def gap(dirty: Floats, clean: Floats, seed: int = 0) -> Gap:
    """Mean of dirty less mean of clean, items taken as independent. dirty: [n], clean: [m], both not empty.

    0/1 scores: Newcombe's interval (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I,
    method 10), pooled z. Others: percentile bootstrap of both groups, Welch's z.
    """
    rng = np.random.default_rng(seed)
    value = float(dirty.mean() - clean.mean())
    if is_binary(dirty) and is_binary(clean):
        low, high = newcombe(dirty.sum(), len(dirty), clean.sum(), len(clean))
        p = np.concatenate([dirty, clean]).mean()
        sd = np.sqrt(p * (1 - p) * (1 / len(dirty) + 1 / len(clean)))
    else:
        low, high = np.quantile(bootstrap_means(dirty, rng) - bootstrap_means(clean, rng), (0.025, 0.975))
        sd = np.sqrt(dirty.var() / len(dirty) + clean.var() / len(clean))
    z = float(value / sd) if sd > 0 else None
    return Gap(value, float(low), float(high), z, permutation_p(dirty, clean, rng))


def newcombe(hits: Any, n: Any, other_hits: Any, other_n: Any) -> tuple[Any, Any]:
    """95 % interval of hits / n - other_hits / other_n for independent proportions, from their Wilson intervals."""
    a, b = np.asarray(hits) / n, np.asarray(other_hits) / other_n
    (a_low, a_high), (b_low, b_high) = wilson(hits, n), wilson(other_hits, other_n)
    return a - b - np.hypot(a - a_low, b_high - b), a - b + np.hypot(a_high - a, b - b_low)


def bootstrap_means(scores: Floats, rng: np.random.Generator) -> Floats:
    """Means of `RESAMPLES` samples with replacement, drawn as counts of each distinct value. scores: [n]."""
    values, counts = np.unique(scores, return_counts=True)
    draws = [rng.multinomial(len(scores), counts / len(scores), size=size) @ values for size in _chunks(len(values))]
    return np.concatenate(draws) / len(scores)


def permutation_p(dirty: Floats, clean: Floats, rng: np.random.Generator) -> float:
    """Chance of a mean this high among `len(dirty)` items drawn blindly from all, so p <= alpha at most alpha often."""
    values, counts = np.unique(np.concatenate([dirty, clean]).round(9), return_counts=True)
    if len(values) == 1:
        return 1.0
    n = len(dirty)
    if len(values) == 2:
        return float(hypergeom.sf(np.sum(dirty.round(9) == values[1]) - 1, counts.sum(), counts[1], n))
    sums = np.concatenate([_drawn(rng, counts, n, size) @ values for size in _chunks(len(values))])
    return float((1 + np.sum(sums >= dirty.sum() - 1e-9 * n)) / (1 + RESAMPLES))


def _drawn(rng: np.random.Generator, counts: NDArray[np.int64], n: int, size: int) -> NDArray[np.int64]:
    return rng.multivariate_hypergeometric(counts, n, size=size, method="marginals")


def _chunks(categories: int) -> list[int]:
    size = max(1, DRAWN_AT_ONCE // categories)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p values (https://www.jstor.org/stable/4615733). p: [n]."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def _with_holm(effects: dict[str, list[Effect]]) -> dict[str, list[Effect]]:
    """Fill in `p_holm` and `reading`: each model's tests over its benchmarks are one family."""
    tested: dict[str, dict[str, float]] = {}
    for name, found in effects.items():
        for effect in found:
            test = effect.versus_control or effect.gap
            if test is not None:
                tested.setdefault(effect.model, {})[name] = test.p
    adjusted = {
        (name, model): float(p)
        for model, family in tested.items()
        for name, p in zip(family, holm(np.array(list(family.values()))), strict=True)
    }
    done = {}
    for name, found in effects.items():
        with_p = [replace(effect, p_holm=adjusted.get((name, effect.model))) for effect in found]
        told = [replace(effect, standing=standing_of(effect)) for effect in with_p]
        done[name] = [replace(effect, reading=read_effect(effect)) for effect in told]
    return done


def standing_of(effect: Effect) -> Standing:
    """What the control models say of the score on all items.

    "raised" takes both scales: an interaction that another scale removes says nothing of what is behind the scores
    (Loftus 1978, https://doi.org/10.3758/BF03197461).
    """
    if not effect.controls:
        return "no controls"
    beyond, odds = effect.versus_control, effect.log_odds
    if beyond is None or odds is None:
        return "few"
    if effect.p_holm is not None and effect.p_holm <= ALPHA and beyond.low > 0 and odds[1] > 0:
        return "raised"
    share = effect.subsets["dirty"].n / effect.subsets["whole"].n
    return "stands" if beyond.high * share <= MARGIN else "open"


def read_effect(effect: Effect) -> str:
    """What an effect says, in one sentence."""
    dirty, clean = effect.subsets["dirty"].n, effect.subsets["clean"].n
    if effect.gap is None:
        if dirty == 0:
            return "No contaminated item is scored, so there is no gap to test."
        return f"Not enough items to test the gap: {dirty:,} contaminated, {clean:,} clean; {MIN_ITEMS} of each needed."
    higher = f"{100 * effect.gap.value:+.1f} points on contaminated items"
    sure = effect.p_holm is not None and effect.p_holm <= ALPHA
    if effect.control:
        return f"Control model: {higher}, the difference to expect without a leak."
    if effect.versus_control is None:
        if effect.controls:
            return f"{higher}; the control models scored too few of these items to compare."
        why = "more than chance, but without control models they may simply be easier" if sure else "within chance"
        return f"{higher}: {why}."
    beyond = effect.versus_control
    range_ = f"{100 * beyond.value:+.1f} [{100 * beyond.low:+.1f}, {100 * beyond.high:+.1f}] beyond the control models"
    return f"{higher}, {range_}: {_READINGS[effect.standing]}."


_READINGS: Mapping[Standing, str] = {
    "raised": "the leak raises this score",
    "stands": "no gain that two decimals would show",
    "open": "no gain shown, and none ruled out",
}
