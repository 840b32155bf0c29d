"""On a CUDA device: the same weights, no wait for the device, and the same numbers as on the host."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import trainvitals as tv
from tests.collectors import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

EVERYTHING = dict.fromkeys(
    ("loss", "grad", "lr", "update", "router", "router_domain", "data", "tokens", "throughput"), 1)


def _on_device(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value.cuda() for name, value in batch.items()} for batch in batches]


def _step(model: Any, optimizer: Any, batch: dict[str, Any]) -> None:
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_after_50_steps(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    data = _on_device(tiny.batches(50))
    torch.use_deterministic_algorithms(True)
    try:
        tapped, plain = tiny.olmoe().cuda().to(dtype), tiny.olmoe().cuda().to(dtype)
        tiny.train(tapped, data, tmp_path, collectors=EVERYTHING)
        tiny.train(plain, data)
    finally:
        torch.use_deterministic_algorithms(False)
    assert tiny.same_weights(tapped, plain)
    assert not {"collector_disabled", "loss_unseen"} & set(tiny.event_kinds(tmp_path))


def test_per_domain_losses_are_those_of_a_plain_forward(tmp_path: Path) -> None:
    model, data = tiny.olmoe().cuda(), _on_device(tiny.batches(3))
    expected = []
    with torch.no_grad():
        for batch in data:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
            losses = F.cross_entropy(logits.double().reshape(-1, tiny.VOCAB), batch["labels"][:, 1:].reshape(-1),
                                     reduction="none")
            domain = batch["domain"][:, None].expand(batch["labels"].shape)[:, 1:].reshape(-1)
            expected.append([losses[domain == d].sum().item() for d in range(len(tiny.DOMAINS) + 1)])
    tiny.train(model, data, tmp_path, lr=0.0)
    np.testing.assert_allclose(tv.open_run(tmp_path).array("loss/domain_sum").values, expected, rtol=1e-5)


def test_the_loop_never_waits_for_the_device(tmp_path: Path) -> None:
    model, data = tiny.llama().cuda(), _on_device(tiny.batches(30, padded=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def waits(steps: list[dict[str, Any]]) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            for batch in steps:
                _step(model, optimizer, batch)
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)

    plain = waits([{k: v for k, v in batch.items() if k != "domain"} for batch in data[:10]])
    tap = tv.attach(model, optimizer, tmp_path, domains=tiny.DOMAINS, collectors=EVERYTHING)
    for batch in data[10:12]:
        _step(model, optimizer, batch)
    tapped = waits(data[12:22])
    tap.close()
    assert tapped <= plain
    assert tv.open_run(tmp_path).array("loss/train").steps.size >= 12
