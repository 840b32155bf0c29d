"""The scan says live what it says at the end, rarely cries wolf, and finds each kind of change with its onset."""

from __future__ import annotations

import numpy as np
import pytest

from checks.stream.gap import GAP
from checks.stream.layout import GRADIENT, LOSS
from checks.stream.series import Series
from tests.checks.stream.logs import Floats, judge, published, rises, surrogate


def _faulty(values: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    n, y = len(values), values.copy()
    a, b, c = sorted(rng.integers(n // 5, n, 3))
    y[a:] *= rng.choice([1.06, 0.93, 1.3])
    y[b : b + int(rng.integers(1, 6))] *= rng.choice([1.7, 0.5, 4.0])
    y[c:] *= 1 + 0.1 * np.minimum(np.arange(n - c) / 90, 1)
    return y


def _logs() -> list[Floats]:
    real = [y[:7000] for y in published().values()]
    return [*real, *(surrogate(n, seed) for seed, n in enumerate((15, 60, 400, 1500, 5200)))]


def test_cut_anywhere_it_says_the_same() -> None:
    """Byte for byte: the state after any cuts is the state of one pass, so nothing that was said is said anew."""
    rng = np.random.default_rng(3)
    cuts = 0
    for number, log in enumerate(_logs()):
        y = _faulty(log, number)
        steps = np.arange(len(y)) * 7 + 3
        whole = judge(y, steps=steps)
        for _ in range(3):
            part, at = Series(LOSS), 0
            for cut in [*sorted(rng.integers(1, len(y), 12).tolist()), len(y)]:
                part.feed(steps[at:cut], y[at:cut])
                if rng.random() < 0.3:
                    part = Series.unpacked(LOSS, part.packed())
                seen = len(part.episodes())
                assert [e.noticed for e in part.episodes()] == [e.noticed for e in whole.episodes()][:seen] or seen > 0
                at, cuts = cut, cuts + 1
            assert part.packed() == whole.packed()
    print(f"\n{cuts} cuts of {len(_logs())} logs: identical")


def test_row_by_row_is_the_same_as_at_once() -> None:
    y = _faulty(surrogate(5000, 9), 9)
    one = Series(LOSS)
    for step, value in enumerate(y, 1):
        one.feed(np.array([step]), np.array([value]))
    assert one.packed() == judge(y).packed()


def test_what_was_noticed_stays_noticed() -> None:
    y = _faulty(surrogate(3000, 4), 4)
    told: list[tuple[int, int]] = []
    series = Series(LOSS)
    for at in range(0, 3000, 50):
        series.feed(np.arange(at + 1, at + 51), y[at : at + 50])
        now = [(e.noticed, e.side) for e in series.episodes()]
        assert now[: len(told)] == told or not any(e.lone for e in series.episodes()), (at, told, now)
        told = now


def test_false_alarms() -> None:
    """Both kinds of healthy rows; the rates are printed (pytest -s)."""
    real = list(published().values())
    made = [surrogate(12_000, seed, noise, df) for seed, (noise, df) in enumerate([(0.01, 30), (0.025, 5), (0.015, 3)])]
    short = [surrogate(n, 100 + n + i) for n in (12, 23, 40, 90, 250) for i in range(20)]
    for name, logs, most in (("published", real, 0), ("surrogate", made, 3), ("short", short, 1)):
        found = [e for y in logs for e in judge(y).episodes() if not e.lone]
        rows = sum(map(len, logs))
        failed = sum(e.failed is not None for e in found)
        print(f"\n{name}: {rows:,} healthy rows, {len(found)} episodes, {failed} failures")
        assert len(found) <= most and failed == 0


def _places(n: int, count: int) -> list[int]:
    return np.random.default_rng(n).integers(int(0.3 * n), int(0.8 * n), count).tolist()


@pytest.mark.parametrize(
    ("name", "shape", "found", "delay", "covered"),
    [
        ("level +7 %", lambda r: 1.07 + 0 * r, 0.95, 20, 0.8),
        ("level +25 %", lambda r: 1.25 + 0 * r, 1.0, 3, 0.8),
        ("level -12 %", lambda r: 0.88 + 0 * r, 0.9, 25, 0.8),
        ("ramp +14 % in 150", lambda r: 1 + 0.14 * np.minimum(r / 150, 1), 0.95, 75, 0.75),
        ("ramp +6 % in 300", lambda r: 1 + 0.06 * np.minimum(r / 300, 1), 0.75, 250, 0.75),
        ("bump +12 %, 90 rows", lambda r: 1 + 0.12 * (r < 90), 0.95, 10, 0.8),
        ("three rows x1.8", lambda r: 1 + 0.8 * (r < 3), 1.0, 2, 0.8),
    ],
)
def test_planted(name: str, shape, found: float, delay: float, covered: float) -> None:  # type: ignore[no-untyped-def]
    """Recall, delay and onset on other numbers than the method was chosen on; printed (pytest -s)."""
    hits, late, inside = 0, [], []
    places = _places(2600, 16)
    for seed, at in enumerate(places):
        y = surrogate(2600, 50 + seed)
        y[at:] *= shape(np.arange(2600 - at))
        down = shape(np.zeros(1))[0] < 1
        told = [e for e in judge(y).episodes() if (e.side < 0) == down and e.noticed > at]
        if told:
            hits += 1
            late.append(told[0].noticed - at - 1)
            inside.append(told[0].onset_low <= at + 1 <= told[0].onset_high)
    print(f"\n{name}: {hits}/{len(places)}, delay {np.median(late)}, onset covered {np.mean(inside):.2f}")
    assert hits >= found * len(places) and np.median(late) <= delay and np.mean(inside) >= covered


def test_a_bump_and_a_later_climb_are_two() -> None:
    y = surrogate(4000, 2)
    y[500:900] *= 1.08
    y[2000:] *= 1 + 0.15 * np.minimum(np.arange(2000) / 900, 1)
    first, second = rises(y)[0], rises(y)[-1]
    assert 480 <= first.onset <= 520 and not first.ongoing and 880 <= first.last <= 960
    assert second.onset_low <= 2001 <= second.onset_high and second.ongoing


def test_a_second_fault_on_top_of_a_level_that_was_told() -> None:
    y = surrogate(5000, 3)
    y[1500:] *= 1.1
    y[3300:] *= 1.12
    first, second = rises(y)
    assert first.ongoing and second.ongoing and abs(first.onset - 1501) <= 3
    assert second.onset_low <= 3301 <= second.onset_high and abs(second.effect - np.log(1.12)) < 0.03


def test_one_long_climb_is_one_episode_and_a_far_larger_fault_is_another() -> None:
    y = surrogate(8000, 2, 0.02)
    y[3000:] *= 1 + 0.00004 * np.arange(5000)
    (climb,) = rises(y)
    assert climb.parts > 1 and climb.ongoing and climb.onset_low <= 3001 <= climb.onset_high
    rng = np.random.default_rng(0)
    norms = np.exp(0.1 * rng.standard_normal(900))
    norms[200:] *= 3
    norms[600:640] *= 1e8
    early, late = rises(norms, GRADIENT)
    assert early.onset == 201 and np.exp(early.peak) < 10
    assert late.onset == 601 and not late.ongoing


def test_a_level_that_goes_away_is_over_and_no_fall() -> None:
    y = surrogate(5000, 3)
    y[1500:3300] *= 1.1
    found = judge(y).episodes()
    assert [e.side for e in found] == [1] and not found[0].ongoing and 3290 <= found[0].last <= 3310


@pytest.mark.parametrize(("n", "at", "factor"), [(23, 13, 3.0), (12, 9, 5.0), (40, 30, 1.4)])
def test_short_logs_show_large_faults(n: int, at: int, factor: float) -> None:
    found = 0
    for seed in range(20):
        y = surrogate(n, seed, 0.02)
        y[at - 1 :] *= factor
        found += any(e.onset_low <= at <= e.onset_high + 1 for e in rises(y))
    assert found >= 16


def test_a_gradient_of_fifty_times_in_39_rows() -> None:
    rng = np.random.default_rng(1)
    for n in (14, 39, 41):
        y = np.exp(0.2 * rng.standard_normal(n))
        y[n - 4 : n - 1] *= 50
        (found,) = rises(y, GRADIENT)
        assert found.onset == n - 3 and found.failed is not None


def test_printed_decimals_are_noise() -> None:
    healthy = surrogate(6000, 6, 0.012)
    for decimals in (1, 2):
        assert not rises(np.round(healthy, decimals))
    y = healthy.copy()
    y[3000:] *= 1.05
    assert any(e.onset_low <= 3001 <= e.onset_high for e in rises(np.round(y, 1)))


def test_spacing_of_the_steps_changes_nothing() -> None:
    y = surrogate(800, 5)
    y[500:503] *= 1.9
    one = judge(y).episodes()
    hundred = judge(y, steps=np.arange(1, 801) * 100).episodes()
    alike = [[(e.failed is None, e.rows, e.effect) for e in found] for found in (one, hundred)]
    assert alike[0] == alike[1]
    assert [100 * e.onset for e in one] == [e.onset for e in hundred]


def test_near_and_below_zero_noise_is_the_unit() -> None:
    rng = np.random.default_rng(8)
    trend = 0.69 * np.exp(-np.arange(3000) / 400) - 0.4
    healthy = trend + 0.12 * rng.standard_normal(3000)
    assert not [e for e in judge(healthy).episodes() if e.failed is not None]
    y = healthy.copy()
    y[2000:] += 0.3
    found = [e for e in rises(y) if e.noticed > 2000]
    assert found and found[0].raw and found[0].onset_low <= 2001 <= found[0].onset_high


def test_averaged_logs_are_calmer() -> None:
    y = surrogate(20_000, 7).reshape(-1, 20).mean(axis=1)
    assert not rises(y)
    y[600:] *= 1.02
    assert any(abs(e.onset - 601) <= 5 for e in rises(y))


def test_recovered_is_not_a_fall() -> None:
    rng = np.random.default_rng(2)
    y = np.exp(0.15 * rng.standard_normal(2500))
    y[800:1200] *= 40
    found = judge(y, GRADIENT).episodes()
    assert [e.side for e in found] == [1] and not found[0].ongoing


def test_a_validation_gap_opens() -> None:
    rng = np.random.default_rng(4)
    gap = 0.01 + 0.002 * rng.standard_normal(60)
    assert not rises(np.exp(gap), GAP)
    gap[40:] += 0.04
    (found,) = rises(np.exp(gap), GAP)
    assert found.onset == 41 and found.failed is not None


def test_a_damaged_state_is_refused() -> None:
    data = judge(surrogate(100, 1)).packed()
    with pytest.raises(ValueError, match="length|buffer"):
        Series.unpacked(LOSS, data[:-8])


@pytest.mark.parametrize(("field", "value"), [("open", 5), ("rows", -3), ("resets", 9), ("count", -1), ("mode", 2)])
def test_a_forged_state_leads_no_kernel_outside_its_arrays(field: str, value: int) -> None:
    series = judge(surrogate(100, 1))
    series.state[0][field] = value
    with pytest.raises(ValueError, match=f"{field} out of range"):
        Series.unpacked(LOSS, series.packed())
