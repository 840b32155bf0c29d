"""scaling.on_curve: a finished run's loss against the one that the ladder predicts for its size and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Level, Statistic, Threshold
from checks.reading import has, scalar
from checks.registry import check
from checks.scaling._ladder import (
    GIVE_LADDER,
    Size,
    Yardstick,
    below_ladder,
    other_unit,
    refused,
    size_of,
    unknown_size,
    yardstick,
)
from checks.scaling.run_curve import plan_of

if TYPE_CHECKING:
    from checks.scaling.fit import FitResult
    from checks.scaling.reference import Reference
    from trainvitals.store import Run

SOURCE = (
    "measured: extrapolating the Chinchilla fit on 240 runs errs by 1.0 to 1.3 %; 4 % is a good extrapolation "
    "(https://arxiv.org/abs/2410.11840)"
)
DONE_SHARE = 0.99
TO_SIGMA = 1.645
"""Half a 90 % band in standard deviations."""
_COSTLY = (
    "Something cost this run more than the spread among runs of the ladder.",
    "Compare with the ladder: data mix, tokenizer, validation set, learning rate, batch, precision.",
)
MEANING: dict[Level, tuple[str, str]] = {
    "pass": ("The model is as good as its size and tokens say.", "Nothing."),
    "warn": _COSTLY,
    "fail": _COSTLY,
    "unknown": (
        "Too good to be the ladder's curve: a better recipe, or a loss of another tokenizer, text or mask, or "
        "validation text among the training data.",
        "Make sure that the losses are comparable, audit the validation set (trainvitals audit); then refit.",
    ),
}


@check(
    "scaling.on_curve",
    area="scaling",
    reads=("loss/train",),
    uses=("loss/val", "data/tokens_seen"),
    needs=("scaled", "rank"),
    refs=("https://arxiv.org/abs/2203.15556", "https://arxiv.org/abs/2410.11840"),
)
def on_curve(
    run: Run,
    *,
    warn_sigma: float = 2.0,
    fail_sigma: float = 3.0,
    warn_share: float = 0.01,
    fail_share: float = 0.025,
    ladder: str | FitResult | Reference | None = None,
) -> Iterator[Finding]:
    """The run ends above the loss that the ladder predicts for its parameters and tokens.

    Why it matters: a run above the curve has lost something that its size and data should have bought: a wrong rate,
    bad data, a bug. How to read it: log of observed over predicted loss, in errors of the ladder's own backtest. Only
    the end of a run is comparable: before its learning rate is annealed a healthy run reads .7 to 3 % high, so the
    check refuses until then, and it refuses published constants, whose losses are of another tokenizer and text. A
    run that is better than its ladder allows is not comparable either: unknown.
    """
    size = size_of(run)
    if size is None:
        yield unknown_size(run)
        return
    state = _not_annealed(run)
    if state is not None:
        yield state
        return
    stick = yardstick(run, ladder)
    if stick.fit is None:
        yield refused("No ladder of your own to hold the loss against.",
                      "Losses of another tokenizer, text and sequence length are not comparable with this run's.")
        return
    quality, why = stick.fit.judgement
    if stick.fit.backtest is None or quality in ("fail", "unknown"):
        yield refused(f"The ladder cannot judge a run: {why}", "A fit that misses its own runs predicts no others.")
        return
    if unit := other_unit(stick.fit):
        yield refused(unit, "Losses in two units are not comparable.")
        return
    if below := below_ladder(stick.fit, size):
        yield refused(below, "Extrapolated downwards, a law's loss may be off by any amount.")
        return
    yield _judge(run, size, stick, warn_sigma, fail_sigma, warn_share, fail_share)


def _judge(
    run: Run, size: Size, stick: Yardstick, warn_sigma: float, fail_sigma: float, warn_share: float, fail_share: float
) -> Finding:
    assert stick.fit is not None and stick.fit.backtest is not None
    name = "loss/val" if has(run, "loss/val") else "loss/train"
    rows = scalar(run, name).finite()
    last = rows.values[-max(len(rows) // 100, 5) :] if name == "loss/train" else rows.values[-1:]
    seen, told = float(np.mean(last)), float(stick.law.loss(size.n, size.d))
    sigma = stick.fit.backtest.band_at(6 * size.n * size.d / stick.fit.largest_flops) / TO_SIGMA
    away = float(np.log(seen / told))
    level: Level = "pass"
    if away > warn_sigma * sigma and away > warn_share:
        level = "fail" if away > fail_sigma * sigma and away > fail_share else "warn"
    elif away < -fail_sigma * sigma and away < -fail_share:
        level = "unknown"
    means, todo = MEANING[level]
    where, kind = "above" if away > 0 else "below", "a validation loss of " if name == "loss/val" else ""
    at = int(rows.steps[-1])
    return Finding(
        level=level,
        summary=f"The run ends at {kind}{seen:.4f} nats per token, {100 * abs(np.expm1(away)):.2f} % {where} the "
        f"{told:.4f} that the ladder predicts ({away / sigma:+.1f} backtest errors).",
        steps=(int(rows.steps[0]), at),
        ongoing=level in ("warn", "fail"),
        n=len(stick.fit.ladder),
        statistic=Statistic("log loss over predicted", away, "1", away - TO_SIGMA * sigma, away + TO_SIGMA * sigma),
        threshold=Threshold(max(warn_sigma * sigma, warn_share), max(fail_sigma * sigma, fail_share), "1", SOURCE),
        evidence=(Evidence(name, (int(rows.steps[0]), at)),),
        what_it_means=means,
        what_to_do=todo,
        details={"ladder": stick.source, "parameters": size.n, "tokens": size.d, "sigma_backtest": sigma},
    )


def _not_annealed(run: Run) -> Finding | None:
    plan = plan_of(run)
    if plan is None:
        return Finding(
            level="unknown",
            summary="The anneal state of the run is not known: its card holds no learning-rate plan.",
            what_it_means="Before its learning rate is annealed a healthy run reads .7 to 3 % above its curve.",
            what_to_do="Attach with scheduler=... and total_steps=..., or put the plan into the run card.",
        )
    share = int(run.last_step or 0) / len(plan)
    if share >= DONE_SHARE:
        return None
    return Finding(
        level="unknown",
        summary=f"The run is at {100 * share:.0f} % of its schedule: not annealed like the finished runs of a ladder.",
        what_it_means="Before its learning rate is annealed a healthy run reads .7 to 3 % above its curve.",
        what_to_do="Ask again at the end; until then scaling.final_forecast says where the run is going.",
        details={"needs": GIVE_LADDER},
    )
