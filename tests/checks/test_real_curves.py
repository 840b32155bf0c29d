"""Published logs: healthy ones stay quiet, the two that broke are found. See the data folder's SOURCES.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from checks import Report, run_checks
from tests.checks.stored import store

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
pytestmark = pytest.mark.skipif(not CURVES.is_dir(), reason=f"published curves are not at {CURVES}")

MEGATRON = re.compile(r"iteration +(\d+)/.*?lm loss: (\S+) .*?grad norm: (\S+) ")


def _numbers(pattern: str | re.Pattern[str], name: str) -> np.ndarray:
    return np.array(re.findall(pattern, (CURVES / name).read_text()), dtype=float)


def _alarms(report: Report) -> list[str]:
    return [f"{f.level} {f.summary}" for f in report.findings if f.level in ("warn", "fail")]


def test_llmc_124m_is_healthy_for_19560_steps(tmp_path: Path) -> None:
    rows = _numbers(r"s:(\d+) trl:([\d.]+) lr:([\d.]+) norm:([\d.]+)", "llmc_124m_main.log")
    validation = _numbers(r"s:(\d+) tel:([\d.]+)", "llmc_124m_main.log")
    report = run_checks(store(tmp_path, rows, ["step", "loss", "lr", "grad"], validation), ["loss", "optimisation"])
    spike = next(f for f in report.findings if f.check == "loss.spike")
    rose = next(f for f in report.findings if f.check == "grad.explosion")
    print(f"\nllm.c 124M, {len(rows)} steps: alarms {_alarms(report)}, isolated rows {spike.details['isolated_rows']}")
    # Rows of +9 % with a high norm are no fault of a run that ended well; they are counted.
    assert _alarms(report) == []
    assert 7435 in spike.details["isolated_at"] and rose.details["brief_rises"] > 0


def test_nanogpt_rank_local_loss_is_quiet(tmp_path: Path) -> None:
    rows = np.loadtxt(CURVES / "nanogpt_train_one_seed.csv", delimiter=",", skiprows=1)
    report = run_checks(store(tmp_path, rows, ["step", "loss"]), ["loss"])
    assert _alarms(report) == []
    assert {918, 946, 1105} <= set(next(f for f in report.findings if f.check == "loss.spike").details["isolated_at"])


def test_healthy_schedules_do_not_diverge(tmp_path: Path) -> None:
    told: dict[str, list[str]] = {}
    for path in sorted(CURVES.glob("mpl_*/*.csv")):
        rows = np.loadtxt(path, delimiter=",", skiprows=1)
        report = run_checks(store(tmp_path / path.parent.name / path.stem, rows, ["step", "lr", "loss"]), ["loss"])
        told[f"{path.parent.name}/{path.stem}"] = _alarms(report)
    train = np.loadtxt(CURVES / "nanogpt_train_one_seed.csv", delimiter=",", skiprows=1)
    repeats = np.loadtxt(CURVES / "nanogpt_38_seeds_val.csv", delimiter=",", skiprows=1)
    for seed in range(0, 38, 6):
        points = repeats[repeats[:, 0] == seed][:, 1:]
        run = store(tmp_path / f"seed{seed}", train[::10], ["step", "loss"], points)
        told[f"seed {seed}"] = _alarms(run_checks(run, ["loss.divergence"]))
    print(f"\nhealthy curves: {sum(map(bool, told.values()))} of {len(told)} with an alarm")
    assert not any(told.values()), told


def test_bloom_gradient_moves_before_the_loss(tmp_path: Path) -> None:
    """The published rows between 300 and 200 rows of the noise around them."""
    spike = _numbers(MEGATRON, "bloom176b_spike_2022-04-12.log")
    rng = np.random.default_rng(0)

    def calm(first: int, n: int) -> np.ndarray:
        return np.stack([np.arange(first, first + n), 2.21 + 0.02 * rng.standard_normal(n),
                         0.24 * np.exp(0.08 * rng.standard_normal(n))], axis=1)  # fmt: skip

    rows = np.concatenate([calm(30914, 300), spike, calm(31252, 200)])
    report = run_checks(store(tmp_path, rows, ["step", "loss", "grad"]), ["loss", "optimisation"])
    found = {f.check: f for f in report.findings if f.level in ("warn", "fail")}
    assert set(found) == {"grad.explosion", "loss.spike"}
    assert found["grad.explosion"].steps == (31215, 31222) and found["grad.explosion"].level == "fail"
    # The loss itself leaves its trend four steps later: each signal has its own onset, the incident has the first.
    assert not found["loss.spike"].ongoing and found["loss.spike"].steps == (31219, 31222)
    (incident,) = report.incidents
    assert incident.steps[0] == 31215


def test_a_run_that_blew_up(tmp_path: Path) -> None:
    """38 rows, one in 200 steps: the loss turns at 3,200 (+3 %) and jumps at 3,400."""
    name = "megatron_log_divergence_sample.log"
    validation = _numbers(r"valid loss at iteration (\d+) \| lm loss value: (\S+)", name)
    run = store(tmp_path, _numbers(MEGATRON, name), ["step", "loss", "grad"], validation)
    found = {f.check: f for f in run_checks(run, ["loss", "optimisation"]).findings if f.level == "fail"}
    assert found["loss.divergence"].evidence[0].signal == "loss/train"
    assert found["loss.validation"].evidence[0].signal == "loss/val"
    assert all(f.ongoing and f.steps is not None and 3000 <= f.steps[0] <= 3600 for f in found.values()), found
