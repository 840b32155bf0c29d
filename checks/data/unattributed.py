"""data.unattributed: tokens that came without a domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.reading import vector
from checks.registry import check
from checks.robust import best_split, k_of_n
from trainvitals.card import UNATTRIBUTED

if TYPE_CHECKING:
    from trainvitals.store import Run


@check("data.unattributed", area="data", reads=("data/domain_tokens",), refs=())
def unattributed(run: Run, *, warn_share: float = 0.02, fail_share: float = 0.1) -> Iterator[Finding]:
    """A share of the tokens carries no domain, or an id outside the plan.

    Why it matters: every per-domain number leaves these tokens out, and a rising share is how a renamed source or a
    broken loader first shows. How to read it: share of input tokens, over blocks of rows; two of three blocks
    count.
    """
    data = vector(run, "data/domain_tokens")
    if UNATTRIBUTED not in data.labels or not run.card.domains:
        yield Finding(
            level="unknown",
            n=len(data),
            summary="The run names no domains, so no token can be attributed.",
            what_it_means="Per-domain signals need domains.",
            what_to_do="Attach with domains={name: planned share} and let batches carry a column named domain.",
        )
        return
    if _only_the_loss_knows(run):
        yield Finding(
            level="unknown",
            n=len(data),
            summary="The losses carry domains, the batches do not: the mix of the data is unknown.",
            what_it_means="Losses per domain are right. Shares, epochs and routing per domain cannot be known.",
            what_to_do="Give the domain to the model as well, model(x, domain=ids): the tap takes it out again.",
        )
        return
    tokens = np.nan_to_num(data.values)
    some = tokens.sum(axis=1) > 0
    steps, tokens = data.steps[some], tokens[some]
    n = len(steps)
    threshold = Threshold(
        warn_share,
        fail_share,
        "share of tokens",
        "convention; a share that moved 4 points was 98 % of a measured language drift between crawls",
    )
    if n < 3:
        yield Finding(
            level="unknown",
            n=n,
            summary=f"{n} rows of data are too few.",
            threshold=threshold,
            what_it_means="A share needs a few batches.",
            what_to_do="Wait for more steps.",
        )
        return
    size = max(n // 50, 1)
    blocks = n // size
    cut = n - blocks * size
    column = tokens[:, data.labels.index(UNATTRIBUTED)]
    total = tokens.sum(axis=1)
    share = column[cut:].reshape(blocks, size).sum(axis=1) / total[cut:].reshape(blocks, size).sum(axis=1)
    over = share > warn_share
    hot = k_of_n(over, 2, 3)
    if not hot.any():
        yield Finding(
            level="pass",
            n=n,
            threshold=threshold,
            summary="Tokens carry their domain.",
            statistic=Statistic("unattributed share", float(column.sum() / total.sum()), "share of tokens"),
            what_it_means="Per-domain numbers cover the data.",
            what_to_do="Nothing.",
        )
        return
    start = max(int(np.argmax(hot)) - 2, 0)
    first = start + int(np.argmax(over[start:]))
    end = int(np.flatnonzero(over)[-1])
    low, high = max(cut + (first - 3) * size, 0), min(cut + (first + 4) * size, cut + (end + 1) * size)
    row = low + best_split((column / total)[low:high]) if first > 0 else 0
    level = float(column[row : cut + (end + 1) * size].sum() / total[row : cut + (end + 1) * size].sum())
    step, last = int(steps[row]), int(steps[cut + (end + 1) * size - 1])
    yield Finding(
        level="fail" if level > fail_share else "warn",
        n=n,
        steps=(step, last),
        ongoing=bool(over[-1]),
        summary=f"{100 * level:.3g} % of the tokens "
        + (f"since step {step:,} carry" if over[-1] else f"from step {step:,} to {last:,} carried")
        + " no domain of the plan.",
        statistic=Statistic("unattributed share since the onset", level, "share of tokens"),
        threshold=threshold,
        evidence=(Evidence("data/domain_share", (step, last), UNATTRIBUTED),),
        what_it_means="Per-domain losses and shares leave these tokens out.",
        what_to_do="Check the domain ids of the batches against the order of the plan, and sources added or "
        "renamed at "
        f"step {step:,}.",
        details={"onset": {"method": "from the first rows on" if row == 0 else "best two-level split of the share"}},
    )


def _only_the_loss_knows(run: Run) -> bool:
    """Whether domains came with per-token losses alone (`tap.loss(per_token, domain)`), never with a batch."""
    batches, losses = vector(run, "data/domain_tokens"), vector(run, "loss/domain_tokens")
    if UNATTRIBUTED not in losses.labels or not len(losses):
        return False
    known = [label != UNATTRIBUTED for label in losses.labels]
    in_batches = np.nan_to_num(batches.values)[:, [label != UNATTRIBUTED for label in batches.labels]].sum()
    return bool(in_batches == 0 and np.nan_to_num(losses.values)[:, known].sum() > 0)
