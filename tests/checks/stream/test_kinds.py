"""Kinds of wrong answers that a judge of training runs gives, each with its right answer, through the real store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from checks import Finding, Report, run_checks
from checks.stream.book import FILE, Book, open_book
from checks.together import shared_steps, shared_words
from tests.checks.stream.logs import published, surrogate
from trainvitals.card import RunCard
from trainvitals.schedules import Plan
from trainvitals.store import Run, RunWriter, open_run


def store(path: Path, losses: Iterable[float], *, first: int = 1, spacing: int = 1, rates: Iterable[float] = (),
          norms: Iterable[float] = (), validation: Iterable[tuple[int, float]] = (), plan: Plan | None = None,
          events: Iterable[tuple[str, int]] = ()) -> Run:  # fmt: skip
    """A run of these rows."""
    writer = RunWriter(path, when_full="wait", flush_seconds=60)
    losses = list(losses)
    steps = [first + spacing * i for i in range(len(losses))]
    writer.write_card(RunCard(name="x", lr_plan=plan.to_json() if plan else {}))
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step, value in zip(steps, losses, strict=True):
        frame.append(step, {"loss/sum": value, "loss/tokens": 1})
    rate, grad = writer.frame("lr", ["lr/used"], labels={"group": ["0"]}), writer.frame("grad", ["grad/sumsq"])
    for step, value in zip(steps, rates, strict=False):
        rate.append(step, {"lr/used": [value]})
    for step, value in zip(steps, norms, strict=False):
        grad.append(step, {"grad/sumsq": value**2})
    val = writer.frame("eval", ["loss/val_sum", "loss/val_tokens"])
    for step, value in validation:
        val.append(step, {"loss/val_sum": value, "loss/val_tokens": 1})
    for kind, step in events:
        writer.event(kind, step=step)
    writer.close()
    return open_run(path)


def found(report: Report, check: str) -> Finding:
    """The worst answer of a check."""
    return next(f for f in report.findings if f.check == check)


@pytest.mark.parametrize("n", [800, 1500])
@pytest.mark.parametrize("planned", [True, False])
def test_a_warm_up_excuses_no_loss_that_is_60_percent_up(n: int, planned: bool, tmp_path: Path) -> None:
    y = surrogate(n, 1)
    y[300:] *= 1.6
    plan = Plan(kind="cosine", peak=3e-4, warmup_steps=2000, total_steps=20_000) if planned else None
    told = found(run_checks(store(tmp_path, y, plan=plan), ["loss"]), "loss.divergence")
    assert told.level == "fail" and told.ongoing and told.onset and told.onset[0] <= 301 <= told.onset[1]


def test_a_masked_rise_is_in_the_answer_and_judged_again(tmp_path: Path) -> None:
    plan = Plan(kind="cosine", peak=3e-4, warmup_steps=700, total_steps=8000)
    y = surrogate(2500, 1, 0.006)
    y[500:] *= 1.035
    inside = found(run_checks(store(tmp_path / "a", y[:690], plan=plan), ["loss"]), "loss.divergence")
    assert inside.level != "fail" and [m.kind for m in inside.masked] == ["warmup"] and "warmup" in inside.summary
    after = found(run_checks(store(tmp_path / "b", y, plan=plan), ["loss"]), "loss.divergence")
    assert after.level == "fail" and after.onset and after.onset[0] <= 501 <= after.onset[1]


def test_an_effect_beyond_the_bound_of_an_event_is_told_at_once(tmp_path: Path) -> None:
    for factor, level in ((1.3, ("pass", "unknown")), (2.5, ("fail",))):
        y = surrogate(2000, 2)
        y[1000:] *= factor
        run = store(tmp_path / str(factor), y, events=[("stage_switch", 1000)])
        told = found(run_checks(run, ["loss"]), "loss.divergence")
        assert told.level in level and (told.masked != ()) == (factor == 1.3)


def test_lone_rows_never_add_up_to_a_failure(tmp_path: Path) -> None:
    y = surrogate(3000, 3)
    y[np.random.default_rng(0).choice(np.arange(100, 3000), 12, replace=False)] *= 1.5
    report = run_checks(store(tmp_path, y), ["loss"])
    assert report.level != "fail", [f.summary for f in report.findings if f.level == "fail"]


def test_unknown_is_not_hidden_by_a_trivial_pass(tmp_path: Path) -> None:
    one = run_checks(store(tmp_path / "one", [2.5]), ["loss"])
    assert one.level == "unknown" and one.answer_json()["areas"]["loss"]["answered"] < one.verdicts["loss"].asked
    y = surrogate(23, 4, 0.02)
    y[12:] *= 3
    three = run_checks(store(tmp_path / "three", y), ["loss"])
    assert three.level == "fail"


def test_a_fall_in_one_row_is_told_unless_the_rate_falls(tmp_path: Path) -> None:
    y = surrogate(1500, 5)
    y[900:] *= 0.7
    told = found(run_checks(store(tmp_path / "leak", y), ["loss"]), "loss.fall")
    assert told.level == "fail" and told.steps and told.steps[0] == 901
    y = surrogate(1500, 5)
    y[900:] *= 0.95
    rates = np.where(np.arange(1500) < 900, 3e-4, 9e-5)
    planned = found(run_checks(store(tmp_path / "drop", y, rates=rates), ["loss"]), "loss.fall")
    assert planned.level == "pass" and planned.masked[0].kind == "rate_falls" and "rate falls" in planned.summary


def test_a_flat_loss_is_a_plateau(tmp_path: Path) -> None:
    y = surrogate(9000, 6, 0.01)
    rng = np.random.default_rng(0)
    y[2000:] = y[1900:2000].mean() * np.exp(0.01 * rng.standard_t(6, 7000))
    told = found(run_checks(store(tmp_path, y), ["loss"]), "loss.plateau")
    assert told.level == "warn" and told.onset and told.onset[0] <= 2001 <= told.onset[1] and told.ongoing
    healthy = found(run_checks(store(tmp_path / "h", surrogate(9000, 6, 0.01)), ["loss"]), "loss.plateau")
    assert healthy.level == "pass"


def test_the_same_number_500_times(tmp_path: Path) -> None:
    y = surrogate(1400, 7)
    y[700:1200] = y[700]
    told = found(run_checks(store(tmp_path, y), ["loss"]), "loss.repeats")
    assert told.level == "fail" and told.steps == (701, 1200)
    coarse = found(run_checks(store(tmp_path / "c", np.round(surrogate(1400, 7), 1)), ["loss"]), "loss.repeats")
    assert coarse.level == "unknown"


def test_validation_leaves_training(tmp_path: Path) -> None:
    y = surrogate(8000, 8)
    calm = surrogate(8000, 8, 1e-5)
    rng = np.random.default_rng(1)
    points = [(s, calm[s - 1] * 1.01 * np.exp(0.003 * rng.standard_normal())) for s in range(200, 8001, 200)]
    run = store(tmp_path / "h", y, validation=points)
    healthy = found(run_checks(run, ["loss"]), "loss.validation")
    assert healthy.level == "pass", healthy.summary
    worse = [(s, v * (1.08 if s > 5000 else 1.0)) for s, v in points]
    told = found(run_checks(store(tmp_path / "w", y, validation=worse), ["loss"]), "loss.validation")
    assert told.level == "fail" and told.onset and told.onset[0] <= 5200 <= told.onset[1]


def test_rates_printed_with_six_decimals_are_no_fault(tmp_path: Path) -> None:
    plan = Plan(kind="cosine", peak=3e-4, final=3e-7, warmup_steps=100, total_steps=3000)
    rates = np.round(plan.at(np.arange(1, 3001)), 6)
    report = run_checks(store(tmp_path, surrogate(3000, 9), rates=rates, plan=plan), ["optimisation"])
    assert found(report, "lr.plan").level == "pass" and found(report, "lr.jump").level == "pass"
    wrong = rates.copy()
    wrong[1500:] = np.round(1.5 * rates[1500:], 6)
    report = run_checks(store(tmp_path / "w", surrogate(3000, 9), rates=wrong, plan=plan), ["optimisation"])
    assert found(report, "lr.plan").level == "fail"


def test_a_rate_that_jumps_without_a_plan_is_the_cause(tmp_path: Path) -> None:
    y, rates = surrogate(2000, 10), np.full(2000, 2e-4)
    rng = np.random.default_rng(5)
    norms = np.exp(0.1 * rng.standard_normal(2000))
    rates[1200:] *= 3
    norms[1200:1240] *= 30
    y[1201:] *= 1.2
    report = run_checks(store(tmp_path, y, rates=rates, norms=norms), ["loss", "optimisation"])
    (incident,) = report.incidents
    assert incident.order[0].check == "lr.jump" and incident.order[0].step == 1201
    assert incident.summary.startswith("The learning rate")
    warm = Plan(kind="cosine", peak=1e-3, warmup_steps=200, total_steps=2000).at(np.arange(1, 2001))
    calm = run_checks(store(tmp_path / "w", surrogate(2000, 10), rates=warm), ["lr.jump"])
    assert calm.level == "pass"


def test_a_gradient_that_came_back_has_not_vanished(tmp_path: Path) -> None:
    norms = np.exp(0.15 * np.random.default_rng(6).standard_normal(2500))
    norms[900:1300] *= 40
    report = run_checks(store(tmp_path, surrogate(2500, 11), norms=norms), ["optimisation"])
    assert found(report, "grad.vanishing").level == "pass"
    rose = found(report, "grad.explosion")
    assert rose.level == "fail" and not rose.ongoing and rose.steps and rose.steps[0] == 901


def test_a_layer_whose_weights_stand_still(tmp_path: Path) -> None:
    """Every layer moves less as the rate falls; one stops."""
    rng = np.random.default_rng(9)
    ratios = 1e-3 * np.exp(0.1 * rng.standard_normal((60, 4))) * np.linspace(1, 0.1, 60)[:, None]
    for name, stopped in (("healthy", False), ("frozen", True)):
        writer = RunWriter(tmp_path / name, when_full="wait", flush_seconds=60)
        names = ["update/sumsq_by_layer", "weight/sumsq_by_layer"]
        frame = writer.frame("update", names, labels={"layer": list("abcd")})
        for i in range(60):
            moved = ratios[i] * [1, 1, 0.003 if stopped and i >= 35 else 1, 1]
            frame.append(50 * (i + 1), {"update/sumsq_by_layer": moved**2, "weight/sumsq_by_layer": np.ones(4)})
        writer.close()
        told = found(run_checks(open_run(tmp_path / name), ["update.stopped"]), "update.stopped")
        assert told.level == ("fail" if stopped else "pass"), told.summary
        assert not stopped or (told.evidence[0].label == "c" and told.steps and abs(told.steps[0] - 1800) <= 50)


def test_the_same_rows_are_judged_alike_at_any_spacing(tmp_path: Path) -> None:
    y = surrogate(400, 12)
    y[300:303] *= 1.4
    levels = {run_checks(store(tmp_path / str(k), y, spacing=k), ["loss"]).level for k in (1, 100)}
    assert len(levels) == 1


def test_one_data_order_names_the_data(tmp_path: Path) -> None:
    runs = []
    for seed in range(4):
        y = surrogate(1500, 20 + seed)
        y[[700, 950]] *= 1.3
        runs.append(store(tmp_path / str(seed), y))
    told = shared_steps(runs)
    assert [t["step"] for t in told] == [701, 951] and told[0]["runs"] == [0, 1, 2, 3]
    assert "data" in shared_words(told)
    assert shared_steps([store(tmp_path / f"o{s}", surrogate(1500, 40 + s)) for s in range(2)]) == []


@pytest.mark.skipif(not published(), reason="the published curves are not beside the checkout")
def test_published_twins_share_their_steps(tmp_path: Path) -> None:
    names = ["nanogpt_train_one_seed", "nanogpt_valueembed_seed_b", "nanogpt_valueembed_seed_c"]
    runs = [store(tmp_path / str(i), published()[name]) for i, name in enumerate(names)]
    assert {918, 946} <= {t["step"] for t in shared_steps(runs)}


def test_one_more_look_reads_on_from_what_was_kept(tmp_path: Path) -> None:
    y = surrogate(1200, 13)
    y[600:] *= 1.2
    whole = run_checks(store(tmp_path / "whole", y), ["loss"])
    writer = RunWriter(tmp_path / "live", when_full="wait", flush_seconds=0.01)
    writer.write_card(RunCard(name="x"))
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step, value in enumerate(y, 1):
        frame.append(step, {"loss/sum": value, "loss/tokens": 1})
        if step in (500, 900):
            writer.flush()
            run_checks(open_run(tmp_path / "live"), ["loss"])
    writer.close()
    assert (tmp_path / "live" / "judge" / FILE).is_file()
    kept = Book.unpacked((tmp_path / "live" / "judge" / FILE).read_bytes())
    series = kept.one("loss/train")
    assert series is not None and 400 < series.rows <= 900
    last = run_checks(open_run(tmp_path / "live"), ["loss"])
    assert [f.summary for f in last.findings] == [f.summary for f in whole.findings]


def test_a_kept_state_that_is_damaged_or_of_other_rows_is_not_used(tmp_path: Path) -> None:
    y = surrogate(500, 14)
    run_checks(store(tmp_path, y), ["loss"])
    file = tmp_path / "judge" / FILE
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(bytes(data))
    assert Book.unpacked(bytes(data)).series == {}
    assert open_book(open_run(tmp_path)).one("loss/train").rows == 500  # type: ignore[union-attr]
    # A restart from step 300 with other rows: what was read of the first attempt is no longer the record.
    other = surrogate(500, 15)
    writer = RunWriter(tmp_path, start_step=300, when_full="wait")
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step in range(301, 501):
        frame.append(step, {"loss/sum": other[step - 1], "loss/tokens": 1})
    writer.close()
    again = open_book(open_run(tmp_path)).one("loss/train")
    whole = open_book(store(tmp_path / "w", [*y[:300], *other[300:]])).one("loss/train")
    assert again is not None and whole is not None and again.packed() == whole.packed()


def test_a_pass_names_what_it_looked_at_and_a_dozen_rows_allow_none(tmp_path: Path) -> None:
    few = store(tmp_path / "few", surrogate(12, 3), norms=np.full(12, 0.5))
    report = run_checks(few, ["loss.fall", "loss.divergence", "grad.vanishing"])
    assert found(report, "loss.fall").level == found(report, "loss.divergence").level == "unknown"
    kept = found(report, "grad.vanishing")
    assert kept.level != "pass" or "over 12 rows; that of each was not logged" in kept.summary


def test_losses_of_named_evaluation_sets_are_judged_each(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait", flush_seconds=60)
    sets = writer.frame("eval_sets", ["loss/val_set_sum", "loss/val_set_tokens"], labels={"eval_set": ["web", "code"]})
    rise = np.linspace(0, 0.5, 60) * (np.arange(60) >= 30)
    for i in range(60):
        calm = 3.0 - 0.002 * i + 0.001 * (i % 3)
        sets.append(50 * (i + 1), {"loss/val_set_sum": [calm, calm + rise[i]], "loss/val_set_tokens": [1, 1]})
    writer.close()
    told = [f for f in run_checks(open_run(tmp_path), ["loss.validation"]).findings if f.check == "loss.validation"]
    assert {(f.level, "code" in f.summary) for f in told} == {("fail", True), ("pass", False)}


def test_a_spike_is_no_plateau(tmp_path: Path) -> None:
    i = np.arange(1, 401)
    y = 2.5 + 3 / np.sqrt(i) + 0.02 * np.random.default_rng(0).standard_normal(400)
    y[299:309] += 2.0
    told = found(run_checks(store(tmp_path, y), ["loss.plateau"]), "loss.plateau")
    assert told.level != "warn"
