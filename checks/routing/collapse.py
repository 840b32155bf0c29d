"""router.collapse: a layer's tokens crowd onto few experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground
from checks.registry import check
from checks.robust import Floats
from checks.routing._domains import distance, plan_at
from checks.routing._episodes import MIX_NOTE, Course, Limits, course, early, episodes, sustained, unseen
from checks.routing._loads import Loads, effective_number, loads, no_choice, too_few
from checks.routing._mix import Account, Explained, explain

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on trained routers: 0.08 with 8 experts, 0.13 with 64 on mixed text, 0.58 on text of a single domain "
    "(https://github.com/allenai/OLMoE); 1 is a router that always takes the same experts"
)
UNIT = "collapse, 0 to 1"
BEYOND_ANY_TEXT = 0.9
"""Collapse that no mix explains, seen or not: it lies as far above the 0.58 of a single domain as that above mixed
text."""


@check(
    "router.collapse",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens", "router/domain_tokens"),
    refs=("https://arxiv.org/abs/2408.15664", "https://github.com/allenai/OLMoE"),
)
def collapse(
    run: Run,
    *,
    warn_degree: float = 0.65,
    fail_degree: float = 0.8,
    own_rise: float = 0.25,
    z: float = 6.0,
    windows: int = 32,
) -> Iterator[Finding]:
    """A layer uses few of its experts: the effective number falls towards the k that one token takes.

    Why it matters: a collapsed router is a dense model that pays for experts. How to read it: collapse = (E -
    effective experts) / (E - k), effective experts = exp(entropy of the load); 0 is even, 1 is the same k experts
    for every token. Besides the absolute limits, a rise by `own_rise` above the run's own recent level counts. Text
    of one domain takes few experts of a healthy router, too, so what the mix of each window asks for, by what its
    domains asked for before, is taken out: the experts that it leaves stand for E. Loads that only the mix
    concentrates are specialisation, and pass, or warn where that mix is not the planned one. Where the mix moved to
    domains that the run had not seen, the answer is a warning up to 0.9; where no domains are recorded, it says so.
    """
    found = loads(run)
    if found is None:
        yield too_few()
        return
    if (answer := no_choice(found)) is not None:
        yield answer
        return
    account, degree = explain(run), found.degree
    limits = Limits(lambda center, sigma: center + np.fmax(own_rise, z * sigma), own_rise / 2, warn_degree, windows)
    beyond = account.explained.beyond(degree) if account.explained is not None else degree
    collapsed, masked = episodes(run, found, beyond, limits)
    threshold = Threshold(warn_degree, fail_degree, UNIT, SOURCE)
    ground = Ground(len(found.first), threshold, details=_details(found, account))
    if collapsed:
        yield _alarm(ground, course(run, found, collapsed, None), sustained(beyond, collapsed))
        return
    explained = account.explained
    ground = replace(ground, masked=masked)
    told = episodes(run, found, degree, limits)[0] if explained is not None else []
    if explained is not None and told:
        c = course(run, found, told, None)
        if c.into_the_unseen:
            yield unseen(ground, c, "concentrates its tokens")
            return
        if c.moved:
            yield _specialised(run, ground, c, explained)
            return
    yield _passed(run, ground, found, account, limits, beyond)


def _passed(run: Run, ground: Ground, found: Loads, account: Account, limits: Limits, beyond: Floats) -> Finding:
    if found.top_k_known == "nowhere" and (most := _most_experts_per_token(run, found, limits)):
        return ground.unknown(
            f"How many experts a token takes is not recorded; if it is {most} or more, a router may have collapsed.",
            "The effective number of experts has k as its floor, so the same load is even or collapsed by k.",
            "Write top_k into the run card.",
        )
    return ground.passed(
        "No router has collapsed." if not found.by_construction.any() else _some_by_construction(found),
        Statistic(f"collapse{' beyond what the mix explains' if account.explained else ''}, median over windows of the "
                  "worst layer", float(np.median(beyond, axis=0).max()), UNIT),
        f"Layers use the experts they have.{_caveats(found, account)}",
    )  # fmt: skip


def _details(found: Loads, account: Account) -> dict[str, object]:
    return {"rows_per_window": found.rows_per_window, "mix_recorded": account.explained is not None,
            "top_k": found.top_k, "top_k_known": found.top_k_known, "shared_experts": list(found.shared)}  # fmt: skip


def _caveats(found: Loads, account: Account) -> str:
    return (f" {account.missing}" if account.missing else "") + (
        " Experts per token are not recorded; any number that the loads allow gives this answer."
        if found.top_k_known == "nowhere" else ""
    )  # fmt: skip


def _some_by_construction(found: Loads) -> str:
    equal = int(found.by_construction.sum())
    return (f"No router has collapsed in {len(found.layers) - equal} of {len(found.layers)} layers; in the others "
            "loads are equal by construction and say nothing.")  # fmt: skip


def _most_experts_per_token(run: Run, found: Loads, limits: Limits) -> int:
    """The k from which on these loads would be an alarm; 0 where no k that they allow makes them one.

    An expert is taken once per token at most, so its share is at most 1 / k; and no known model takes more than half of
    its experts.
    """
    largest = np.maximum.accumulate(found.ratio.max(axis=(1, 2))) / len(found.experts)
    for k in range(2, len(found.experts) // 2 + 1):
        allowed = (largest * k <= 1.02)[:, None]
        degree: Floats = np.where(allowed, found.degree_of(found.effective_experts, k), 0.0)
        if episodes(run, found, degree, limits)[0]:
            return k
    return 0


def _specialised(run: Run, ground: Ground, c: Course, explained: Explained) -> Finding:
    """Loads that crowd onto few experts because the mix asks for these."""
    head, found, mix = c.episodes[0], c.loads, explained.mix
    inside = slice(head.first, head.last + 1)
    effective = float(np.median(found.effective_experts[inside, head.layer]))
    usual = float(np.median(found.effective_experts[: head.first, head.layer]))
    asked = explained.expected[early(head), head.layer] / len(found.experts)
    says = (f"the mix moved ({c.moved}), and explains that layer {c.layers[0]} spreads its tokens over "
            f"{effective:.1f} effective experts of {len(found.experts)}, {usual:.1f} before: "
            f"{float(np.median(effective_number(asked))):.1f} were to be expected.")  # fmt: skip
    means = ("Specialisation, not collapse: experts of domains that are hardly fed rest. What was to be expected is "
             "what the domains asked for before the change.")  # fmt: skip
    statistic = Statistic("collapse beyond what the mix explains, median over the windows since",
                          float(np.median(explained.beyond(found.degree)[inside, head.layer])), UNIT)  # fmt: skip
    plan = plan_at(run, mix, c.spell.last)
    if plan is None or c.after is None or distance(c.after, plan) < MIX_NOTE:
        return ground.passed(says[0].upper() + says[1:], statistic, means, details={"specialised_since": c.spell.first})
    return ground.alarm(
        f"Off its plan, {says}",
        statistic,
        c.spell,
        level="warn",
        evidence=[Evidence("data/domain_share", c.spell.steps, mix.labels[int((c.after - plan).argmax())]),
                  *c.evidence("router/entropy")],
        means=means + " The plan has another mix.",
        do=f"Look at data.mix and the loader at step {c.spell.first:,}; the router needs nothing.",
        details=c.details,
        onset=c.onset("the layer's load entropy"),
    )  # fmt: skip


def _alarm(ground: Ground, c: Course, degree: float) -> Finding:
    head, many, experts = c.episodes[0], len(c.layers) > 1, len(c.loads.experts)
    effective = float(np.median(c.loads.effective_experts[head.first : head.last + 1, head.layer]))
    limit = ground.threshold.warn if ground.threshold and ground.threshold.warn else 0.0
    sure = degree > limit and not c.into_the_unseen
    verb = ("is collapsing", "had collapsed") if sure else ("concentrates its tokens", "had concentrated its tokens")
    return ground.alarm(
        c.lead + f"{'t' if c.lead else 'T'}he router of layer {c.layers[0]} {verb[not c.spell.ongoing]} "
        f"{c.spell.words}: {effective:.1f} effective experts of {experts}"
        + (f"; {len(c.layers)} layers affected." if many else "."),
        Statistic(f"collapse{' beyond what the mix explains' if c.account.explained else ''}, held by three of four "
                  "windows", degree, UNIT),
        c.spell,
        level="warn" if c.into_the_unseen and degree < BEYOND_ANY_TEXT else None,
        evidence=c.evidence("router/entropy"),
        means=f"{'Most' if effective < experts / 2 else 'A part'} of the layer's capacity stands idle: it works as a "
        "smaller one." + c.mix_sentence,
        do="Check that the load-balancing loss is returned, weighted and added (transformers leaves it out unless "
        f"output_router_logits is set), and what changed at step {c.spell.first:,}; restart from before."
        + c.log_sentence,
        details=c.details,
        onset=c.onset("the layer's load entropy"),
    )  # fmt: skip
