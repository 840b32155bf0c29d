"""The forecast of a final loss: right where it can be, `unknown` where it cannot, and its band held to account."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from checks.scaling import forecast_log
from checks.scaling._rates import answered, is_gradual, phase, rises_again, warmup_end
from checks.scaling.backtest import ERRORS_AT_90, Past, band
from checks.scaling.curve import Curve, read_curve, read_schedule
from checks.scaling.forecast import Forecast, forecast
from checks.scaling.forecast_command import forecast as command
from tests.checks.synthetic import Synthetic
from tests.scaling.curves import FITTED, OTHERS, path_of, plan, public, simulated, truth, write_csv
from trainvitals.errors import RunNotFound, UsageError
from trainvitals.schedules import Plan

COSINE, WSD = plan("cosine", 12000), plan("wsd", 12000, decay_steps=2400)
FLAT = plan("constant", 12000)
SIBLINGS = [
    simulated(plan("cosine", 6000), seed=8, name="short_cosine"),
    simulated(plan("constant", 6000), seed=9, name="short_constant"),
]


def test_schedules_come_from_plans_files_and_json(tmp_path: Path) -> None:
    curve = simulated(COSINE).until(4000)
    spec = read_schedule("cosine:total=12000,warmup=500,peak=3e-4,final=3e-5", curve)
    assert np.allclose(spec, COSINE)
    assert np.allclose(read_schedule("cosine:total=12000,final=3e-5", curve), COSINE, rtol=0.01)
    raw = '{"kind": "cosine", "peak": 3e-4, "final": 3e-5, "warmup_steps": 500, "total_steps": 12000}'
    assert np.allclose(read_schedule(raw, curve), COSINE)
    table = tmp_path / "plan.csv"
    rows = [f"{s},{COSINE[s - 1]}," for s in [*range(1, 12000, 7), 12000]]
    table.write_text("step,lr,loss\n" + "\n".join(rows))
    assert np.allclose(read_schedule(str(table), curve), COSINE, rtol=0, atol=1e-6)


def test_a_file_may_hold_the_rate_of_the_future(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("step,lr,loss\n" + "\n".join(f"{s},{1e-4 * s},{'' if s > 5 else 9 - s}" for s in range(1, 11)))
    curve = read_curve(path)
    assert curve.last_step == 5 and len(curve.rates) == 5 and np.allclose(curve.future, 1e-4 * np.arange(1, 11))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("step,lr\n1,2\n", "no column for the loss"),
        ("step,loss\n1,2\n1,3\n", "Line 3 of .*: step 1 comes after step 1"),
        ("step,loss\n1,x\n", "Line 2 of .* has 'x' in column 'loss', which is not a number"),
        ("step,loss\n,2\n", "the step is missing"),
        ("step,loss\n", "no rows"),
        ("step,loss\n1,\n", "no loss in any row"),
        ("step,loss\n1,3\n1e12,2\n", "tokens are not steps"),
        ("step,loss\n1.2,3\n1.5,2\n1.9,1\n", "Line 2 of .*: step 1.2 is no whole number"),
        ("step,loss\n\n1,3\n , \n2,3\n3,x\n", "Line 6 of .* 'x' in column 'loss'"),
        ("\nstep,loss\n\n2,3\n\n1,3\n", "Line 6 of .*: step 1 comes after step 2"),
        ("step,loss\n1,3\n\n,3\n", "Line 4 of .*: the step is missing"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_curve(path)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("sawtooth:total=9", "neither a file nor a plan"),
        ("cosine:warmup=10", "needs total_steps"),
        ("wsd:total=9000", "needs decay_steps"),
        ("cosine:total=many", "is not one of total=NUMBER"),
        ("cosine:length=9", "is not one of total=NUMBER"),
        ("{}", "its kind is None"),
        ("{", "is not JSON"),
        ("cosine:total=100", "beyond its warmup"),
        ("wsd:total=9000,decay=9000", "longer than its 9,000 steps"),
        ("cosine:total=9000,total=9001", "given twice"),
        ("cosine:total=9000.5", "no whole number"),
        ("cosine:total=9000,final=1", "above the peak"),
        ("cosine:total=9000,peak=0", "needs a peak above zero"),
        ('{"kind": "cosine", "peak": 1, "total_steps": "x"}', "total_steps must be a whole number"),
        ('{"kind": "cosine", "peak": "x", "total_steps": 9000}', "peak must be a number"),
        ('{"kind": "cosine", "peak": NaN, "total_steps": 9000}', "peak must be a number"),
        ('{"kind": "cosine", "peak": true, "total_steps": 9000}', "peak must be a number"),
        (f'{{"kind": "cosine", "peak": {10**400}, "total_steps": 9000}}', "a whole number of"),
        ('{"kind": "cosine", "total_steps": 9000, "warmup_steps": 1.5}', "warmup_steps must be a whole number"),
        ('{"kind": "cosine", "length": 9000}', "no key 'length'"),
        ('{"kind": ["wsd"], "total_steps": 9000}', "Use constant, linear, cosine, wsd or table"),
        ('{"kind": "cosine"}', "needs total_steps"),
        ('{"kind": "table", "steps": 9000, "rates": [1]}', "steps must be a list of whole numbers"),
        ('{"kind": "table", "steps": [1, 9000], "rates": [0, 0]}', "no rate above zero"),
        ('{"a":' * 100_000, "nested deeper"),
    ],
)
def test_bad_schedules_are_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_schedule(spec, simulated(COSINE))


def test_a_json_plan_takes_what_it_leaves_out_from_the_curve(tmp_path: Path) -> None:
    curve = simulated(COSINE).until(4000)
    path = tmp_path / "plan.json"
    path.write_text('\ufeff{"kind": "cosine", "total_steps": 12000, "final": 3e-5}', encoding="utf-8")
    assert np.array_equal(read_schedule(str(path), curve), read_schedule("cosine:total=12000,final=3e-5", curve))
    path.write_bytes(b'{"kind": "cosine\xff"}')
    with pytest.raises(UsageError, match="plan.json is not JSON in UTF-8"):
        read_schedule(str(path), curve)


@pytest.mark.parametrize(
    "plan", [{"peak": float("nan")}, {"peak": float("inf")}, {"final": -1.0}, {"total_steps": 10**400}, {"peak": "x"},
             {"steps": 5}, {"kind": "table", "steps": [1, 2], "rates": [1.0, float("nan")]}],
)
def test_plans_of_run_cards_are_finite_or_one_sentence(plan: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Plan.from_json({"kind": "cosine", "peak": 1.0, "total_steps": 9} | plan)


def test_a_phase_is_what_of_its_anneal_a_run_has_behind_it() -> None:
    assert [phase(WSD, now) for now in (0, 9600, 9700)] == ["decay not seen", "decay not seen", "decay under way"]
    assert phase(COSINE, 6000) == "gradual" and phase(FLAT, 6000) == "constant"


def test_a_decay_at_a_size_never_tested_is_unknown() -> None:
    """A decay buys more, and the plain law misses more of it, as models grow; sizes never tested are no forecast."""
    early = replace(simulated(WSD, seed=3).until(6000), params=7e9)
    told = forecast(early, WSD, SIBLINGS)
    assert told.level == "unknown" and "tested on" in told.reason
    assert forecast(replace(early, params=3e8), WSD, SIBLINGS).level == "pass"
    assert forecast(replace(simulated(COSINE).until(9000), params=7e9), COSINE).level == "pass"


@pytest.mark.parametrize("size", [25, 100])
def test_decays_of_public_runs_are_told_from_a_cosine_and_a_constant_rate(size: int) -> None:
    """With the plain sum of the rates the 100M run's decay was promised .015 more than it bought."""
    beside = [public(size, "cosine_24000"), public(size, "constant_24000")]
    for name in ("wsd_20000_24000", "wsdld_20000_24000"):
        whole = public(size, name)
        for share in (0.6, 0.87):
            told = forecast(whole.until(int(share * whole.last_step)), whole.rates, beside)
            assert told.final_loss is not None and told.interval is not None, told.reason
            assert abs(told.final_loss - whole.losses[-1]) < 0.008
            assert told.interval[0] <= whole.losses[-1] <= told.interval[1]


def test_a_pass_says_what_it_rests_on() -> None:
    told = forecast(replace(simulated(COSINE).until(9000), unit="bits/byte"), COSINE, SIBLINGS)
    assert "bits per byte" in told.reason and "rows and 2 siblings; phase: gradual" in told.reason
    assert told.to_json()["phase"] == "gradual" and told.to_json()["unit"] == "bits/byte"
    assert "in the unit of its losses" in forecast(simulated(COSINE).until(9000), COSINE).reason


def test_schedules_are_read_for_what_they_do() -> None:
    assert warmup_end(COSINE) == pytest.approx(500, abs=1) and rises_again(COSINE) is None and is_gradual(COSINE)
    assert not is_gradual(WSD) and not is_gradual(plan("constant", 900))
    again = np.concatenate([COSINE[:8000], plan("linear", 4000)])
    assert 8000 < (rises_again(again) or 0) < 8200
    assert answered(WSD, 9600, 0.025) == 0 and answered(WSD, 10000, 0.025) < 0.1 < answered(WSD, 11000, 0.025)


def _noisy(curve: Curve, **changes: object) -> Curve:
    return replace(curve, **changes)  # type: ignore[arg-type]


def _climbing() -> Curve:
    curve = simulated(COSINE).until(9000)
    losses = curve.losses.copy()
    losses[-20:] *= 1.06
    return _noisy(curve, losses=losses)


def _spiky() -> Curve:
    curve = simulated(COSINE).until(9000)
    return _noisy(curve, losses=np.append(curve.losses[:-1], 2 * curve.losses[-1]))


def _with_nan() -> Curve:
    curve = simulated(COSINE).until(9000)
    return _noisy(curve, losses=np.append(curve.losses[:-1], np.nan))


def _ramped() -> Curve:
    curve = simulated(COSINE).until(9000)
    return _noisy(curve, tokens=np.cumsum(np.where(curve.steps < 3000, 1e5, 4e5)))


RESTART = np.concatenate([COSINE[:6000], plan("linear", 6000)])

UNIDENTIFIABLE = {
    "wsd before its decay": (simulated(WSD).until(9000), WSD, "hardly fallen"),
    "wsd at the first steps of its decay": (simulated(WSD).until(9700), WSD, "hardly fallen"),
    "cosine under 30 %": (simulated(COSINE).until(3500), COSINE, "too little to tell"),
    "too few points": (simulated(COSINE, every=900).until(9000), COSINE, "usable rows"),
    "warm-up only": (simulated(COSINE, every=10).until(490), COSINE, "still in its warm-up"),
    "restart ahead": (simulated(RESTART).until(5000), RESTART, "rises again"),
    "batch ramp": (_ramped(), COSINE, "batch grows"),
    "diverging": (_climbing(), COSINE, "diverging"),
    "spike at the end": (_spiky(), COSINE, "spike"),
    "not finite": (_with_nan(), COSINE, "not finite"),
    "constant, too early": (simulated(FLAT).until(2000), FLAT, "without siblings"),
}


@pytest.mark.parametrize("case", UNIDENTIFIABLE, ids=lambda c: c.replace(" ", "_"))
def test_what_is_not_identifiable_is_unknown(case: str) -> None:
    curve, rates, says = UNIDENTIFIABLE[case]
    told = forecast(curve, rates)
    assert told.level == "unknown" and told.final_loss is None and told.interval is None
    assert says in told.reason and told.what_to_do != "Nothing."


@pytest.mark.parametrize("scatter", [0.02, 0.07])
def test_small_batches_that_scatter_are_no_divergence(scatter: float) -> None:
    final = truth(COSINE, np.array([12000]))[0]
    curve = simulated(COSINE, every=40).until(11000)
    told = []
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, scatter, len(curve.losses))
        told.append(forecast(_noisy(curve, losses=curve.losses * (1 + noise)), COSINE))
    assert not [t.reason for t in told if "diverging" in t.reason or "spike" in t.reason]
    inside = [t.interval[0] <= final <= t.interval[1] for t in told if t.interval]
    print(f"{scatter:.0%} of scatter: {len(inside)} of 20 answered, {sum(inside)} inside the 90 % band")
    assert sum(inside) >= 0.85 * len(inside)
    assert len(inside) == 20 or scatter > 0.05


def test_siblings_make_an_anneal_identifiable_that_nobody_has_seen() -> None:
    early = simulated(WSD, seed=3).until(6000)
    told = forecast(early, WSD, SIBLINGS)
    assert told.level == "pass" and told.final_loss == pytest.approx(truth(WSD, np.array([12000]))[0], abs=0.01)
    assert forecast(early, WSD, SIBLINGS[1:]).level == "unknown"  # a constant rate shows no anneal
    other = _noisy(SIBLINGS[0], losses=1.1 * SIBLINGS[0].losses, name="larger")
    told = forecast(early, WSD, [other])
    assert told.level == "unknown" and "No one law" in told.reason


def test_levels_follow_the_target() -> None:
    curve = simulated(COSINE).until(8000)
    low, high = forecast(curve, COSINE).interval or (0, 0)
    levels = [forecast(curve, COSINE, target=t).level for t in (high + 0.01, (low + high) / 2, low - 0.01)]
    assert levels == ["pass", "warn", "fail"]


def test_the_run_of_another_schedule_is_named_as_such() -> None:
    told = forecast(simulated(COSINE), WSD, SIBLINGS)
    assert "Another run" in told.reason and told.trained_share == 0
    assert told.final_loss == pytest.approx(truth(WSD, np.array([12000]))[0], abs=0.01)


@pytest.mark.parametrize("beside", [[], SIBLINGS[1:]], ids=["alone", "beside a steady sibling"])
def test_another_run_is_not_told_what_an_anneal_buys_that_nobody_has_seen(beside: list[Curve]) -> None:
    steady = simulated(FLAT)
    for rates in (COSINE, WSD):
        told = forecast(steady, rates, beside)
        assert told.level == "unknown" and "seen its own fall half as far" in told.reason
        assert "--siblings" in told.what_to_do
        # Rates that were planned and not lived are no anneal either.
        told = forecast(replace(simulated(WSD).until(9000), name="cut"), rates[:11000] * 0.9, beside)
        assert told.level == "unknown" and "seen its own fall half as far" in told.reason
        assert forecast(steady, rates, [*beside, SIBLINGS[0]]).level == "pass"
    assert forecast(steady, plan("constant", 12000, peak=2e-4), beside).level == "pass"
    shallow = simulated(plan("cosine", 12000, final=2e-4))
    assert forecast(shallow, WSD, beside).level == "unknown"
    assert forecast(simulated(COSINE), WSD, beside).level == "pass"


def test_another_schedule_of_a_public_steady_run_is_unknown() -> None:
    """The annealing law says 3.298 without siblings; the cosine run ended at 3.204."""
    steady, cosine = public(25, "constant_72000"), public(25, "cosine_72000")
    assert forecast(steady, cosine.rates).level == "unknown"
    told = forecast(steady, cosine.rates, [public(25, "cosine_24000")])
    assert told.interval is not None and told.interval[0] <= cosine.losses[-1] <= told.interval[1]


def test_three_public_curves_tell_the_other_schedules() -> None:
    """`python -m benchmarks.forecast_backtest` for 25M: a curve that has annealed may answer for another run."""
    known = [public(25, name) for name in FITTED]
    errors = []
    for name in OTHERS:
        whole = public(25, name)
        told = forecast(known[0], whole.rates, known[1:])
        assert told.final_loss is not None, told.reason
        errors.append(abs(told.final_loss - whole.losses[-1]))
    assert np.mean(errors) == pytest.approx(0.0051, abs=5e-4)


def test_a_bad_backtest_widens_the_band() -> None:
    good = [Past("a", 1, 2, 0.004, 0.01) for _ in range(6)]
    bad = [Past("a", 1, 2, 0.04, 0.01) for _ in range(6)]
    assert band(0.01, good).half_width == ERRORS_AT_90 * 0.01 < band(0.01, bad).half_width
    assert band(0.01, bad).inside == 0 and band(0.01, good).inside == 6


def test_the_band_holds_in_simulations_of_known_truth() -> None:
    """Truth is the law itself, so only noise misleads: the band may be wide here, never narrow."""
    inside = total = 0
    for seed in range(8):
        kind = ("cosine", "constant", "linear", "wsd")[seed % 4]
        rates = plan(kind, 10000, decay_steps=3000 if kind == "wsd" else 0)
        end = truth(rates, np.array([10000]))[0]
        for share in (0.45, 0.8):
            told = forecast(simulated(rates, seed=seed, noise=0.01).until(int(10000 * share)), rates)
            if told.interval:
                total += 1
                inside += told.interval[0] <= end <= told.interval[1]
    print(f"\nsimulated: {inside} of {total} inside the 90 % band")
    assert total >= 12 and inside / total >= 0.85


def test_the_band_holds_on_public_curves() -> None:
    """A few of the forecasts that `python -m benchmarks.forecast_backtest` makes: that one counts them all."""
    inside = total = 0
    siblings = [public(100, "cosine_24000"), public(100, "constant_24000")]
    for name in ("cosine_72000", "constant_72000", "wsd_20000_24000", "wsdcon_3", "wsdld_20000_24000"):
        whole = public(100, name)
        for share, beside in ((0.35, siblings), (0.93, [])):
            told = forecast(whole.until(int(share * whole.last_step)), whole.rates, beside)
            assert told.interval is not None, told.reason
            total += 1
            inside += told.interval[0] <= whole.losses[-1] <= told.interval[1]
    print(f"\npublic curves: {inside} of {total} inside the 90 % band")
    assert inside >= 8


def _asked(*args: str) -> Result:
    return CliRunner().invoke(command, list(args))


def test_command_line(tmp_path: Path) -> None:
    curve, a, b = (tmp_path / f"{n}.csv" for n in "rab")
    write_csv(curve, simulated(WSD, seed=3).until(6000))
    write_csv(a, SIBLINGS[0])
    write_csv(b, SIBLINGS[1])
    spec = "wsd:total=12000,warmup=500,peak=3e-4,final=3e-5,decay=2400"
    done = _asked(str(curve), "--siblings", str(a), str(b), "--schedule", spec, "--json")
    told = json.loads(done.output)
    assert done.exit_code == 0 and told["level"] == "pass" and told["siblings"] == ["a.csv", "b.csv"]
    assert told["interval"][0] < told["final_loss"] < told["interval"][1] and told["trained_share"] == 0.5
    assert set(told["alternatives"]) == {"multi_power", "step_power"}
    alone = _asked(str(curve), "--schedule", spec, "--json")
    assert alone.exit_code == 3 and json.loads(alone.output)["final_loss"] is None
    blind = _asked(str(curve), "--json")
    assert blind.exit_code == 3 and "--schedule" in json.loads(blind.output)["what_to_do"]
    assert "hardly fallen" in _asked(str(curve), "--schedule", spec).output
    write_csv(b, SIBLINGS[1], rates=False)
    broken = _asked(str(curve), "--siblings", str(b), "--schedule", spec)
    assert isinstance(broken.exception, UsageError) and "no lr column" in str(broken.exception)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["{folder}"], RunNotFound, "holds no run"),
        (["{curve}", "--siblings", "{folder}", "--schedule", "constant:total=9000"], RunNotFound, "holds no run"),
        (["{curve}", "--siblings"], UsageError, "names no curve"),
        (["{curve}", "--siblings", "--json"], UsageError, "names no curve"),
        (["--siblings", "{curve}", "{curve}"], UsageError, "Put CURVE before --siblings"),
    ],
)
def test_wrong_paths_are_one_sentence(tmp_path: Path, words: list[str], error: type[UsageError], says: str) -> None:
    curve = write_csv(tmp_path / "run.csv", SIBLINGS[0])
    (tmp_path / "runs").mkdir()
    done = _asked(*(word.format(curve=curve, folder=tmp_path / "runs") for word in words))
    assert type(done.exception) is error and says in str(done.exception)


def test_a_curve_that_is_just_missing_is_said_to_be() -> None:
    assert "Missing argument 'CURVE'" in _asked().output


def test_a_log_without_rates_takes_them_from_the_schedule(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", simulated(COSINE).until(8000), rates=False)
    spec = "cosine:total=12000,warmup=500,peak=3e-4,final=3e-5"
    told = json.loads(_asked(str(path), "--schedule", spec, "--json").output)
    assert told["final_loss"] == pytest.approx(truth(COSINE, np.array([12000]))[0], abs=0.01)


def test_forecasts_are_kept_and_scored(tmp_path: Path) -> None:
    run = Synthetic(n=300, warmup=20).write(tmp_path)
    end = float(np.mean(run.array("loss/train").values[-5:]))
    made = Forecast(level="pass", reason="", final_loss=end + 0.1, interval=(end, end + 0.2), last_step=150,
                    total_steps=300)
    assert forecast_log.keep(run, made)
    assert not forecast_log.keep(run, replace(made, last_step=152))  # within a percent of the run
    assert not forecast_log.keep(run, replace(made, last_step=200, final_loss=None, interval=None, level="unknown"))
    assert forecast_log.keep(run, replace(made, last_step=250, interval=(end + 0.01, end + 0.2)))
    (tmp_path / "forecasts" / "step-000000999.json").write_text("{")
    early, late = forecast_log.past(run)
    assert early.error == pytest.approx(0.1) and early.inside and late.inside is False
    going_on = forecast_log.score(run, [replace(early, total_steps=900, error=None, inside=None)])
    assert going_on[0].error is None


def test_the_real_run_of_another_lab() -> None:
    """llm.c's 124M run, per step and noisy, linear decay to zero: none of its rows took part in any calibration."""
    path = path_of(25, "cosine_24000").parents[1] / "llmc_124m_main.log"
    words = [line.split() for line in path.read_text().splitlines() if " trl:" in line]
    steps, losses, rates = (np.array([float(w[i].split(":")[1]) for w in words]) for i in range(3))
    at = steps.astype(np.int64) + 1
    dense = np.interp(np.arange(1, at[-1] + 1), at, rates)
    end = losses[-200:].mean()
    for share in (0.4, 0.6, 0.9):
        told = forecast(Curve("llmc", at, losses, dense).until(int(share * at[-1])), dense)
        assert told.final_loss is not None and told.interval is not None
        print(f"\n{share:.0%}: {told.final_loss - end:+.4f}, band +-{(told.interval[1] - told.interval[0]) / 2:.4f}")
        assert abs(told.final_loss - end) < 0.015 and told.interval[0] <= end <= told.interval[1]


def test_one_public_curve_alone_asked_for_another_schedule_is_unknown_or_wide_enough() -> None:
    names = ("cosine_24000", "cosine_72000", "constant_72000", "wsd_20000_24000", "wsdcon_9")
    told = {(a, b): forecast(public(25, a), public(25, b).rates) for a in names for b in names if a != b}
    answered = {pair: t.interval for pair, t in told.items() if t.interval is not None}
    inside = sum(low <= public(25, b).losses[-1] <= high for (_, b), (low, high) in answered.items())
    print(f"\none curve alone: {inside} of {len(answered)} inside, {len(told) - len(answered)} unknown")
    assert not [pair for pair in answered if pair[0] == "constant_72000"], "it has seen no anneal"
    assert len(answered) >= 10 and inside >= 0.9 * len(answered)
