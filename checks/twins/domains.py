"""The domains of a run against those of its twin: which of them left it, also where the whole loss hides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from checks.reading import has
from checks.twins.judge import BOUNDS, Parting, controls, partings
from checks.twins.known import opened
from checks.twins.pair import Pair
from checks.twins.rows import LossRows, from_arrays
from trainvitals.store import Run

SIGNAL = "loss/domain"
MOST_DOMAINS = 128


@dataclass(frozen=True, slots=True)
class DomainParting:
    """One domain's loss left the twin's."""

    domain: str
    parting: Parting


def domain_rows(run: Run, branch: int | None = None) -> dict[str, LossRows]:
    """The loss of each domain; a step without tokens of it has no row."""
    if not has(run, SIGNAL):
        return {}
    series = run.array(SIGNAL, branch=branch)
    rows: dict[str, LossRows] = {}
    for i, domain in enumerate(series.labels[0][:MOST_DOMAINS]):
        values = np.asarray(series.values[:, i], float)
        known = np.isfinite(values) if series.present is None else np.isfinite(values) & series.present[:, i]
        rows[domain] = from_arrays(domain, series.steps[known], values[known])
    return rows


def domain_partings(run: Run, twins: Sequence[tuple[LossRows, Pair]]) -> tuple[list[DomainParting], int]:
    """What left the twin with the least noise upward, domain by domain; and how many domains were looked at.

    As many series are looked at as there are domains, so each is judged at that fraction of the false alarms.
    """
    usable = [(twin, pair) for twin, pair in twins if pair.usable]
    mine = domain_rows(run)
    if not usable or not mine:
        return [], 0
    twin, pair = max(usable, key=lambda known: known[1].noise_ratio or 0.0)
    theirs = domain_rows(*opened(twin.name))
    both = [domain for domain in mine if domain in theirs]
    bounds = replace(BOUNDS, alpha=BOUNDS.alpha / max(len(both), 1), alpha_rows=BOUNDS.alpha_rows / max(len(both), 1))
    found, looked = [], 0
    for domain in both:
        under_scan = controls(mine[domain], [(theirs[domain], pair)], bounds)
        looked += bool(under_scan)
        found += [DomainParting(domain, p) for p in partings(under_scan) if p.moved is not False]
    return found, looked
