"""A threshold is turned on evidence alone: several runs, a rate beyond chance, and never for one run's sake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from checks.calibrate.dials import Dial, dials, loosened
from checks.calibrate.fit import ALONE, LOOSEST, STEP, TIGHTEST, Fitted, fit
from checks.calibrate.write import ordered, policy_text
from checks.certificates import lower_bound, upper_bound
from checks.policy import read, shipped
from tests.checks.synthetic import Synthetic
from trainvitals.cli import cli
from trainvitals.errors import UsageError

DIAL = next(dial for dial in dials() if dial.name == "throughput.drop" and dial.level == "fail")
RATE = 1e-4


@dataclass
class Made:
    """A run whose excursions are known: it alarms at each that is larger than the scale."""

    excursions: list[float]
    n: int
    name: str = "made"

    def rows(self, dial: Dial) -> int:
        return self.n

    def alarms(self, dial: Dial, scale: float = 1.0) -> int:
        return sum(size > scale for size in self.excursions)


def fitted(runs: list[Made], rate: float = RATE) -> Fitted:
    known: Any = runs
    return fit(DIAL, known, rate)


def test_several_runs_that_alarm_loosen_it_as_far_as_needed_and_one_step_more() -> None:
    f = fitted([Made([1.5, 1.9], 1000), Made([1.8], 1000), Made([1.9, 1.2], 1000), Made([], 1000)])
    assert f.alarms == 0 and f.before == 5 and f.scale == pytest.approx(2 * STEP)
    assert f.elsewhere == (0, 4000) and f.bound == upper_bound(0, 4000)


def test_one_run_alone_is_named_and_not_learnt_from() -> None:
    f = fitted([Made([], 1000, "a"), Made([3.0, 2.0], 1000, "faulty"), Made([], 1000, "b")])
    assert f.scale == 1 and f.alone == ("faulty",) and f.runs == 2 and f.rows == 2000


def test_one_run_that_alone_drives_the_value_is_left_out_of_it() -> None:
    calm = [Made([1.3], 1000, str(i)) for i in range(5)]
    f = fitted([*calm, Made([9.0, 8.0], 1000, "faulty")])
    assert f.alone == ("faulty",) and f.scale <= 1.3 * STEP**2 and f.before == 5


def test_a_single_run_moves_nothing() -> None:
    assert fitted([Made([2.0] * 9, 1000)]).scale == 1


def test_what_no_step_reaches_is_kept_and_said() -> None:
    f = fitted([Made([100.0], 100, str(i)) for i in range(6)])
    assert f.scale == 1 and "even" in f.why


def test_so_few_rows_cannot_tell() -> None:
    f = fitted([Made([], 600), Made([], 600)])
    assert f.scale == 1 and f"{3 / RATE:,.0f}" in f.why


def test_many_rows_tighten_it_as_far_as_their_bound_allows() -> None:
    f = fitted([Made([0.6], 40_000), Made([], 40_000)], 1e-4)
    assert f.scale < 1 and upper_bound(f.alarms, f.rows) <= 1e-4
    quiet = fitted([Made([], 40_000), Made([], 40_000)], 1e-4)
    assert quiet.scale == pytest.approx(STEP ** (TIGHTEST + 1))


sizes = st.lists(st.floats(0, 20), max_size=4)


@given(st.lists(st.tuples(sizes, st.integers(50, 50_000)), min_size=1, max_size=6), st.sampled_from([1e-5, 1e-4, 1e-2]))
def test_what_is_turned_was_shown(made: list[tuple[list[float], int]], rate: float) -> None:
    runs = [Made(*one, name=str(i)) for i, one in enumerate(made)]
    f = fitted(runs, rate)
    kept = [run for run in runs if run.name not in f.alone]
    assert f.rows == sum(run.n for run in kept) and f.before == sum(run.alarms(DIAL) for run in kept)
    assert f.alarms == sum(run.alarms(DIAL, f.scale) for run in kept)
    assert STEP**TIGHTEST <= f.scale <= STEP**LOOSEST
    if f.scale > 1:
        assert lower_bound(f.before, f.rows) > rate and f.alarms <= rate * f.rows
        assert sum(run.alarms(DIAL) > 0 for run in kept) > 1
    if f.scale < 1:
        assert upper_bound(f.alarms, f.rows) <= rate
    assert ALONE < LOOSEST


@given(st.sampled_from(dials()), st.floats(0.25, 16))
def test_looser_is_looser_for_every_threshold(dial: Dial, scale: float) -> None:
    defaults = shipped()[dial.name]
    for key, value in dial.at(scale).items():
        outward = (value <= defaults[key]) if key in dial.down else (value >= defaults[key])
        assert outward == (scale >= 1) or value == pytest.approx(defaults[key], rel=1e-3)
    assert loosened("warn_share", 0.9, 16) < 1


@given(st.lists(st.floats(0.25, 16), min_size=len(dials()), max_size=len(dials())))
def test_any_fit_can_be_written_and_read(tmp_path_factory: pytest.TempPathFactory, scales: list[float]) -> None:
    fits = [Fitted(d, s, 1e-5, 0, 9, 0, 1, "kept") for d, s in zip(dials(), scales, strict=True)]
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(policy_text(fits, ["a\nb = 1"], ["c\n[d]"], 1e-5))
    policy = read(path)
    for (name, _), settings in ordered(fits).items():
        for key, value in settings.items():
            assert {**shipped()[name], **policy.settings.get(name, {})}[key] == value


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three runs that slow down now and then, one that is faulty, one that went NaN."""
    folder = tmp_path_factory.mktemp("healthy")
    made = [Synthetic(n=250, seed=seed) for seed in range(5)]
    for one in made[:3]:
        one.step_time[120:160] *= 1.5
    made[3].lr[150:] *= 6
    made[4].loss[100:] = float("nan")
    return [str(one.write(folder / name).path) for one, name in zip(made, "abcdz", strict=True)]


def test_the_command_learns_the_user_s_machine_and_names_the_faults(healthy: list[str], tmp_path: Path) -> None:
    out = tmp_path / "policy.toml"
    told = CliRunner().invoke(cli, ["calibrate", *healthy, "--out", str(out)])
    assert told.exit_code == 0, told.output
    settings = read(out).settings
    assert set(settings) == {"throughput.drop"} and settings["throughput.drop"]["warn_factor"] > 1.5
    assert f"{healthy[4]} has a failure that no threshold explains" in told.output
    assert f"{healthy[3]} alone decided" in told.output and "lr.plan" in told.output
    text = out.read_text()
    assert "shipped: 1.25" in text and "rows of 4 runs" in text and "tolerance = 0.01" in text
    for run in healthy[:3]:
        checked = CliRunner().invoke(cli, ["check", run, "--only", "throughput.drop", "--policy", str(out)])
        assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize("rate", ["0", "-1e-5", "1/0", "often", "2", "nan", "inf", "1/", "1/2/3"])
def test_a_rate_that_is_none_is_refused(rate: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["calibrate", "runs", "--out", str(tmp_path / "p.toml"), "--false-alarms", rate])
    assert told.exit_code != 0


def test_nothing_is_overwritten(healthy: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[lr.jump]")
    told = CliRunner().invoke(cli, ["calibrate", healthy[0], "--out", str(mine)])
    assert isinstance(told.exception, UsageError) and mine.read_text() == "[lr.jump]"
