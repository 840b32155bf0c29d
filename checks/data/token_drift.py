"""data.token_drift: token frequencies of a domain, against the run's own first windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from checks.data._drift import Course, Episode, Limits
from checks.data.movers import movers
from checks.data.windows import labels, windows
from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.registry import check
from trainvitals.formulas import REFERENCE_WINDOWS
from trainvitals.spelling import readable, speller

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention: half of the smallest contamination that should show, 1 %; failure where one token in 25 is of " \
    "other text, the distance of 0.1 at which evidently alarms: https://github.com/evidentlyai/evidently"
UNIT = "share of other text"
NAMED = 5
"""Tokens that a sentence names."""


@check(
    "data.token_drift",
    area="data",
    reads=("tokens/counts",),
    refs=("https://doi.org/10.1214/09-AOS716", "https://github.com/evidentlyai/evidently"),
)
def token_drift(
    run: Run,
    *,
    warn_share: float = 0.005,
    fail_share: float = 0.04,
    own_factor: float = 3.0,
    deviations: float = 6.0,
    blind_share: float = 0.01,
) -> Iterator[Finding]:
    """A domain's token frequencies move away from what they were in the first windows.

    Why it matters: another tokenizer, another language or boilerplate in a source changes the frequencies while the
    planned mix still looks right. How to read it: the newest 2, 4 and 8 windows against the first five, as a distance
    that has no bias whatever the vocabulary, the window and the way documents clump (products of different windows,
    Chen and Qin 2010). It is told as the share of other text, of the same frequencies in other tokens, that would move
    the tokens as far; text that shares no token with the domain moves them about twice as far, text that shares most
    of them less. An alarm needs `deviations` of its own scatter beyond `warn_share`, and beyond `own_factor` times
    the distance among the first windows themselves. Where `blind_share` would not have shown the answer is unknown,
    and says what would have. After a planned stage switch the reference begins anew.
    """
    limits = Limits(warn_share, fail_share, own_factor, deviations, REFERENCE_WINDOWS)
    domains, tokens = labels(run)
    courses = {domain: Course(limits) for domain in domains}
    masked = _follow(run, courses)
    ground = Ground(sum(c.windows for c in courses.values()), Threshold(warn_share, fail_share, UNIT, SOURCE), masked,
                    {"smallest_share_seen": {d: c.resolves for d, c in courses.items() if c.windows}})
    alarms = [_alarm(ground, domain, episode, tokens) for domain, c in courses.items() for episode in c.episodes]
    yield from sorted(alarms, key=lambda f: f.steps or (0, 0))
    silent = {domain: c for domain, c in courses.items() if c.windows and not c.episodes}
    sharp = {domain: c for domain, c in silent.items() if c.resolves <= blind_share}
    blind = {domain: c for domain, c in silent.items() if domain not in sharp}
    if sharp:
        yield _passed(ground, sharp)
    if blind or not (alarms or sharp):
        yield _unknown(ground, blind, blind_share)


def _follow(run: Run, courses: Mapping[str, Course]) -> tuple[Masked, ...]:
    """Feed every window to the courses; the switches after which they began anew."""
    switches = list(quiet(run, "data").level_steps)
    masked: list[Masked] = []
    for window in windows(run):
        while switches and switches[0] < window.step:
            step = switches.pop(0)
            masked.append(Masked("stage_switch", step, max(step, window.step)))
            for course in courses.values():
                course.begin_anew()
            mixed = window.before < step
        if masked and window.step == masked[-1].until and mixed:
            continue  # it holds text of both stages
        for counts, course in zip(window.counts, courses.values(), strict=True):
            if counts.sum() > 0:
                course.add(window.before, window.step, counts)
    return tuple(masked)


def _alarm(ground: Ground, domain: str, e: Episode, tokens: tuple[str, ...]) -> Finding:
    share, low, high = e.share
    moved = movers(e.before, e.after, tokens, top=NAMED)
    decode = speller(label.partition(" ")[2] for label in tokens)
    said = {m.label: readable(decode(m.label.partition(" ")[2])) or f"id {m.label}" for m in moved}
    words = ", ".join(f"{said[m.label]!r} {100 * m.before:.2g} to {100 * m.now:.2g} %" for m in moved)
    spell = Spell(e.onset[0], e.last, e.ongoing)
    return ground.alarm(
        f"Tokens of {domain} changed between steps {e.onset[0]:,} and {e.onset[1]:,}, as {_percent(share)} of other "
        f"text would change them, {spell.end}.",
        Statistic("share of other text that moves tokens as far, where it was largest", share, "1", low, high),
        spell,
        level="fail" if e.failed else "warn",
        evidence=[Evidence("tokens/js", spell.steps, domain)],
        means="The text of this domain is of another kind than at the start: language, format, tokenizer or source."
        + (f" Moved most: {words}." if words else ""),
        do=f"Compare documents of {domain} before step {e.onset[0]:,} and after {e.onset[1]:,}; look for shards that "
        "begin there. `trainvitals data RUN` lists the tokens.",
        onset="best two-level split of the windows; the change lies inside one",
        began=e.onset,
        details={"moved": [[m.label, said[m.label], m.before, m.now] for m in moved]},
    )


def _passed(ground: Ground, sharp: Mapping[str, Course]) -> Finding:
    top = max(sharp, key=lambda domain: sharp[domain].largest)
    least = max(c.resolves for c in sharp.values())
    lone = any(c.single for c in sharp.values())
    return ground.passed(
        f"Token frequencies of {_names(sharp)} stay with those of the start; {_percent(least)} of other text would "
        "have shown.",
        Statistic(f"largest share of other text that moves tokens as far, {top}", sharp[top].largest, "1"),
        "The text inside the domains is of one kind throughout, as far as token frequencies tell."
        + (" With so few windows tokens count as independent." if lone else ""),
    )


def _unknown(ground: Ground, blind: Mapping[str, Course], blind_share: float) -> Finding:
    least = max((c.resolves for c in blind.values()), default=1.0)
    if least >= 1:
        said = "No share of other text would have shown for certain"
    else:
        said = f"It would have taken {_percent(least)} to show, and nothing like it did"
    of = f" of {_names(blind)}" if blind else ""
    return ground.unknown(
        f"Windows{of} are too small or too few to see {_percent(blind_share)} of other text. {said}.",
        "Windows of one and the same text differ by chance as much as a drift would.",
        "Wait for more windows, or let the token collector sum more steps per window: "
        'collectors={"tokens": {"every": 2000}} in tv.attach.',
    )


def _names(courses: Mapping[str, Course]) -> str:
    names = list(courses)
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} domains"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
