"""telemetry.health: whether the run's own record can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Level, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import has, vector
from checks.registry import check
from trainvitals.card import UNATTRIBUTED
from trainvitals.catalogue import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from trainvitals.store import Run

_PARTLY: tuple[Level, str, str] = (
    "warn",
    "The tap could not see all that it is meant to, so signals of this family are missing or partial.",
    "Follow the event's message; docs/collectors.md says what each collector needs.",
)

_NAMES = (
    "Something that the training script logs is not in the record under the name or as the value that it gave.",
    "Read the message; rename the number, or log a plain number.",
)

BAD_EVENTS: dict[str, tuple[Level, str, str]] = {
    "collector_disabled": (
        "fail",
        "A collector threw and was taken out; its signals end there.",
        "Read the event's error, mend or switch off that collector, and attach again at the next restart.",
    ),
    "exception": (
        "fail",
        "The training script ended with an error.",
        "Read the error; resume from the last checkpoint.",
    ),
    "rows_dropped": (
        "warn",
        "The disk did not keep up, so sums and counts of these steps are missing.",
        "Write the run to a faster disk or raise the collectors' cadence.",
    ),
    "rows_gone": (
        "warn",
        "Rows of these steps are not in the record; sums and counts lack them.",
        "Find out who deletes files of a run that is written, and stop that.",
    ),
    "events_dropped": (
        "warn",
        "Events were dropped, so marks on the time axis are missing.",
        "Write the run to a faster disk, or log fewer events.",
    ),
    "rows_late": (
        "warn",
        "The disk took rows much later than promised; a kill at that time would have lost them.",
        "Write the run to a faster or less loaded disk.",
    ),
    "folder_lost": (
        "fail",
        "The folder was deleted, moved or unmounted under the job; what it held before is not here.",
        "Look for the old folder (moved, or below a mount point), and merge it or keep it beside this one.",
    ),
    "number_refused": ("warn", *_NAMES),
    "name_taken": ("warn", *_NAMES),
    "router_missed": (
        "warn",
        "The model is a mixture of experts whose routers were not found, so no routing check can run.",
        "Report the model class; name the routers when attaching, if the version allows it.",
    ),
    "router_uneven": (
        "warn",
        "Some layers' routers are left out of the record.",
        "Judge these layers by other means.",
    ),
}
"""Kind of event -> level, what it means, what to do. Any other event that is marked `unknown` says what the tap could
not see."""

SKIPPED = "skipped/gradients_by_rank"
SOURCE = "convention: telemetry is whole, or it says so"


@check("telemetry.health", area="telemetry", uses=(SKIPPED,))
def health(run: Run) -> Iterator[Finding]:
    """The record has holes: collectors that failed, rows that were lost, ranks or files that are missing, silence.

    Why it matters: every other answer rests on this record. How to read it: one finding per kind of hole; none
    means that no hole is known in what was looked at, which the summary names.
    """
    found = [*_silence(run), *_overlaps(run), *_clocks(run), *_apart(run), *_events(run), *_problems(run)]
    parts = list(_parts(run))
    found += [part.finding() for part in parts if not part.whole]
    if not found and run.last_step is None:
        yield Finding(
            level="unknown",
            summary="The run holds no data yet.",
            what_it_means="Nothing has been written.",
            what_to_do="Wait for the first flush, or check that this is the run folder of the job.",
        )
    elif not found:
        yield _whole(run, parts)
    yield from found


def _whole(run: Run, parts: Sequence[_Part]) -> Finding:
    extent, last = run.extent(), int(run.last_step or 0)
    first = min(extent.first_step or 0, last)
    attempts = f" in {extent.attempts} attempts" if extent.attempts > 1 else ""
    return Finding(
        level="pass",
        n=extent.rows,
        summary=f"No hole is known in {extent.rows:,} rows of {_count(extent.ranks, 'rank')} and "
        f"{_count(extent.frames, 'frame')}, steps {first:,} to {last:,}{attempts}. "
        + _seen(parts),
        steps=(first, last),
        statistic=Statistic("holes", 0, "holes"),
        threshold=_threshold(),
        what_it_means="Every rank that belongs to the last attempt wrote, no writer told of a loss or of a collector "
        "that failed, no two jobs wrote at once, and no file that was read is damaged. Columns that no check asked "
        "for are verified when they are read.",
        what_to_do="Nothing.",
    )


@dataclass(frozen=True, slots=True)
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
        ground = Ground(len(self.steps), Threshold(1.0, None, "share", SOURCE))
        return ground.alarm(
            f"The tap saw {self.words}; some were missing {spell.words}.",
            Statistic("share seen", self.share, "share"),
            spell,
            evidence=[self.signal],
            means="Signals of this kind are of the part that was seen, and say nothing of the rest.",
            do="Read the event that names what is missing; docs/collectors.md says what each collector needs.",
            onset="first row below 100 %",
            level="warn",
        )


_SEEN = (
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


def _seen(parts: Sequence[_Part]) -> str:
    """What share of the job the tap saw, in a sentence."""
    if not any(part.signal != "coverage/domain_share" for part in parts):
        return "How much of the job a tap saw is not in the record."
    return f"The tap saw {', '.join(part.words for part in parts)}."


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _threshold() -> Threshold:
    return Threshold(1, 1, "holes", SOURCE)


def _silence(run: Run) -> Iterator[Finding]:
    seen, last = run.liveness, int(run.last_step or 0)
    if seen.status == "unknown":
        yield Finding(
            level="unknown",
            summary=f"Whether the job still writes cannot be told: {seen.reason}.",
            steps=(last, last) if run.last_step is not None else None,
            what_it_means="The run did not end in order so far. It may be at work, or dead since its last row.",
            what_to_do="Look again in a minute with the board, which watches the folder grow; check the hosts' clocks.",
        )
    if seen.status == "silent":
        yield Finding(
            level="fail",
            summary=f"No data came after step {last:,}, and the run did not end in order: {seen.reason}.",
            steps=(last, last),
            ongoing=True,
            n=1,
            statistic=Statistic("silent runs", 1, "runs"),
            threshold=_threshold(),
            what_it_means="The job is dead, hung, or cannot write to the run folder.",
            what_to_do="Look at the job's log and its scheduler; resume from the last checkpoint.",
            details={"onset": {"method": "last stored row"}},
        )


def _overlaps(run: Run) -> Iterator[Finding]:
    if pairs := run.overlaps():
        yield _several(
            "fail",
            pairs,
            "jobs at once",
            "Two jobs wrote one run. The main line mixes what each of them did at its time.",
            "Stop one of them. Read the other's rows as a branch, or give it a folder of its own.",
        )


def _clocks(run: Run) -> Iterator[Finding]:
    if notes := run.clock_notes():
        yield _several(
            "warn",
            notes,
            "clocks",
            "Times of rows and events of some hosts are off. Steps and the order of attempts do not depend on them.",
            "Have the hosts synchronise their clocks (NTP, chrony).",
        )


def _apart(run: Run) -> Iterator[Finding]:
    """Ranks that skipped different numbers of steps: each counts its own, so they no longer count together."""
    if not has(run, SKIPPED):
        return
    rows = vector(run, SKIPPED)
    skips = np.nan_to_num(rows.values).cumsum(axis=0)
    if skips.shape[1] < 2 or (skips[-1] == skips[-1, :1]).all():
        return
    least, most = int(skips[-1].argmin()), int(skips[-1].argmax())
    first = int(rows.steps[(skips != skips[:, :1]).any(axis=1)][0])
    yield Finding(
        level="warn",
        summary=f"Rank {rows.labels[most]} skipped {skips[-1, most]:,.0f} optimizer step(s) and rank "
        f"{rows.labels[least]} {skips[-1, least]:,.0f}, since step {first:,}.",
        steps=(first, int(run.last_step or first)),
        ongoing=True,
        n=len(rows),
        statistic=Statistic("steps apart", float(skips[-1].max() - skips[-1].min()), "steps"),
        threshold=_threshold(),
        what_it_means="Every rank counts its own steps, so from there on one step number holds updates that the ranks "
        "made at different times; if they hold copies of one model, the copies differ.",
        what_to_do="Let all ranks decide together whether to skip: reduce the scaler's overflow flag, or the loop's "
        "own test, over the ranks before optimizer.step().",
        details={"skips": dict(zip(rows.labels, skips[-1].tolist(), strict=True))},
    )


def _several(level: Level, notes: list[str], what: str, meaning: str, advice: str) -> Finding:
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return Finding(
        level=level,
        summary=f"{notes[0].rstrip('.')}{more}.",
        n=len(notes),
        ongoing=True,
        statistic=Statistic(what, len(notes), what),
        threshold=_threshold(),
        what_it_means=meaning,
        what_to_do=advice,
        details={what: notes[:50]},
    )


def _events(run: Run) -> Iterator[Finding]:
    events = run.events()
    for kind in _bad_kinds(events):
        level, meaning, advice = BAD_EVENTS.get(kind, _PARTLY)
        of_kind = events[events["kind"] == kind]
        steps = of_kind["step"].dropna()
        messages = list(dict.fromkeys(str(m) for m in of_kind["message"]))
        span = (int(steps.min()), int(max(steps.max(), run.last_step or 0))) if len(steps) else None
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        yield Finding(
            level=level,
            summary=f"{messages[0].rstrip('.') or kind}{more}.",
            steps=span,
            ongoing=True,
            n=len(of_kind),
            statistic=Statistic(f"{kind} events", len(of_kind), "events"),
            threshold=_threshold(),
            what_it_means=meaning,
            what_to_do=advice,
            details={"messages": messages[:20], "kind": kind, "onset": {"method": "the event's step"}},
        )


def _bad_kinds(events: pd.DataFrame) -> list[str]:
    """Kinds of events that say what the record lacks, known ones first."""
    marked = [isinstance(data, Mapping) and data.get(UNKNOWN) is True for data in events["data"]]
    found = set(events["kind"])
    others = dict.fromkeys(events["kind"][marked])
    return [*[kind for kind in BAD_EVENTS if kind in found], *[kind for kind in others if kind not in BAD_EVENTS]]


def _problems(run: Run) -> Iterator[Finding]:
    # What comes as an event or as a finding of its own was told there.
    told = {*run.overlaps(), *run.clock_notes()}
    events = run.events()
    messages = [str(m) for m in events[events["kind"].isin(_bad_kinds(events))]["message"]]
    problems = [p for p in run.problems() if p not in told and not any(m and m in p for m in messages)]
    if problems:
        yield _several(
            "warn",
            problems,
            "problems",
            "Parts of the record are missing; sums are over what could be read.",
            "Check the ranks that are missing and the disk; torn ends of killed writers need no repair.",
        )
