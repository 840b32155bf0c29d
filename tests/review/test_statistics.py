"""Bounds, quantiles, agreement and differences beside other libraries, published figures and simulated nulls."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from checks.evals.latency import Sample, per_solved, quantile_bound, quantile_change, sample
from checks.evals.paired import holm, paired_difference
from checks.evals.safety import clustered_bound, judge_agreement, leaks, prompts_needed, violation_bound

OUTCOMES = Path(__file__).parents[2].parent / "shared" / "data" / "safety" / "jailbreakbench_outcomes.csv"


def jailbreaks() -> Iterator[tuple[str, list[bool]]]:
    """Outcomes of each attack on each model."""
    if not OUTCOMES.is_file():
        pytest.skip(f"{OUTCOMES} is not here")
    found: dict[str, list[bool]] = {}
    with OUTCOMES.open() as file:
        for row in csv.DictReader(file):
            if row["jailbroken"] in ("0", "1"):
                found.setdefault(f"{row['method']} {row['model']}", []).append(row["jailbroken"] == "1")
    yield from found.items()


def test_bounds_of_jailbreakbench_are_those_of_another_library() -> None:
    looked = 0
    for _, outcomes in jailbreaks():
        k, n = sum(outcomes), len(outcomes)
        bound = clustered_bound(np.array(outcomes), None)
        low, high = proportion_confint(k, n, alpha=0.1, method="beta")
        assert bound.high == pytest.approx(high if k < n else 1.0, abs=1e-9)
        assert bound.low == pytest.approx(low if k else 0.0, abs=1e-9)
        looked += 1
    assert looked >= 10


@given(st.integers(0, 40), st.integers(1, 400), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_bound_is_clopper_pearsons(k: int, n: int, confidence: float) -> None:
    k = min(k, n)
    high = stats.binomtest(k, n, alternative="less").proportion_ci(confidence, "exact").high
    assert violation_bound(k, n, confidence).high == pytest.approx(high, abs=1e-9)


def test_prompts_needed_are_the_published_ones() -> None:
    assert [prompts_needed(0.01, k) for k in range(3)] == [299, 473, 628]
    assert [prompts_needed(0.05, k) for k in range(3)] == [59, 93, 124]
    assert prompts_needed(0.001) == 2995
    assert violation_bound(0, 298).high > 0.01 >= violation_bound(0, 299).high


def test_paraphrases_are_worth_less_than_prompts() -> None:
    none = np.zeros(300, bool)
    alone, tied = clustered_bound(none, None), clustered_bound(none, ["a"] * 150 + ["b"] * 150)
    assert alone.high <= 0.01 < 0.1 < tied.high and tied.effective < 20
    some = np.zeros(300, bool)
    some[:30] = True  # one family of thirty is broken whole
    assert clustered_bound(some, [str(i // 30) for i in range(300)]).high > 1.5 * clustered_bound(some, None).high


@pytest.mark.parametrize("table", [[[45, 5], [8, 42]], [[180, 6], [9, 5]]])
def test_kappa_is_statsmodels(table: list[list[int]]) -> None:
    judge = np.repeat([0, 0, 1, 1], np.ravel(table)).astype(bool)
    human = np.repeat([0, 1, 0, 1], np.ravel(table)).astype(bool)
    mine, oracle = judge_agreement(judge, human), cohens_kappa(table)
    assert (mine.kappa, mine.low, mine.high) == pytest.approx((oracle.kappa, oracle.kappa_low, oracle.kappa_upp))


def test_a_judge_that_never_changes_its_answer_has_no_interval() -> None:
    found = judge_agreement(np.zeros(200, bool), np.arange(200) < 10)
    assert found.agreement == 0.95 and found.on_violations == 0.0 and math.isnan(found.low)


@given(st.text(max_size=80))
def test_no_text_without_the_secret_is_a_leak_and_every_text_is_read(text: str) -> None:
    assert leaks(text, "zq7-Xk93-vLw2-unlikely") == ()


def test_the_clustered_error_is_that_of_ols() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 15)
    before = (rng.random(300) < 0.6).astype(float)
    after = np.where(rng.random(300) < 0.3, rng.random(300) < 0.5, before).astype(float)
    fit = sm.OLS(after - before, np.ones(300)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    mine = paired_difference(before, after, clusters)
    assert (mine.value, mine.df) == pytest.approx((fit.params[0], 19))
    # statsmodels scales by (n - 1) / (n - k) beside G / (G - 1), which is one here.
    assert mine.se == pytest.approx(fit.bse[0])
    assert mine.low == pytest.approx(fit.conf_int(0.1)[0][0])


def test_no_item_that_moved_is_no_proof_of_none() -> None:
    same = np.ones(10)
    found = paired_difference(same, same)
    assert found.low == pytest.approx(-0.2589, abs=1e-4) and found.p_not_inferior(0.05) == 1.0
    assert paired_difference(np.ones(400), np.ones(400)).p_not_inferior(0.05) == 0.0


def test_few_clusters_never_reject_by_t_alone() -> None:
    """Four clusters have sixteen sign patterns, so nothing is below 1/16."""
    d = np.repeat([-0.5, -0.4, -0.6, -0.5], 20) + np.tile([0.1, -0.1], 40)
    assert paired_difference(np.ones(80), np.ones(80) + d, np.repeat(np.arange(4), 20)).p_worse >= 1 / 16


def test_holm_is_the_published_one() -> None:
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269, 0.275, 0.34]
    assert holm(p) == pytest.approx([0.015, 0.112, 0.507, 0.507, 0.507, 0.6, 0.666] + [1.0] * 8)
    assert holm(p[::-1]) == pytest.approx(holm(p)[::-1]) and holm([]) == []


def test_false_alarms_with_clusters_are_nominal() -> None:
    """8 and 30 clusters of one correlation; one-sided 5 %, 1,500 nulls each: within four standard errors above."""
    rng = np.random.default_rng(2)
    for groups in (8, 30):
        place = np.repeat(np.arange(groups), 40)
        hits = sum(
            paired_difference(
                np.zeros(len(place)), rng.normal(0, 1, len(place)) + rng.normal(0, 0.2, groups)[place], place
            ).p_worse
            <= 0.05
            for _ in range(1500)
        )
        assert hits / 1500 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 1500)


def test_quantiles_are_those_of_the_oracle() -> None:
    rng = np.random.default_rng(20261130)
    a, b = np.exp(rng.normal(0, 0.6, 400)), np.exp(rng.normal(0.15, 0.6, 350))
    one, two = Sample(a), Sample(b)
    found = quantile_bound(one, 0.95)
    assert found is not None and found.value == pytest.approx(2.607500, abs=1e-6)
    oracle = stats.bootstrap(
        (a,),
        lambda x, axis: np.quantile(x, 0.95, axis=axis),
        confidence_level=0.9,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(
        (oracle.low, oracle.high), rel=0.06
    )  # an order statistic beside interpolation
    change = quantile_change(one, two, 0.95)
    assert change is not None and change.value == pytest.approx(2.853332 / 2.607500 - 1, abs=1e-6)


def test_too_few_requests_bound_no_quantile() -> None:
    ones = Sample(np.arange(1.0, 400.0))
    assert quantile_bound(Sample(ones.seconds[:71]), 0.95) is None
    assert quantile_bound(Sample(ones.seconds[:72]), 0.95) is not None
    assert quantile_bound(Sample(ones.seconds[:367]), 0.99) is None
    assert quantile_bound(Sample(ones.seconds[:368]), 0.99) is not None
    assert quantile_bound(Sample(ones.seconds, np.arange(399) % 9), 0.95) is None


def test_a_timeout_is_the_longest_of_all_and_never_dropped() -> None:
    found = quantile_bound(sample([1.0] * 90 + [math.nan] * 10, [False] * 90 + [True] * 10), 0.95)
    assert found is not None and found.value == math.inf


def test_sessions_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    session = np.repeat(np.arange(40), 10)
    seconds = np.exp(rng.normal(0, 0.5, 40)[session] + rng.normal(0, 0.1, 400))
    alone, tied = quantile_bound(Sample(seconds), 0.95), quantile_bound(Sample(seconds, session), 0.95)
    assert alone is not None and tied is not None and tied.high - tied.low > 1.5 * (alone.high - alone.low)


def test_cost_is_over_the_tasks_that_are_solved() -> None:
    found = per_solved([1.0] * 100, [True, False] * 50)
    assert found is not None and found.value == 2.0 and found.low < 2 < found.high
    assert per_solved([1.0], [False]) is None and per_solved([math.nan], [True]) is None
