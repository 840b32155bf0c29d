"""The Hugging Face Trainer with the callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments, default_data_collator

import trainvitals as tv
from checks.judge import run_checks
from collectors.trainers.hf import TrainerCallback
from tests.collectors import tiny
from tests.collectors.test_loss import brute_force
from trainvitals.errors import UsageError


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


# ---- domains by name, past every collator -----------------------------------------------------------------------


NAMES = list(tiny.DOMAINS)


@pytest.fixture(scope="module")
def named() -> list[dict[str, Any]]:
    """Rows of 4 to 9 tokens with the name of a domain, one of them unplanned."""
    source = np.random.default_rng(2)
    rows = [source.integers(3, tiny.VOCAB, source.integers(4, 10)).tolist() for _ in range(16)]
    return [{"input_ids": row, "labels": list(row), "domain": [*NAMES, "other"][i % 4]} for i, row in enumerate(rows)]


def right(rows: list[dict[str, Any]], left: bool = False) -> dict[str, torch.Tensor]:
    """A collator of a user's own that knows nothing of domains, and fails on a column that it does not know."""
    if set(rows[0]) != {"input_ids", "labels"}:
        raise KeyError("what is this column?")
    width = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, Any] = {"input_ids": [], "labels": [], "attention_mask": []}
    for row in rows:
        space = width - len(row["input_ids"])
        for name, filler in (("input_ids", 0), ("labels", -100)):
            batch[name].append([filler] * space * left + row[name] + [filler] * space * (not left))
        batch["attention_mask"].append([0] * space * left + [1] * len(row["labels"]) + [0] * space * (not left))
    return {name: torch.tensor(values) for name, values in batch.items()}


def left(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return right(rows, left=True)


def by_name(folder: Path, data: Any, collator: Any) -> tv.Run:
    args = TrainingArguments(str(folder / "out"), per_device_train_batch_size=4, max_steps=4, report_to=[],
                             use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True, save_strategy="no")
    Trainer(model=tiny.llama(), args=args, train_dataset=data, data_collator=collator,
            callbacks=[tv.TrainerCallback(folder / "run", domains=NAMES)]).train()
    return tv.open_run(folder / "run")


def tokens_of(rows: list[dict[str, Any]]) -> list[int]:
    return [sum(len(r["input_ids"]) for r in rows if r["domain"] == name) for name in [*NAMES, "other"]]


@pytest.mark.parametrize("collator", [right, left, DataCollatorWithFlattening()], ids=["right", "left", "flattening"])
@pytest.mark.parametrize("kind", ["datasets", "list"])
@pytest.mark.parametrize("per_token", [False, True])
def test_names_reach_the_tap(tmp_path: Path, named: list[dict[str, Any]], collator: Any, kind: str, per_token: bool
                             ) -> None:
    rows = [row | {"domain": [row["domain"]] * len(row["input_ids"])} for row in named] if per_token else named
    run = by_name(tmp_path, datasets.Dataset.from_list(rows) if kind == "datasets" else rows, collator)
    assert run.array("data/domain_tokens").values.sum(axis=0).tolist() == tokens_of(named)
    assert not {"domains_unknown", "loss_unaligned", "collector_disabled"} & set(tiny.event_kinds(tmp_path / "run"))


def test_names_past_the_default_collator(tmp_path: Path, named: list[dict[str, Any]]) -> None:
    even = [row | {"input_ids": row["input_ids"][:4], "labels": row["labels"][:4]} for row in named]
    run = by_name(tmp_path, datasets.Dataset.from_list(even), default_data_collator)
    assert run.array("data/domain_tokens").values.sum(axis=0).tolist() == tokens_of(even)


def test_a_collator_that_makes_other_rows_loses_domains_and_that_is_said(tmp_path: Path, named: Any) -> None:
    def halves(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        whole = right([{k: v for k, v in row.items() if k != "domain"} for row in rows])
        return {name: value[:3] for name, value in whole.items()}

    run = by_name(tmp_path, datasets.Dataset.from_list(named), halves)
    assert run.array("data/domain_tokens").values[:, :-1].sum() == 0
    assert "domains_unknown" in tiny.event_kinds(tmp_path / "run")


@pytest.mark.parametrize("wrong", [lambda row: [row["domain"]], lambda row: {"name": row["domain"]}])
def test_a_column_of_another_kind_is_not_guessed_at(tmp_path: Path, named: Any, wrong: Any) -> None:
    run = by_name(tmp_path, [row | {"domain": wrong(row)} for row in named], right)
    assert run.last_step == 4 and run.array("data/domain_tokens").values[:, :-1].sum() == 0
    assert "domains_unknown" in tiny.event_kinds(tmp_path / "run")


def test_rows_without_a_domain_are_unattributed(tmp_path: Path, named: Any) -> None:
    run = by_name(tmp_path, [row | {"domain": None if i % 2 else row["domain"]} for i, row in enumerate(named)], right)
    expected = tokens_of(named[::2])
    assert run.array("data/domain_tokens").values.sum(axis=0)[:-1].tolist() == expected[:-1]


def test_a_data_set_without_the_column_is_named(tmp_path: Path, named: list[dict[str, Any]]) -> None:
    by_name(tmp_path, datasets.Dataset.from_list(named).remove_columns("domain"), right)
    events = tv.open_run(tmp_path / "run").events().query("kind == 'domains_unknown'")
    assert "without a column \"domain\" (it has input_ids, labels)" in events["message"].item()
    findings = run_checks(tv.open_run(tmp_path / "run"), only=["telemetry.health", "telemetry.coverage"]).findings
    assert all(finding.level == "warn" and "domain" in finding.summary for finding in findings)  # the cause, the share


def test_without_planned_domains_names_are_dropped_as_ever(tmp_path: Path, named: list[dict[str, Any]]) -> None:
    args = TrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=4, max_steps=1, report_to=[],
                             use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True, save_strategy="no")
    Trainer(model=tiny.llama(), args=args, train_dataset=datasets.Dataset.from_list(named), data_collator=right,
            callbacks=[tv.TrainerCallback(tmp_path / "run")]).train()
    assert tv.open_run(tmp_path / "run").last_step == 1


# ---- evaluation sets, numbers of the Trainer, arguments ---------------------------------------------------------


def test_evaluation_sets_keep_their_names(tmp_path: Path, rows: dict[str, Any]) -> None:
    model = tiny.llama()
    tapped = trainer(tmp_path, rows, True, model, eval_strategy="steps", eval_steps=2)
    whole = tapped.train_dataset
    sets = {"a": whole.select(range(8)), "b": whole.select(range(36, 48))}
    tapped.eval_dataset = sets
    tapped.train()
    run = tv.open_run(tmp_path / "run")
    series = run.array("loss/val_set")
    assert series.labels == (("a", "b"),) and series.steps.tolist() == [2, 4] and not run.has("loss/val")
    for column, (first, last) in enumerate([(0, 8), (36, 48)]):
        sums, counts = brute_force(model.eval(), {n: torch.tensor(v[first:last]) for n, v in rows.items()})
        np.testing.assert_allclose(series.values[-1, column], sums.sum() / counts.sum(), rtol=1e-5)
        np.testing.assert_array_equal(run.array("loss/val_set_domain_tokens").values[-1, column], counts)


def test_what_the_trainer_logs_is_stored(tmp_path: Path, rows: dict[str, Any]) -> None:
    tapped = trainer(tmp_path, rows, True)
    tapped.train()
    entries = [entry for entry in tapped.state.log_history if "loss" in entry]
    series = tv.open_run(tmp_path / "run").array("trainer/loss")
    known = np.isfinite(series.values)
    assert series.steps[known].tolist() == [entry["step"] for entry in entries]
    assert series.values[known].tolist() == [entry["loss"] for entry in entries]


def test_the_callback_takes_what_attach_takes(tmp_path: Path, rows: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no argument 'domain_names'"):
        tv.TrainerCallback(tmp_path, domain_names=["a"])
    tapped = trainer(tmp_path, rows, False)
    tapped.add_callback(tv.TrainerCallback(tmp_path / "run", total_steps=99, start_step=10, collectors={"update": 1}))
    tapped.train()
    run = tv.open_run(tmp_path / "run")
    assert run.card.total_steps == 99 and run.array("update/ratio").steps.tolist() == [11, 12, 13, 14]
