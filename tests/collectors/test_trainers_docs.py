"""The snippets of docs/trainers.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import trainvitals as tv
from tests.collectors import tiny

TEXT = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
SNIPPETS = {name: code for name, code in re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", TEXT,
                                                    re.DOTALL | re.MULTILINE)}
pytestmark = [pytest.mark.filterwarnings("ignore"),
              pytest.mark.skipif(not hasattr(tv, "start"), reason="loggers need tv.start")]


def execute(name: str, given: dict[str, Any]) -> None:
    exec(compile(SNIPPETS[name], f"docs/trainers.md, {name}", "exec"), given)  # our own page


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tv.Run:
    monkeypatch.chdir(folder)
    execute(name, given)
    return tv.open_run(folder / "runs" / "mine")


def without_domain(data: list[Any]) -> list[Any]:
    return [{k: v for k, v in batch.items() if k != "domain"} for batch in data]


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset
    from transformers import TrainingArguments

    rows = {name: torch.cat([b[name] for b in tiny.batches(4)]).tolist() for name in ("input_ids", "labels")}
    data = Dataset.from_dict(rows | {"domain": ["web", "code"] * 8})
    args = TrainingArguments("out", per_device_train_batch_size=4, max_steps=3, eval_strategy="steps", eval_steps=3,
                             report_to=[], use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True,
                             save_strategy="no")
    found = run("Hugging Face and TRL", tmp_path, monkeypatch, model=tiny.llama(), args=args, data=data,
                web=data.select(range(8)), code=data.select(range(8, 16)))
    assert found.array("loss/val_set").labels == (("web", "code"),)
    assert (found.array("loss/domain_tokens").values.sum(axis=0)[:2] > 0).all()


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    from tests.collectors.test_trainers_lightning import Module, loader

    found = run("Lightning", tmp_path, monkeypatch, module=Module(), train_loader=loader(), val_loader=loader())
    assert found.last_step == 6 and found.has("loss/val")


def test_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.llama()
    found = run("Loops that Accelerate or Fabric prepared", tmp_path, monkeypatch, model=model,
                optimizer=torch.optim.SGD(model.parameters(), lr=0.1), batches=without_domain(tiny.batches(3)))
    assert found.last_step == 3 and found.has("mine") and found.card.config == {"lr": 1e-3}


def test_evaluation_by_name(tmp_path: Path) -> None:
    model = tiny.llama()

    def evaluate(model: Any) -> None:
        with torch.no_grad():
            model.eval()(**without_domain(tiny.batches(1))[0])

    with tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "runs" / "mine") as tap:
        execute("Evaluation sets in a loop of your own", {"tap": tap, "model": model, "evaluate": evaluate})
    assert tv.open_run(tmp_path / "runs" / "mine").array("loss/val_set").labels == (("held-out",),)
