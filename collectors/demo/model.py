"""The demo's model: a small OLMoE, and a byte-level BPE tokenizer trained on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

END = "<|endoftext|>"
VOCAB_SIZE = 4096
SAMPLE_CHARS = 500_000
"""Characters per domain, about, that the tokenizer learns from."""


def train_tokenizer(domains: Iterable[list[str]], vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's, without unknown tokens; little text gives a smaller vocabulary."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((text for texts in domains for text in _sample(texts)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _sample(texts: list[str]) -> list[str]:
    """Every n-th document, since neighbours are often alike."""
    return texts[:: max(1, sum(map(len, texts)) // SAMPLE_CHARS)]


class BalancedOlmoeForCausalLM(OlmoeForCausalLM):
    """OLMoE whose load-balancing loss is taken layer by layer and averaged, as OLMoE was trained.

    transformers adds up the loads of all layers first, so that one layer's idle expert pays for another layer's busy
    one: measured here after 160 steps at a weight of 0.01, a MaxVio of 2.8 in one layer, against 0.8 layer by layer.
    """

    def __init__(self, config: OlmoeConfig, balance_coef: float) -> None:
        super().__init__(config)
        self.balance_coef = balance_coef

    @wraps(OlmoeForCausalLM.forward)
    def forward(self, *args: Any, **kwargs: Any) -> MoeCausalLMOutputWithPast:
        outputs = super().forward(*args, **kwargs)
        per_layer = [load_balancing_loss_func((logits,), self.num_experts, self.num_experts_per_tok)
                     for logits in outputs.router_logits]
        outputs.aux_loss = torch.stack(per_layer).mean()
        if outputs.loss is not None:
            outputs.loss = outputs.loss + self.balance_coef * outputs.aux_loss
        return outputs


@dataclass(frozen=True, slots=True)
class Size:
    """What makes a model of the demo large or small."""

    width: int = 128
    """Of the residual stream and of an expert."""
    layers: int = 4
    experts: int = 8

    @property
    def heads(self) -> int:
        """Rotary positions want an even width of each."""
        return 4 if self.width % 8 == 0 else 2

    def params(self, vocab_size: int) -> int:
        """Parameters: embedding and head; in a layer four attention matrices, router, norms, three for each expert."""
        w, e = self.width, self.experts
        return 2 * vocab_size * w + self.layers * (4 * w * w + e * w + 3 * e * w * w + 4 * w) + w


SMALL = Size(width=96, layers=2, experts=4)
"""For a demo of some seconds."""


def proxy_size(vocab_size: int, part: int) -> Size:
    """The size whose parameters come nearest to one `part`th of the demo's, with fewer layers where it is narrow."""
    wanted = Size().params(vocab_size) / part
    sizes = [Size(width, layers) for width in range(8, 129, 4) for layers in (1, 2, 3, 4) if layers <= width // 8]
    return min(sizes, key=lambda size: (abs(size.params(vocab_size) / wanted - 1), -size.layers))


def build_model(vocab_size: int, context: int, size: Size) -> BalancedOlmoeForCausalLM:
    """OLMoE; with the default `Size` and a vocabulary of 4096 it has 2.9 M parameters, 8 experts, 2 per token.

    Everything but the sizes is as in OLMoE-1B-7B (https://arxiv.org/abs/2409.02060), except for the weight of the
    load-balancing loss: 0.1 instead of 0.01 keeps every expert in use through the first hundred steps, when token
    vectors are still so alike that they switch experts together. Weights come from torch's global generator.
    """
    config = OlmoeConfig(
        vocab_size=vocab_size, max_position_embeddings=context, hidden_size=size.width, intermediate_size=size.width,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
        num_experts=size.experts, num_experts_per_tok=2,
        output_router_logits=True, router_aux_loss_coef=0.0, use_cache=False,
        bos_token_id=None, pad_token_id=None, eos_token_id=0)
    return BalancedOlmoeForCausalLM(config, balance_coef=0.1)
