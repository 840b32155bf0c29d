"""How to train a small twin of a run first: what sizes cost, and how to hold the two together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trainvitals.card import RunCard
from trainvitals.errors import UsageError

PARTS = (4, 12, 30)
FLOPS_PER_PARAMETER = 6
"""Training FLOP for each token and parameter that it passes through (Kaplan et al., https://arxiv.org/abs/2001.08361)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A model of one so-manyth of a run's size, on the run's batches."""

    part: int
    params: int
    """Of the whole model, to be aimed at."""
    scale: float | None
    """Factor for width and depth alike that gives it; None where the embeddings' share is not known."""
    layers: int | None
    flops_share: float
    """Training FLOP over the run's, on as many tokens."""
    flops: float | None
    """Training FLOP; None where the run's tokens are not known."""

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals twin --json` prints it."""
        return asdict(self)


def proxies(card: RunCard, tokens: float | None) -> list[Proxy]:
    """Proxies of `PARTS` of a run's size.

    Args:
        card: the run's.
        tokens: what it was or will be trained on; None where unknown.

    Raises:
        UsageError: the card does not say how large the model is.
    """
    if not card.params_total:
        raise UsageError("The run's card does not say how many parameters the model has (`params_total`). Attach the "
                         "tap with the model, or write it into the card when importing.")  # fmt: skip
    return [_proxy(card, tokens, part) for part in PARTS]


def _proxy(card: RunCard, tokens: float | None, part: int) -> Proxy:
    total = card.params_total or 0
    wanted = total / part
    scale = None if card.params_embedding is None else _scale(total, card.params_embedding, wanted)
    layers = None if scale is None or not card.layers else max(round(scale * card.layers), 1)
    active = card.params_active or total
    whole = card.flops_per_token or FLOPS_PER_PARAMETER * active
    share = 1 / part if scale is None else _grown(active, card.params_embedding or 0, scale) / active
    return Proxy(part, round(wanted), scale, layers, share, None if tokens is None else share * whole * tokens)


def _grown(params: int, embedding: int, r: float) -> float:
    """Parameters with width and depth r times as large: embedding and head grow by r, what lies between by r^3."""
    head = min(2 * embedding, params)
    return (params - head) * r**3 + head * r


def _scale(total: int, embedding: int, wanted: float) -> float:
    """The r at which a model has the wanted parameters, by bisection: they rise with r."""
    low, high = 0.0, 1.0
    for _ in range(60):
        r = (low + high) / 2
        low, high = (r, high) if _grown(total, embedding, r) < wanted else (low, r)
    return (low + high) / 2
