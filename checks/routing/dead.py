"""router.dead: experts that get no tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.masking import quiet
from checks.registry import check
from checks.robust import excursions, held_level
from checks.routing._loads import Loads, loads, mix_sentence, mix_shift, onset, too_few

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention: below 1 % of the fair share; OLMoE's 1,024 experts on single-domain text had none "
    "(https://github.com/allenai/OLMoE), the hardest healthy case measured"
)


@check(
    "router.dead",
    area="routing",
    reads=("router/tokens",),
    uses=("data/domain_tokens",),
    refs=("https://github.com/NVIDIA-NeMo/Automodel/issues/1232", "https://github.com/allenai/OLMoE"),
)
def dead(
    run: Run, *, share_of_fair: float = 0.01, windows_in_a_row: int = 3, fail_share: float = 0.1
) -> Iterator[Finding]:
    """An expert gets less than a hundredth of its fair share of tokens, for several windows.

    Why it matters: its parameters train no more, yet they are paid for. How to read it: windows hold at least 200
    tokens per expert, so a fair expert is not silent by chance. One dead expert is a warning; a layer that lost
    `fail_share` of its experts a failure.
    """
    found = loads(run)
    if found is None:
        yield too_few(run)
        return
    ratio = found.ratio
    threshold = Threshold(share_of_fair, None, "of the fair share", SOURCE)
    silent = ratio < share_of_fair
    mask = quiet(run, "routing")
    ends: list[tuple[int, int, bool, int, int]] = []
    masked: list[Masked] = []
    for layer, expert in zip(*np.nonzero(silent.any(axis=0)), strict=True):
        values = -ratio[:, layer, expert]
        calm = np.full(len(values), -5 * share_of_fair)
        for e in excursions(
            values, silent[:, layer, expert], calm, k=windows_in_a_row, n=windows_in_a_row, calm_rows=3
        ):
            if events := mask.explains(int(found.first[e.first]), int(found.last[e.last])):
                masked += events
            else:
                ends.append((e.first, e.last, e.recovered, int(layer), int(expert)))
    if not ends:
        yield Finding(
            level="pass",
            n=len(found.first),
            summary="Every expert gets tokens.",
            threshold=threshold,
            masked=tuple(dict.fromkeys(masked)),
            statistic=Statistic(
                f"smallest load held by {windows_in_a_row} windows in a row",
                -held_level(-ratio, windows_in_a_row, windows_in_a_row),
                "of the fair share",
            ),
            what_it_means="No expert stands idle.",
            what_to_do="Nothing.",
            details={"rows_per_window": found.rows_per_window},
        )
        return
    yield _finding(run, found, sorted(ends), threshold, fail_share)


def _finding(
    run: Run,
    found: Loads,
    ends: list[tuple[int, int, bool, int, int]],
    threshold: Threshold,
    fail_share: float,
) -> Finding:
    window, end, _, layer, expert = ends[0]
    born = window == 0
    step = int(found.first[0]) if born else onset(run, found, window, end, layer, expert)
    last = max(int(found.last[e[1]]) for e in ends)
    now = [e for e in ends if not e[2]]
    per_layer = np.zeros(len(found.layers), int)
    for e in now or ends:
        per_layer[e[3]] += 1
    worst = int(per_layer.max())
    many = worst >= max(2, fail_share * len(found.experts)) if len(found.experts) > 8 else worst >= 1
    names = [f"{found.layers[e[3]]}.{found.experts[e[4]]}" for e in ends]
    head = f"expert {found.experts[expert]} of layer {found.layers[layer]}"
    shift = mix_shift(run, step, 4 * int(found.last[0] - found.first[0] + 1))
    since = "from the start" if born else f"since step {step:,}"
    state = f"{len(now)} still are" if now else "all came back"
    return Finding(
        level="fail" if many and now else "warn",
        n=len(found.first),
        steps=(step, last),
        ongoing=bool(now),
        summary=f"{len(ends)} expert{'s' if len(ends) > 1 else ''} dead {since}, first {head}; "
        f"{state}.",
        statistic=Statistic("dead experts in the worst layer", worst, f"of {len(found.experts)}"),
        threshold=threshold,
        evidence=tuple(
            Evidence("router/load", (int(found.first[e[0]]), int(found.last[e[1]])), name)
            for e, name in list(zip(ends, names, strict=True))[:20]
        ),
        what_it_means="These experts learn no more; the others do their work with less capacity." + mix_sentence(shift),
        what_to_do=f"Check that the load-balancing loss or bias is on and weighted, and what changed at step "
        f"{step:,}; restart "
        "before it, or re-initialise the dead experts from living ones.",
        details={
            "experts": names[:200],
            "rows_per_window": found.rows_per_window,
            "mix_shift": shift,
            "onset": {
                "method": "silent from the first window"
                if born
                else "best two-level split of the expert's share around the first silent window"
            },
        },
    )
