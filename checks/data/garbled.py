"""data.garbled: tokens that stand for no text, and bytes per token, against the run's own first windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.data.windows import labels, windows
from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import Rows, has, vector
from checks.registry import check
from checks.robust import MAD_TO_SIGMA, Floats, excursions
from trainvitals.formulas import REFERENCE_WINDOWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention (no published limit); languages of one tokenizer differ by more than half in bytes per token"
LEAST_WINDOWS = REFERENCE_WINDOWS + 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One number per window that says how well text survives the tokenizer."""

    name: str
    unit: str
    signal: str
    floor: float
    """Base that a change is relative to, at least; 0 where the usual level alone is."""
    means: str
    do: str


BYTES = Kind("bytes per token", "bytes/token", "tokens/bytes_per_token", 0.0,
             "The text falls into shorter or longer pieces than it did: another language, encoding or tokenizer.",
             "Decode a few rows of that domain; look for broken encodings and shards of another tokenizer.")
SPECIAL = Kind("share of tokens without a spelling", "share of tokens", "tokens/js", 0.05,
               "Special and unknown tokens take the place of text, or separators are missing.",
               "Look for tokens of another tokenizer, padding that no mask marks, and lost or doubled separators.")


@check("data.garbled", area="data", reads=("tokens/counts",), uses=("tokens/bytes", "tokens/seen"), refs=())
def garbled(
    run: Run, *, warn_change: float = 0.2, fail_change: float = 0.5, deviations: float = 6.0
) -> Iterator[Finding]:
    """Tokens that stand for no text, or the bytes that a token stands for, leave the level of the first windows.

    Why it matters: a broken encoding, another tokenizer or separators that got lost turn text into other ids of the
    same number, and the loss of a mixed batch hardly shows it. How to read it: both ways, per domain, as a change
    relative to the first five windows, beyond `deviations` of the scatter of neighbouring windows, in two of three.
    Bytes per token need a tokenizer at attach. Tokens without a spelling are special ones, unknown ones and ids
    outside of the tokenizer together; their share is judged against at least 5 %, so that one point of all tokens is
    a change of a fifth.
    """
    switches = quiet(run, "data").level_steps
    for kind, series in ((BYTES, _bytes(run)), (SPECIAL, _special(run))):
        yield from _judge(kind, series, switches, (warn_change, fail_change), deviations)


def _bytes(run: Run) -> Rows | None:
    if not (has(run, "tokens/bytes") and has(run, "tokens/seen")):
        return None
    return vector(run, "tokens/bytes_per_token")


def _special(run: Run) -> Rows | None:
    domains, tokens = labels(run)
    unspelled = np.array([" " not in token for token in tokens])
    if unspelled.all():
        return None
    steps, shares = [], []
    for window in windows(run):
        total = window.counts.sum(axis=1)
        steps.append(window.step)
        shares.append(np.divide(window.counts @ unspelled, total, out=np.full(len(total), np.nan), where=total > 0))
    return Rows(np.array(steps, np.int64), np.array(shares).reshape(-1, len(domains)), domains)


def _judge(kind: Kind, series: Rows | None, switches: tuple[int, ...], limits: tuple[float, float], deviations: float
           ) -> Iterator[Finding]:
    threshold = Threshold(*limits, f"change of the {kind.name}", SOURCE)
    if series is None:
        yield Ground(0, threshold).unknown(
            f"The {kind.name} is not known.", "How the vocabulary spells its tokens was not recorded.",
            "Attach with tokenizer=...")
        return
    alarms: list[Finding] = []
    judged: list[str] = []
    blind: list[str] = []
    top = 0.0
    edges = [0, *np.searchsorted(series.steps, switches, side="right").tolist(), len(series)]
    for column, domain in enumerate(series.labels):
        for first, end in zip(edges[:-1], edges[1:], strict=True):
            inside = np.arange(first, end)
            rows = inside[np.isfinite(series.values[inside, column])]
            if not len(rows):
                continue
            values = series.values[rows, column]
            change, limit = _change(kind, values, limits[0], deviations)
            found = list(_alarms(kind, domain, Rows(series.steps[rows], values), change, limit, threshold))
            alarms += found
            if not found and (len(rows) < LEAST_WINDOWS or limit > limits[1]):
                blind.append(domain)
            elif not found:
                judged.append(domain)
                top = max(top, float(np.sort(np.abs(change[REFERENCE_WINDOWS:]))[-2]))
    yield from alarms
    names, unseen = (", ".join(dict.fromkeys(found)) for found in (judged, blind))
    if judged:
        yield Ground(len(series), threshold).passed(
            f"The {kind.name} of {names} stays what it was.",
            Statistic(f"largest change of the {kind.name}, but for one window", top, "1"),
            "As much text comes out of the tokenizer as at the start.")
    if blind or not (judged or alarms):
        yield Ground(len(series), threshold).unknown(
            f"Windows {f'of {unseen} ' if unseen else ''}are too few or scatter too much to see a change of the "
            f"{kind.name} by {100 * limits[1]:g} %.", f"It takes {LEAST_WINDOWS} windows of one stage.")


def _change(kind: Kind, values: Floats, warn: float, deviations: float) -> tuple[Floats, float]:
    """Change of each window relative to the first ones, and what it must exceed.

    The first windows alone say how windows scatter: a fault must not widen its own limit.
    """
    usual = float(np.median(values[:REFERENCE_WINDOWS]))
    base = max(abs(usual), kind.floor, 1e-12)
    apart = np.abs(np.diff(values[:REFERENCE_WINDOWS], prepend=values[0]))[1:] / base
    scatter = MAD_TO_SIGMA * float(np.median(apart)) / np.sqrt(2) if len(apart) else 0.0
    own = float(np.abs(values[:REFERENCE_WINDOWS] - usual).max()) / base
    return (values - usual) / base, max(warn, deviations * scatter, 2 * own)


def _alarms(kind: Kind, domain: str, rows: Rows, change: Floats, limit: float, threshold: Threshold
            ) -> Iterator[Finding]:
    over = np.abs(change) > limit
    over[:REFERENCE_WINDOWS] = False
    for e in excursions(np.abs(change), over, np.full(len(rows), limit), k=2, n=3, calm_rows=3):
        first, last = int(rows.steps[e.first - 1]) + 1, int(rows.steps[e.last])
        level = float(np.median(change[e.first : e.last + 1]))
        now, usual = (float(np.median(v)) for v in (rows.values[e.first : e.last + 1], rows.values[:REFERENCE_WINDOWS]))
        spell = Spell(first, last, not e.recovered)
        yield Ground(len(rows), threshold).alarm(
            f"The {kind.name} of {domain} went from {usual:.3g} to {now:.3g} {spell.words}.",
            Statistic(f"change of the {kind.name}, median since the onset", abs(level), "1"),
            spell,
            evidence=[Evidence(kind.signal, spell.steps, domain)],
            means=kind.means,
            do=kind.do,
            onset="first window beyond the limit; the change lies inside it",
            began=(first, int(rows.steps[e.first])),
        )
