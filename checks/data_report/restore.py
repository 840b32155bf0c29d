"""The sampling weights that bring what was fed back to the plan over the next tokens, and what they cost in repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.data.mix import current_plan
from checks.scaling.repetition import fresh_worth

if TYPE_CHECKING:
    from trainvitals.store import Run

WARN_EPOCHS, FAIL_EPOCHS = 4.0, 16.0
"""Repeats are as good as new up to 4 epochs and worth next to nothing past 16: https://arxiv.org/abs/2305.16264."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain of the plan over the next tokens."""

    name: str
    planned: float
    fed: float
    """Tokens so far, in this stage."""
    share: float
    weight: float
    """Part of the next tokens that it should have."""
    unique: int | None
    epochs_now: float | None
    epochs_then: float | None
    worth: float | None
    """Part of its next tokens that are as good as fresh ones; None where its size is not known."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The weights over the next tokens."""

    over: float
    since: int
    """First step that the plan holds for."""
    domains: tuple[Domain, ...]
    off_now: float
    """Total variation distance to the plan."""
    off_then: float
    needs: float | None
    """Smallest number of tokens after which the plan can hold again; None where none is enough."""


def restore(run: Run, over: float) -> Restored | str:
    """Weights for the next `over` tokens, or why there are none.

    Of domain d with planned share p and T tokens of it fed, (p (sum T + N) - T) / N of the next N tokens are needed.
    What is negative is 0: such a domain has more than it may have even then, and the others share the rest in the
    ratio of what they need, which leaves the smallest distance that N tokens can.
    """
    stage = current_plan(run)
    if stage is None:
        return "The run card has no planned shares in force. Attach with domains={name: planned share}, and give a " \
            "stage switch its shares."
    names, plan, fed, since = stage
    if fed.sum() <= 0:
        return "No row has tokens of a planned domain yet."
    weights, off_then = weights_for(plan, fed, over)
    impossible = bool(((plan <= 0) & (fed > 0)).any())
    with np.errstate(divide="ignore", invalid="ignore"):
        needs = float(np.max(np.where(plan > 0, fed / plan, 0.0)) - fed.sum())
    seen = _seen(run)
    domains = tuple(
        _domain(name, plan[i], fed[i], fed.sum(), weights[i], over, run.card.domain_tokens, seen)
        for i, name in enumerate(names)
    )
    off = 0.5 * float(np.abs(fed / fed.sum() - plan).sum())
    return Restored(over, since, domains, off, off_then, None if impossible else max(needs, 0.0))


def weights_for(plan: np.ndarray, fed: np.ndarray, over: float) -> tuple[np.ndarray, float]:
    """Weights [D] of the next `over` tokens, and the total variation distance to the plan [D] after them."""
    total = fed.sum() + over
    needed = np.maximum(plan * total - fed, 0.0)
    weights = needed / needed.sum()
    return weights, 0.5 * float(np.abs((fed + over * weights) / total - plan).sum())


def _seen(run: Run) -> dict[str, float]:
    data = run.array("data/domain_tokens")
    return dict(zip(data.labels[0], np.nansum(data.values, axis=0).tolist(), strict=True))


def _domain(name: str, planned: float, fed: float, total: float, weight: float, over: float,
            sizes: Mapping[str, int], seen: Mapping[str, float]) -> Domain:
    unique = sizes.get(name) or None
    now = then = worth = None
    if unique:
        now = seen.get(name, 0.0) / unique
        then = now + over * weight / unique
        worth = (fresh_worth(then) - fresh_worth(now)) / (then - now) if then > now else 1.0
    return Domain(name, float(planned), float(fed), float(fed / total), float(weight), unique, now, then, worth)
