"""scaling.allocation: whether the run's compute is well split between parameters and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Level, Statistic, Threshold
from checks.registry import check
from checks.scaling._ladder import (
    GIVE_LADDER,
    Size,
    Yardstick,
    below_ladder,
    beyond_published,
    penalty,
    refused,
    size_of,
    unknown_size,
    yardstick,
)

if TYPE_CHECKING:
    from checks.scaling.fit import FitResult
    from checks.scaling.reference import Reference
    from trainvitals.store import Run

SOURCE = (
    "convention: .5 % of the loss is the scatter of the Chinchilla runs around their fit (.49 %, "
    "https://arxiv.org/abs/2404.10102), 1.5 % three times that"
)
TESTED_RATIO = 640.0
"""Most tokens per parameter at which over-training was shown to be predictable: https://arxiv.org/abs/2403.08540."""


@check(
    "scaling.allocation",
    area="scaling",
    reads=("data/tokens_seen",),
    refs=("https://arxiv.org/abs/2203.15556", "https://arxiv.org/abs/2404.10102", "https://arxiv.org/abs/2403.08540"),
)
def allocation(
    run: Run,
    *,
    warn_penalty: float = 0.005,
    fail_penalty: float = 0.015,
    over_trained_on_purpose: bool = False,
    ladder: str | FitResult | Reference | None = None,
) -> Iterator[Finding]:
    """The run's compute would buy a lower loss with another split between parameters and tokens.

    Why it matters: a model too large for its tokens, or too small for its compute, pays for every step and gets less.
    How to read it: loss of the planned run over the best loss at equal compute, 6 N D, by the ladder's law; the
    interval is the bootstrap's. A small model trained long for cheap inference is a policy, not a fault: say so
    (`over_trained_on_purpose`, or a note of that name in the run card). Published constants warn, never fail, and are
    not asked about sizes that they were not fitted to.
    """
    size = size_of(run)
    if size is None:
        yield unknown_size(run)
        return
    stick = yardstick(run, ladder)
    reason = _not_asked(stick, size)
    if reason:
        yield refused(reason, "Extrapolated this far, a law's optimum may be off by a factor of several.")
        return
    meant = over_trained_on_purpose or bool(run.card.notes.get("over_trained_on_purpose"))
    yield _judge(size, stick, warn_penalty, fail_penalty, meant)


def _judge(size: Size, stick: Yardstick, warn: float, fail: float, meant: bool) -> Finding:
    best = stick.law.optimum(size.flops)
    ratio, best_ratio = size.d_planned / size.n, float(best.tokens_per_parameter)
    lost = float(penalty(stick.law, size))
    low, high = _interval(stick, size)
    under = ratio < best_ratio
    level: Level = "pass"
    if lost > warn and not (meant and not under):
        # An interval that reaches below the first threshold leaves the fault unproven; published constants are others'.
        level = "fail" if lost > fail and stick.own and (low is None or low > warn) else "warn"
    shape = "too large for its tokens" if under else "too small for its compute"
    said = f"{ratio:,.3g} tokens per parameter, where {best_ratio:,.3g} are best at {size.flops:.3g} FLOPs"
    summary = (
        f"{said}: the split costs {100 * lost:.2f} % of the loss."
        if lost <= warn
        else f"The model is {shape}: {said}. It costs {100 * lost:.2f} % of the loss at equal compute"
        + (", as declared." if meant and not under else ".")
    )
    span = stick.fit.optimum_intervals(size.flops) if stick.fit else None
    return Finding(
        level=level,
        summary=summary,
        ongoing=level != "pass",
        n=len(stick.fit.ladder) if stick.fit else 0,
        statistic=Statistic("loss over the optimum's at equal compute", lost, "relative", low, high),
        threshold=Threshold(warn, fail, "relative", SOURCE),
        what_it_means=f"By the law of {stick.source}, {float(best.n):.3g} parameters and {float(best.d):.3g} tokens "
        f"are best: a loss of {float(best.loss):.4f} instead of {float(stick.law.loss(size.n, size.d_planned)):.4f}."
        + ("" if stick.own else " These constants are of other data and another tokenizer."),
        what_to_do="Nothing." if level == "pass"
        else ("Train longer, or take a smaller model." if under
              else "Take a larger model, or declare over_trained_on_purpose if the model is small for cheap inference.")
        + ("" if stick.own else f" First make sure: {GIVE_LADDER}"),
        details={
            "parameters": size.n, "tokens_planned": size.d_planned, "flops": size.flops, "tokens_per_parameter": ratio,
            "optimal_tokens_per_parameter": best_ratio, "optimal_parameters": float(best.n),
            "optimal_tokens": float(best.d), "intervals": span, "declared": meant, "law": stick.source,
            "beyond_tested_ratio": ratio > TESTED_RATIO,
        },
    )  # fmt: skip


def _interval(stick: Yardstick, size: Size) -> tuple[float | None, float | None]:
    """Bootstrap interval of the penalty, 95 %; None for published constants."""
    if stick.fit is None or stick.fit.laws is None:
        return None, None
    draws = penalty(stick.fit.laws, size)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def _not_asked(stick: Yardstick, size: Size) -> str | None:
    if stick.fit is None:
        return beyond_published(stick, size)
    if not stick.fit.identifiability.identifiable:
        return f"The ladder does not determine an optimum: {stick.fit.identifiability.reasons[0]}"
    return below_ladder(stick.fit, size)
