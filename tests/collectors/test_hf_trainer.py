"""The Hugging Face Trainer with the callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments, default_data_collator

import trainvitals as tv
from collectors.trainers.hf import TrainerCallback
from tests.collectors import tiny
from tests.collectors.test_loss import brute_force


@pytest.fixture
def rows() -> dict[str, Any]:
    """48 rows, the second half padded."""
    return {name: torch.cat([b[name] for b in tiny.batches(6, padded=False) + tiny.batches(6)]).tolist()
            for name in ("input_ids", "attention_mask", "labels", "domain")}


def trainer(folder: Path, rows: dict[str, Any], tapped: bool, model: Any = None, **more: Any) -> Trainer:
    arguments = TrainingArguments(
        str(folder / f"out-{tapped}"), per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=4,
        learning_rate=1e-3, warmup_steps=1, lr_scheduler_type="cosine", logging_steps=2, report_to=[], use_cpu=True,
        dataloader_pin_memory=False, disable_tqdm=True, save_strategy="no", **more)
    callbacks = [tv.TrainerCallback(run=folder / "run", domains=tiny.DOMAINS)] if tapped else []
    whole = datasets.Dataset.from_dict(rows)
    return Trainer(model=model or tiny.olmoe(), args=arguments, callbacks=callbacks, train_dataset=whole,
                   eval_dataset=whole.select(range(36, 48)), data_collator=default_data_collator)


def test_trainer_is_unharmed_and_recorded(tmp_path: Path, rows: dict[str, Any]) -> None:
    tapped, plain = (trainer(tmp_path, rows, t, eval_strategy="steps", eval_steps=2) for t in (True, False))
    tapped.train()
    plain.train()
    assert tiny.same_weights(tapped.model, plain.model)
    run = tv.open_run(tmp_path / "run")
    assert "collector_disabled" not in tiny.event_kinds(tmp_path / "run")
    assert run.array("loss/train").steps.tolist() == [1, 2, 3, 4]
    assert (run.array("loss/domain_tokens").values.sum(axis=0) > 0).all()
    # What the Trainer itself computed, from the same numbers.
    logs = plain.state.log_history
    norms = [entry["grad_norm"] for entry in logs if "grad_norm" in entry]
    np.testing.assert_allclose(run.array("grad/norm").values[1::2], norms, rtol=1e-4)
    losses = run.array("loss/train").values.reshape(2, 2).mean(axis=1)
    np.testing.assert_allclose(losses, [entry["loss"] for entry in logs if "loss" in entry], rtol=1e-3)
    used, planned = run.array("lr/used").values, run.array("lr/planned").values
    np.testing.assert_allclose(used, planned, rtol=1e-9)
    np.testing.assert_allclose(used[1::2, 0], [entry["learning_rate"] for entry in logs if "learning_rate" in entry])
    assert run.card.total_steps == 4 and run.card.lr_plan


def test_evaluation_per_domain(tmp_path: Path, rows: dict[str, Any]) -> None:
    model = tiny.llama()
    tapped = trainer(tmp_path, rows, True, model, eval_strategy="steps", eval_steps=4)
    tapped.train()
    held_out = {name: torch.tensor(values[36:]) for name, values in rows.items()}
    sums, counts = brute_force(model.eval(), held_out)
    series = tv.open_run(tmp_path / "run").array("loss/val_domain_sum")
    assert series.steps.tolist() == [4]
    np.testing.assert_allclose(series.values[0], sums, rtol=1e-5)
    assert np.array_equal(tiny.values(tmp_path / "run", "loss/val_domain_tokens")[0], counts)


def test_the_nan_that_the_trainer_hides(tmp_path: Path, rows: dict[str, Any]) -> None:
    model = tiny.llama()
    with torch.no_grad():
        model.lm_head.weight[tiny.VOCAB - 1] = float("nan")
    tapped = trainer(tmp_path, rows, True, model)
    tapped.train()
    assert np.isnan(tiny.values(tmp_path / "run", "loss/train")).all()
    assert all(np.isfinite(entry["loss"]) for entry in tapped.state.log_history if "loss" in entry)


def test_evaluation_outside_of_training_has_no_domain(tmp_path: Path, rows: dict[str, Any]) -> None:
    tapped = trainer(tmp_path, rows, True)
    assert "domain" not in next(iter(tapped.get_eval_dataloader()))
    tapped.train()
    assert "domain" not in next(iter(tapped.get_eval_dataloader()))
    assert "domain" in next(iter(tapped.get_train_dataloader()))


def test_trainers_without_the_callback_still_drop_the_column(tmp_path: Path, rows: dict[str, Any]) -> None:
    trainer(tmp_path, rows, True)
    plain = trainer(tmp_path, rows, False)
    assert "domain" not in next(iter(plain.get_train_dataloader()))
    assert not any(isinstance(c, TrainerCallback) for c in plain.callback_handler.callbacks)
