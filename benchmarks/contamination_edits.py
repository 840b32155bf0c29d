"""Both errors of a contamination audit, on truths that are known: `python -m benchmarks.contamination_edits`.

What is planted comes from the public benchmarks beside the project and goes into documents of the training sample there;
models of known truth are simulated. `--before FOLDER` runs the same with another checkout of `checks`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from checks.contamination.score.effect import measure
from checks.contamination.score.scores import Matched

# -- which score to trust ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Simulated:
    """A model, two controls and 1,000 items of Rasch's model (1960): P(right) = logistic(skill - difficulty)."""

    skill: float = 0.5
    controls: tuple[float, ...] = (0.3, 0.8)
    ease: float = 0.0
    """By how much contaminated items are easier, in logits."""
    memorised: float = 0.0
    """Share of the contaminated items that the model has learnt by heart."""
    dirty: int = 150
    items: int = 1_000


CASES: Mapping[str, Simulated] = {
    "honest, items as hard as others": Simulated(),
    "honest, easy items, controls alike": Simulated(ease=1.5),
    "honest and weak, easy items, strong controls": Simulated(skill=-1.0, controls=(2.0, 2.5), ease=1.5),
    "honest and strong, easy items, weak controls": Simulated(skill=2.0, controls=(-1.0, -0.5), ease=1.5),
    "honest, easy items, no controls": Simulated(controls=(), ease=1.5),
    "honest, easy items, too few": Simulated(ease=1.5, dirty=20),
    "contaminated, items as hard as others": Simulated(memorised=0.7),
    "contaminated, easy items": Simulated(ease=1.5, memorised=0.7),
    "contaminated and weak, easy items, strong controls": Simulated(-1.0, (2.0, 2.5), 1.5, 0.9),
    "contaminated, no controls": Simulated(controls=(), memorised=0.7),
}


def standings(case: Simulated, runs: int, seed: int = 0) -> dict[str, float]:
    """How often each standing is told of the model, as shares of the runs."""
    told: Counter[str] = Counter()
    for run in range(runs):
        rows = _simulated(case, np.random.default_rng([seed, run]))
        effects = measure(Matched(rows, {}, {}, ()), seed=run)["b"]
        told[next(effect.standing for effect in effects if not effect.control)] += 1
    return {standing: count / runs for standing, count in told.most_common()}


def _simulated(case: Simulated, rng: np.random.Generator) -> pd.DataFrame:
    dirty = np.arange(case.items) < case.dirty
    difficulty = rng.normal(size=case.items) - case.ease * dirty
    parts = []
    for number, skill in enumerate((case.skill, *case.controls)):
        right = rng.random(case.items) < 1 / (1 + np.exp(difficulty - skill))
        if number == 0:
            right |= dirty & (rng.random(case.items) < case.memorised)
        parts.append(pd.DataFrame({
            "benchmark": "b", "model": f"m{number}", "control": number > 0, "item_id": np.arange(case.items),
            "score": right.astype(float), "verdict": np.where(dirty, "contaminated", "clean"), "overlap": 0.0,
        }))
    return pd.concat(parts, ignore_index=True)
