"""The shape of a check's answers: what they rest on, said once, and one call for each answer there is.

ground = Ground(len(rows), Threshold(0.1, 0.3, "share of the step", "convention"))
ground.unknown("3 rows are too few.", "A share needs steps.", "Wait for at least 20 steps.")
ground.passed("Steps do not wait.", Statistic("data wait", 0.01, "share of the step"), "The loader keeps up.")
spell = Spell(120, 340, ongoing=True)
ground.alarm(f"Steps wait {spell.words}.", Statistic(...), spell, evidence=["loss/train"], means="...", do="...")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from checks.finding import Evidence, Finding, Level, Masked, Statistic, Steps, Threshold
from checks.masking import Quiet

T = TypeVar("T")
WAIT = "Wait for more steps."
NOTHING = "Nothing."


@dataclass(frozen=True, slots=True)
class Spell:
    """Steps that show a fault."""

    first: int
    """The onset."""
    last: int
    ongoing: bool
    """Still there at the last row."""

    @property
    def steps(self) -> Steps:
        """First and last step, both included."""
        return self.first, self.last

    @property
    def words(self) -> str:
        """`since step 1,200` of what is still there, else `from step 1,200 to 1,300`."""
        return f"since step {self.first:,}" if self.ongoing else f"from step {self.first:,} to {self.last:,}"

    @property
    def end(self) -> str:
        """How a sentence that named the onset ends: `to the last step`, or `until step 1,300`."""
        return "to the last step" if self.ongoing else f"until step {self.last:,}"


@dataclass(frozen=True, slots=True)
class Ground:
    """What the answers of one check on one run rest on. Every answer carries all of it."""

    n: int = 0
    """Points looked at."""
    threshold: Threshold | None = None
    masked: tuple[Masked, ...] = ()
    """Planned events that explained what would have been an alarm."""
    details: Mapping[str, Any] = field(default_factory=dict)

    def unknown(self, summary: str, means: str, do: str = WAIT) -> Finding:
        """Rows, a plan or a signal are missing, so no answer can be given."""
        return self._finding("unknown", summary, means, do)

    def passed(
        self,
        summary: str,
        statistic: Statistic | None,
        means: str,
        do: str = NOTHING,
        details: Mapping[str, Any] | None = None,
    ) -> Finding:
        """Looked at, and in order. `statistic`: what was held against the threshold; None where nothing could be."""
        return self._finding("pass", summary, means, do, details, statistic=statistic)

    def alarm(
        self,
        summary: str,
        statistic: Statistic,
        spell: Spell,
        *,
        evidence: Iterable[Evidence | str],
        means: str,
        do: str,
        onset: str | None = None,
        began: Steps | None = None,
        details: Mapping[str, Any] | None = None,
        level: Level | None = None,
    ) -> Finding:
        """A fault. It fails where the statistic is beyond the threshold's `fail`, else it warns.

        Args:
            summary: one sentence: what, where, since when.
            statistic: the number observed since the onset.
            spell: when.
            evidence: slices that show it, the plainest first; a bare name is that signal over the spell.
            means: consequence.
            do: what to do about it.
            onset: how the first step was located.
            began: first and last step at which it may have begun.
            details: more than the ground's own; may hold an `onset` with more to it than the method.
            level: where more than the statistic decides.
        """
        more = {**(details or {}), **({"onset": {"method": onset}} if onset else {})}
        return self._finding(
            level or ("fail" if beyond(statistic.value, self.threshold) else "warn"),
            summary,
            means,
            do,
            more,
            statistic=statistic,
            steps=spell.steps,
            onset=began,
            ongoing=spell.ongoing,
            evidence=tuple(Evidence(e, spell.steps) if isinstance(e, str) else e for e in evidence),
        )

    def _finding(
        self, level: Level, summary: str, means: str, do: str, details: Mapping[str, Any] | None = None, **more: Any
    ) -> Finding:
        return Finding(
            level=level,
            summary=summary,
            n=self.n,
            threshold=self.threshold,
            masked=self.masked,
            what_it_means=means,
            what_to_do=do,
            details={**self.details, **(details or {})},
            **more,
        )


def beyond(value: float, threshold: Threshold | None) -> bool:
    """Whether a value is worse than `fail`: below it where `fail` is below `warn`, else above it."""
    if threshold is None or threshold.fail is None:
        return False
    downward = threshold.warn is not None and threshold.fail < threshold.warn
    return value < threshold.fail if downward else value > threshold.fail


def unexplained(
    found: Iterable[T], mask: Quiet, steps: Callable[[T], Steps | None]
) -> tuple[list[T], tuple[Masked, ...]]:
    """What no planned event explains, and the events that explained the rest.

    Args:
        found: faults of any kind.
        mask: events that concern the area.
        steps: first and last step of a fault; None of one that no event excuses.
    """
    kept: list[T] = []
    masked: dict[Masked, None] = {}
    for one in found:
        span = steps(one)
        events = mask.explains(*span) if span else ()
        masked |= dict.fromkeys(events)
        if not events:
            kept.append(one)
    return kept, tuple(masked)
