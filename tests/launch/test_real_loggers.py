"""The hooks of `trainvitals run` with the real packages, where they are installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.launch.test_run_command import loss, script, started
from trainvitals.store.reader import open_run


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = started(tmp_path, script(tmp_path, """
        import wandb
        with wandb.init(mode="offline", config={"lr": 0.25}) as run:
            for i in range(10):
                wandb.log({"train/loss": 3.0 - i / 64, "nan": float("nan"), "image": wandb.Histogram([1, 2])})
            run.log({"late": 1.0}, step=20)
    """, "job.py"))
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "mine")
    assert loss(run) == {i: 3.0 - i / 64 for i in range(10)}
    assert loss(run, "late") == {20: 1.0} and run.card.notes["config"]["lr"] == 0.25


def test_summary_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("torch")
    done = started(tmp_path, script(tmp_path, """
        import torch
        from torch.utils.tensorboard import SummaryWriter
        with SummaryWriter("tb") as writer:
            for i in range(10):
                writer.add_scalar("loss", torch.tensor(3.0 - i / 64), i)
    """, "job.py"))
    assert done.returncode == 0, done.stderr
    assert loss(open_run(tmp_path / "mine")) == {i: 3.0 - i / 64 for i in range(10)}


def test_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    done = started(tmp_path, script(tmp_path, """
        import torch
        from transformers import Trainer, TrainingArguments
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = torch.nn.Linear(4, 1)
            def forward(self, x, labels=None):
                return {"loss": ((self.inner(x).squeeze(-1) - labels) ** 2).mean()}
        data = [{"x": torch.ones(4) * i / 9, "labels": torch.tensor(1.0)} for i in range(10)]
        how = TrainingArguments("out", max_steps=6, logging_steps=2, report_to=[], save_strategy="no", use_cpu=True)
        trainer = Trainer(Model(), how, train_dataset=data)
        trainer.train()
        print([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    """, "job.py"))
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "mine")
    assert list(loss(run).values()) == json.loads(done.stdout.splitlines()[-1]) and list(loss(run)) == [2, 4, 6]
    assert run.card.total_steps == 6
    assert run.imported is not None and "nonfinite" in {spot.kind for spot in run.imported.blind}
