"""Accelerate's tracker, and the writer that recipes in plain PyTorch are given."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

import trainvitals as tv
from tests.collectors.test_loop_zoo import EVERYTHING, LM, Oracle, batches
from trainvitals.errors import UsageError

needs_start = pytest.mark.skipif(not hasattr(tv, "start"), reason="loggers without a tap need tv.start")


def accelerated(run: Path | None, tracker: Any = None) -> tuple[Any, Oracle]:
    """A loop with accumulation and clipping, all through Accelerate."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, log_with=tracker)
    if tracker is not None:
        accelerator.init_trackers("mine", config={"lr": 0.5})
    bare = LM("logits")
    oracle = Oracle(bare)
    model, optimizer = accelerator.prepare(bare, torch.optim.SGD(bare.parameters(), lr=0.5))
    tap = None
    if run is not None:
        make = tv.attach if tracker is None else tracker.attach
        tap = make(model, optimizer, *([run] if tracker is None else []), collectors=EVERYTHING)
    for batch in batches(6):
        oracle.saw(batch)
        with accelerator.accumulate(model):
            logits, target = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
            accelerator.backward(F.cross_entropy(logits.flatten(0, 1), target.flatten()))
            if accelerator.sync_gradients:
                oracle.unclipped()
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
                oracle.stepping([optimizer.optimizer])
            optimizer.step()
            if accelerator.sync_gradients:
                oracle.stepped()
                accelerator.log({"mine": float(len(oracle.rows))}, step=len(oracle.rows))
            optimizer.zero_grad()
    if tap is not None:
        tap.close()
    accelerator.end_training()
    return bare, oracle


def equal_to_the_oracle(run: tv.Run, rows: list[dict[str, Any]]) -> None:
    for signal, key in (("grad/norm", "norm"), ("grad/norm_clipped", "clipped"), ("update/ratio", "ratio")):
        np.testing.assert_allclose(run.array(signal).values, [row[key] for row in rows], rtol=2e-5, err_msg=signal)
    np.testing.assert_allclose(run.array("loss/train").values, [r["sum"] / r["tokens"] for r in rows], rtol=1e-5)
    np.testing.assert_array_equal(run.array("loss/tokens").values, [r["tokens"] for r in rows])


def test_a_loop_that_accelerate_prepared(tmp_path: Path) -> None:
    tapped, oracle = accelerated(tmp_path / "run")
    plain, _ = accelerated(None)
    assert all(torch.equal(a, b) for a, b in zip(tapped.parameters(), plain.parameters(), strict=True))
    equal_to_the_oracle(tv.open_run(tmp_path / "run"), oracle.rows)


@needs_start
def test_the_tracker_and_the_tap_are_one_run(tmp_path: Path) -> None:
    _, oracle = accelerated(tmp_path / "run", tv.AccelerateTracker(tmp_path / "run", tags=["a"]))
    run = tv.open_run(tmp_path / "run")
    equal_to_the_oracle(run, oracle.rows)
    assert run.array("mine").values.tolist() == [1, 2, 3] and run.array("mine").steps.tolist() == [1, 2, 3]
    assert run.card.config["lr"] == 0.5 and run.card.tags == ["a"] and run.card.model == "LM"
    assert run.status == "finished" and len(run.attempts) == 1


@needs_start
def test_the_tracker_alone(tmp_path: Path) -> None:
    accelerated(None, tv.AccelerateTracker(tmp_path / "run"))
    run = tv.open_run(tmp_path / "run")
    assert run.array("mine").values.tolist() == [1, 2, 3] and run.status == "finished"


@needs_start
def test_what_summary_writers_are_called_with(tmp_path: Path) -> None:
    writer = tv.MetricsWriter(tmp_path / "run")
    for step in (1, 2):
        writer.add_scalar("lm loss", torch.tensor(float(step)), step)
        writer.add_scalar("learning-rate", 0.1, global_step=step, walltime=1.0)
        writer.add_scalars("times", {"forward": 1.0, "backward": 2.0}, step)
        writer.log({"throughput(tps)/device": 5.0, "memory": {"max": 3}}, step)
    writer.add_text("arguments", "lr=0.1", global_step=0)
    writer.add_histogram("weights", np.arange(10.0), 2)
    writer.flush()
    writer.close()
    writer.close()
    run = tv.open_run(tmp_path / "run")
    assert run.array("lm loss").values.tolist() == [1, 2]
    assert run.array("times/backward").values.tolist() == [2, 2]
    assert run.array("throughput(tps)/device").values.tolist() == [5, 5]
    assert run.array("memory/max").steps.tolist() == [1, 2]


def test_the_writer_has_the_methods_of_tensorboards() -> None:
    theirs = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    for name in ("add_scalar", "add_scalars", "add_text", "add_histogram", "add_image", "add_hparams"):
        given = list(inspect.signature(getattr(theirs, name)).parameters)
        ours = [p for p in inspect.signature(getattr(tv.MetricsWriter, name)).parameters if p not in ("args", "kwargs")]
        assert given[:len(ours)] == ours, name
    assert callable(tv.MetricsWriter.flush) and callable(tv.MetricsWriter.add_graph)


@needs_start
def test_torchtitan(tmp_path: Path) -> None:
    metrics = pytest.importorskip("torchtitan.components.metrics")
    container = metrics.LoggerContainer()
    container.add_logger(tv.MetricsWriter(tmp_path / "run"))
    processor = object.__new__(metrics.MetricsProcessor)
    processor.logger = container
    processor.logger.log({"loss_metrics/global_avg_loss": 3.0, "grad_norm": torch.tensor(1.5)}, 1)
    processor.logger.log({"validation_metrics/loss": 2.5}, 1)
    processor.close()
    run = tv.open_run(tmp_path / "run")
    assert run.array("loss_metrics/global_avg_loss").values.tolist() == [3] and run.status == "finished"
    assert run.array("validation_metrics/loss").values.tolist() == [2.5]


@needs_start
@pytest.mark.filterwarnings("ignore")
def test_megatron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moe = pytest.importorskip("megatron.core.transformer.moe.moe_utils")
    monkeypatch.setattr(moe, "reduce_aux_losses_tracker_across_ranks", lambda *a, **k: None)
    writer = tv.MetricsWriter(tmp_path / "run")
    for iteration in (10, 20):
        moe.get_moe_layer_wise_logging_tracker()["load_balancing_loss"] = {"values": torch.tensor([1.0, 3.0])}
        moe.track_moe_metrics(0.5, iteration, writer, writer, per_layer_logging=True, num_layers=2)
        moe.get_moe_layer_wise_logging_tracker().clear()
    writer.finish()
    run = tv.open_run(tmp_path / "run")
    assert run.array("load_balancing_loss").values.tolist() == [1, 1]
    assert run.array("moe/load_balancing_loss_layer_1").steps.tolist() == [10, 20]


def test_a_run_that_is_refused_is_said_once_and_the_job_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UsageError("another job is writing there.")

    monkeypatch.setattr(tv, "start", refuse, raising=False)
    writer = tv.MetricsWriter(tmp_path / "run")
    for step in range(3):
        writer.add_scalar("loss", 1.0, step)
    writer.close()
    assert [r.getMessage().count("another job") for r in caplog.records] == [1]
