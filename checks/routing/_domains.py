"""The domain mix of each window of loads, and the loads that the tap counted by domain.

Legend: w windows, D domains, L layers with a router, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from checks.reading import has, vector
from checks.robust import Bools, Floats
from checks.routing._loads import MAX_VALUES, Loads, counts
from trainvitals.card import UNATTRIBUTED

if TYPE_CHECKING:
    from trainvitals.store import Run

MOST_DOMAINS = 64
"""Those beyond are one."""
MOST_VALUES = 4 * MAX_VALUES
"""Counts by domain that are read of a run; rows after them are left to the regression on the mix."""
ALONE = 0.9
PART = 0.005
"""Share of the tokens of a run from which on a domain is a part of its mix."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the domains in the input tokens of each window."""

    labels: tuple[str, ...]
    """[D]"""
    shares: Floats
    """[w, D]; of a window without data rows those of the one before, NaN before the first."""

    def mean(self, windows: slice | NDArray[np.int64]) -> Floats:
        """[D] mean mix of these windows; NaN where there are none."""
        inside = self.shares[windows]
        inside = inside[np.isfinite(inside[:, 0])]
        mean: Floats = inside.mean(axis=0) if len(inside) else np.full(len(self.labels), np.nan)
        return mean

    def moved(self, before: Floats, after: Floats) -> str:
        """The domains whose shares differ most, as words: "code 25 % to 100 %, web 50 % to 0 %"."""
        gap = after - before
        worst = [i for i in dict.fromkeys((int(gap.argmax()), int(gap.argmin()))) if abs(gap[i]) > 0]
        return ", ".join(f"{self.labels[i]} {100 * before[i]:.3g} % to {100 * after[i]:.3g} %" for i in worst)


def distance(a: Floats, b: Floats) -> Floats:
    """Total variation distance of mixes [..., D]: the share of the tokens that is from another domain."""
    total: Floats = 0.5 * np.abs(a - b).sum(axis=-1)
    return total


def mix_of(run: Run, loads: Loads) -> Mix | None:
    """The mix of each window; None where no token has a domain."""
    data = vector(run, "data/domain_tokens")
    labels, tokens = data.labels, counts(data.values)
    if not tokens[:, [label != UNATTRIBUTED for label in labels]].any():
        return None
    if len(labels) > MOST_DOMAINS:
        rest = tokens[:, MOST_DOMAINS - 1 :].sum(axis=1, keepdims=True)
        labels, tokens = (*labels[: MOST_DOMAINS - 1], "others"), np.hstack([tokens[:, : MOST_DOMAINS - 1], rest])
    rows = np.searchsorted(data.steps, np.concatenate([[loads.first[0] - 1], loads.last]), side="right")
    sums = np.concatenate([np.zeros((1, len(labels))), np.cumsum(tokens, axis=0)])
    fed = np.diff(sums[rows], axis=0)
    some = fed.sum(axis=1) > 0
    if not some.any():
        return None
    newest = np.maximum.accumulate(np.where(some, np.arange(len(some)), -1))
    shares = fed / np.maximum(fed.sum(axis=1, keepdims=True), 1.0)
    return Mix(labels, np.where((newest >= 0)[:, None], shares[newest], np.nan))


def single(mix: Mix) -> Bools:
    """[w] windows of one domain, but for a tenth of their tokens at most."""
    alone: Bools = mix.shares.max(axis=1) >= ALONE
    return alone


def one_domain(mix: Mix) -> bool:
    """Whether the record knows one domain only, so that its shares cannot say what changed."""
    return bool((np.nanmean(mix.shares, axis=0) > PART).sum() < 2)


def loads_by_domain(run: Run, loads: Loads, mix: Mix) -> Iterator[tuple[int, Floats]]:
    """Step and tokens [D, L, E] of each row of `router/domain_tokens`, where they fit the loads and the mix."""
    if not has(run, "router/domain_tokens"):
        return
    row = run.signals().set_index("name").loc["router/domain_tokens"]
    first, last, points = int(row["first_step"]), int(row["last_step"]), int(row["points"])
    domains, layers, experts = run.array("router/domain_tokens", steps=(first, first)).labels
    if layers != loads.layers or not set(loads.experts) <= set(experts) or not set(domains) & set(mix.labels):
        return
    columns = [experts.index(e) for e in loads.experts]
    place = np.array([mix.labels.index(d) if d in mix.labels else len(mix.labels) - 1 for d in domains])
    width = len(domains) * len(layers) * len(experts)
    per_piece = max(MAX_VALUES // width, 1) * max((last - first) // max(points - 1, 1), 1)
    left = MOST_VALUES // width
    for start in range(first, last + 1, per_piece):
        rows = run.array("router/domain_tokens", steps=(start, min(start + per_piece, last + 1) - 1))
        for step, tokens in zip(rows.steps[:left].tolist(), rows.values[:left], strict=True):
            table = np.zeros((len(mix.labels), len(layers), len(columns)))
            np.add.at(table, place, counts(tokens[:, :, columns]))
            yield step, table
        left -= len(rows)
        if left <= 0:
            return


def plan_at(run: Run, mix: Mix, step: int) -> Floats | None:
    """[D] planned mix at a step: of the card, or of the last stage switch; None where it is not said for all."""
    shares: Mapping[str, Any] = run.card.domains
    events = run.events().dropna(subset=["step"])
    switches = events[(events["kind"] == "stage_switch") & (events["step"] <= step)].sort_values("step")
    for data in switches["data"]:
        new = data.get("domains") if isinstance(data, Mapping) else None
        shares = new if isinstance(new, Mapping) else {}
    if not all(isinstance(share, int | float) and share >= 0 for share in shares.values()):
        return None
    planned = np.array([float(shares.get(label, 0.0)) for label in mix.labels])
    return planned / planned.sum() if planned.sum() > 0 else None
