"""The report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from checks.data_report.report import DataReport
from checks.data_report.restore import FAIL_EPOCHS, WARN_EPOCHS, Domain, Restored
from checks.data_report.sample import Share
from checks.data_report.tokens import ALL, Drift, Fit, Script, Watched
from checks.report.figures import short

SHOWN = 60


def text(report: DataReport) -> str:
    """Everything, one line per thing."""
    return "\n".join(_lines(report)).rstrip()


def _lines(report: DataReport) -> Iterator[str]:
    rests = report.rests_on
    if rests:
        yield (f"Rests on {short(rests['tokens'])} tokens in {rests['windows']} windows. Before: "
               f"{_span(rests['first'])}. Now: {_span(rests['newest'])}. Intervals: 95 %, from how windows differ.")
    sections: list[tuple[str, str, Any]] = [
        ("Drift of tokens", "drift", report.drift and [line for d in report.drift for line in _drift(d)]),
        ("Watched", "watched", report.watched and [_watched(w) for w in report.watched]),
        ("Scripts, share of bytes", "scripts", report.scripts and [_script(s) for s in report.scripts
                                                                    if s.domain == ALL or _differs(s)]),
        ("Tokenizer", "tokenizer", report.tokenizer and list(_tokenizer(report.tokenizer))),
        ("Plan", "plan", report.plan and list(_plan(report.plan))),
    ]
    for title, key, lines in sections:
        if lines or key in report.unknown:
            yield f"\n{title}"
            yield from (f"  {line}" for line in lines or [f"unknown: {report.unknown[key]}"])
    rest = {key: why for key, why in report.unknown.items() if key not in {key for _, key, _ in sections}}
    if rest:
        yield "\nNot known"
        yield from (f"  {printable(key)}: {why}" for key, why in rest.items())


def _span(span: dict[str, Any]) -> str:
    if not span["steps"]:
        return "none"
    return f"steps {max(span['steps'][0], 0):,} to {span['steps'][1]:,} ({short(span['tokens'])} tokens)"


def _drift(d: Drift) -> Iterator[str]:
    if d.share is None or d.low is None or d.high is None:
        said = "too few windows to say how far its tokens moved"
    elif d.low <= 0:
        said = f"no drift beyond chance; {percent(d.high)} of other text is the most that fits"
    else:
        said = f"moved as by {percent(d.share)} of other text ({percent(d.low)} to {percent(d.high)})"
    yield f"{printable(d.domain)}: {said}"
    for m in d.moved:
        yield (f"  {printable(m.text)!r:24} {percent(m.before):>10} -> {percent(m.now):<10} {100 * m.part:.2g} % of "
               "the change")


def _watched(w: Watched) -> str:
    held = "" if w.whole else ", counted with all tokens that hold it"
    names = ", ".join(repr(printable(t)) for t in w.tokens)
    return f"{printable(w.word)!r} in {printable(w.domain)}: {_from_to(w.before, w.now)} of tokens ({names}{held})"


def _script(s: Script) -> str:
    return f"{printable(s.domain)}: {s.script} {_from_to(s.before, s.now)}"


def _differs(s: Script) -> bool:
    """Whether the intervals are apart."""
    if None in (s.before.low, s.before.high, s.now.low, s.now.high):
        return False
    return bool(s.now.low > s.before.high or s.now.high < s.before.low)  # type: ignore[operator]


def _from_to(before: Share, now: Share) -> str:
    return f"{_share(before)} -> {_share(now)}"


def _share(share: Share) -> str:
    if share.low is None or share.high is None:
        return f"{percent(share.value)} (one window, no interval)"
    return f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def _tokenizer(known: dict[str, Any]) -> Iterator[str]:
    yield (f"{known['vocabulary']:,} ids, {known['spelled']:,} of them spelled; {known['never_used']:,} of these were "
           "never fed. Fertility: tokens of letters per word that a space precedes, too high where words begin lines")
    fits: tuple[Fit, ...] = known["domains"]
    for f in fits:
        fertility = "" if f.per_word is None else f", fertility at most {f.per_word:.3g}"
        scripts = ", ".join(f"{name} {size:.3g}" for name, size in f.by_script.items())
        yield (f"{printable(f.domain)}: {f.bytes_per_token:.3g} bytes per token ({scripts}){fertility}; "
               f"{percent(f.unspelled)} special, unknown or outside of the tokenizer")


def _plan(plan: Restored) -> Iterator[str]:
    yield (f"{100 * plan.off_now:.3g} % of the tokens since step {plan.since:,} are from another domain than planned. "
           f"Over the next {short(plan.over)} tokens these weights "
           + ("restore the plan:" if plan.off_then < 1e-9 else f"bring it to {100 * plan.off_then:.3g} %:"))
    for d in plan.domains:
        yield (f"{printable(d.name):20} planned {percent(d.planned)}, fed {percent(d.share)}, weight "
               f"{percent(d.weight)}{_repeats(d)}")
    if plan.off_then >= 1e-9:
        why = "a domain planned at 0 was fed" if plan.needs is None else f"that takes {short(plan.needs)} tokens"
        yield f"The plan cannot be restored within {short(plan.over)} tokens: {why}. Some weights are 0."


def _repeats(d: Domain) -> str:
    if d.epochs_then is None or d.epochs_now is None or d.worth is None:
        return "; how often that repeats it is not known (domain_tokens of the run card)"
    past = f", past {FAIL_EPOCHS:g}: repeats teach next to nothing" if d.epochs_then > FAIL_EPOCHS else \
        f", past {WARN_EPOCHS:g}: repeats are worth less" if d.epochs_then > WARN_EPOCHS else ""
    epochs = f"{d.epochs_now:.3g} to {d.epochs_then:.3g}"
    return f"; epochs {epochs}{past}, each token worth {percent(d.worth)} of a fresh one"


def percent(share: float) -> str:
    """Three digits: 12.3 %, 0.00123 %."""
    return f"{100 * share:.3g} %"


def printable(words: str) -> str:
    """A stored name on one line, without control characters; at most 60 characters."""
    clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words[:SHOWN])
    return clean + ("…" if len(words) > SHOWN else "")
