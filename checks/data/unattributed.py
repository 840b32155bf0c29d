"""data.unattributed: tokens that came without a domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import best_split, block_edges, k_of_n, rows_near
from trainvitals.card import UNATTRIBUTED

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention; a share that moved 4 points was 98 % of a measured language drift between crawls"
UNIT = "share of tokens"


@check("data.unattributed", area="data", reads=("data/domain_tokens",), refs=())
def unattributed(run: Run, *, warn_share: float = 0.02, fail_share: float = 0.1) -> Iterator[Finding]:
    """A share of the tokens carries no domain, or an id outside the plan.

    Why it matters: every per-domain number leaves these tokens out, and a rising share is how a renamed source or a
    broken loader first shows. How to read it: share of input tokens, over blocks of rows; two of three blocks
    count.
    """
    data = vector(run, "data/domain_tokens")
    if UNATTRIBUTED not in data.labels or not run.card.domains:
        yield Ground(len(data)).unknown(
            "The run names no domains, so no token can be attributed.",
            "Per-domain signals need domains.",
            "Attach with domains={name: planned share} and let batches carry a column named domain.",
        )
    elif _only_the_loss_knows(run):
        yield Ground(len(data)).unknown(
            "The losses carry domains, the batches do not: the mix of the data is unknown.",
            "Losses per domain are right. Shares, epochs and routing per domain cannot be known.",
            "Give the domain to the model as well, model(x, domain=ids): the tap takes it out again.",
        )
    else:
        yield _judge(data, warn_share, fail_share)


def _judge(data: Rows, warn_share: float, fail_share: float) -> Finding:
    tokens = np.nan_to_num(data.values)
    total = tokens.sum(axis=1)
    some = total > 0
    steps, total, lost = data.steps[some], total[some], tokens[some, data.labels.index(UNATTRIBUTED)]
    ground = Ground(len(steps), Threshold(warn_share, fail_share, UNIT, SOURCE))
    if ground.n < 3:
        return ground.unknown(f"{ground.n} rows of data are too few.", "A share needs a few batches.")
    edges = block_edges(ground.n, max(ground.n // 50, 1))
    share = np.add.reduceat(lost, edges[:-1]) / np.add.reduceat(total, edges[:-1])
    over = share > warn_share
    hot = k_of_n(over, 2, 3)
    if not hot.any():
        return ground.passed(
            "Tokens carry their domain.",
            Statistic("unattributed share", float(lost.sum() / total.sum()), UNIT),
            "Per-domain numbers cover the data.",
        )
    start = max(int(np.argmax(hot)) - 2, 0)
    first = start + int(np.argmax(over[start:]))
    end = int(np.flatnonzero(over)[-1])
    near = rows_near(edges, first, end, before=3, after=4)
    rows = slice(near.start + best_split((lost / total)[near]), int(edges[end + 1]))
    spell = Spell(int(steps[rows.start]), int(steps[rows.stop - 1]), bool(over[-1]))
    level = float(lost[rows].sum() / total[rows].sum())
    return ground.alarm(
        f"{100 * level:.3g} % of the tokens {spell.words} {'carry' if spell.ongoing else 'carried'} no domain of the "
        "plan.",
        Statistic("unattributed share since the onset", level, UNIT),
        spell,
        evidence=[Evidence("data/domain_share", spell.steps, UNATTRIBUTED)],
        means="Per-domain losses and shares leave these tokens out.",
        do="Check the domain ids of the batches against the order of the plan, and sources added or renamed at step "
        f"{spell.first:,}.",
        onset="from the first rows on" if rows.start == 0 else "best two-level split of the share",
    )


def _only_the_loss_knows(run: Run) -> bool:
    """Whether domains came with per-token losses alone (`tap.loss(per_token, domain)`), never with a batch."""
    batches, losses = vector(run, "data/domain_tokens"), vector(run, "loss/domain_tokens")
    if UNATTRIBUTED not in losses.labels or not len(losses):
        return False
    known = [label != UNATTRIBUTED for label in losses.labels]
    in_batches = np.nan_to_num(batches.values)[:, [label != UNATTRIBUTED for label in batches.labels]].sum()
    return bool(in_batches == 0 and np.nan_to_num(losses.values)[:, known].sum() > 0)
