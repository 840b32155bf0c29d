"""scaling.repetition: how often the run will have seen its data, and what the repeats are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Level, Statistic, Threshold
from checks.reading import Rows, vector
from checks.registry import check

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "https://arxiv.org/abs/2305.16264: repeats are as good as new up to 4 epochs, worth next to nothing past 16"


@check(
    "scaling.repetition",
    area="scaling",
    reads=("data/domain_tokens",),
    refs=("https://arxiv.org/abs/2305.16264", "https://github.com/huggingface/datablations"),
)
def repetition(
    run: Run,
    *,
    warn_epochs: float = 4.0,
    fail_epochs: float = 16.0,
    allowed_epochs: Mapping[str, float] | None = None,
) -> Iterator[Finding]:
    """A domain is repeated so often by the end of the run that its repeats teach little.

    Why it matters: compute spent on the tenth reading of a text buys a third of what a fresh text would, and the model
    learns it by heart. How to read it: tokens of each domain at the planned end over its unique tokens (from the run
    card), and the fresh tokens that they are worth. A small clean domain may be repeated on purpose: `allowed_epochs`
    gives a limit of its own per domain.
    """
    tokens = vector(run, "data/domain_tokens")
    unique = {name: n for name, n in run.card.domain_tokens.items() if n > 0 and name in tokens.labels}
    if not unique or not len(tokens):
        yield Finding(
            level="unknown",
            summary="How many unique tokens the domains hold is not known.",
            n=len(tokens),
            what_it_means="Without their number nobody can tell a first reading from a tenth.",
            what_to_do="Attach with domain_tokens={domain: unique tokens}, or put them into the run card.",
        )
        return
    yield _judge(run, tokens, unique, warn_epochs, fail_epochs, allowed_epochs or {})


def _judge(
    run: Run, tokens: Rows, unique: Mapping[str, int], warn: float, fail: float, allowed: Mapping[str, float]
) -> Finding:
    step = int(tokens.steps[-1])
    ahead = max(int(run.card.total_steps or 0), step) / max(step, 1)
    seen = {name: float(np.nansum(tokens.values[:, tokens.labels.index(name)])) for name in unique}
    epochs = {name: seen[name] * ahead / unique[name] for name in unique}
    over = {name: e for name, e in epochs.items() if e > allowed.get(name, warn)}
    worst = max(epochs, key=lambda name: epochs[name] / allowed.get(name, warn))
    level: Level = "pass"
    if over:
        level = "fail" if any(e > fail and name not in allowed for name, e in over.items()) else "warn"
    worth = {name: fresh_worth(epochs[name]) * unique[name] for name in unique}
    spent = sum(seen.values()) * ahead
    share = sum(worth.values()) / spent if spent else 1.0
    return Finding(
        level=level,
        summary=f"{worst} will have been read {epochs[worst]:.3g} times by the end; all tokens together are worth "
        f"{100 * share:.0f} % of as many fresh ones.",
        steps=(int(tokens.steps[0]), step),
        ongoing=level != "pass",
        n=len(tokens),
        statistic=Statistic("epochs at the planned end", epochs[worst], "epochs"),
        threshold=Threshold(allowed.get(worst, warn), fail, "epochs", SOURCE),
        evidence=tuple(Evidence("data/domain_tokens", None, name) for name in (over or {worst: 0.0})),
        what_it_means="The repeats teach nearly as much as fresh text." if level == "pass"
        else "Part of the compute goes into text that the model already knows.",
        what_to_do="Nothing." if level == "pass"
        else f"Lower the share of {', '.join(over)}, add data there, or allow it by name if it is repeated on purpose.",
        details={"epochs": epochs, "effective_tokens": worth, "worth_share": share},
    )


def fresh_worth(epochs: float) -> float:
    """Fresh epochs that `epochs` passes are worth: 1 + R* (1 - exp(-(epochs - 1) / R*)), equation 5 of the source."""
    from checks.scaling.data_constrained import R_D_STAR

    if epochs <= 1:
        return epochs
    return float(1 + R_D_STAR * (1 - np.exp(-(epochs - 1) / R_D_STAR)))
