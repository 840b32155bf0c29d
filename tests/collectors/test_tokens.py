"""Counts of tokens, experts and bytes against counting one by one."""

from __future__ import annotations

import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainvitals as tv
from collectors.model.routers import find_routers, register
from collectors.text import script_table
from tests.collectors import tiny
from trainvitals.spelling import SCRIPTS, script_of

ROWS = len(tiny.DOMAINS) + 1


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": True}, {"use_reentrant": False}])
def test_expert_loads_per_domain(tmp_path: Path, checkpointing: dict[str, bool] | None) -> None:
    model, data = tiny.olmoe(), tiny.batches(6)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=checkpointing)
    expected = np.zeros((3, ROWS, 2, 4), np.int64)
    calls = Counter[str]()

    def count_one_by_one(site: Any, indices: Any) -> None:
        """The routers' own choices, token by token, in the order of the batches."""
        batch = data[calls[site.layer]]
        for token, experts in enumerate(indices.tolist()):
            row, position = divmod(token, 16)
            if batch["attention_mask"][row, position]:
                for expert in experts:
                    expected[calls[site.layer] // 2, batch["domain"][row], int(site.layer), expert] += 1
        calls[site.layer] += 1

    for site in find_routers(model).sites:
        register(site, count_one_by_one)
    tiny.train(model, data, tmp_path / "run", accumulate=2, collectors={"router": 1, "router_domain": 3})
    run = tmp_path / "run"
    assert np.array_equal(tiny.values(run, "router/tokens"), expected.sum(axis=1))
    assert np.array_equal(tiny.values(run, "router/domain_tokens"), expected.sum(axis=0, keepdims=True))
    assert tv.open_run(run).array("router/tokens").labels == (("0", "1"), ("0", "1", "2", "3"))


def test_router_cadence_sums_since_the_last_row(tmp_path: Path) -> None:
    data = tiny.batches(6)
    tiny.train(tiny.olmoe(), data, tmp_path / "every")
    tiny.train(tiny.olmoe(), data, tmp_path / "third", collectors={"router": 3})
    every = tiny.values(tmp_path / "every", "router/tokens")
    assert np.array_equal(tiny.values(tmp_path / "third", "router/tokens"), every.reshape(2, 3, 2, 4).sum(axis=1))


def test_loads_do_not_depend_on_when_the_choices_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reuse(module: Any, args: Any, output: Any) -> None:
        """What a model may do with the tensor of its choice once the experts have run."""
        args[1].data.fill_(3)

    data, kept, reusing = tiny.batches(4), tiny.olmoe(), tiny.olmoe()
    for layer in reusing.model.layers:
        layer.mlp.experts.register_forward_hook(reuse)
    tiny.train(reusing, data, tmp_path / "together", lr=0.0, collectors={"router_domain": 2})
    monkeypatch.setattr("collectors.signals.router.HELD", 0)
    tiny.train(kept, data, tmp_path / "apart", lr=0.0, collectors={"router_domain": 2})
    for signal in ("router/tokens", "router/domain_tokens"):
        assert np.array_equal(tiny.values(tmp_path / "together", signal), tiny.values(tmp_path / "apart", signal))


def test_rows_of_domains_between_rows_of_loads(tmp_path: Path) -> None:
    data = tiny.batches(9)
    tiny.train(tiny.olmoe(), data, tmp_path / "every", collectors={"router": 1, "router_domain": 1})
    tiny.train(tiny.olmoe(), data, tmp_path / "mixed", collectors={"router": 3, "router_domain": 2})
    every, by_domain = (tiny.values(tmp_path / "every", f"router/{name}tokens") for name in ("", "domain_"))
    mixed, domains = (tiny.values(tmp_path / "mixed", f"router/{name}tokens") for name in ("", "domain_"))
    assert np.array_equal(mixed, every.reshape(3, 3, 2, 4).sum(axis=1))
    assert np.array_equal(domains, by_domain[:8].reshape(4, 2, *by_domain.shape[1:]).sum(axis=1))


def test_a_missed_router_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.signals.router.find_routers",
                        lambda model: types.SimpleNamespace(sites=(), missed="None."))
    tiny.train(tiny.olmoe(), tiny.batches(1), tmp_path / "run")
    assert "router_missed" in tiny.event_kinds(tmp_path / "run")


def test_data_and_token_counts(tmp_path: Path) -> None:
    data = tiny.batches(6)
    data[0]["input_ids"][0, 0] = tiny.VOCAB - 1
    tiny.train(tiny.llama(), data, tmp_path / "run", accumulate=2, collectors={"tokens": 2})
    counts = np.zeros((6, ROWS, tiny.VOCAB), np.int64)
    for i, batch in enumerate(data):
        for row in range(4):
            for token, real in zip(batch["input_ids"][row], batch["attention_mask"][row], strict=True):
                counts[i, batch["domain"][row], token] += int(real)
    steps, run = counts.reshape(3, 2, ROWS, -1).sum(axis=1), tmp_path / "run"
    assert np.array_equal(tiny.values(run, "data/domain_tokens"), steps.sum(axis=-1))
    assert np.array_equal(tiny.values(run, "data/padding_tokens"), 2 * 4 * 16 - steps.sum(axis=(-1, -2)))
    assert tiny.values(run, "data/sequences").tolist() == [8, 8, 8]
    assert np.array_equal(tiny.values(run, "throughput/tokens"), steps.sum(axis=(-1, -2))[1:])
    # The last window is shorter; it is written when the run ends.
    assert tv.open_run(run).array("tokens/counts").steps.tolist() == [2, 3]
    assert np.array_equal(tiny.values(run, "tokens/counts"), [steps[:2].sum(axis=0), steps[2]])


def test_documents_of_packed_rows(tmp_path: Path) -> None:
    batch = tiny.batches(1)[0]
    lengths, positions = [[16], [5, 11], [3, 3, 6], [4, 12]], torch.zeros(4, 16, dtype=torch.long)
    for row, documents in enumerate(lengths):
        whole = torch.cat([torch.arange(n) for n in documents])
        positions[row, :len(whole)] = whole
    mask = torch.ones(4, 16, dtype=torch.long)
    mask[2, 12:] = 0
    tiny.train(tiny.llama(), [batch | {"position_ids": positions, "attention_mask": mask}], tmp_path / "run")
    assert tiny.values(tmp_path / "run", "data/documents").tolist() == [8]


@pytest.mark.parametrize("domain", [["code", "web", "code", "what"], [1, 0, 1, 7], torch.tensor([1, 0, 1, -1])])
def test_domains_by_name_or_number(tmp_path: Path, domain: Any) -> None:
    batch = tiny.batches(1, padded=False)[0]
    tiny.train(tiny.llama(), [batch | {"domain": domain}], tmp_path / "run")
    assert tiny.values(tmp_path / "run", "data/domain_tokens").tolist() == [[16, 32, 0, 16]]
    assert tiny.values(tmp_path / "run", "loss/domain_tokens").tolist() == [[14, 28, 0, 14]]


def test_bytes_and_scripts_of_a_byte_level_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    text = "the cat sat on the mat. кот сидел. 猫が座った 12 €"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([text] * 3, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    ids = tokenizer.encode(text).ids
    table = script_table(tokenizer, 310)
    found = table[ids].sum(axis=0)
    assert found.sum() == len(text.encode())
    expected = Counter()
    for character in text:
        expected[SCRIPTS[script_of(character)]] += len(character.encode())
    whole = {name: n for name, n in zip(SCRIPTS, found, strict=True) if name != "partial" and n}
    assert all(n <= expected[name] for name, n in whole.items())
    assert whole["latin"] == expected["latin"] == 17
    assert not table[tokenizer.token_to_id("<eos>")].any()

    model = tiny.llama(vocab_size=310)
    batch = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([ids]), "domain": torch.tensor([1])}
    tiny.train(model, [batch], tmp_path / "run", tokenizer=tokenizer)
    bytes_per_token = tiny.values(tmp_path / "run", "tokens/bytes_per_token")
    assert bytes_per_token[0, 1] == pytest.approx(len(text.encode()) / len(ids))


def test_sentencepiece_spelling() -> None:
    class Spelled:
        all_special_ids = (0,)
        vocabulary = ("<s>", "▁the", "<0xE2>", "да", "##ing")

        def __len__(self) -> int:
            return 5

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [self.vocabulary[i] for i in ids]

    table = script_table(Spelled(), 6)
    assert table.sum(axis=1).tolist() == [0, 4, 1, 4, 3, 0]
    assert table[2, SCRIPTS.index("partial")] == 1 and table[3, SCRIPTS.index("cyrillic")] == 4
