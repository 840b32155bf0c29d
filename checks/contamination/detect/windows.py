# mypy: allow-untyped-defs, no-check-untyped-defs
"""Second half of the exact detector: the best window of each candidate, verified on the letters of its words.

What a window shares with an item, for every n, follows from its verified 3-grams alone: a gram of n words is a run of
n - 2 of them on one diagonal (word of the document, word of the field).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from checks.contamination.detect.index import SHORT, WINDOW_EXTRA, WINDOW_FACTOR, Floats, Ints, NgramIndex
from checks.contamination.records import NS, ROLES
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Bytes, Longs, Points, frozen, spells

ROLE_VALUES = np.array([{"question": 4, "code": 4, "passage": 2, "answer": 2, "choices": 1}[role] for role in ROLES])
"""Weight of a field's share in the preliminary score: of two places in one document, the one that holds the question
is evidence, the one that holds the passage may be a common source."""
LEADING = np.array([role in ("question", "code", "passage") for role in ROLES])
"""Roles whose short fields count when they occur whole; a short answer or choice alone is anybody's phrase."""
ATTACHED = 0.25
"""Share of another field near the first one from which it belongs to the window."""
STRAY = 4
"""Words between hits that one changed word may part: farther ones at a window's ends need not belong to it."""
LONG_RUN = 8
"""A verbatim run of this many words makes a candidate whatever the share, if it tells enough: it may be a quotation
from a long passage, and the n of the 8-gram rule has to have its document."""
TELLS = 4.0
"""Weight of the window of such a run, in units of the weight of a gram that one item has."""


class Fields(NamedTuple):
    """What `judge` needs of the index: read-only arrays."""

    weights: Floats
    unit_windows: Longs
    unit_items: Ints
    unit_roles: NDArray[np.int8]
    unit_weights: Floats
    unit_shares: Floats
    unit_words: Longs
    item_units: Longs
    letters: Points
    word_letters: Longs
    ids: Ints
    """3-gram ids of all units."""
    first: Longs
    """int64[4, units + 1]: where each unit's grams begin, for each n."""
    tells: float


class Batch(NamedTuple):
    """A batch of documents and the fold table, read-only arrays."""

    text: Bytes
    starts: Longs
    ends: Longs
    first: Longs
    values: Points
    expansions: Points


class Scratch(NamedTuple):
    """Working memory of `judge`: per 3-gram, then per gram of one unit."""

    stamp: Longs
    times: Ints
    head: Ints
    same: Ints
    met: Longs
    run: Ints
    last: Longs
    """int64[1]: the last stamp used."""


def fields(index: NgramIndex) -> Fields:
    """The arrays that `judge` needs."""
    arrays = {name: frozen(getattr(index, name)) for name in Fields._fields if hasattr(index, name)}
    first = frozen(np.stack([index.grams[n].first for n in NS]))
    return Fields(ids=frozen(index.grams[3].ids), first=first, tells=TELLS * float(np.log1p(len(index))), **arrays)


def bits(index: NgramIndex) -> Bytes:
    """Room for the bits of any item: uint8[4, most grams], one row per n."""
    most = max(int(np.diff(grams.first[index.item_units]).max(initial=0)) for grams in index.grams.values())
    return np.zeros((len(NS), most), np.uint8)


def scratch(index: NgramIndex) -> Scratch:
    """Fresh working memory."""
    grams, longest = len(index.grams[3].keys), int(np.diff(index.grams[3].first).max(initial=0))
    return Scratch(np.zeros(grams, np.int64), np.zeros(grams, np.int32), np.zeros(grams, np.int32),
                   np.zeros(longest, np.int32), np.zeros(longest, np.int64), np.zeros(longest, np.int32),
                   np.zeros(1, np.int64))


@compiled
def _from(hit_at, word):
    """Number of the first hit at this word or behind it."""
    low, high = 0, len(hit_at)
    while low < high:
        middle = (low + high) // 2
        if hit_at[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _best_window(index, work, stamp, unit, hit_at, hit_gram, low, high):
    """The stretch of at most the unit's window length that holds the largest weight of its distinct 3-grams.

    Looks at hits low to high; of equals takes the one with more of them. Returns the weight and the words from
    (included) and to (not included).
    """
    ids, weights, stamps, times = index.ids, index.weights, work.stamp, work.times
    first, last, longest = index.first[0, unit], index.first[0, unit + 1], index.unit_windows[unit]
    for place in range(first, last):
        stamps[ids[place]] = stamp
        times[ids[place]] = 0
    best, most, start, end = 0.0, 0, low, low
    weight, count, left = 0.0, 0, low
    for right in range(low, high):
        gram = hit_gram[right]
        if stamps[gram] != stamp:
            continue
        times[gram] += 1
        count += 1
        if times[gram] == 1:
            weight += weights[gram]
        while stamps[hit_gram[left]] != stamp or hit_at[right] + 3 - hit_at[left] > longest:
            leaving = hit_gram[left]
            left += 1
            if stamps[leaving] == stamp:
                times[leaving] -= 1
                count -= 1
                if times[leaving] == 0:
                    weight -= weights[leaving]
        if weight > best + 1e-6 or (weight > best - 1e-6 and count > most):
            best, most, start, end = weight, count, left, right
    if most == 0:
        return 0.0, np.int64(0), np.int64(0)
    for place in range(first, last):
        times[ids[place]] = 0
    for hit in range(start, end + 1):
        times[hit_gram[hit]] += 1
    start = _trimmed(stamps, times, stamp, hit_at, hit_gram, start, end, 1)
    end = _trimmed(stamps, times, stamp, hit_at, hit_gram, end, start, -1)
    return best, hit_at[start], hit_at[end] + 3


@compiled
def _trimmed(stamps, times, stamp, hit_at, hit_gram, edge, other, step):
    """The outermost hit of a window, without strays: hits far from the next one whose gram the window has again."""
    while edge != other:
        inner = edge + step
        while stamps[hit_gram[inner]] != stamp:
            inner += step
        if times[hit_gram[edge]] == 1 or abs(hit_at[inner] - hit_at[edge]) <= STRAY:
            break
        times[hit_gram[edge]] -= 1
        edge = inner
    return edge


@compiled
def _verify(batch, index, work, stamp, unit, hit_at, hit_gram, low, high, last, bits):
    """Set the bits of the unit's grams that hits low to high spell out, none beyond word `last`.

    Follows every diagonal (word of the document, word of the unit): a gram of n words is a run of n - 2 hits on one.
    Returns the weight of the verified distinct 3-grams and the longest run in words.
    """
    text, starts, ends, values, expansions = batch.text, batch.starts, batch.ends, batch.values, batch.expansions
    letters, word_letters, weights, ids = index.letters, index.word_letters, index.weights, index.ids
    stamps, times, head, same, met, runs = work.stamp, work.times, work.head, work.same, work.met, work.run
    grams = index.first[0, unit + 1] - index.first[0, unit]
    for place in range(grams):
        gram = ids[index.first[0, unit] + place]
        same[place] = head[gram] if stamps[gram] == stamp else -1
        stamps[gram], head[gram], times[gram], met[place] = stamp, place, 0, -2
    shift = index.first[:, unit] - index.first[:, index.item_units[index.unit_items[unit]]]
    weight, longest = 0.0, np.int64(0)
    for hit in range(low, high):
        at, gram = hit_at[hit], hit_gram[hit]
        if stamps[gram] != stamp or at + 3 > last:
            continue
        place = np.int64(head[gram])
        while place >= 0:
            run = np.int64(1)
            if place > 0 and met[place - 1] == at - 1:
                run += runs[place - 1]
            equal = True
            for k in range(0 if run == 1 else 2, 3):
                own = index.unit_words[unit] + place + k
                equal = equal and spells(text, starts[at + k], ends[at + k], values, expansions,
                                         letters[word_letters[own] : word_letters[own + 1]])
            if equal:
                met[place], runs[place] = at, run
                for k in range(len(NS)):
                    if run >= NS[k] - 2:
                        bits[k, shift[k] + place - (NS[k] - 3)] = 1
                longest = max(longest, run + 2)
                if times[gram] == 0:
                    times[gram] = 1
                    weight += weights[gram]
            place = np.int64(same[place])
    return weight, longest


@compiled
def _enough(index, unit, weight, longest):
    """Whether what a window holds of one field makes the pair worth judging."""
    words = index.unit_words[unit + 1] - index.unit_words[unit]
    if words <= SHORT:
        return longest == words and LEADING[index.unit_roles[unit]]
    share = weight / index.unit_weights[unit]
    return share >= index.unit_shares[unit] or (longest >= LONG_RUN and weight >= index.tells)


@compiled
def _pack(bits, count, packed, used):
    """Write `count` bits as whole bytes, least significant first; return where the next row's go."""
    for start in range(0, count, 8):
        byte = np.uint8(0)
        for k in range(min(8, count - start)):
            byte |= np.uint8(bits[start + k]) << np.uint8(k)
        packed[used] = byte
        used += 1
    return used


@compiled
def _best_windows(index, batch, work, stamp, hit_at, hit_gram, documents, units, blocks, begin, end, best, spans):
    """Best windows of the fields of one item in one document, over candidates begin to end."""
    for place in range(len(best)):
        best[place] = 0.0
    start = batch.first[documents[begin]]
    k = begin
    while k < end:
        unit = units[k]
        low, high = blocks[k] - 1, blocks[k] + 2
        k += 1
        while k < end and units[k] == unit and blocks[k] - 1 <= high:
            high = blocks[k] + 2
            k += 1
        length = index.unit_windows[unit]
        from_hit = _from(hit_at, max(start, start + low * length))
        to_hit = _from(hit_at, min(start + high * length, batch.first[documents[begin] + 1]))
        stamp += 1
        weight, a, b = _best_window(index, work, stamp, unit, hit_at, hit_gram, from_hit, to_hit)
        place = unit - index.item_units[index.unit_items[unit]]
        if weight > best[place]:
            best[place], spans[place, 0], spans[place, 1] = weight, a, b
    return stamp


@compiled
def _span(index, batch, work, stamp, hit_at, hit_gram, doc, item, place, spans):
    """The window of one field, widened by those of the item's other fields nearby."""
    first, last = index.item_units[item], index.item_units[item + 1]
    a, b = spans[place]
    words = index.unit_words[last] - index.unit_words[first]
    words -= index.unit_words[first + place + 1] - index.unit_words[first + place]
    slack = WINDOW_FACTOR * words + WINDOW_EXTRA
    from_hit = _from(hit_at, max(batch.first[doc], a - slack))
    to_hit = _from(hit_at, min(batch.first[doc + 1], b + slack) - 2)
    for unit in range(first, last):
        if unit == first + place:
            continue
        stamp += 1
        weight, start, end = _best_window(index, work, stamp, unit, hit_at, hit_gram, from_hit, to_hit)
        short = index.unit_words[unit + 1] - index.unit_words[unit] <= SHORT
        if weight > 0 and weight >= (0.999 if short else ATTACHED) * index.unit_weights[unit]:
            a, b = min(a, start), max(b, end)
    return stamp, a, b


@compiled
def _judge_window(index, batch, work, stamp, bits, hit_at, hit_gram, item, a, b):
    """Verify all fields of an item in words a to b: whether it is worth a pair, its score and its longest run."""
    first, last = index.item_units[item], index.item_units[item + 1]
    for row in range(len(NS)):
        for k in range(index.first[row, last] - index.first[row, first]):
            bits[row, k] = 0
    from_hit, to_hit = _from(hit_at, a), _from(hit_at, b)
    enough, score, values, longest = False, 0.0, 0.0, 0
    for unit in range(first, last):
        if index.unit_weights[unit] == 0:
            continue
        stamp += 1
        weight, run = _verify(batch, index, work, stamp, unit, hit_at, hit_gram, from_hit, to_hit, b, bits)
        enough = enough or _enough(index, unit, weight, run)
        value = ROLE_VALUES[index.unit_roles[unit]]
        score += value * min(weight / index.unit_weights[unit], 1.0)
        values += value
        longest = max(longest, run)
    return stamp, enough, score / max(values, 1.0), longest


@compiled
def judge(index, batch, work, bits, hit_at, hit_gram, documents, units, blocks, rows, scores, packed, ends):
    """Find and verify the windows of all candidates, sorted by document, unit and block.

    A document has one window per item, or several where its fields lie far from each other: at most one per candidate.

    Args:
        rows: int64[candidates, 5], filled with document, item, first word, word after the last, longest run.
        scores: float64[candidates].
        packed: uint8[4, bytes], the bits of all rows for each n.
        ends: int64[candidates + 1, 4]: where each row's bytes begin, for each n.

    Returns:
        The number of rows.
    """
    best, spans = np.zeros(len(ROLES), np.float64), np.zeros((len(ROLES), 2), np.int64)
    begin, stamp, found = np.int64(0), work.last[0], 0  # not 0: numba would compile for a literal once more
    while begin < len(units):
        doc, item = documents[begin], index.unit_items[units[begin]]
        end = begin
        while end < len(units) and documents[end] == doc and index.unit_items[units[end]] == item:
            end += 1
        stamp = _best_windows(index, batch, work, stamp, hit_at, hit_gram, documents, units, blocks, begin, end, best,
                              spans)
        begin, first_row = end, found
        first, last = index.item_units[item], index.item_units[item + 1]
        for _ in range(len(best)):
            place = np.int64(0)
            for k in range(1, len(best)):
                if best[k] > best[place]:
                    place = k
            weight, best[place] = best[place], 0.0
            known = False
            for row in range(first_row, found):
                known = known or (rows[row, 2] <= spans[place, 0] and spans[place, 1] <= rows[row, 3])
            unit = first + place
            if known or weight == 0 or weight < min(0.999 * index.unit_shares[unit] * index.unit_weights[unit],
                                                    index.tells):
                continue
            stamp, a, b = _span(index, batch, work, stamp, hit_at, hit_gram, doc, item, place, spans)
            stamp, enough, score, longest = _judge_window(index, batch, work, stamp, bits, hit_at, hit_gram, item, a,
                                                          b)
            if not enough:
                continue
            rows[found, 0], rows[found, 1], rows[found, 2], rows[found, 3] = doc, item, a, b
            rows[found, 4], scores[found] = longest, score
            for k in range(len(NS)):
                count = index.first[k, last] - index.first[k, first]
                ends[found + 1, k] = _pack(bits[k], count, packed[k], ends[found, k])
            found += 1
    work.last[0] = stamp
    return found
