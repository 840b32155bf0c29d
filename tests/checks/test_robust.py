"""Shared statistics against slow and plain computations of the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from checks.robust import (
    MAD_TO_SIGMA,
    best_split,
    difference_sigma,
    excursions,
    held_level,
    k_of_n,
    trailing_baseline,
)


@pytest.mark.parametrize("shape", [(700,), (700, 3)])
def test_trailing_baseline_is_the_median_of_the_rows_before(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).cumsum(axis=0)
    center, sigma = trailing_baseline(values, window=128, min_rows=32)
    assert np.isnan(center[:32]).all() and np.isfinite(center[32:]).all()
    for row in (32, 100, 255, 256, 300, 699):
        before = values[row - min(max(row // 2, 32), 128) : row]
        median = np.median(before, axis=0)
        np.testing.assert_allclose(center[row], median)
        np.testing.assert_allclose(sigma[row], MAD_TO_SIGMA * np.median(np.abs(before - median), axis=0))


def test_long_series_share_baselines_of_earlier_rows() -> None:
    values = np.arange(5000.0)
    center, _ = trailing_baseline(values, window=128, max_baselines=500)
    assert (center[32:] < values[32:]).all() and (values[256:] - center[256:] <= 128 / 2 + 10).all()


@given(arrays(np.float64, st.integers(2, 40), elements=st.floats(-5, 5)))
def test_best_split_minimises_the_squared_error(values: np.ndarray) -> None:
    def cost(split: int) -> float:
        return float(sum(((part - part.mean()) ** 2).sum() for part in (values[:split], values[split:])))

    assert cost(best_split(values)) <= min(cost(i) for i in range(1, len(values))) + 1e-9


@given(arrays(np.bool_, st.integers(0, 40)), st.integers(1, 4), st.integers(4, 8))
def test_k_of_n_counts(flags: np.ndarray, k: int, n: int) -> None:
    expected = [flags[max(i - n + 1, 0) : i + 1].sum() >= k for i in range(len(flags))]
    assert k_of_n(flags, k, n).tolist() == expected


@given(arrays(np.float64, st.tuples(st.integers(0, 25), st.integers(1, 3)), elements=st.floats(-5, 5)), st.data())
def test_the_held_level_is_what_k_of_n_rows_reach(values: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    k = data.draw(st.integers(1, n))
    levels = [np.sort(values[i : i + n, c])[n - k] for c in range(values.shape[1]) for i in range(len(values) - n + 1)]
    level = held_level(values, k, n)
    assert (level == max(levels)) if levels else np.isnan(level)
    values[::2] = np.nan
    if np.isfinite(level := held_level(values, k, n)):
        assert any(k_of_n(column >= level, k, n).any() for column in values.T)
        assert not any(k_of_n(column > level, k, n)[n - 1 :].any() for column in values.T)


def test_excursions_hold_on_to_the_baseline_of_their_onset() -> None:
    values = np.zeros(200)
    values[50:120], values[[30, 150, 151, 153]] = 5, 9
    calm = np.ones(200)
    calm[60:] = 6
    found = excursions(values, values > 2, calm, k=3, n=5)
    assert [(e.first, e.last, e.recovered) for e in found] == [(50, 119, True), (150, 153, True)]
    assert not excursions(values[:110], values[:110] > 2, calm, k=3, n=5)[0].recovered


def test_difference_sigma_sees_noise_through_trend_and_step() -> None:
    values = (
        0.3 * np.random.default_rng(1).standard_normal(4000) + np.linspace(9, 0, 4000) + 5 * (np.arange(4000) > 999)
    )
    assert difference_sigma(values) == pytest.approx(0.3, rel=0.05)
