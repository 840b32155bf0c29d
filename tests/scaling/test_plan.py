"""Plans, and the two commands as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from checks.scaling.command import read_fit, scaling
from checks.scaling.fit import fit_ladder
from checks.scaling.plan import budget, deviations, plan_fit, plan_reference
from checks.scaling.reference import REFERENCES, reference
from tests.scaling.ladders import TRUTH, simulated
from trainvitals.errors import UsageError


def call(*args: object) -> Result:
    result = CliRunner().invoke(scaling, [str(a) for a in args])
    if isinstance(result.exception, UsageError):
        return result
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def strict(text: str) -> dict[str, object]:
    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    runs = simulated(np.random.default_rng(0))
    path = tmp_path / "ladder.csv"
    pd.DataFrame({"params": runs.n, "tokens": runs.d, "val_loss": runs.loss}).to_csv(path, index=False)
    return path


def test_fit_then_plan(table: Path, tmp_path: Path) -> None:
    done = call("fit", table, "--bootstrap", 200, "--flops", "1e23", "--json")
    assert done.exit_code == 0
    found = strict(done.stdout)
    assert {"E", "A", "B", "alpha", "beta", "objective", "intervals", "consensus", "identifiable"} <= found.keys()
    assert found["identifiable"] is True and found["level"] == "pass"
    (tmp_path / "fit.json").write_text(done.stdout)
    done = call("plan", "--flops", "1e22", "--fit", tmp_path / "fit.json", "--json")
    assert done.exit_code == 0
    plan = strict(done.stdout)
    best = TRUTH.optimum(1e22)
    assert plan["N"] == pytest.approx(float(best.n), rel=0.2)
    assert plan["interval"][0] < float(best.loss) < plan["interval"][1]  # type: ignore[index]
    assert plan["N"] * plan["D"] * 6 == pytest.approx(1e22)  # type: ignore[operator]
    assert "95 %" in call("fit", table, "--bootstrap", 200).stdout
    assert "wasted" in call("plan", "--flops", "1e22", "--fit", tmp_path / "fit.json").stdout


def test_a_fit_that_determines_nothing_plans_nothing(tmp_path: Path) -> None:
    runs = simulated(np.random.default_rng(0), sizes=20, multipliers=(20.0,))
    plan = plan_fit(fit_ladder(runs, resamples=100), budget(flops=1e22))
    assert plan.level == "unknown" and "tokens per parameter" in plan.summary
    json.dumps(plan.to_json(), allow_nan=False)
    path = tmp_path / "few.csv"
    few = simulated(np.random.default_rng(0), sizes=3, multipliers=(5.0, 50.0))
    pd.DataFrame({"N": few.n, "D": few.d, "loss": few.loss}).to_csv(path, index=False)
    done = call("fit", path, "--bootstrap", 100, "--json")
    assert done.exit_code == 3 and strict(done.stdout)["level"] == "unknown"


def test_far_beyond_the_backtest_is_a_warning_and_a_wider_band() -> None:
    fit = fit_ladder(simulated(np.random.default_rng(0)), resamples=100)
    near, far = (plan_fit(fit, budget(flops=fit.largest_flops * r)) for r in (5, 1e6))
    assert (near.level, far.level) == ("pass", "warn")
    assert near.band is not None and far.band is not None and far.band > near.band


def test_the_band_holds_for_ladders_of_a_dozen_runs() -> None:
    """Pairs of a small backtest are few runs seen many times: without a correction the band held .82 at 30 times."""
    inside = []
    for seed in range(40):
        runs = simulated(np.random.default_rng(seed), sizes=6, multipliers=(10.0, 40.0), noise=0.003)
        plan = plan_fit(fit := fit_ladder(runs, resamples=0), budget(flops=30 * float(runs.flops.max())))
        assert plan.interval is not None and fit.backtest is not None
        truth = float(TRUTH.optimum(plan.budget.flops).loss)
        inside.append(plan.interval[0] <= truth <= plan.interval[1])
    print(f"\nbands of 12-run ladders that hold the truth at 30 times their compute: {np.mean(inside):.2f}")
    assert np.mean(inside) >= 0.85


def test_published_laws_say_what_they_hold_for() -> None:
    plan = plan_reference(reference("besiroglu"), budget(flops=1e21))
    assert plan.level == "pass" and plan.interval is not None
    chinchilla = plan_reference(reference("besiroglu"), budget(flops=5.88e23))
    assert chinchilla.level == "warn" and any("tokenizer" in c for c in chinchilla.caveats)
    ratio = {name: chinchilla.budget.flops / 6 / float(r.law.optimum(5.88e23).n) ** 2 for name, r in REFERENCES.items()}
    print("tokens per parameter at Chinchilla's budget:", {k: round(v, 1) for k, v in ratio.items()})
    assert 15 < ratio["besiroglu"] < 30 < 60 < ratio["hoffmann"]
    assert plan_reference(reference("hoffmann"), budget(flops=1e21)).interval is None


def test_deviating_costs_what_the_law_says() -> None:
    for x in deviations(TRUTH, 1e22):
        best = TRUTH.optimum(1e22)
        assert x.n == pytest.approx(float(best.n) * x.factor)
        assert x.penalty > 0
        less = TRUTH.optimum(1e22 * (1 - x.wasted))
        assert float(less.loss) == pytest.approx(x.loss, rel=1e-6)


def test_budget_from_machines_and_money() -> None:
    spend = budget(gpus=256, days=10, peak_flops=989e12, mfu=0.4, price_per_gpu_hour=2)
    assert spend.flops == pytest.approx(256 * 10 * 86400 * 989e12 * 0.4)
    assert spend.gpu_hours == 61440 and spend.cost == 122880
    back = budget(flops=spend.flops, peak_flops=989e12, mfu=0.4)
    assert back.gpu_hours == pytest.approx(61440)


@pytest.mark.parametrize(
    "args, said",
    [
        (("plan",), "Give --flops, or"),
        (("plan", "--flops", "-1"), "--flops is -1"),
        (("plan", "--flops", "nan"), "--flops is nan"),
        (("plan", "--flops", "1e40"), "is not a training run"),
        (("plan", "--gpus", 8, "--days", 2), "missing: --peak-flops, --mfu"),
        (("plan", "--gpus", 8, "--days", 2, "--peak-flops", "989e12", "--mfu", 40), "share between 0 and 1"),
        (("plan", "--gpus", 8, "--days", 2, "--peak-flops", 989, "--mfu", 0.4), "989e12 for an H100"),
        (("plan", "--flops", "1e22", "--gpus", 8), "either --flops or"),
        (("plan", "--flops", "1e22", "--price", 2), "needs the hours"),
        (("plan", "--flops", "1e22", "--reference", "x"), "No published law"),
        (("plan", "--flops", "1e22", "--fit", "/nowhere.json"), "There is no file"),
        (("plan", "--flops", "1e22", "--unique", 0), "--unique is 0"),
        (("fit", "t.csv", "--bootstrap", 3), "--bootstrap is 3"),
        (("fit", "t.csv", "--columns", "size"), "cannot use 'size'"),
    ],
)
def test_wrong_arguments_are_told(args: tuple[object, ...], said: str) -> None:
    result = call(*args)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_a_foreign_file_is_no_fit(tmp_path: Path) -> None:
    for content in ("[]", "{}", '{"E": 1}', "x"):
        (tmp_path / "fit.json").write_text(content)
        with pytest.raises(UsageError, match="is not the output"):
            read_fit(tmp_path / "fit.json")


def test_a_damaged_fit_is_no_fit(table: Path, tmp_path: Path) -> None:
    whole = json.loads(call("fit", table, "--bootstrap", 100, "--json").stdout)
    points = whole["points"]
    for damaged in (
        {"points": points | {"N": points["N"][1:]}},
        {"points": points | {"loss": [-1.0, *points["loss"][1:]]}},
        {"points": {name: [] for name in points}},
        {"alpha": -0.3},
        {"B": "Infinity"},
        {"loss": "zzz"},
    ):
        (tmp_path / "fit.json").write_text(json.dumps(whole | damaged))
        with pytest.raises(UsageError, match="is not the output"):
            read_fit(tmp_path / "fit.json")


def test_scarce_data_is_repeated_and_said(table: Path) -> None:
    done = call("plan", "--flops", "1e22", "--unique", "1e9", "--json")
    plan = strict(done.stdout)
    assert plan["epochs"] > 4 and any("passes over the data" in c for c in plan["caveats"])  # type: ignore[operator, attr-defined, union-attr]
    assert plan["level"] == "unknown" and done.exit_code == 3
    assert plan["interval"] is None and plan["intervals"] is None  # nothing was backtested on repeated data
    assert all(x["loss"] >= plan["loss"] and x["wasted_compute"] is None for x in plan["deviations"])  # type: ignore[attr-defined, index, union-attr]
    enough = strict(call("plan", "--flops", "1e22", "--unique", "1e15", "--json").stdout)
    without = strict(call("plan", "--flops", "1e22", "--json").stdout)
    assert enough == without | {"epochs": 1.0}
