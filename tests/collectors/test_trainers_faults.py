"""Whatever a collector raises under a trainer, at whatever moment, the training is the plain one, bit by bit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

import trainvitals as tv
from collectors.loop import COLLECTORS, MOMENTS
from collectors.signals.collector import Collector
from tests.collectors import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
Train = Callable[[Path | None, Path], list[torch.Tensor]]


def hugging_face(run: Path | None, folder: Path) -> list[torch.Tensor]:
    model, batches = tiny.llama(), tiny.batches(4)
    data = Dataset.from_dict({n: torch.cat([b[n] for b in batches]).tolist() for n in ("input_ids", "labels")})
    args = TrainingArguments(str(folder / "out"), per_device_train_batch_size=4, max_steps=3, eval_strategy="steps",
                             eval_steps=1, report_to=[], use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True,
                             save_strategy="no")
    Trainer(model=model, args=args, train_dataset=data, eval_dataset={"a": data.select(range(4)), "b": data},
            callbacks=[tv.TrainerCallback(run, domains=["a"])] if run else []).train()
    return list(model.parameters())


def lightning(run: Path | None, folder: Path) -> list[torch.Tensor]:
    pytest.importorskip("lightning")
    from tests.collectors.test_trainers_lightning import Module, fit, loader

    module = Module()
    fit(None, module, *([tv.LightningCallback(run)] if run else []), validation=[loader(), loader()],
        val_check_interval=2, gradient_clip_val=0.1)
    return list(module.parameters())


@pytest.fixture(scope="module", params=[hugging_face, lightning], ids=["hf", "lightning"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Train, list[torch.Tensor]]:
    return request.param, request.param(None, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("moment", [m for m in MOMENTS if m != "rewind"])
def test_all_collectors_fail_at_a_moment(plain: Any, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         caplog: pytest.LogCaptureFixture) -> None:
    train, weights = plain
    broken = [c for c in COLLECTORS if getattr(c, moment) is not getattr(Collector, moment)]

    def fail(collector: Collector, *args: Any) -> None:
        raise RuntimeError("sabotaged")

    for one in broken:
        monkeypatch.setattr(one, moment, fail)
    with caplog.at_level(logging.ERROR):
        found = train(tmp_path / "run", tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(found, weights, strict=True))
    run = tv.open_run(tmp_path / "run")
    disabled = {data["collector"] for data in run.events().query("kind == 'collector_disabled'")["data"]}
    assert disabled <= {one.name for one in broken} and run.status == "finished"
