"""What watching costs per training step on a CUDA device: a 0.4 B-parameter OLMoE in bf16, 8 x 2,048 tokens per step.

    python -m benchmarks gpu

Blocks of steps with and without the tap alternate on one model; wall time per step is taken between device
synchronisations at the ends of each block, so queued work counts where it was caused.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

import trainvitals as tv
from benchmarks.report import Table
from collectors.loop import CADENCES

STEPS_PER_BLOCK = 10
ROWS, LENGTH = 8, 2048


def run(quick: bool) -> list[Table]:
    """One row per setting, or an empty table where there is no device."""
    columns = ["setting", "ms per step", "extra ms", "extra %"]
    table = Table("Cost per step on a CUDA device", columns, notes=__doc__ or "")
    if not torch.cuda.is_available():
        table.notes += "\n\nNo CUDA device here."
        return [table]
    torch.manual_seed(0)
    config = OlmoeConfig(hidden_size=768, intermediate_size=768, num_hidden_layers=12, num_attention_heads=12,
                         num_key_value_heads=12, num_experts=16, num_experts_per_tok=4, max_position_embeddings=LENGTH)
    model = OlmoeForCausalLM(config).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(config.vocab_size, (4, ROWS, LENGTH), device="cuda")
    domain = torch.randint(4, (4, ROWS), device="cuda")
    domains = {f"d{i}": 0.25 for i in range(4)}

    def steps(count: int, tapped: bool) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for i in range(count):
            extra = {"domain": domain[i % 4]} if tapped else {}
            model(input_ids=ids[i % 4], labels=ids[i % 4], **extra).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / count * 1e3

    steps(STEPS_PER_BLOCK, False)
    settings = {"default cadences": {}, "everything at every step": dict.fromkeys(CADENCES, 1)}
    for name, cadences in settings.items():
        plain, watched = [], []
        with tempfile.TemporaryDirectory() as folder:
            for block in range(4 if quick else 10):
                plain.append(steps(STEPS_PER_BLOCK, False))
                tap = tv.attach(model, optimizer, Path(folder) / str(block), domains=domains, collectors=cadences)
                steps(2, True)
                watched.append(steps(STEPS_PER_BLOCK, True))
                tap.close()
        extra = np.median(np.array(watched) - np.array(plain))
        base = np.median(plain)
        table.rows.append([name, f"{base:.1f}", f"{extra:.2f}", f"{extra / base:.2%}"])
    return [table]
