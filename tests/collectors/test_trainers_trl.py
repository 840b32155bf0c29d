"""TRL's trainers with the callback of the Hugging Face Trainer: fused losses, packing, pairs and reference passes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import trainvitals as tv
from tests.collectors import tiny

trl = pytest.importorskip("trl")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

NAMES = list(tiny.DOMAINS)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, tiny.VOCAB)}}
    made = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>",
                                   eos_token="</s>")


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    """Rows of 5 to 12 tokens, some targets left out, the domain by name."""
    source = np.random.default_rng(0)
    lengths = source.integers(5, 13, 24)
    ids = [source.integers(3, tiny.VOCAB, n).tolist() for n in lengths]
    return datasets.Dataset.from_dict({
        "input_ids": ids, "labels": [[-100, *row[1:]] for row in ids],
        "domain": [str(source.choice([*NAMES, "other"])) for _ in ids]})


class Oracle(TrainerCallback):
    """Loss and tokens of every forward, and the norm before and after clipping, from hooks of its own."""

    def __init__(self) -> None:
        self.sums: list[list[tuple[float, int, int]]] = [[]]
        self.norms: list[float] = []
        self.clipped: list[float] = []

    def saw(self, model: torch.nn.Module, inputs: dict[str, Any]) -> None:
        """From a copy of the weights in float64, one token after the other, documents apart."""
        twin = tiny.llama()
        twin.load_state_dict(model.state_dict())
        twin = twin.double().eval()
        total, count = 0.0, 0
        for row, labels in zip(inputs["input_ids"], inputs["labels"], strict=True):
            positions = inputs.get("position_ids", torch.arange(len(row))[None])[0]
            starts = [*(positions == 0).nonzero().flatten().tolist(), len(row)]
            for start, end in zip(starts, starts[1:], strict=False):
                logits = twin(row[None, start:end]).logits[0, :-1]
                target = labels[start + 1:end]
                kept = target != -100
                losses = -logits.log_softmax(-1).gather(-1, target.clamp(min=0)[:, None])[:, 0]
                total, count = total + float(losses[kept].sum()), count + int(kept.sum())
        self.sums[-1].append((total, count, int(inputs["input_ids"].numel())))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        grads = [p.grad.double() for p in kwargs["model"].parameters() if p.grad is not None]
        self.clipped.append(float(torch.sqrt(sum(g.square().sum() for g in grads))))
        self.sums.append([])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def sft(folder: Path, rows: datasets.Dataset, tokenizer: Any, tapped: bool, **settings: Any) -> tuple[Any, Oracle]:
    oracle = Oracle()

    class Watched(trl.SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                oracle.saw(copy.copy(model), {k: v for k, v in inputs.items() if k != "domain"})
            return super().training_step(model, inputs, *args, **kwargs)

    arguments = trl.SFTConfig(
        str(folder / "out"), per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=3,
        learning_rate=1e-2, logging_steps=1, max_grad_norm=0.1, report_to=[], use_cpu=True, bf16=False,
        dataloader_pin_memory=False, disable_tqdm=True, save_strategy="no", **{"max_length": None} | settings)
    callbacks = [oracle, *([tv.TrainerCallback(folder / "run", domains=NAMES, collectors={"update": 1})]
                           if tapped else [])]
    trainer = Watched(model=tiny.llama(), args=arguments, train_dataset=rows, processing_class=tokenizer,
                      callbacks=callbacks)
    trainer.train()
    return trainer, oracle


def equal_to_the_oracle(run: tv.Run, oracle: Oracle) -> None:
    steps = [np.sum(step, axis=0) for step in oracle.sums if step]
    np.testing.assert_array_equal(run.array("loss/tokens").values, [n for _, n, _ in steps])
    np.testing.assert_allclose(run.array("loss/train").values, [s / n for s, n, _ in steps], rtol=1e-4)
    np.testing.assert_allclose(run.array("grad/norm").values, oracle.norms, rtol=1e-4)
    np.testing.assert_allclose(run.array("grad/norm_clipped").values, oracle.clipped, rtol=1e-4)
    assert "collector_disabled" not in set(run.events()["kind"])


@pytest.mark.parametrize("padding_free", [False, True])
def test_sft(tmp_path: Path, rows: datasets.Dataset, tokenizer: Any, padding_free: bool) -> None:
    tapped, oracle = sft(tmp_path, rows, tokenizer, True, padding_free=padding_free)
    plain, _ = sft(tmp_path, rows, tokenizer, False, padding_free=padding_free)
    assert tiny.same_weights(tapped.model, plain.model)
    run = tv.open_run(tmp_path / "run")
    equal_to_the_oracle(run, oracle)
    domains = dict(zip(run.card.domain_labels, run.array("data/domain_tokens").values.sum(axis=0), strict=True))
    assert domains.keys() == {*NAMES, "unattributed"}
    known = {name: sum(len(r["input_ids"]) for r in rows if r["domain"] == name) for name in NAMES}
    assert {name: domains[name] for name in NAMES} == known
    assert "domains_unknown" not in tiny.event_kinds(tmp_path / "run")


def test_sft_packed_by_trl_has_no_domains_and_says_why(tmp_path: Path, rows: datasets.Dataset, tokenizer: Any) -> None:
    _, oracle = sft(tmp_path, rows, tokenizer, True, packing=True, max_length=32)
    run = tv.open_run(tmp_path / "run")
    equal_to_the_oracle(run, oracle)
    (said,) = run.events().query("kind == 'domains_unknown'")["message"]
    assert "packing keeps tokens and labels alone" in said
    assert run.array("data/domain_tokens").values[:, :-1].sum() == 0


def test_sft_packed_before_keeps_domains(tmp_path: Path, rows: datasets.Dataset, tokenizer: Any) -> None:
    tokens = rows.map(lambda row: {"domain": [NAMES.index(row["domain"]) if row["domain"] in NAMES else len(NAMES)]
                                   * len(row["input_ids"])})
    packed = trl.pack_dataset(tokens, 32, "bfd")
    known = [sum(d == i for row in packed for d in row["domain"]) for i in range(len(NAMES))]
    trainer, oracle = sft(tmp_path, packed, tokenizer, True, padding_free=True)
    assert trainer.state.global_step == 3
    run = tv.open_run(tmp_path / "run")
    equal_to_the_oracle(run, oracle)
    assert np.all(run.array("data/domain_tokens").values.sum(axis=0)[:-1] > 0) and sum(known) > 0
    assert (run.array("data/documents_per_sequence").values > 1).all()


@pytest.fixture(scope="module")
def pairs(rows: datasets.Dataset) -> datasets.Dataset:
    def split(row: dict[str, Any]) -> dict[str, Any]:
        words = [f"w{i}" for i in row["input_ids"]]
        return {"prompt": " ".join(words[:3]), "chosen": " ".join(["", *words[3:]]),
                "rejected": " ".join(["", *words[:2:-1][:4]]), "domain": row["domain"]}
    return rows.map(split, remove_columns=["input_ids", "labels"])


def dpo(folder: Path, pairs: datasets.Dataset, tokenizer: Any, tapped: bool) -> tuple[Any, list[tuple[float, int]]]:
    seen: list[tuple[float, int]] = []

    class Watched(trl.DPOTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            twin = tiny.llama()
            twin.load_state_dict(model.state_dict())
            with torch.no_grad():
                logits = twin.double()(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
            losses = -logits.log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
            kept = inputs["completion_mask"][:, 1:].bool()
            seen.append((float(losses[kept].sum()), int(kept.sum())))
            return super().training_step(model, inputs, *args, **kwargs)

    arguments = trl.DPOConfig(
        str(folder / "out"), per_device_train_batch_size=4, max_steps=3, learning_rate=1e-2, logging_steps=1,
        report_to=[], use_cpu=True, bf16=False, dataloader_pin_memory=False, disable_tqdm=True, save_strategy="no")
    trainer = Watched(model=tiny.llama(), ref_model=tiny.llama(), args=arguments, train_dataset=pairs,
                      processing_class=tokenizer,
                      callbacks=[tv.TrainerCallback(folder / "run", domains=NAMES)] if tapped else [])
    trainer.train()
    return trainer, seen


def test_dpo(tmp_path: Path, pairs: datasets.Dataset, tokenizer: Any) -> None:
    tapped, seen = dpo(tmp_path, pairs, tokenizer, True)
    plain, _ = dpo(tmp_path, pairs, tokenizer, False)
    assert tiny.same_weights(tapped.model, plain.model)
    run = tv.open_run(tmp_path / "run")
    np.testing.assert_array_equal(run.array("loss/tokens").values, [n for _, n in seen])
    np.testing.assert_allclose(run.array("loss/train").values, [s / n for s, n in seen], rtol=1e-4)
    assert not run.has("loss/val") and not run.has("unused/forwards"), "the reference model is none of ours"
    logged = [entry for entry in plain.state.log_history if "rewards/accuracies" in entry]
    for name in ("loss", "rewards/accuracies", "rewards/margins"):
        np.testing.assert_allclose(run.array(f"trainer/{name}").values[:3], [entry[name] for entry in logged])
    norms = [entry["grad_norm"] for entry in logged]
    np.testing.assert_allclose(run.array("grad/norm").values, norms, rtol=1e-4)
    assert "loss_from_log_probs" in tiny.event_kinds(tmp_path / "run")
    assert run.array("data/domain_tokens").values[:, :-1].sum() > 0
