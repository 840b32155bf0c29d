"""router.collapse: a layer's tokens crowd onto few experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.registry import check
from checks.routing._episodes import Course, Limits, course, episodes, sustained
from checks.routing._loads import loads, too_few

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on trained routers: 0.08 with 8 experts, 0.13 with 64 on mixed text, 0.58 on text of a single domain "
    "(https://github.com/allenai/OLMoE); 1 is a router that always takes the same experts"
)
UNIT = "collapse, 0 to 1"


@check(
    "router.collapse",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens",),
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
    for every token. Besides the absolute limits, a rise by `own_rise` above the run's own recent level counts.
    """
    found = loads(run)
    if found is None:
        yield too_few()
        return
    experts, top_k = len(found.experts), found.top_k
    if experts <= top_k:
        yield Ground(len(found.first)).passed(
            "Every token takes every expert: nothing to collapse.", None, "The router has no choice."
        )
        return
    degree = (experts - found.effective_experts) / (experts - top_k)
    limits = Limits(lambda center, sigma: center + np.fmax(own_rise, z * sigma), own_rise / 2, warn_degree, windows)
    collapsed, masked = episodes(run, found, degree, limits)
    ground = Ground(len(found.first), Threshold(warn_degree, fail_degree, UNIT, SOURCE))
    if collapsed:
        yield _alarm(ground, course(run, found, collapsed, None), sustained(degree, collapsed))
        return
    yield replace(ground, masked=masked).passed(
        "No router has collapsed.",
        Statistic("collapse, median over windows of the worst layer", float(np.median(degree, axis=0).max()), UNIT),
        "Layers use the experts they have.",
        details={"rows_per_window": found.rows_per_window},
    )


def _alarm(ground: Ground, c: Course, degree: float) -> Finding:
    head, many = c.episodes[0], len(c.layers) > 1
    effective = float(np.median(c.loads.effective_experts[head.first : head.last + 1, head.layer]))
    return ground.alarm(
        f"The router of layer {c.layers[0]} {'is collapsing' if c.spell.ongoing else 'had collapsed'} {c.spell.words}: "
        f"{effective:.1f} effective experts of {len(c.loads.experts)}"
        + (f"; {len(c.layers)} layers affected." if many else "."),
        Statistic("collapse, median since the onset", degree, UNIT),
        c.spell,
        evidence=c.evidence("router/entropy"),
        means="Most experts of the layer stand idle: it has the capacity of a far smaller one." + c.mix_sentence,
        do="Check that the load-balancing loss is returned, weighted and added (transformers leaves it out unless "
        f"output_router_logits is set), and what changed at step {c.spell.first:,}; restart from before.",
        details=c.details,
        onset=c.onset("the layer's load entropy"),
    )
