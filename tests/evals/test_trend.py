"""Courses over many checkpoints: nulls, planted falls, the checkpoint where they began, and the best one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from checks.evals.best import best_of, luck
from checks.evals.course import Course
from checks.evals.scan import null, null_p, scales, scan, threshold
from checks.evals.trend import trends, trends_of
from tests.evals.test_evals import DATA, imported, needs_data
from tests.review.staged import sheet
from trainvitals.cli import cli
from trainvitals.evals import read_evals, write_sheets


def course(values: np.ndarray) -> Course:
    """A course of scores per checkpoint and item."""
    means = values.mean(axis=1)
    names = tuple(f"step-{i}" for i in range(len(values)))
    return Course("t", "", names, tuple(range(len(values))), means, means, values.astype(np.float32),
                  tuple(map(str, range(values.shape[1]))), None, True, ())  # fmt: skip


def answers(rng: np.random.Generator, levels: np.ndarray, items: int = 400, noise: float = 0.004) -> np.ndarray:
    """Right and wrong per checkpoint: items of their own difficulty, a noise per checkpoint, answers that flip."""
    ease = rng.normal(0, 1.2, items)
    level = np.clip(levels + noise * rng.standard_normal(len(levels)), 0.02, 0.98)
    luck_ = 0.3 * rng.standard_normal((len(levels), items)) + rng.normal(0, 1, items)
    return (ease + (stats.norm.ppf(level) * np.sqrt(2.53))[:, None] + luck_ > 0).astype(float)


def run_of(folder: Path, tasks: dict[str, np.ndarray]) -> Path:
    for at in range(len(next(iter(tasks.values())))):
        write_sheets(folder, [sheet(task, 100 * (at + 1), values[at]) for task, values in tasks.items()])
    return folder


def test_the_scan_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    for count in (6, 11, 30):
        means = rng.standard_normal(count)
        means[count // 2 :] -= 4
        found = scan(means, least_sd=1.0)
        by_hand = max(
            ((means[max(0, k - w) : k].mean() - means[k : k + w].mean()) /
             np.sqrt(1 / min(w, k) + 1 / min(w, count - k)), -k)
            for w in scales(count) for k in range(1, count))  # fmt: skip
        assert found.size * found.sd == pytest.approx(by_hand[0], rel=0.2) and found.sd >= 1.0
        assert found.first <= count // 2 <= found.last


@pytest.mark.parametrize(("wander", "rising", "most"), [(0.0, 0.0, 0.05), (0.0, 2.0, 0.05), (0.3, 0.0, 0.10)])
def test_courses_that_never_fall_show_none(wander, rising, most):
    """Neighbours that wander together (.3) cost a little: said in the docs."""
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(1_000):
        noise = rng.standard_normal(24)
        for i in range(1, 24):
            noise[i] = wander * noise[i - 1] + np.sqrt(1 - wander**2) * noise[i]
        false += null_p(scan(noise + rising * np.log1p(np.arange(24))).size, 24) <= 0.05
    print(f"{false} of 1,000 courses")
    assert false / 1_000 <= most + 2.6 * np.sqrt(0.05 * 0.95 / 1_000)


def test_the_null_is_sorted_and_as_large_as_it_says():
    drawn = null(12)
    assert len(drawn) == 20_000 and (np.diff(drawn) >= 0).all()
    assert null_p(float(drawn[-1000]), 12) == pytest.approx(0.05, abs=1e-3)


def test_whole_runs_without_a_fall_raise_no_alarm_and_planted_falls_are_found_where_they_are(tmp_path):
    rng = np.random.default_rng(11)
    rise = 0.5 + 0.15 * np.linspace(0, 1, 14) ** 0.5
    false = 0
    for _ in range(60):
        false += any(t.level == "fail" for t in trends_of([course(answers(rng, rise)) for _ in range(4)]))
    print(f"{false} of 60 runs of four tasks")
    assert false <= 7  # 5 % of 60 is 3; 7 is its 98 % point
    tasks = {t: answers(rng, rise) for t in ("a", "b", "c")}
    tasks["code"] = answers(rng, rise - 0.15 * (np.arange(14) >= 9))
    folder = run_of(tmp_path / "fall", tasks)
    found = trends(read_evals(folder))
    assert [t.task for t in found if t.level == "fail"] == ["code"]
    fall = found[0].fall
    assert fall.start_step == 1000 and fall.earliest_step < 1000 <= fall.latest_step and not fall.recovered
    assert fall.interval[0] < -0.15 + 0.03 < 0 and fall.interval[1] < 0 and fall.p_holm <= 0.05
    assert all(p.low < p.score < p.high for p in found[0].points) and len(found[0].points) == 14
    done = CliRunner().invoke(cli, ["evals", "trend", str(folder), "--json"])
    assert done.exit_code == 2 and json.loads(done.stdout)[0]["fall"]["start"] == "step-1000"


def test_falls_of_the_size_that_is_promised_are_found_and_their_place_is_covered():
    rng = np.random.default_rng(5)
    count, found, covered = 20, 0, 0
    size = (threshold(0.05, count) + stats.norm.ppf(0.8)) * np.sqrt(2 / 4)
    for _ in range(400):
        place = int(rng.integers(4, count - 4))
        means = rng.standard_normal(count) - size * (np.arange(count) >= place)
        seen = scan(means)
        hit = null_p(seen.size, count) <= 0.05
        found, covered = found + hit, covered + (hit and seen.first <= place <= seen.last)
    print(f"{found} of 400 found, {covered} with their place inside")
    assert found / 400 >= 0.8 - 2.6 * np.sqrt(0.16 / 400) and covered / found >= 0.95 - 2.6 * np.sqrt(0.05 / found)


def test_the_best_is_less_good_than_it_looks():
    rng = np.random.default_rng(2)
    # Of c equal checkpoints the highest of c normal draws exceeds its mean by its expected maximum.
    expected = np.max(rng.standard_normal((100_000, 10)), axis=1).mean()
    assert luck(np.full(10, 0.5), 0.01) == pytest.approx(0.01 * expected, rel=0.05)
    held = 0
    for _ in range(60):
        values = answers(rng, np.where(np.arange(8) == 5, 0.62, 0.6), 300)
        held += "step-5" in best_of(course(values), 0.02).as_good
    assert held >= 54


def test_few_checkpoints_and_other_settings_are_unknown(tmp_path):
    rng = np.random.default_rng(4)
    values = answers(rng, np.full(7, 0.6))
    write_sheets(tmp_path, [sheet("qa", 100 * (i + 1), v, n_shot=5 if i < 2 else 0) for i, v in enumerate(values)])
    (one,) = trends(read_evals(tmp_path))
    assert one.level == "unknown" and "2 checkpoints were measured otherwise" in one.reason and len(one.points) == 5
    assert one.best.again is None


@needs_data
def test_published_courses_rise_and_without_items_nothing_fails(tmp_path):
    evals = imported(DATA / "pythia_1.4b_zero_shot", tmp_path)
    names = ("piqa", "sciq", "arc_easy", "winogrande", "lambada_openai:acc", "wsc")
    found = {t.task: t for t in trends(evals, tasks=[n for n in names if n in evals.tasks])}
    assert all(len(t.points) == 27 for t in found.values()) and len(found) >= 5
    assert not any(t.fall for name, t in found.items() if name != "wsc")
    # It goes from .63, which is to answer "no" to everything, to .37.
    assert found["wsc"].level == "unknown" and found["wsc"].fall.start_step == 1000 and found["wsc"].n == 0
