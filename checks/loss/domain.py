"""loss.domain: one domain's loss that leaves its trend while the mean may look well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic
from checks.ground import Ground
from checks.loss._stream import (
    AT_MOST,
    COARSEST,
    THRESHOLD,
    Stream,
    brief,
    judged,
    span_words,
    streams,
    tell,
    too_noisy,
)
from checks.registry import check
from checks.stream.series import Episode

if TYPE_CHECKING:
    from trainvitals.store import Run


@check("loss.domain", area="loss", reads=("loss/domain",), uses=("loss/val_domain",),
       instead={"loss/domain": "loss/val_domain"})  # fmt: skip
def domain(run: Run) -> Iterator[Finding]:
    """The loss of one data domain rises above its trend and stays there.

    Why it matters: a regression in one domain is diluted in the mean: a tenth of the mix has to double to show as
    10 %. How to read it: the scan of loss.divergence on each domain's training and validation loss.
    """
    known = [s for name in ("loss/domain", "loss/val_domain") for s in streams(run, name)]
    found: list[tuple[Stream, Episode]] = []
    masked: dict[object, None] = {}
    for stream in known:
        kept, _, events = judged(run, stream, 1)
        masked |= dict.fromkeys(events)
        found += [(stream, e) for e in kept if not brief(e)]
    n = sum(s.series.rows for s in known)
    unclear = [s.name for s in known if too_noisy(s.series)]
    threshold = known[0].ground().threshold if known else THRESHOLD
    ground = Ground(n, threshold, tuple(masked), {"domains": len(known), "too_noisy": unclear})  # type: ignore[arg-type]
    for stream, e in sorted(found, key=lambda item: (item[1].failed is None, -item[1].effect))[:AT_MOST]:
        yield tell(
            ground,
            stream,
            e,
            f"{stream.name} has been {e.percent(e.effect)} off its trend since {span_words(e)}, "
            + ("still there." if e.ongoing else f"back after step {e.last:,}."),
            "fail" if e.failed is not None else "warn",
            "This domain is getting worse, whatever the mean says.",
            f"Look at this domain's data and share around step {e.onset:,}.",
        )
    if found:
        return
    if len(unclear) == len(known):
        yield ground.unknown(
            f"None of {len(known)} domain losses is calm enough to show a rise of {100 * COARSEST:g} %.",
            "A domain's loss is judged against its own rows before.",
        )
        return
    worst = max((s.series.resolution() or (0.0, 0))[0] for s in known if s.name not in unclear)
    yield ground.passed(
        f"{len(known) - len(unclear)} of {len(known)} domain losses stay on their trends"
        + (f"; too noisy to tell: {', '.join(unclear[:5])}." if unclear else "."),
        Statistic("smallest lasting rise that would show in each", 100 * worst, "%"),
        "No domain regresses by that much.",
    )
