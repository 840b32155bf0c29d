"""Planned events explain what they set going, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checks import run_checks
from checks.masking import quiet, window_steps
from tests.checks.synthetic import PLAN, Synthetic
from trainvitals.store import RunWriter, open_run


def _alarms(s: Synthetic, path: Path, *names: str) -> list[tuple[str, int]]:
    report = run_checks(s.write(path), names)
    return [(f.check, f.steps[0]) for f in report.findings if f.level in ("warn", "fail") and f.steps]


def test_window_scales_with_the_run(tmp_path: Path) -> None:
    for n, width in ((300, 15), (100_000, 200), (1_000_000, 2000)):
        writer = RunWriter(tmp_path / str(n))
        card = Synthetic(n=300).card()
        card.total_steps = n
        writer.write_card(card)
        writer.event("stage_switch", step=n // 2)
        writer.close()
        run = open_run(tmp_path / str(n))
        assert window_steps(run) == width
        spans = quiet(run, "data").spans
        assert [(s.kind, s.step, s.until) for s in spans] == [("stage_switch", n // 2, n // 2 + width)]
        assert quiet(run, "throughput").spans == ()


@pytest.mark.parametrize("event", [None, "stage_switch", "checkpoint"])
def test_a_stage_switch_explains_a_new_level_of_loss(event: str | None, tmp_path: Path) -> None:
    s = Synthetic(n=400)
    s.loss[250:] *= 1.3
    s.events += [(event, 250)] if event else []
    found = _alarms(s, tmp_path, "loss.spike", "loss.divergence")
    assert (found == []) == (event == "stage_switch")


def test_a_spike_inside_the_window_is_named_not_alarmed(tmp_path: Path) -> None:
    s = Synthetic(n=600)
    s.loss[402:406] *= 1.6
    s.grad[402:404] *= 8
    s.events.append(("lr_restart", 400))
    run = s.write(tmp_path)
    explosion = next(f for f in run_checks(run, ["grad.explosion"]).findings)
    assert explosion.level == "pass"


@pytest.mark.parametrize(("begin", "lasting"), [(395, 30), (404, 120)])
def test_an_event_hides_no_fault_that_begins_elsewhere_or_lasts(begin: int, lasting: int, tmp_path: Path) -> None:
    s = Synthetic(n=600)
    s.grad[begin - 1 : begin - 1 + lasting] *= 40
    s.events.append(("checkpoint", 400))
    assert ("grad.explosion", begin) in _alarms(s, tmp_path, "grad.explosion")


def test_a_resume_excuses_speed_but_not_loss_or_rate(tmp_path: Path) -> None:
    s = Synthetic(n=400)
    s.loss[200:] *= 1.4
    s.step_time[200:] *= 1.5
    s.lr[200:] *= 2
    s.events.append(("resume", 200))
    found = dict(_alarms(s, tmp_path, "loss", "lr.plan", "throughput.drop"))
    assert found["loss.divergence"] == 201 and found["lr.plan"] == 201 and "throughput.drop" not in found


def test_checkpoints_are_no_slow_steps(tmp_path: Path) -> None:
    s = Synthetic(n=400)
    for step in range(20, 400, 3):
        s.step_time[step : step + 2] *= 4
        s.events.append(("checkpoint", step))
    assert _alarms(s, tmp_path, "throughput.drop", "throughput.data_wait") == []


@pytest.mark.parametrize("told", [True, False])
def test_a_stage_switch_brings_its_own_mix(told: bool, tmp_path: Path) -> None:
    s = Synthetic(n=400)
    new = dict(zip(PLAN, (0.2, 0.4, 0.3, 0.1), strict=True))
    s.mix[200:] = [*new.values()]
    s.write(tmp_path)
    extra = {"domains": new} if told else {}
    writer = RunWriter(tmp_path, start_step=400)
    writer.event("stage_switch", step=200, message="stage 2", **extra)
    writer.close()
    (finding,) = run_checks(open_run(tmp_path), ["data.mix"]).findings
    # Without its plan the second stage cannot be judged; the first one can.
    assert finding.level == "pass" and finding.n == 200
    s.mix[200:] = [*PLAN.values()]
    if told:
        writer = RunWriter(tmp_path / "wrong", flush_seconds=60)
        writer.event("stage_switch", step=200, **extra)
        writer.close()
        (finding,) = run_checks(s.write(tmp_path / "wrong"), ["data.mix"]).findings
        assert finding.level == "fail" and finding.steps == (201, 400) and finding.masked[0].kind == "stage_switch"


@pytest.mark.parametrize("shift", [1, -1])
def test_a_rate_one_step_off_is_named_not_alarmed(shift: int, tmp_path: Path) -> None:
    s = Synthetic(n=300)
    s.lr = s.plan.at(s.steps - shift)
    (finding,) = run_checks(s.write(tmp_path), ["lr.plan"]).findings
    assert finding.level == "pass" and finding.details["shift_steps"] == {"0": shift}
    assert f"one step {'earlier' if shift == 1 else 'later'}" in finding.summary


def test_frozen_layers_and_fp16_skips_are_no_faults(tmp_path: Path) -> None:
    s = Synthetic(n=300)
    s.grad[:, 0] = 0
    (finding,) = run_checks(s.write(tmp_path / "a"), ["grad.vanishing"]).findings
    assert finding.level == "pass" and finding.details["frozen"] == ["embed"]
    s = Synthetic(n=300)
    s.grad[5, 1] = s.grad[9, 1] = np.inf
    run = s.write(tmp_path / "b")
    run.card.precision = "fp16"
    (finding,) = run_checks(run, ["loss.nonfinite"]).findings
    assert finding.level == "pass"
    run.card.precision = "bf16"
    (finding,) = run_checks(run, ["loss.nonfinite"]).findings
    assert finding.level == "fail"
