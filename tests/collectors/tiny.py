"""Models and batches small enough to train in a second, and the plain loops they train in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, OlmoeConfig, OlmoeForCausalLM

import trainvitals as tv

# Threads cost more than they give at this size, most of all on a busy machine.
torch.set_num_threads(1)

VOCAB = 97
DOMAINS = {"web": 0.5, "code": 0.3, "math": 0.2}
_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def olmoe(seed: int = 0, **settings: Any) -> OlmoeForCausalLM:
    """A mixture of 4 experts, 2 per token."""
    torch.manual_seed(seed)
    return OlmoeForCausalLM(OlmoeConfig(**_SIZES | {"num_experts": 4, "num_experts_per_tok": 2} | settings))


def llama(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_SIZES | settings))


def batches(steps: int, rows: int = 4, length: int = 16, padded: bool = True, seed: int = 1) -> list[dict[str, Tensor]]:
    """Random batches with a domain per row (one of them unplanned), padding on the right, and ignored labels."""
    source = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(steps):
        ids = torch.randint(3, VOCAB, (rows, length), generator=source)
        lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=source)
        mask = (torch.arange(length) < lengths).long() if padded else torch.ones_like(ids)
        ids = ids * mask
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, 2] = -100
        made.append({"input_ids": ids, "attention_mask": mask, "labels": labels,
                     "domain": torch.randint(0, len(DOMAINS) + 1, (rows,), generator=source)})
    return made


def train(model: nn.Module, data: list[dict[str, Tensor]], run: Path | None = None, accumulate: int = 1,
          max_norm: float | None = 1.0, each: Callable[[Any], None] = lambda tap: None, lr: float = 1e-3,
          **arguments: Any) -> tv.Tap | None:
    """A plain loop with AdamW, a linear schedule and clipping; tapped if `run` is given."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 100)
    tap = None
    if run is not None:
        tap = tv.attach(model, optimizer, run, scheduler=scheduler, **{"domains": DOMAINS} | arguments)
    model.train()
    try:
        for i, batch in enumerate(data):
            if tap is None:
                batch = {name: value for name, value in batch.items() if name != "domain"}
            (model(**batch).loss / accumulate).backward()
            if (i + 1) % accumulate:
                continue
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            each(tap)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    finally:
        if tap is not None:
            tap.close()
    return tap


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Bit by bit."""
    return all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.state_dict().values()


def values(run: Path, signal: str) -> Any:
    """All values of a signal, [rows, *axes]."""
    return tv.open_run(run).array(signal).values


def event_kinds(run: Path) -> list[str]:
    return list(tv.open_run(run).events()["kind"])
