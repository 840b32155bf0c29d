"""router.collapse: a layer's tokens crowd onto few experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.registry import check
from checks.routing._loads import (
    Episode,
    Loads,
    episodes,
    loads,
    mix_sentence,
    mix_shift,
    onset,
    sustained,
    too_few,
)

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on trained routers: 0.08 with 8 experts, 0.13 with 64 on mixed text, 0.58 on text of a single domain "
    "(https://github.com/allenai/OLMoE); 1 is a router that always takes the same experts"
)


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
        yield too_few(run)
        return
    experts, top_k = len(found.experts), found.top_k
    if experts <= top_k:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="Every token takes every expert: nothing to collapse.",
            what_it_means="The router has no choice.",
            what_to_do="Nothing.",
        )
        return
    degree = (experts - found.effective_experts) / (experts - top_k)
    threshold = Threshold(warn_degree, fail_degree, "collapse, 0 to 1", SOURCE)
    beyond, masked = episodes(
        run,
        found,
        degree,
        own=lambda center, sigma: center + np.fmax(own_rise, z * sigma),
        margin=own_rise / 2,
        absolute=warn_degree,
        windows=windows,
    )
    if not beyond:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="No router has collapsed.",
            threshold=threshold,
            masked=masked,
            statistic=Statistic(
                "collapse, median over windows of the worst layer",
                float(np.median(degree, axis=0).max()),
                "collapse, 0 to 1",
            ),
            what_it_means="Layers use the experts they have.",
            what_to_do="Nothing.",
            details={"rows_per_window": found.rows_per_window},
        )
        return
    yield _finding(run, found, degree, beyond, threshold)


def _finding(
    run: Run,
    found: Loads,
    degree: np.ndarray,
    beyond: list[Episode],
    threshold: Threshold,
) -> Finding:
    head = beyond[0]
    born = head.first == 0
    step = int(found.first[0]) if born else onset(run, found, head.first, head.last, head.layer, None)
    last = max(int(found.last[e.last]) for e in beyond)
    ongoing = any(not e.recovered for e in beyond)
    amount = sustained(degree, beyond)
    effective = float(np.median(found.effective_experts[head.first : head.last + 1, head.layer]))
    shift = mix_shift(run, step, 4 * int(found.last[0] - found.first[0] + 1))
    layers = list(dict.fromkeys(found.layers[e.layer] for e in beyond))
    return Finding(
        level="fail" if threshold.fail is not None and amount > threshold.fail else "warn",
        n=len(found.first),
        steps=(step, last),
        ongoing=ongoing,
        summary=f"The router of layer {layers[0]} "
        + (f"is collapsing since step {step:,}" if ongoing else f"had collapsed from step {step:,} to {last:,}")
        + f": {effective:.1f} effective experts of {len(found.experts)}"
        + (f"; {len(layers)} layers affected." if len(layers) > 1 else "."),
        statistic=Statistic("collapse, median since the onset", amount, "collapse, 0 to 1"),
        threshold=threshold,
        evidence=tuple(
            Evidence("router/entropy", (int(found.first[e.first]), int(found.last[e.last])), found.layers[e.layer])
            for e in beyond[:20]
        ),
        what_it_means="Most experts of the layer stand idle: it has the capacity of a far smaller one."
        + mix_sentence(shift),
        what_to_do=f"Check that the load-balancing loss is returned, weighted and added (transformers leaves "
        f"it out unless "
        f"output_router_logits is set), and what changed at step {step:,}; restart from before.",
        details={
            "layers": layers,
            "mix_shift": shift,
            "rows_per_window": found.rows_per_window,
            "onset": {
                "method": "over from the first window"
                if born
                else "best two-level split of the layer's load entropy around the first window"
            },
        },
    )
