"""Published constants of the Chinchilla law, as curves to compare with.

A loss is a property of the tokenizer, the text and the sequence length as much as of the model: between two
tokenizers the same model's nats per token differ by tens of percent. N* and D* travel better than losses do, and
D* / N* at a given budget depends on the tokenizer too. Fit a ladder of your own before money depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from checks.scaling.chinchilla import Law
from trainvitals.errors import UsageError


@dataclass(frozen=True, slots=True)
class Reference:
    """One published law."""

    name: str
    law: Law
    flops: tuple[float, float]
    """Compute of the runs that it was fitted to: from, to."""
    sizes: tuple[float, float]
    """Their parameters: from, to."""
    data: str
    """Text and tokenizer whose losses these are."""
    counts: str
    """What N counts."""
    note: str
    source: str
    band: tuple[tuple[float, float], ...] = ()
    """(compute over the largest fitted run, half-width of the 90 % band in log units), where it was measured."""

    @property
    def band_source(self) -> str:
        return BAND_SOURCE

    def band_at(self, flops: float) -> float | None:
        """Half-width of the 90 % band of the loss on the same text and tokenizer; None where nobody measured it."""
        if not self.band:
            return None
        ratio, width = np.log([r for r, _ in self.band]), np.array([w for _, w in self.band])
        asked = np.log(max(flops / self.flops[1], 1.0))
        return float(np.interp(asked, ratio, width) * max(1.0, asked / ratio[-1]))

    def caveat(self, flops: float) -> str:
        """What to keep in mind at this budget: one or two sentences."""
        said = f"Losses are of {self.data}; another tokenizer or text has other losses."
        low, high = self.flops
        if not low <= flops <= high:
            said += f" {flops:.3g} FLOPs lie outside the {low:.0e} to {high:.0e} of the fitted runs."
        return said


BAND_SOURCE = "rolling-origin backtest on the 240 runs of Besiroglu et al. 2024"
_CHINCHILLA_DATA = "MassiveText with its 32,000-word SentencePiece tokenizer"
REFERENCES: dict[str, Reference] = {
    "hoffmann": Reference(
        "Hoffmann et al. 2022, approach 3",
        Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
        (6e18, 3e21), (7e7, 1.6e10), _CHINCHILLA_DATA, "all parameters",
        "As printed. The minimiser had stopped early and the digits are rounded: on the paper's own runs these "
        "constants fit four times worse than the replication's, and their 93 tokens per parameter at Chinchilla's "
        "budget contradict the paper's other two approaches.",
        "https://arxiv.org/abs/2203.15556",
    ),
    "besiroglu": Reference(
        "Besiroglu et al. 2024",
        Law(E=1.8169, A=482.01, B=2085.43, alpha=0.3478, beta=0.3659),
        (6e18, 3e21), (4.4e7, 1.6e10), _CHINCHILLA_DATA, "all parameters",
        "Hoffmann's 240 runs read off the paper's Figure 4 and fitted to the end.",
        "https://arxiv.org/abs/2404.10102",
        ((1, 0.013), (10, 0.020), (100, 0.026), (465, 0.030)),
    ),
    "muennighoff": Reference(
        "Muennighoff et al. 2023, C4",
        Law(E=exp(0.6254804), A=exp(6.255414), B=exp(7.3049974), alpha=0.3526596, beta=0.3526596),
        (1e19, 1e21), (7e6, 9e9), "C4 with the GPT-2 tokenizer", "all parameters",
        "Exponents held equal; fitted to 54 runs of one epoch read off Hoffmann et al.'s C4 figure. The base of the "
        "law of repeated data.",
        "https://arxiv.org/abs/2305.16264",
    ),
}


def reference(name: str) -> Reference:
    """A published law by its key.

    Raises:
        UsageError: no law has this key.
    """
    if name not in REFERENCES:
        raise UsageError(f"No published law is called {name!r}. Use one of {', '.join(REFERENCES)}.")
    return REFERENCES[name]
