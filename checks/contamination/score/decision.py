"""The one sentence for the release review: which score to trust.

- fail: an item is contaminated.
- unknown: nothing was read, too little was searched, records were lost, or too many items cannot be tested. Silence
  proves nothing then.
- warn: no item is contaminated, some are suspect.
- pass: no match found in what was searched; never "clean in general".

Contaminated items are often the easier ones, and leaving them out lowers an honest score, too. So which score to trust
rests on what the model gains on them beyond control models; without these both scores are named and none is trusted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from checks.contamination import reach
from checks.contamination.score.effect import MIN_ITEMS
from checks.finding import Level

UNTESTABLE_SHARE = 0.2
"""Share of untestable items above which a benchmark without contaminated items is unknown; convention."""
LOST_SHARE = 0.001
"""Share of records that may be broken before finding nothing proves nothing; convention."""
_WORST = ("fail", "unknown", "warn", "pass")
_OTHERS = {"fail": "Also contaminated", "unknown": "Undecided", "warn": "Suspects only", "pass": "No match found"}


Trusted = Literal["whole", "clean", ""]
"""The items whose score the sentence says to trust; empty where it names none, or two."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the release reviewer reads first."""

    level: Level
    sentence: str
    trusted: Trusted = ""


def decide(audit: Mapping[str, Any]) -> Decision:
    """The decision on a whole audit, from the content of audit.json: its worst benchmark's, the others counted."""
    corpus = audit["corpus"]
    ranked = sorted(audit["benchmarks"], key=lambda b: _severity(b, corpus))
    if not ranked:
        return Decision("unknown", "No benchmark was given, so there is no score to trust or to doubt.")
    worst = decide_benchmark(ranked[0], corpus)
    others = [(b, decide_benchmark(b, corpus).level) for b in ranked[1:]]
    told = [worst.sentence]
    for level, words in _OTHERS.items():
        names = [_name(b) for b, found in others if found == level]
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            told.append(f"{words}: {', '.join(names[:5])}{more}.")
    return Decision(worst.level, " ".join(told), worst.trusted)


def decide_benchmark(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> Decision:
    """The decision on one entry of audit.json's benchmarks."""
    decision = _decided(benchmark, corpus)
    itself = reach.itself(benchmark) if decision.level == "fail" else ""
    return dataclasses.replace(decision, sentence=f"{decision.sentence} {itself}") if itself else decision


def _decided(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> Decision:
    """The decision on what was found, whosever files it was found in."""
    verdicts = benchmark["verdicts"]
    name, items = _name(benchmark), benchmark["items"]
    gap = _gap_in_search(benchmark, corpus)
    if verdicts["contaminated"]:
        found, trusted = _contaminated(benchmark)
        return Decision("fail", f"{found} More may be hidden: {gap}." if gap else found, trusted)
    if gap:
        return Decision("unknown", f"Trust no score of {name} yet: {gap}.")
    whole, clean = _score(benchmark, "whole"), _score(benchmark, "clean")
    if verdicts["suspect"]:
        n = verdicts["suspect"]
        suspects = f"{_count(n, 'item')} of {name} {_are(n)} suspect, none contaminated"
        some = _some_scored(benchmark)
        scores = f": {_shown(whole)} on all, {_shown(clean)} without them{some}" if whole and clean else ""
        return Decision("warn", f"Look at the suspects before you trust a score: {suspects}{scores}.", "whole")
    rests = (
        f"no match found in {_count(corpus['documents'], 'document')} for its "
        f"{_count(items - verdicts['untestable'], 'testable item')}"
    )
    if searched := reach.rests_on(corpus):
        rests += f", {searched}"
    trust = f"Trust {_shown(whole)} on {name}{_some_scored(benchmark)}" if whole else f"{name} may be scored"
    if lost := lost_records(corpus):
        rests += f"; {_count(lost, 'record')} could not be read"
    if unread := lost_records(benchmark):
        rests += f"; {_count(unread, 'row')} of the benchmark could not be read"
    return Decision("pass", f"{trust}: {rests}.", "whole")


def primary(benchmark: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model whose scores the sentence speaks of: the first that is no control."""
    return next((s for s in benchmark.get("scores") or () if not s["control"]), None)


def coverage(benchmark: Mapping[str, Any]) -> str:
    """How many items the primary model's score rests on; empty where it is all of them, or none."""
    whole = _score(benchmark, "whole")
    some = whole is not None and whole["n"] < benchmark["items"]
    return f"{whole['n']:,} of {_count(benchmark['items'], 'item')} scored" if whole and some else ""


def lost_records(read: Mapping[str, Any]) -> int:
    """Records of the corpus, or rows of a benchmark, that could not be used because something in them was broken."""
    return sum(int(problem.get("records") or 0) for problem in _gaps(read))


def _gaps(read: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [problem for problem in read.get("problems") or () if problem.get("gap")]


def _severity(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> tuple[int, bool, float]:
    """Among equals, one that says which score to trust speaks before one that has none."""
    decision = decide_benchmark(benchmark, corpus)
    verdicts = benchmark["verdicts"]
    share = (verdicts["contaminated"] or verdicts["suspect"]) / max(benchmark["items"], 1)
    return _WORST.index(decision.level), not decision.trusted, -share


def _gap_in_search(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> str:
    """Why finding nothing would prove nothing; empty where the search was whole."""
    if corpus["documents"] == 0:
        too_little = reach.shortfall(corpus)
        return f"no document was searched: {too_little}" if too_little else "no document was read"
    if slices := corpus.get("lost_slices"):
        return f"{_count(slices, 'part')} of the corpus {'was' if slices == 1 else 'were'} not scanned"
    if uncounted := [str(gap["source"]) for gap in _gaps(corpus) if not gap.get("records")]:
        return f"text in {_count(len(set(uncounted)), 'shard')} was not searched"
    if (lost := lost_records(corpus)) > LOST_SHARE * corpus["records"]:
        return f"{_count(lost, 'record')} of {corpus['records']:,} could not be read"
    if too_little := reach.shortfall(corpus):
        return too_little
    items, untestable, unread = benchmark["items"], benchmark["verdicts"]["untestable"], lost_records(benchmark)
    if items == 0:
        return "it holds no item"
    if unread > UNTESTABLE_SHARE * (items + unread):
        return f"{_count(unread, 'row')} of the benchmark itself could not be read"
    if untestable > UNTESTABLE_SHARE * items:
        return f"{untestable:,} of its {items:,} items are too short or too common to test"
    return ""


def _contaminated(benchmark: Mapping[str, Any]) -> tuple[str, Trusted]:
    """The sentence on a benchmark with contaminated items, and the items whose score it trusts."""
    verdicts, name = benchmark["verdicts"], _name(benchmark)
    n = verdicts["contaminated"]
    whole, clean, dirty = (_score(benchmark, subset) for subset in ("whole", "clean", "dirty"))
    if whole is None or clean is None:
        of = f"{n:,} of its {_count(benchmark['eligible'], 'testable item')} {_are(n)} contaminated"
        clean_items = verdicts["clean"]
        rest = f"Score its {_count(clean_items, 'clean item')} alone" if clean_items else "No clean item is left"
        return f"Do not report {name} as it stands: {of}. {rest}.", ""
    scored = coverage(benchmark)
    if clean["n"] < MIN_ITEMS:
        left = _count(clean["n"], "scored clean item" if scored else "clean item")
        found = f"{_count(n, 'item')} {_are(n)} contaminated, which leaves {left}"
        return f"Trust no score of {name}: {found}{_some_scored(benchmark)}.", ""
    digits = 2 if _digits(whole["value"], 2) != _digits(clean["value"], 2) else 3
    models = [s for s in benchmark["scores"] if not s["control"]]
    who = f", model {str(models[0]['model'])[:60]}" if len(models) > 1 else ""
    some = f"; {scored}" if scored else ""
    cleaned = f"{_shown(clean, digits)} on {name} ({_count(clean['n'], 'clean item')}{who}{some})"
    if dirty is None:
        return f"Trust {cleaned}: {_count(n, 'item')} {_are(n)} contaminated, none of them scored.", "clean"
    partly = f" ({dirty['n']:,} of them scored)" if dirty["n"] < n else ""
    why = f"the {_count(n, 'contaminated item')} {'scores' if n == 1 else 'score'} {_digits(dirty['value'], digits)}"
    why += partly
    all_items = "all that are scored" if scored else f"all {_count(whole['n'], 'item')}"
    said = _said_by_controls(models[0])
    standing = models[0].get("standing", "no controls")
    if standing == "raised":
        return f"Trust {cleaned}, not {_digits(whole['value'], digits)}: {why}, {said}.", "clean"
    if standing == "stands":
        return f"Trust {_shown(whole, digits)} on {name} ({all_items}{who}{some}): {why}, {said}.", "whole"
    if _digits(whole["value"], digits) == _digits(clean["value"], digits):
        return f"Trust {cleaned}, as on {all_items}: {why}.", "clean"
    both = f"{_shown(whole, digits)} on {all_items}, {_shown(clean, digits)} on the {_count(clean['n'], 'clean item')}"
    return f"Report both scores of {name}{who}: {both}{_some_scored(benchmark)}. {why[0].upper()}{why[1:]}, {said}.", ""


def _said_by_controls(model: Mapping[str, Any]) -> str:
    """What the control models say of the contaminated items' score: the ground of the sentence."""
    standing, beyond = model.get("standing", "no controls"), model.get("versus_control")
    if standing == "no controls":
        return "by the leak or by their ease: a control model (--control) would tell"
    if beyond is None:
        return f"too few to hold against the control models: {MIN_ITEMS} contaminated and {MIN_ITEMS} clean are needed"
    value, low, high = (f"{100 * beyond[name]:+.1f}" for name in ("value", "low", "high"))
    points = f"{value} points [{low}, {high}] beyond the control models"
    if standing == "stands":
        share = model["subsets"]["dirty"]["n"] / model["subsets"]["whole"]["n"]
        most = max(100 * beyond["high"] * share, 0.0)
        ease = "which gain as much on them" if beyond["high"] >= 0 else "which gain more on them"
        return f"{points}, {ease}: the leak can have moved the whole by {most:.1f} points at most"
    return points if standing == "raised" else f"{points}: that does not tell the leak from their ease"


def _some_scored(benchmark: Mapping[str, Any]) -> str:
    scored = coverage(benchmark)
    return f" ({scored})" if scored else ""


def _score(benchmark: Mapping[str, Any], subset: str) -> Mapping[str, Any] | None:
    model = primary(benchmark)
    found = model["subsets"][subset] if model else None
    return found if found and found["n"] else None


def _shown(score: Mapping[str, Any], digits: int = 2) -> str:
    value, low, high = (_digits(score[name], digits) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _digits(value: float, digits: int) -> str:
    """Halves go up, as people round: 0.595 is 0.60, though the nearest double lies below it."""
    return f"{value + 1e-9:.{digits}f}"


def _name(benchmark: Mapping[str, Any]) -> str:
    return str(benchmark["name"])[:60]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
