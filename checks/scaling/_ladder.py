"""What a run's size and tokens are held against: the lab's own ladder where there is one, else published constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding
from checks.reading import has, remember, scalar
from checks.scaling._files import read_file
from trainvitals.store.folder import open_folder

if TYPE_CHECKING:
    from checks.scaling.chinchilla import Law
    from checks.scaling.fit import FitResult
    from checks.scaling.reference import Reference
    from trainvitals.store import Run

LADDER_FILE = "ladder.json"
BELOW = 0.5
"""Share of a ladder's smallest model, or fewest tokens, below which its law is not asked. Convention: backtests hold
out the largest runs, so nothing tells how far a law may be believed downwards."""
GIVE_LADDER = (
    f"Fit finished runs of your own and store the fit beside the runs: trainvitals scaling fit TABLE.csv --json > "
    f"RUNS/{LADDER_FILE}."
)


@dataclass(frozen=True, slots=True)
class Size:
    """A run in the units of a scaling law."""

    n: float
    """Parameters that one token passes through."""
    d: float
    """Tokens so far."""
    d_planned: float
    """Tokens at the planned end; those so far where no end is known."""

    @property
    def flops(self) -> float:
        """Compute at the planned end, 6 N D."""
        return 6 * self.n * self.d_planned


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A law, and how far it may be believed for this run."""

    law: Law
    source: str
    fit: FitResult | None = None
    """The lab's own ladder; None for published constants."""
    published: Reference | None = None
    """Whose constants they are, where there is no ladder."""

    @property
    def own(self) -> bool:
        """Whether the law was fitted to the lab's own runs."""
        return self.fit is not None


def size_of(run: Run) -> Size | None:
    """Parameters and tokens; None where the card or the signals do not say."""
    n = run.card.params_active or run.card.params_total
    if not n or not has(run, "data/tokens_seen"):
        return None
    seen = scalar(run, "data/tokens_seen").finite()
    if not len(seen) or seen.values[-1] <= 0:
        return None
    d, step = float(seen.values[-1]), int(seen.steps[-1])
    total = max(int(run.card.total_steps or 0), step)
    return Size(float(n), d, d * total / max(step, 1))


def unknown_size(run: Run) -> Finding:
    """The answer where `size_of` has none."""
    missing = "parameter count" if not (run.card.params_active or run.card.params_total) else "number of tokens seen"
    return Finding(
        level="unknown",
        summary=f"The {missing} of the run is not known.",
        what_it_means="A scaling law speaks of parameters and tokens.",
        what_to_do="Attach with tv.attach(model, optimizer, domains=...), or put params_total into the run card.",
    )


def yardstick(run: Run, ladder: str | FitResult | Reference | None) -> Yardstick:
    """What is given, else `ladder.json` in the run's folder or beside it, else published constants.

    Raises:
        UsageError: a ladder is named or found, but is no fit, or cannot be read.
    """
    from checks.scaling.fit import FitResult
    from checks.scaling.reference import Reference

    if isinstance(ladder, FitResult):
        return Yardstick(ladder.law, "the ladder given", ladder)
    if isinstance(ladder, Reference):
        return Yardstick(ladder.law, ladder.name, published=ladder)
    return remember(run, ("yardstick", ladder), lambda: _yardstick(run, ladder))


def _yardstick(run: Run, ladder: str | None) -> Yardstick:
    text, where = _find(run, ladder)
    if text is None:
        return Yardstick(published().law, published().name, published=published())
    from checks.scaling.fit import parse_fit

    fit = parse_fit(text, where)
    return Yardstick(fit.law, where, fit)


def _find(run: Run, ladder: str | None) -> tuple[bytes | None, str]:
    if ladder is not None:
        return read_file(ladder), ladder
    for place in (run.path, run.path.rstrip("/").rpartition("/")[0]):
        try:
            if place:
                return open_folder(place).read(LADDER_FILE), f"{place}/{LADDER_FILE}"
        except OSError:
            continue
    return None, ""


def published() -> Reference:
    """The published law that stands in for a ladder."""
    from checks.scaling.reference import REFERENCES

    return REFERENCES["besiroglu"]


def beyond_published(stick: Yardstick, size: Size) -> str | None:
    """Why published constants say nothing of a run of this size; None where they may be asked."""
    law = stick.published or published()
    low, high = law.sizes
    if not low <= size.n <= high:
        return (
            f"{size.n:.3g} parameters lie outside the {low:.1e} to {high:.1e} of the published runs "
            f"({law.name}), and there is no ladder of your own."
        )
    return None


def below_ladder(fit: FitResult, size: Size) -> str | None:
    """Why a ladder says nothing of a run that is smaller than its own; None where it may be asked."""
    for mine, least, what in (
        (size.n, float(fit.ladder.n.min()), "parameters"),
        (size.d_planned, float(fit.ladder.d.min()), "tokens"),
    ):
        if mine < BELOW * least:
            return (
                f"The run's {mine:.3g} {what} lie below the {least:.3g} of the ladder's smallest run: "
                "no backtest tests a law downwards."
            )
    return None


def other_unit(fit: FitResult) -> str | None:
    """Why a ladder's losses cannot be held against a run's nats per token; None where they can."""
    if fit.ladder.unit == "bits/byte":
        return "The ladder's losses are in bits per byte, and the run's in nats per token."
    return fit.unit_doubt if not fit.ladder.unit and fit.unit_doubt else None


def refused(summary: str, means: str) -> Finding:
    """An answer that needs a ladder of the lab's own."""
    return Finding(level="unknown", summary=summary, what_it_means=means, what_to_do=GIVE_LADDER)


def penalty(law: Law, size: Size) -> np.ndarray:
    """Relative loss paid against the optimum at equal compute; of the shape of the law's constants."""
    best = law.optimum(size.flops)
    with np.errstate(all="ignore"):
        return np.asarray(law.loss(size.n, size.d_planned) / best.loss - 1)
