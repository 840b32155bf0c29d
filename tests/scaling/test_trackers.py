"""What trackers export is a curve without further ado, or refused with the line to use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from checks.scaling.curve import read_curve
from checks.scaling.curve_table import curve_columns
from checks.scaling.forecast_command import forecast
from trainvitals.errors import UsageError

STEPS = np.arange(10, 210, 10)
LOSS = np.round(4 - 0.3 * np.log(STEPS), 5)
LR = np.round(3e-4 * (1 - STEPS / 400), 9)


def wandb(*runs: str) -> str:
    frame = pd.DataFrame({"Step": STEPS})
    for i, run in enumerate(runs):
        for name, values in ((f"{run} - train/loss", LOSS + i), (f"{run} - lr", LR)):
            frame[name] = frame[f"{name}__MIN"] = frame[f"{name}__MAX"] = values
    return frame.to_csv(index=False)


def long_form(metric: str, value: str, **more: object) -> str:
    rows = [{metric: key, value: v, "step": s, "timestamp": 1.7e12 + s} | more
            for key, values in (("train/loss", LOSS), ("lr", LR)) for s, v in zip(STEPS, values, strict=True)]
    return pd.DataFrame(rows).to_csv(index=False)


def trainer_state() -> str:
    log: list[dict[str, float]] = []
    for s, loss, lr in zip(STEPS.tolist(), LOSS.tolist(), LR.tolist(), strict=True):
        log.append({"epoch": s / 100, "loss": loss, "learning_rate": lr, "step": s})
        if s % 100 == 0:
            log.append({"epoch": s / 100, "eval_loss": loss + 1, "step": s})
    log.append({"epoch": 2.0, "train_loss": 9.9, "train_runtime": 1.0, "step": int(STEPS[-1])})
    return json.dumps({"best_metric": None, "global_step": 200, "log_history": log})


def lines(rows: pd.DataFrame) -> str:
    return rows.to_json(orient="records", lines=True, double_precision=12)


FRAME = pd.DataFrame({"step": STEPS, "loss": LOSS, "lr": LR})
EXPORTS = {
    "wandb, a chart": (wandb("brave-sun-7"), True),
    "wandb, the history": (pd.DataFrame({"_step": STEPS, "_runtime": STEPS * 2.5, "train/loss": LOSS, "train/lr": LR}
                                        ).to_csv(index=False), True),
    "wandb, rows that complement each other": (
        "".join(f"{s},{x},\n{s},,{r}\n" for s, x, r in zip(STEPS, LOSS, LR, strict=True)).join(["_step,loss,lr\n", ""]),
        True),
    "TensorBoard": (pd.DataFrame({"Wall time": STEPS + 1.7e9, "Step": STEPS, "Value": LOSS}).to_csv(index=False),
                    False),
    "TensorBoard, JSON": (json.dumps([[1.7e9 + s, int(s), x] for s, x in zip(STEPS, LOSS, strict=True)]), False),
    "MLflow, a metric file": ("".join(f"{1700000000000 + s} {x} {s}\n" for s, x in zip(STEPS, LOSS, strict=True)),
                              False),
    "MLflow, CSV": (long_form("key", "value", run_id="a1"), True),
    "MLflow, REST": (json.dumps({"metrics": [{"key": "loss", "value": float(x), "timestamp": 1, "step": int(s)}
                                             for s, x in zip(STEPS, LOSS, strict=True)]}), False),
    "Neptune": (pd.DataFrame({"step": STEPS.astype(float), "value": LOSS, "timestamp": STEPS}).to_csv(index=False),
                False),
    "Comet": (long_form("metricName", "metricValue", experimentKey="k"), True),
    "trackio": (lines(FRAME.assign(run_name="r", timestamp="2026-01-01")), True),
    "trackio, metrics inside": ("".join(
        json.dumps({"timestamp": "t", "step": int(s), "metrics": {"train/loss": float(x), "lr": float(r)}}) + "\n"
        for s, x, r in zip(STEPS, LOSS, LR, strict=True)), True),
    "Hugging Face": (trainer_state(), True),
    "Lightning": (pd.DataFrame({"epoch": 0, "step": STEPS, "train_loss_step": LOSS, "lr-AdamW": LR}
                               ).to_csv(index=False), True),
    "a German spreadsheet": (FRAME.to_csv(index=False, sep=";", decimal=","), True),
}


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.replace(" ", "_"))
def test_exports_of_trackers_are_curves(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "export"
    content, has_rate = EXPORTS[kind]
    path.write_text(content)
    curve = read_curve(path)
    np.testing.assert_array_equal(curve.steps, STEPS)
    np.testing.assert_allclose(curve.losses, LOSS, rtol=1e-9)
    assert len(curve.rates) == (STEPS[-1] if has_rate else 0)
    if has_rate:
        np.testing.assert_allclose(curve.rates[STEPS - 1], LR, rtol=1e-6)
    if "value" in content.splitlines()[0].lower() and not has_rate and "key" not in content:
        assert "does not name its metric" in curve.assumed[0]


def test_several_runs_are_refused_with_the_line_to_use(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    path.write_text(wandb("a, first", "b"))
    with pytest.raises(UsageError, match="several columns for loss") as error:
        read_curve(path)
    line = str(error.value).partition("--columns ")[2]
    assert line == '"step=Step,loss=a, first - train/loss".'
    curve = read_curve(path, curve_columns(line.strip('".')))
    np.testing.assert_allclose(curve.losses, LOSS)
    np.testing.assert_allclose(curve.rates[STEPS - 1], LR, rtol=1e-6)
    np.testing.assert_allclose(read_curve(path, {"loss": "b - train/loss"}).losses, LOSS + 1)


def test_the_command_takes_the_columns_of_a_tracker(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    rates = np.minimum(np.arange(1, 4001) / 200, 1) * 3e-4
    steps = np.arange(20, 4001, 20)
    loss = 2.7 + 3 * np.cumsum(rates)[steps - 1] ** -0.1
    pd.DataFrame({"_step": steps, "a - train/loss": loss, "b - train/loss": loss + 1, "a - lr": rates[steps - 1]}
                 ).to_csv(path, index=False)
    words = [str(path), "--schedule", "constant:total=8000,warmup=200,peak=3e-4", "--json"]
    assert "several columns for loss" in str(CliRunner().invoke(forecast, words).exception)
    done = CliRunner().invoke(forecast, [*words, "--columns", "step=_step,loss=a - train/loss,lr=a - lr"])
    told = json.loads(done.output)
    assert done.exit_code == 0 and told["final_loss"] < loss[-1] and told["phase"] == "constant"


def test_rows_of_several_runs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    pd.concat([FRAME.assign(run_name=name) for name in "ab"]).to_csv(path, index=False)
    with pytest.raises(UsageError, match="Line 22 of .*: step 10 .* step 200. Column 'run_name' names several"):
        read_curve(path)


def test_a_choice_between_training_and_validation_is_said(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    FRAME.rename(columns={"loss": "train/loss"}).assign(val_loss=LOSS + 1).to_csv(path, index=False)
    curve = read_curve(path)
    np.testing.assert_allclose(curve.losses, LOSS)
    assert "'train/loss'; val_loss is there too" in curve.assumed[0]
    np.testing.assert_allclose(read_curve(path, {"loss": "val_loss"}).losses, LOSS + 1)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("Relative Time,metric a\n1,2\n2,3\n")
    with pytest.raises(UsageError, match="no column for the step .*--columns step=COLUMN; .* Relative Time"):
        read_curve(path)
    with pytest.raises(UsageError, match="cannot use 'steps=a'"):
        curve_columns("steps=a")
