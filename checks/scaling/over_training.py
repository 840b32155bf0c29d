"""The law of over-training: loss from size and token multiplier M = D / N, fitted near the optimum, used far from it.

Gadre et al. 2024 (https://arxiv.org/abs/2403.08540):

    L(C, M) = E + (a M^eta + b M^-eta) C^-eta

With C = 6 N^2 M this is Chinchilla's law with equal exponents alpha = beta = 2 eta. At a fixed M the loss therefore
falls with the same exponent whether M is 20 or 640: over-training is a policy whose price is known, not a fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN, Law
from checks.scaling.levenberg import Floats


@dataclass(frozen=True, slots=True)
class OverTraining:
    """Constants of L(C, M)."""

    E: float
    a: float
    b: float
    eta: float

    @classmethod
    def of(cls, law: Law) -> OverTraining:
        """The same law in Gadre's form; `law` must have been fitted with equal exponents."""
        eta = law.alpha / 2
        scale = FLOPS_PER_PARAMETER_TOKEN**eta
        return cls(law.E, law.A * scale, law.B * scale, eta)

    def law(self) -> Law:
        """The same law in Chinchilla's form."""
        scale = FLOPS_PER_PARAMETER_TOKEN**-self.eta
        return Law(self.E, self.a * scale, self.b * scale, 2 * self.eta, 2 * self.eta)

    def loss(self, flops: ArrayLike, multiplier: ArrayLike) -> Floats:
        """Loss at a compute budget spent with `multiplier` tokens per parameter."""
        m = np.asarray(multiplier, dtype=float)
        c = np.asarray(flops, dtype=float)
        return np.asarray(self.E + (self.a * m**self.eta + self.b * m**-self.eta) * c**-self.eta)

    @property
    def best_multiplier(self) -> float:
        """M with the lowest loss, the same at every budget: (b / a)^(1 / (2 eta))."""
        return float((self.b / self.a) ** (1 / (2 * self.eta)))


PUBLISHED = {
    "C4": OverTraining(1.51, 141.0, 190.0, 0.121),
    "RedPajama": OverTraining(1.84, 212.0, 367.0, 0.136),
    "RefinedWeb": OverTraining(1.73, 157.0, 246.0, 0.127),
}
"""Table 6: fitted to five runs per training set, C4 validation losses, GPT-NeoX tokenizer, N with embeddings."""
TESTED_MULTIPLIERS = (5.0, 640.0)
"""Tokens per parameter of the 104 runs."""
