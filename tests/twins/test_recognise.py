"""Who is a twin: published logs of one data order and of another, and every way in which a log can differ."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from checks.twins.correlation import _all_lags
from checks.twins.recognise import recognise
from checks.twins.rows import from_arrays
from tests.twins.logs import CURVES, averaged, every, made, part, published, rows_of
from trainvitals.fingerprint import lanes

needs_curves = pytest.mark.skipif(not CURVES.is_dir(), reason=f"the published logs are not at {CURVES}")


@pytest.fixture(scope="module")
def logs():
    return published()


def told(a, b):
    return recognise(rows_of(a, "a"), rows_of(b, "b"))


@needs_curves
def test_all_published_twins_are_found_with_their_offset_and_no_other(logs):
    for x, y in combinations(logs, 2):
        pair = told(logs[x], logs[y])
        families = {x.partition("_")[0], y.partition("_")[0]}
        assert pair.twin is ("llmc" not in families), (x, y, pair.evidence)
        if pair.twin:
            # The value embedding runs number the same data one step lower.
            assert pair.offset_steps == (0 if len(families) == 1 else -1)
            assert pair.noise_ratio > 2.5


@needs_curves
def test_windows_of_500_rows(logs):
    rng = np.random.default_rng(0)
    right = wrong = 0
    for _ in range(40):
        x, y = rng.choice(["optimizers_a", "optimizers_b", "valueembed_a", "valueembed_b"], 2, replace=False)
        at = int(rng.integers(0, 1_000))
        right += told(part(logs[x], at, at + 500), part(logs[y], at, at + 500)).twin is True
        other = int(rng.integers(0, 19_000))
        wrong += told(part(logs[x], at, at + 500), part(logs["llmc"], other, other + 500)).twin is True
        assert told(part(logs[x], at, at + 500), part(logs["llmc"], at, at + 500)).twin is False
    print(f"found {right} of 40, false {wrong} of 40")
    assert right == 40 and wrong == 0


KINDS = {
    "plain": (made(2_000, 1), made(2_000, 2), True, 0),
    "a late start with the same numbers": (made(3_000, 1), made(1_500, 2, start=900), True, 0),
    "a late start, counted from 0": (made(3_000, 1), (np.arange(1_500), made(1_500, 2, start=900)[1]), True, -900),
    "numbered one apart": (made(2_000, 1), (made(2_000, 2)[0] + 1, made(2_000, 2)[1]), True, 1),
    "every tenth step": (made(4_000, 1), every(made(4_000, 2), 10), True, 0),
    "both every tenth step": (every(made(4_000, 1), 10), every(made(4_000, 2), 10), True, 0),
    "every tenth against every fifth": (every(made(9_000, 1), 5), every(made(9_000, 2), 10), True, 0),
    "means of ten steps": (made(4_000, 1), averaged(made(4_000, 2), 10), True, 0),
    "a batch twice as large": (made(4_000, 1), (np.arange(2_000), averaged(made(4_000, 2), 2)[1]), True, 0),
    "printed with two decimals": (made(2_000, 1), (made(2_000, 2)[0], made(2_000, 2)[1].round(2)), True, 0),
    "other data": (made(2_000, 1), made(2_000, 2, data=5), False, None),
    "other data, other cadence": (made(4_000, 1), every(made(4_000, 2, data=5), 10), False, None),
    "windows apart": (part(made(4_000, 1), 0, 600), part(made(4_000, 2), 2_000, 2_600), None, None),
    "forty rows": (made(40, 1), made(40, 2), None, None),
    "no noise at all": (made(2_000, 1, noise=0, own=0), made(2_000, 2, noise=0, own=0), None, None),
    "below zero": ((made(2_000, 1)[0], made(2_000, 1)[1] - 5), (made(2_000, 2)[0], made(2_000, 2)[1] - 5), True, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_log(kind):
    a, b, twin, offset = KINDS[kind]
    pair = told(a, b)
    assert pair.twin is twin, pair.evidence
    if twin:
        assert abs(pair.offset_steps - offset) <= (1 if "mean" in kind or "batch" in kind else 0)


def test_the_offset_is_the_step_of_b_less_the_step_of_a():
    a, b = made(2_000, 1), (made(2_000, 2)[0] + 7, made(2_000, 2)[1])
    assert told(a, b).offset_steps == 7 and told(b, a).offset_steps == -7
    assert told(a, b).turned().offset_steps == -7


def test_rows_are_missing_at_random():
    rng = np.random.default_rng(3)
    a, b = (tuple(v[keep] for v in log) for log in (made(3_000, 1), made(3_000, 2))
            for keep in [rng.random(3_000) > 0.05])
    pair = told(a, b)
    assert pair.twin and pair.offset_steps == 0
    at, other = pair.indices(a[0], b[0])
    assert np.array_equal(a[0][at], b[0][other]) and len(at) > 2_500


def test_a_run_that_skipped_data_lines_up_in_two_pieces():
    whole = made(5_000, 2)
    pair = told(made(5_000, 1), (np.arange(4_500), np.delete(whole[1], np.s_[2_000:2_500])))
    assert pair.twin and {p.offset for p in pair.pieces} == {0, -500}
    late = next(p for p in pair.pieces if p.offset == -500)
    assert 2_400 <= late.first <= 2_700 and late.last == 4_999


def test_the_loss_of_one_rank_against_that_of_all_is_never_called_other_data():
    rng = np.random.default_rng(4)
    parts = rng.standard_normal((8, 4_000)) * 0.02
    trend = np.log(2 + 6 * (np.arange(4_000) + 20.0) ** -0.3)
    own = 0.001 * rng.standard_normal((2, 4_000))
    pair = told((np.arange(4_000), np.exp(trend + parts[0] + own[0])),
                (np.arange(4_000), np.exp(trend + parts.mean(axis=0) + own[1])))  # fmt: skip
    assert pair.twin is None and "one rank" in pair.evidence


def test_a_schedule_in_common_makes_no_twins():
    """Cyclic rates and drops at the same steps move both losses; their data are others."""
    rng = np.random.default_rng(5)
    t = np.arange(4_000)
    course = np.log(2 + 6 * (t + 20.0) ** -0.3) + 0.02 * np.sin(t / 40) - 0.03 * (t > 2_500)
    wrong = sum(told((t, np.exp(course + s * rng.standard_normal(4_000))),
                     (t, np.exp(1.1 * course + s * rng.standard_normal(4_000)))).twin is True
                for s in (0.0003, 0.001, 0.003, 0.01, 0.03) for _ in range(4))  # fmt: skip
    assert wrong == 0


def test_the_same_data_in_another_order():
    log = made(3_000, 2)
    trend = median_filter(log[1], 101)
    shuffled = trend * np.random.default_rng(6).permutation(log[1] / trend)
    assert told(made(3_000, 1), (log[0], shuffled)).twin is False


def test_a_copy_is_told_and_never_a_control():
    pair = told(made(2_000, 1), made(2_000, 1))
    assert pair.copy and not pair.usable and "same run" in pair.evidence


def test_false_twins_of_unrelated_series_are_rare():
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(150):
        n, m = rng.integers(100, 1_500, 2)
        wrong += told(made(int(n), int(rng.integers(1e9)), data=int(rng.integers(1e9))),
                      made(int(m), int(rng.integers(1e9)), data=int(rng.integers(1e9)))).twin is True
    print(f"{wrong} false twins of 150 pairs")
    assert wrong == 0


def test_correlation_at_every_lag_is_that_of_the_definition():
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal(60), rng.standard_normal(45)
    known_a, known_b = rng.random(60) > 0.2, rng.random(45) > 0.2
    r, rows, lags = _all_lags(np.where(known_a, a, 0), known_a, np.where(known_b, b, 0), known_b)
    for lag, found, n in zip(lags, r, rows, strict=True):
        at = [i for i in range(60) if 0 <= i + lag < 45 and known_a[i] and known_b[i + lag]]
        x, y = a[at], b[[i + lag for i in at]]
        assert n == len(at)
        if len(at) > 1:
            assert found == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def _hashed(batches, steps=None):
    made_of = [lanes(batch) for batch in batches]
    return (np.arange(len(batches)) if steps is None else steps,
            np.array([int(low) | int(high) << 32 for low, high in made_of], np.uint64))


def test_fingerprints_decide_where_there_are_any():
    rng = np.random.default_rng(9)
    batches = [rng.integers(0, 1_000, (4, 16)) for _ in range(60)]
    flat = np.ones(60)
    whole = from_arrays("a", np.arange(60), flat, *_hashed(batches))
    late = from_arrays("b", np.arange(40), flat[:40], *_hashed(batches[20:]))
    assert (pair := recognise(whole, late)).twin and pair.offset_steps == -20
    others = from_arrays("c", np.arange(60), flat, *_hashed([rng.integers(0, 1_000, (4, 16)) for _ in range(60)]))
    assert recognise(whole, others).twin is False
    double = [np.concatenate(batches[i : i + 2]) for i in range(0, 60, 2)]
    large = from_arrays("d", np.arange(30), flat[:30], *_hashed(double))
    assert (pair := recognise(whole, large)).twin and (pair.ratio_a, pair.ratio_b) == (2, 1)
