"""Published models: how large they are and how long they were trained, for a chart of compute against size."""

from __future__ import annotations

from dataclasses import dataclass

from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN


@dataclass(frozen=True, slots=True)
class Model:
    """One published model."""

    name: str
    n: float
    """Parameters that a token passes through."""
    d: float
    """Tokens trained on."""
    source: str

    @property
    def flops(self) -> float:
        return FLOPS_PER_PARAMETER_TOKEN * self.n * self.d


MODELS = (
    Model("GPT-3", 175e9, 300e9, "https://arxiv.org/abs/2005.14165"),
    Model("Gopher", 280e9, 300e9, "https://arxiv.org/abs/2112.11446"),
    Model("Chinchilla", 70e9, 1.4e12, "https://arxiv.org/abs/2203.15556"),
    Model("Pythia 1.4B", 1.4e9, 300e9, "https://arxiv.org/abs/2304.01373"),
    Model("LLaMA 7B", 6.7e9, 1e12, "https://arxiv.org/abs/2302.13971"),
    Model("Llama 2 70B", 70e9, 2e12, "https://arxiv.org/abs/2307.09288"),
    Model("OLMo 2 7B", 7.3e9, 4e12, "https://arxiv.org/abs/2501.00656"),
    Model("Llama 3.1 405B", 405e9, 15.6e12, "https://arxiv.org/abs/2407.21783"),
    Model("DeepSeek-V3", 37e9, 14.8e12, "https://arxiv.org/abs/2412.19437"),
)
"""Of a mixture of experts the active parameters, as for its compute."""
