"""Every check finds the fault planted for it, at the right step, and stays quiet without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checks import run_checks
from tests.checks.synthetic import PLAN, WINDOW, Synthetic

Plant = Callable[[Synthetic, int], None]


def nan_steps(s: Synthetic, at: int) -> None:
    s.loss[at - 1 : at + 1] = np.nan


def infinite_gradient(s: Synthetic, at: int) -> None:
    s.grad[at - 1, 2] = np.inf


def loss_spike(s: Synthetic, at: int) -> None:
    s.loss[at - 1 : at + 4] *= [2, 1.6, 1.4, 1.3, 1.2]
    s.grad[at - 1 : at + 1] *= 20


def loss_lost(s: Synthetic, at: int) -> None:
    s.loss[at - 1 :] *= 1.8


def loss_step_up(s: Synthetic, at: int) -> None:
    s.loss[at - 1 :] *= 1.25


def loss_climb(s: Synthetic, at: int) -> None:
    s.loss[at - 1 :] *= np.exp(0.6 * np.arange(s.n - at + 1) / s.n)


def lr_jump(s: Synthetic, at: int) -> None:
    s.lr[at - 1 : at + 39] *= 8


def lr_schedule_lost(s: Synthetic, at: int) -> None:
    s.lr[at - 1 :] = s.peak_lr


def layer_explodes(s: Synthetic, at: int) -> None:
    s.grad[at - 1 : at + 9, 3] *= 8
    s.grad[at : at + 9] *= 4


def layer_vanishes(s: Synthetic, at: int) -> None:
    s.grad[at - 1 :, 5] *= 1e-4


def layer_detached(s: Synthetic, at: int) -> None:
    s.grad[at - 1 :, 5] = 0


def expert_dies(s: Synthetic, at: int) -> None:
    shares = s.popularity.mean(axis=0)[1]
    shares[3] = 0
    s.router(1, at, shares / shares.sum())


def expert_overloaded(s: Synthetic, at: int) -> None:
    shares = np.full(s.experts, 0.55 / (s.experts - 1))
    shares[2] = 0.45
    s.router(0, at, shares)


def router_collapses(s: Synthetic, at: int) -> None:
    shares = np.full(s.experts, 1e-9)
    shares[: s.top_k] = 1 / s.top_k
    s.router(2, at, shares)


def mix_shifts(s: Synthetic, at: int) -> None:
    shares = np.array([*PLAN.values()]) * [0.25, 1, 1, 1]
    s.mix[at - 1 :] = shares / shares.sum()


def domain_runs_dry(s: Synthetic, at: int) -> None:
    shares = np.array([*PLAN.values()]) * [1, 1, 1, 0]
    s.mix[at - 1 :] = shares / shares.sum()


def ids_get_lost(s: Synthetic, at: int) -> None:
    s.unattributed[at - 1 :] = 0.08


def text_changes(s: Synthetic, at: int) -> None:
    s.other_text(at, 1, 0.3)


def steps_slow_down(s: Synthetic, at: int) -> None:
    s.step_time[at - 1 :] *= 1.6


def loader_is_late(s: Synthetic, at: int) -> None:
    s.data_wait[at - 1 :] = 0.4 * s.step_time[at - 1 :]


def rank_lags(s: Synthetic, at: int) -> None:
    s.rank_slow[at - 1 :, 1] = 1.7


# fault, check, steps by which the onset may be off, checks that may alarm with it, label that the evidence must name
FAULTS: list[tuple[Plant, str, int, set[str], str | None]] = [
    (nan_steps, "loss.nonfinite", 0, set(), None),
    (infinite_gradient, "loss.nonfinite", 0, set(), None),
    (loss_spike, "loss.spike", 0, {"grad.explosion"}, None),
    # A loss that does not come back is no spike: one fault, one answer.
    (loss_lost, "loss.divergence", 0, set(), None),
    (loss_step_up, "loss.divergence", 2, {"loss.spike"}, None),
    # A gradual climb has no first step; the turning point is within a twelfth of the run.
    (loss_climb, "loss.divergence", 33, set(), None),
    (lr_jump, "lr.plan", 0, {"lr.jump"}, "0"),
    (lr_schedule_lost, "lr.plan", 0, {"lr.jump"}, "0"),
    (layer_explodes, "grad.explosion", 0, set(), "layers.2"),
    (layer_vanishes, "grad.vanishing", 0, set(), "layers.4"),
    (layer_detached, "grad.vanishing", 0, set(), "layers.4"),
    (expert_dies, "router.dead", 2, set(), "layers.1.3"),
    (expert_overloaded, "router.overload", 2, {"router.collapse"}, "layers.0.2"),
    (router_collapses, "router.collapse", 2, {"router.dead", "router.overload"}, "layers.2"),
    (mix_shifts, "data.mix", 2, set(), "web"),
    # One row in five holds none of this domain even when it is fed as planned.
    (domain_runs_dry, "data.mix", 12, set(), "wiki"),
    (ids_get_lost, "data.unattributed", 1, set(), "unattributed"),
    (text_changes, "data.token_drift", WINDOW, set(), "code"),
    (steps_slow_down, "throughput.drop", 1, set(), None),
    (loader_is_late, "throughput.data_wait", 1, set(), None),
    (rank_lags, "throughput.straggler", 1, {"throughput.drop"}, "1"),
]


@pytest.mark.parametrize(("plant", "check", "off", "beside", "label"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_planted_fault(plant: Plant, check: str, off: int, beside: set[str], label: str | None, tmp_path: Path) -> None:
    at = 226
    s = Synthetic(n=400, seed=5, ranks=2 if plant is rank_lags else 1)
    plant(s, at)
    report = run_checks(s.write(tmp_path))
    alarms = [f for f in report.findings if f.level in ("warn", "fail")]
    found = [f for f in alarms if f.check == check]
    assert found, f"{check} missed it; alarms: {[f.summary for f in alarms]}"
    first = min(found, key=lambda f: f.steps or (0, 0))
    assert first.steps is not None and abs(first.steps[0] - at) <= off, first.summary
    assert {f.check for f in alarms} <= {check, *beside}
    assert label is None or label == first.evidence[0].label
    assert len(report.incidents) == 1 and report.incidents[0].steps[0] == min(f.steps[0] for f in alarms if f.steps)
    assert report.level == max((f.level for f in alarms), key=["warn", "fail"].index)


HELD = ("router.dead", "throughput.drop")


def test_one_slow_step_is_not_the_speed_of_the_run(tmp_path: Path) -> None:
    s = Synthetic(n=300, seed=2)
    s.step_time[[90, 150, 151, 220]] *= 9
    (found,) = run_checks(s.write(tmp_path), only="throughput.drop").findings
    assert found.level == "pass" and found.statistic is not None and found.statistic.value < 1.25


def test_what_is_over_is_told_as_over(tmp_path: Path) -> None:
    s = Synthetic(n=400, seed=5)
    s.step_time[200:260] *= 1.6
    (found,) = run_checks(s.write(tmp_path), only="throughput.drop").findings
    assert not found.ongoing and "took" in found.summary and "from step 201 to" in found.summary
    assert "since" not in found.summary + found.what_to_do


@pytest.mark.parametrize("n", [60, 300])
def test_false_alarms(n: int, tmp_path: Path) -> None:
    """Healthy runs of both router sizes; the rates are printed (pytest -s)."""
    seeds = range(12)
    levels: Counter[tuple[str, str]] = Counter()
    told = []
    for seed in seeds:
        moe = {"experts": 64, "top_k": 8, "moe_layers": 2} if seed % 2 else {}
        report = run_checks(Synthetic(n=n, seed=seed, warmup=n // 10, **moe).write(tmp_path / str(seed)))
        levels.update((f.check, f.level) for f in report.findings)
        told += [f.summary for f in report.findings if f.level in ("warn", "fail")]
        for f in report.findings:
            # What a passing rule compares is on the right side of its limit.
            if f.level == "pass" and f.statistic and f.threshold and f.threshold.warn and f.check in HELD:
                beyond = f.statistic.value > f.threshold.warn
                assert beyond is (f.check == "router.dead"), f
            assert f.check != "loss.spike" or f.level == "unknown" or f.statistic is not None
    names = sorted({name for name, _ in levels})
    print(f"\nhealthy runs of {n} steps, {len(seeds)} seeds")
    for name in names:
        alarms = levels[name, "warn"] + levels[name, "fail"]
        print(f"  {name:22} alarms {alarms}/{len(seeds)}, unknown {levels[name, 'unknown']}/{len(seeds)}")
    assert told == []
