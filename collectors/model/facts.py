"""What the run card says about a model: its size, its shape, and what one token costs."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from pathlib import Path
from typing import Any

from torch import nn

from collectors.model.layers import clean_name
from trainvitals.card import RunCard

MFU_CONVENTION = "PaLM appendix B, (6 N + 12 L H Q T) tokens/s over dense peak"
"""https://arxiv.org/abs/2204.02311. N: active parameters without embedding lookups; recomputation gets no credit, and
attention is not halved for causality."""

_ROUTED = re.compile(r"\.experts?\.(?!.*shared)")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts", "moe_k")


def describe(card: RunCard, model: nn.Module) -> None:
    """Fill in what the model itself tells: parameter counts, layers, experts, context, vocabulary."""
    config = _text_config(model)
    card.model = type(model).__name__
    card.layers = _first(config, ("num_hidden_layers", "n_layer", "num_layers"))
    card.experts, card.top_k = _first(config, _EXPERTS), _first(config, _TOP_K)
    card.context = _first(config, ("max_position_embeddings", "n_positions", "max_seq_len"))
    card.vocab_size = _first(config, ("vocab_size",))
    sizes = {clean_name(name): p.numel() for name, p in model.named_parameters()}
    embeddings = [clean_name(f"{name}.weight") for name, module in model.named_modules()
                  if isinstance(module, nn.Embedding)]
    card.params_total = sum(sizes.values())
    card.params_embedding = sum(sizes.get(name, 0) for name in embeddings)
    routed = sum(size for name, size in sizes.items() if _ROUTED.search(f".{name}"))
    card.params_active = card.params_total
    if routed:
        card.params_active = (card.params_total - routed + routed * card.top_k // card.experts
                              if card.experts and card.top_k else None)
    if card.vocab_size is None and embeddings:
        card.vocab_size = max((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=None)


def flops_per_token(card: RunCard, model: nn.Module, sequence_length: int) -> float | None:
    """Training FLOP per token at this sequence length; None where the model's shape is unknown.

    6 N + 12 L H Q T: N active parameters that take part in a matrix product (a table that only looks up does not; one
    that is also the output head does), L layers, H heads, Q head dimension, T sequence length.
    https://arxiv.org/abs/2204.02311, appendix B.
    """
    config = _text_config(model)
    heads = _first(config, ("num_attention_heads", "n_head"))
    hidden = _first(config, ("hidden_size", "n_embd", "d_model"))
    if card.params_active is None or card.layers is None or not heads or not hidden:
        return None
    width = heads * (_first(config, ("head_dim",)) or hidden // heads)
    lookups = 0 if getattr(config, "tie_word_embeddings", False) else card.params_embedding or 0
    return 6.0 * (card.params_active - lookups) + 12.0 * card.layers * width * sequence_length


def versions() -> dict[str, str]:
    """Versions of what trains, where installed."""
    found = {}
    for name in ("trainvitals", "torch", "transformers", "accelerate", "lightning", "datasets"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Commit of the working directory, with "+" if it has changes; "" outside of a repository."""
    try:
        def git(*arguments: str) -> str:
            return subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True,
                                  cwd=Path.cwd()).stdout.strip()

        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _text_config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    get_text_config = getattr(config, "get_text_config", None)
    return get_text_config() if callable(get_text_config) else config


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    """The first of these settings that the config has as a positive whole number."""
    return next((v for n in names if isinstance(v := getattr(config, n, None), int) and v > 0), None)
