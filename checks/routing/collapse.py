"""router.collapse: a layer's tokens crowd onto few experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.masking import quiet
from checks.registry import check
from checks.robust import excursions, segmented_baseline
from checks.routing._loads import Loads, loads, mix_sentence, mix_shift, onset, too_few

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
    mask = quiet(run, "routing")
    center, sigma = segmented_baseline(degree, mask.level_rows(found.first), window=windows, min_rows=8)
    own = center + np.fmax(own_rise, z * sigma)
    limit = np.fmin(np.where(np.isfinite(own), own, np.inf), warn_degree)
    over = degree > limit
    threshold = Threshold(warn_degree, fail_degree, "collapse, 0 to 1", SOURCE)
    episodes: list[tuple[int, int, bool, int]] = []
    masked: list[Masked] = []
    for layer in np.flatnonzero(over.any(axis=0)):
        calm = np.fmin(np.where(np.isfinite(center), center + own_rise / 2, np.inf)[:, layer], warn_degree)
        for e in excursions(degree[:, layer], over[:, layer], calm, k=3, n=4, calm_rows=3):
            if events := mask.explains(int(found.first[e.first]), int(found.last[e.last])):
                masked += events
            else:
                episodes.append((e.first, e.last, e.recovered, int(layer)))
    if not episodes:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="No router has collapsed.",
            threshold=threshold,
            masked=tuple(dict.fromkeys(masked)),
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
    yield _finding(run, found, degree, sorted(episodes), threshold)


def _finding(
    run: Run,
    found: Loads,
    degree: np.ndarray,
    episodes: list[tuple[int, int, bool, int]],
    threshold: Threshold,
) -> Finding:
    window, end, _, layer = episodes[0]
    born = window == 0
    step = int(found.first[0]) if born else onset(run, found, window, end, layer, None)
    last = max(int(found.last[e[1]]) for e in episodes)
    ongoing = any(not e[2] for e in episodes)
    sustained = max(float(np.median(degree[e[0] : e[1] + 1, e[3]])) for e in episodes)
    effective = float(np.median(found.effective_experts[window : end + 1, layer]))
    shift = mix_shift(run, step, 4 * int(found.last[0] - found.first[0] + 1))
    layers = list(dict.fromkeys(found.layers[e[3]] for e in episodes))
    return Finding(
        level="fail" if threshold.fail is not None and sustained > threshold.fail else "warn",
        n=len(found.first),
        steps=(step, last),
        ongoing=ongoing,
        summary=f"The router of layer {found.layers[layer]} {'is collapsing' if ongoing else 'had collapsed'} "
        f"since step "
        f"{step:,}: {effective:.1f} effective experts of {len(found.experts)}"
        + (f"; {len(layers)} layers affected." if len(layers) > 1 else "."),
        statistic=Statistic("collapse, median since the onset", sustained, "collapse, 0 to 1"),
        threshold=threshold,
        evidence=tuple(
            Evidence("router/entropy", (int(found.first[e[0]]), int(found.last[e[1]])), found.layers[e[3]])
            for e in episodes[:20]
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
