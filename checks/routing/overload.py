"""router.overload: one expert takes far more than its share."""

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
    "measured on trained routers: MaxVio 0.08-0.33 with 8 experts, 1.5-2.0 with 64 on mixed text, up to 6.8 "
    "on text of a "
    "single domain (https://github.com/allenai/OLMoE); limits are shares of the largest possible value E/k - 1"
)


@check(
    "router.overload",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens",),
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
    experts; a batch of one domain alone can bring a healthy router near it, so a simultaneous change of the mix is
    named.
    """
    found = loads(run)
    if found is None:
        yield too_few(run)
        return
    violation = np.maximum(found.ratio.max(axis=-1) - 1 - found.noise, 0.0)
    mask = quiet(run, "routing")
    center, sigma = segmented_baseline(violation, mask.level_rows(found.first), window=windows, min_rows=MIN_OWN)
    own = np.fmax(own_factor * center + own_margin, center + z * sigma)
    warn_limit = warn_of_ceiling * found.ceiling
    # Where nothing in this run is known yet, only the absolute limit holds.
    limit = np.fmin(np.where(np.isfinite(own), own, np.inf), warn_limit)
    over = violation > limit
    threshold = Threshold(warn_limit, fail_of_ceiling * found.ceiling, "MaxVio", SOURCE)
    episodes: list[tuple[int, int, bool, int]] = []
    masked: list[Masked] = []
    for layer in np.flatnonzero(over.any(axis=0)):
        calm = np.fmin(np.where(np.isfinite(center), center + own_margin, np.inf)[:, layer], warn_limit)
        for e in excursions(violation[:, layer], over[:, layer], calm, k=3, n=4, calm_rows=3):
            if events := mask.explains(int(found.first[e.first]), int(found.last[e.last])):
                masked += events
            else:
                episodes.append((e.first, e.last, e.recovered, int(layer)))
    if not episodes:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="No expert is overloaded.",
            threshold=threshold,
            masked=tuple(dict.fromkeys(masked)),
            statistic=Statistic(
                "MaxVio, median over windows of the worst layer",
                float(np.median(violation, axis=0).max()),
                "MaxVio",
            ),
            what_it_means="Loads are as even as this router's have been.",
            what_to_do="Nothing.",
            details={"rows_per_window": found.rows_per_window, "ceiling": found.ceiling},
        )
        return
    yield _finding(run, found, violation, sorted(episodes), threshold)


MIN_OWN = 8
"""Windows before a run's own level is known."""


def _finding(
    run: Run,
    found: Loads,
    violation: np.ndarray,
    episodes: list[tuple[int, int, bool, int]],
    threshold: Threshold,
) -> Finding:
    window, end, _, layer = episodes[0]
    expert = int(found.ratio[window : end + 1, layer].mean(axis=0).argmax())
    born = window == 0
    step = int(found.first[0]) if born else onset(run, found, window, end, layer, expert)
    last = max(int(found.last[e[1]]) for e in episodes)
    ongoing = any(not e[2] for e in episodes)
    sustained = max(float(np.median(violation[e[0] : e[1] + 1, e[3]])) for e in episodes)
    shift = mix_shift(run, step, 4 * int(found.last[0] - found.first[0] + 1))
    return Finding(
        level="fail" if threshold.fail is not None and sustained > threshold.fail else "warn",
        n=len(found.first),
        steps=(step, last),
        ongoing=ongoing,
        summary=f"Expert {found.experts[expert]} of layer {found.layers[layer]} is overloaded since step "
        f"{step:,}: MaxVio "
        f"{sustained:.2g} of at most {found.ceiling:.2g}"
        + (f", {len({e[3] for e in episodes})} layers affected." if len(episodes) > 1 else "."),
        statistic=Statistic("MaxVio, median since the onset", sustained, "MaxVio"),
        threshold=threshold,
        evidence=(
            Evidence("router/load", (step, last), f"{found.layers[layer]}.{found.experts[expert]}"),
            *(
                Evidence("router/max_vio", (int(found.first[e[0]]), int(found.last[e[1]])), found.layers[e[3]])
                for e in episodes[:20]
            ),
        ),
        what_it_means="This expert slows its rank and, where capacity is bounded, drops tokens." + mix_sentence(shift),
        what_to_do=f"Compare router inputs and the load-balancing term before and after step {step:,}; raise "
        f"its weight, or the "
        "bias step of loss-free balancing (https://arxiv.org/abs/2408.15664).",
        details={
            "layers": list(dict.fromkeys(found.layers[e[3]] for e in episodes)),
            "mix_shift": shift,
            "rows_per_window": found.rows_per_window,
            "onset": {
                "method": "over from the first window"
                if born
                else "best two-level split of the expert's share around the first window"
            },
        },
    )
