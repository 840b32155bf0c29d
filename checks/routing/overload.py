"""router.overload: one expert takes far more than its share."""

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
    warn_limit = warn_of_ceiling * found.ceiling
    threshold = Threshold(warn_limit, fail_of_ceiling * found.ceiling, "MaxVio", SOURCE)
    beyond, masked = episodes(
        run,
        found,
        violation,
        own=lambda center, sigma: np.fmax(own_factor * center + own_margin, center + z * sigma),
        margin=own_margin,
        absolute=warn_limit,
        windows=windows,
    )
    if not beyond:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="No expert is overloaded.",
            threshold=threshold,
            masked=masked,
            statistic=Statistic(
                "MaxVio, median over windows of the worst layer",
                float(np.median(violation, axis=0).max()),
                "MaxVio",
            ),
            what_it_means=f"Loads are as even as this router's have been. {MAX_VIO}",
            what_to_do="Nothing.",
            details={"rows_per_window": found.rows_per_window, "ceiling": found.ceiling},
        )
        return
    yield _finding(run, found, violation, beyond, threshold)


MAX_VIO = "MaxVio says how far the busiest expert is above the mean of its layer: 0 is balanced, 1 is twice the mean."


def _finding(
    run: Run,
    found: Loads,
    violation: np.ndarray,
    beyond: list[Episode],
    threshold: Threshold,
) -> Finding:
    head = beyond[0]
    expert = int(found.ratio[head.first : head.last + 1, head.layer].mean(axis=0).argmax())
    born = head.first == 0
    step = int(found.first[0]) if born else onset(run, found, head.first, head.last, head.layer, expert)
    last = max(int(found.last[e.last]) for e in beyond)
    ongoing = any(not e.recovered for e in beyond)
    amount = sustained(violation, beyond)
    layers = list(dict.fromkeys(found.layers[e.layer] for e in beyond))
    shift = mix_shift(run, step, 4 * int(found.last[0] - found.first[0] + 1))
    return Finding(
        level="fail" if threshold.fail is not None and amount > threshold.fail else "warn",
        n=len(found.first),
        steps=(step, last),
        ongoing=ongoing,
        summary=f"Expert {found.experts[expert]} of layer {layers[0]} "
        + (f"is overloaded since step {step:,}" if ongoing else f"was overloaded from step {step:,} to {last:,}")
        + f": MaxVio {amount:.2g} of at most {found.ceiling:.2g}"
        + (f", {len(layers)} layers affected." if len(layers) > 1 else "."),
        statistic=Statistic("MaxVio, median since the onset", amount, "MaxVio"),
        threshold=threshold,
        evidence=(
            Evidence("router/load", (step, last), f"{layers[0]}.{found.experts[expert]}"),
            *(
                Evidence("router/max_vio", (int(found.first[e.first]), int(found.last[e.last])), found.layers[e.layer])
                for e in beyond[:20]
            ),
        ),
        what_it_means=f"This expert slows its rank and, where capacity is bounded, drops tokens. {MAX_VIO}"
        + mix_sentence(shift),
        what_to_do=f"Compare router inputs and the load-balancing term before and after step {step:,}; raise "
        f"its weight, or the "
        "bias step of loss-free balancing (https://arxiv.org/abs/2408.15664).",
        details={
            "layers": layers,
            "mix_shift": shift,
            "rows_per_window": found.rows_per_window,
            "onset": {
                "method": "over from the first window"
                if born
                else "best two-level split of the expert's share around the first window"
            },
        },
    )
