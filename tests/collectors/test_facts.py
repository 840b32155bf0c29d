"""What the run card says of model and machine, and the journey of values from a device."""

from __future__ import annotations

import contextlib
import types
from typing import Any

import numpy as np
import pytest
import torch

from collectors import transfer
from collectors.model import facts as model_facts
from collectors.model.hardware import peak_flops
from collectors.model.layers import clean_name, layer_labels
from tests.collectors import tiny
from trainvitals.card import RunCard


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA L40S", 362e12), ("NVIDIA L40", None),
    ("NVIDIA B200", 2.25e15), ("AMD Instinct MI300X", 1307.4e12), ("AMD Instinct MI250X / MI250", None),
    ("NVIDIA A10G", None), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("NVIDIA GeForce RTX 4090", None), ("cpu", None),
])
def test_unknown_hardware_has_no_peak(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_parameters_and_cost_of_a_mixture_of_experts() -> None:
    model, card = tiny.olmoe(), RunCard()
    model_facts.describe(card, model)
    experts = 2 * 4 * 3 * 32 * 32
    assert card.params_total == sum(p.numel() for p in model.parameters())
    assert card.params_embedding == tiny.VOCAB * 32
    assert card.params_active == card.params_total - experts // 2
    assert (card.layers, card.experts, card.top_k, card.vocab_size) == (2, 4, 2, tiny.VOCAB)
    matrices = card.params_active - tiny.VOCAB * 32
    assert model_facts.flops_per_token(card, model, 16) == 6 * matrices + 12 * 2 * 32 * 16


def test_a_dense_model_with_tied_embeddings() -> None:
    model, card = tiny.llama(tie_word_embeddings=True), RunCard()
    model_facts.describe(card, model)
    assert card.params_active == card.params_total and card.experts is None
    # The table is also the head, so it takes part in a product.
    assert model_facts.flops_per_token(card, model, 8) == 6 * card.params_total + 12 * 2 * 32 * 8
    assert model_facts.flops_per_token(RunCard(), torch.nn.Linear(2, 2), 8) is None


def test_layers_are_named_after_blocks() -> None:
    assert layer_labels(["transformer.wte.weight", "transformer.h.10.attn.w", "transformer.ln_f.weight"]) == [
        "embed", "10", "final_norm"]
    assert layer_labels(["encoder.block.0.w", "decoder.block.0.w", "shared.weight"]) == [
        "encoder.block.0", "decoder.block.0", "shared"]
    assert clean_name("module._orig_mod.model.layers.0._checkpoint_wrapped_module.mlp.w") == "model.layers.0.mlp.w"


class _FakeEvent:
    landed = False

    def record(self, stream: Any) -> None: ...

    def query(self) -> bool:
        return self.landed

    def synchronize(self) -> None: ...


def test_device_values_are_delivered_in_order_once_they_have_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, with host memory in its place and an event that lands when we say so."""
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    module = types.SimpleNamespace(Stream=lambda device: stream, Event=_FakeEvent, current_stream=lambda device: None,
                                   stream=lambda side: contextlib.nullcontext())
    monkeypatch.setattr(transfer, "ASYNCHRONOUS", ("cpu",))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    rows: list[dict[str, Any]] = []
    moved = transfer.Transfer(lambda owner, call, *args: call(*args))
    big = 2**40 + 1
    moved.add(None, {"count": torch.tensor([[big, 2]]), "host": 7, "norm": torch.tensor(1.5)}, rows.append)
    moved.add(None, {"host": 8}, rows.append)
    moved.send()
    moved.add(None, {"loss": torch.tensor([float("nan")])}, rows.append)
    moved.send()
    assert not rows
    monkeypatch.setattr(_FakeEvent, "landed", True)
    moved.poll()
    assert [sorted(row) for row in rows] == [["count", "host", "norm"], ["host"], ["loss"]]
    assert rows[0]["count"].tolist() == [[big, 2]] and rows[0]["count"].dtype == np.int64
    assert rows[0]["norm"] == 1.5 and rows[1]["host"] == 8 and np.isnan(rows[2]["loss"][0])
