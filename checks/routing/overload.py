"""router.overload: one expert takes far more than its share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground
from checks.registry import check
from checks.robust import Floats
from checks.routing._domains import single
from checks.routing._episodes import Course, Limits, course, early, episodes, sustained, unseen
from checks.routing._loads import Loads, loads, no_choice, too_few
from checks.routing._mix import Account, explain

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on trained routers: MaxVio 0.08-0.33 with 8 experts, 1.5-2.0 with 64 on mixed text, up to 6.8 on text of "
    "a single domain (https://github.com/allenai/OLMoE); limits are shares of the largest possible value E/k - 1"
)
MAX_VIO = "MaxVio says how far the busiest expert is above the mean of its layer: 0 is balanced, 1 is twice the mean."


@check(
    "router.overload",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens", "router/domain_tokens"),
    refs=("https://arxiv.org/abs/2408.15664", "https://github.com/allenai/OLMoE"),
)
def overload(
    run: Run,
    *,
    warn_of_ceiling: float = 0.5,
    fail_of_ceiling: float = 0.85,
    own_factor: float = 2.0,
    own_margin: float = 0.5,
    z: float = 6.0,
    windows: int = 32,
) -> Iterator[Finding]:
    """An expert's load is near the largest possible one, or far above what is usual in this run.

    Why it matters: the overloaded expert sets the speed of its rank and drops tokens where capacity is bounded. How
    to read it: MaxVio = (largest - mean) / mean load of a layer, in windows of at least 200 tokens per expert, less
    what chance adds. It can reach E/k - 1 (every token takes the same k experts), so the limits depend on the
    experts. Text of one domain alone brings healthy routers near it. So what the mix of each window asks of an expert
    beyond the usual mix, by what its domains asked for before, is taken out; on one domain only the run's own level
    counts; and where nothing says what the mix asks for, the answer is a warning at most.
    """
    found = loads(run)
    if found is None:
        yield too_few()
        return
    if (answer := no_choice(found)) is not None:
        yield answer
        return
    account, plain, warn = explain(run), _violation(found, found.ratio), warn_of_ceiling * found.ceiling
    limits = Limits(
        lambda center, sigma: np.fmax(own_factor * center + own_margin, center + z * sigma),
        own_margin,
        np.where(single(account.mix), np.inf, warn)[:, None] if account.mix is not None else warn,
        windows,
    )
    rest = account.explained.standard(found.ratio) if account.explained is not None else found.ratio
    violation = _violation(found, rest)
    overloaded, masked = episodes(run, found, violation, limits)
    threshold = Threshold(warn, fail_of_ceiling * found.ceiling, "MaxVio", SOURCE)
    ground = Ground(len(found.first), threshold, details=_details(found, account))
    if overloaded:
        head = overloaded[0]
        expert = int(rest[early(head), head.layer].mean(axis=0).argmax())
        told = course(run, found, overloaded, expert)
        yield _alarm(ground, told, expert, sustained(plain, overloaded), sustained(violation, overloaded))
        return
    ground = replace(ground, masked=masked)
    moved = episodes(run, found, plain, limits)[0] if account.explained is not None else []
    c = course(run, found, moved, None) if moved else None
    if c is not None and c.into_the_unseen:
        yield unseen(ground, c, "loads one expert more than before")
        return
    yield ground.passed(
        f"The mix moved ({c.moved}), and explains the busiest experts."
        if c and c.moved else "No expert is overloaded.",
        Statistic(f"MaxVio{' at the usual mix' if account.explained else ''}, median over windows of the worst layer",
                  float(np.median(violation, axis=0).max()), "MaxVio"),
        f"No load is far above what is usual in this run. {MAX_VIO}{_caveats(found, account)}",
    )  # fmt: skip


def _violation(found: Loads, ratio: Floats) -> Floats:
    """[w, L] MaxVio less what chance adds."""
    violation: Floats = np.clip(ratio.max(axis=-1) - 1 - found.noise, 0.0, found.ceiling)
    return violation


def _details(found: Loads, account: Account) -> dict[str, object]:
    return {"rows_per_window": found.rows_per_window, "ceiling": found.ceiling, "top_k": found.top_k,
            "top_k_known": found.top_k_known, "mix_recorded": account.explained is not None}  # fmt: skip


def _caveats(found: Loads, account: Account) -> str:
    alone = account.mix is not None and single(account.mix).any()
    return (f" {account.missing}" if account.missing else "") + (
        " On one domain alone no absolute limit holds: healthy routers reach the largest load there." if alone else ""
    ) + (
        " Experts per token are not recorded, so the limit is that of one per token, the widest."
        if found.top_k_known == "nowhere" else ""
    )  # fmt: skip


def _alarm(ground: Ground, c: Course, expert: int, observed: float, violation: float) -> Finding:
    layer, name, many = c.layers[0], c.loads.experts[expert], len(c.layers) > 1
    return ground.alarm(
        c.lead + f"{'e' if c.lead else 'E'}xpert {name} of layer {layer} {'is' if c.spell.ongoing else 'was'} "
        f"overloaded {c.spell.words}: "
        f"MaxVio {observed:.2g} of at most {c.loads.ceiling:.2g}"
        + (f", {len(c.layers)} layers affected." if many else "."),
        Statistic(f"MaxVio{' beyond what the mix explains' if c.account.explained else ''}, held by three of four "
                  "windows", violation, "MaxVio"),
        c.spell,
        level="warn" if c.into_the_unseen or c.account.explained is None else None,
        evidence=[Evidence("router/load", c.spell.steps, f"{layer}.{name}"), *c.evidence("router/max_vio")],
        means=f"This expert slows its rank and, where capacity is bounded, drops tokens. {MAX_VIO}" + c.mix_sentence,
        do=f"Compare router inputs and the load-balancing term before and after step {c.spell.first:,}; raise its "
        "weight, or the bias step of loss-free balancing (https://arxiv.org/abs/2408.15664)." + c.log_sentence,
        details=c.details,
        onset=c.onset("the expert's share"),
    )
