"""telemetry.coverage: how much of the job the tap saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.registry import check
from checks.telemetry._record import SOURCE, no_data
from trainvitals.card import UNATTRIBUTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

LIMIT = Threshold(1.0, None, "share", SOURCE)


@check("telemetry.coverage", area="telemetry")
def coverage(run: Run) -> Iterator[Finding]:
    """Parameters, gradients, losses or routers that the tap did not see, in some rows.

    Why it matters: a signal of a part of the job says nothing of the rest of it. How to read it: shares of what there
    was in each row, as the tap counted it; some gradients may be missing at an update (an expert without tokens), all
    of them may not. A record that no tap wrote has no counts, and the answer is unknown.
    """
    if run.last_step is None:
        yield no_data()
        return
    parts = list(_parts(run))
    # What the tap said of a loss that it never saw is told by telemetry.health; one thing is one warning.
    unseen = [p for p in parts if p.signal == "coverage/loss_share" and not p.seen.any() and _said(run, "loss_unseen")]
    parts = [p for p in parts if p not in unseen]
    counted = [part for part in parts if part.signal != "coverage/domain_share"]
    yield from (part.finding() for part in parts if not part.whole)
    if any(not part.whole for part in parts):
        return
    ground = Ground(sum(len(part.steps) for part in parts), LIMIT)
    if not counted:
        yield ground.unknown(
            "How much of the job was seen is not in the record.",
            "No tap counted what there was to see: the run was imported, or written by a script of its own.",
            "Log with tv.attach(model, ...), which counts what it sees.",
        )
        return
    yield ground.passed(
        f"The tap saw {', '.join(part.words for part in parts)}."
        + (" It saw no loss of a forward, which telemetry.health tells." if unseen else ""),
        Statistic("lowest share seen", min(part.share for part in parts), "share"),
        "What else there may be to see (parts of the model that no forward or optimizer of the job touches) is not "
        "counted.",
    )


def _said(run: Run, kind: str) -> bool:
    return bool((run.events()["kind"] == kind).any())


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """How much of one thing the tap saw."""

    what: str
    """As in `training forwards whose loss was seen`."""
    signal: str
    steps: NDArray[np.int64]
    seen: NDArray[np.float64]
    of: NDArray[np.float64]
    partly_is_whole: bool
    """Whether some may be missing in a sound record."""

    @property
    def share(self) -> float:
        return float(self.seen.sum() / self.of.sum())

    @property
    def below(self) -> NDArray[np.bool_]:
        """Rows in which something was not seen."""
        return self.seen <= 0 if self.partly_is_whole else self.seen < self.of

    @property
    def whole(self) -> bool:
        return not self.below.any()

    @property
    def words(self) -> str:
        """A share below 100 % never reads as 100 %."""
        return f"{int(self.share * 1000) / 10:g} % of the {self.what}"

    def finding(self) -> Finding:
        steps = self.steps[self.below]
        spell = Spell(int(steps[0]), int(steps[-1]), ongoing=bool(self.below[-1]))
        # A row holds what was seen since the one before it, all in the same share.
        return Ground(len(self.steps), LIMIT).alarm(
            f"The tap saw {self.words}; some were missing {spell.words}.",
            Statistic("share seen", self.share, "share"),
            spell,
            evidence=[self.signal],
            means="Signals of this kind are of the part that was seen, and say nothing of the rest.",
            do="Read the event that names what is missing; docs/collectors.md says what each collector needs.",
            onset="first row below 100 %",
            level="warn",
        )


_SEEN: Sequence[tuple[str, str, str, str, bool]] = (
    ("trainable parameters", "parameters_held", "parameters", "parameter_share", False),
    ("gradients at the update", "gradients_seen", "gradients", "gradient_share", True),
    ("losses of training forwards", "losses_seen", "forwards", "loss_share", False),
    ("choices of routers", "routers_read", "routers", "router_share", False),
)


def _parts(run: Run) -> Iterator[_Part]:
    for what, seen, of, signal, partly in _SEEN:
        if not run.has(f"coverage/{of}"):
            continue
        counts, found = run.array(f"coverage/{of}"), run.array(f"coverage/{seen}")
        there = np.nan_to_num(counts.values) > 0
        if there.any():
            yield _Part(what, f"coverage/{signal}", counts.steps[there], np.nan_to_num(found.values)[there],
                        counts.values[there], partly)
    # How many tokens may lack a domain is for data.unattributed to say.
    if run.has("coverage/domain_share") and run.card.domains:
        data = run.array("data/domain_tokens")
        tokens = np.nan_to_num(data.values)
        if tokens.sum() > 0 and data.labels[-1][-1] == UNATTRIBUTED:
            yield _Part("tokens' domains", "coverage/domain_share", np.array([int(run.last_step or 0)]),
                        np.array([tokens[:, :-1].sum()]), np.array([tokens.sum()]), True)
