"""Movers are the terms of scipy's Jensen-Shannon divergence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from checks.data.movers import movers


def test_parts_are_terms_of_the_divergence() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.integers(100, 1000, 40), rng.integers(100, 1000, 40)
    now[7] += 30_000
    found = movers(before, now, [f"t{i}" for i in range(40)], top=40)
    assert found[0].label == "t7" and found[0].now == pytest.approx(now[7] / now.sum())
    assert sum(mover.part for mover in found) == pytest.approx(1)
    whole = jensenshannon(before, now) ** 2
    p, q = before / before.sum(), now / now.sum()
    middle = (p + q) / 2
    terms = (p * np.log(p / middle) + q * np.log(q / middle)) / 2
    assert terms.sum() == pytest.approx(whole)
    assert found[0].part == pytest.approx(terms[7] / whole)


def test_chance_and_emptiness_move_nothing() -> None:
    assert movers([5, 5], [5, 5], ["a", "b"]) == ()
    assert movers([0, 0], [5, 5], ["a", "b"]) == ()
    rare = movers([1000, 1, 0], [900, 0, 1], ["common", "gone", "new"], least_count=20)
    assert [mover.label for mover in rare] == ["common"]
