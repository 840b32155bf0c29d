"""What each pair of item and document has in common, as numbers: containment per role, informative n-grams, numbers.

Containment of the item in ONE window of a document, never the Jaccard index of two whole texts: a question buried in a
page has a Jaccard index near zero. It comes from n-gram bits alone, so it is known for pairs that keep no text, too.
N-grams that many documents hold *without holding the item* weigh nothing: copies of a leaked item leave it rare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.programs import PROGRAMS
from checks.contamination.judge.weights import (
    COMMON_LEAST,
    WEIGHED,
    Flags,
    Floats,
    Longs,
    Weighed,
    common_above,
    weigh_items,
)
from checks.contamination.records import MOST_PAIRS, NS, ROLES, Item
from checks.contamination.text.numbers import is_number

Counts = Mapping[int, NDArray[np.uint32]]
"""For each n, documents that hold each n-gram of the index."""
ByN = Mapping[int, Flags]

OWN_COPY = 0.5
"""Share of the stem's n-grams from which a document counts as one that holds the item, and does not make the item's
n-grams common: the lower edge of `suspect`."""
CHANCE_WORDS = 7
"""Stems up to this long stand whole in many documents by chance, so those documents do make them common. Shorter than
any 8-gram, the shortest run that the any-hit rules of the literature take for a copy."""


@dataclass(frozen=True, slots=True)
class PairRows:
    """Evidence in the pairs of one item: one entry per pair, shares from 0 to 1."""

    rows: slice
    """Rows of PAIRS."""
    score: Floats
    """Weighted containment of the stem's deciding n-grams (`Weighed.n`)."""
    plain: Floats
    """The same, unweighted and with common n-grams."""
    asked: Floats
    """`plain` of what is asked alone, without the passage."""
    score3: Floats
    """Weighted containment of the stem's 3-grams: survives edits."""
    whole: Flags
    """All 3-grams and 5-grams of the stem are there."""
    informative: Longs
    """Distinct informative n-grams of the stem that are shared, the larger of n = 3 and 5."""
    recurring: Flags
    """Most of what is shared stands in many documents or items."""
    roles: Mapping[str, Floats]
    """Weighted containment (n = 5, else 3) by role."""
    numbers_only: Flags
    """Some of the stem's n-grams are missing, and every one of these holds a number."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evidence on one item."""

    item: Weighed
    pairs: PairRows
    testable: int
    """Distinct n-grams of the stem that are not common in the corpus, and in short stems not in the benchmark either:
    without any, no match proves anything."""
    hits: Mapping[int, bool | None]
    """By n: whether any n-gram of what is asked (of a code item's solution, too) occurs anywhere in the corpus, as the
    literature counts; None where there is none."""
    covered8: float | None
    """Share of its 8-grams seen anywhere (PaLM's rule is 0.7 or more, https://arxiv.org/abs/2204.02311)."""
    program: Program


@dataclass(frozen=True, slots=True)
class Program:
    """What is known of an item's code as runs of tokens, names by their places."""

    tokens: int
    """0 where it has none."""
    rare: float
    """Share of its runs that are not common: in items, or in documents that do not hold the program."""
    copies: int
    """Documents that hold most of it."""
    idiom: bool
    """It stands in so many documents that it is an idiom, or a program that everybody writes so."""


def gather(
    items: Sequence[Item], index: NgramIndex, pairs: pa.Table, counts: Counts, documents: int
) -> Iterator[Evidence]:
    """Gather the evidence on every item, benchmark by benchmark.

    Args:
        items: All items, in the index's order.
        index: The index they were scanned with.
        pairs: PAIRS of the whole corpus, sorted by item.
        counts: For each n, in how many documents each n-gram occurs.
        documents: Documents scanned.
    """
    bits = {n: pairs[f"grams{n}"].combine_chunks() for n in WEIGHED}
    detectors = np.array(pairs["detector"].to_pylist(), object)
    exact, code = detectors == "exact", detectors == "code"
    edges = np.searchsorted(pairs["item"].to_numpy(), np.arange(len(items) + 1))
    limit = common_above(documents)
    for item in weigh_items(items, index):
        rows = slice(int(edges[item.position]), int(edges[item.position + 1]))
        found = {n: _unpack(bits[n][rows], len(item.ids[n])) for n in WEIGHED}
        held = {n: counts[n][item.ids[n]].astype(np.float64) for n in WEIGHED}
        common = {n: held[n] - _copies(item, n, found, exact[rows], held[n]) > limit for n in WEIGHED}
        crowded = ~item.rare[item.n] | (held[item.n] > limit)
        short = item.length <= CHANCE_WORDS
        telling = {n: item.in_stem[n] & ~common[n] & (item.rare[n] | (not short)) for n in WEIGHED}
        testable = max(len(np.unique(item.ids[n][telling[n]])) for n in WEIGHED)
        numbers = _holding_numbers(item, items[item.position]) if len(exact[rows]) else crowded
        hits, covered8 = _anywhere(item, index, counts)
        program = _program(item.position, index, counts, int(code[rows].sum()), limit)
        yield Evidence(item, _pair_rows(item, rows, found, common, crowded, numbers), testable, hits, covered8, program)


def _program(position: int, index: NgramIndex, counts: Counts, copies: int, limit: float) -> Program:
    programs = index.programs
    runs = programs.runs(position)
    if not len(runs):
        return Program(0, 0.0, 0, idiom=False)
    items = np.diff(programs.run_first)[runs]
    common = (counts[PROGRAMS][runs] - float(copies) > limit) | (items > COMMON_LEAST)
    return Program(int(programs.lengths[position]), float(1 - common.mean()), copies, copies > limit)


def _unpack(column: pa.BinaryArray, grams: int) -> Flags:
    """bool[pairs, grams] from the packed bits of some pairs; all False where a detector stores none."""
    width = (grams + 7) // 8
    packed = [bits if bits is not None and len(bits) == width else bytes(width) for bits in column.to_pylist()]
    flat = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), width)
    return np.unpackbits(flat, axis=1, count=grams, bitorder="little").astype(bool)


def _copies(item: Weighed, n: int, found: ByN, exact: Flags, held: Floats) -> Floats | float:
    """Documents that hold each n-gram and the item with it: they do not make it common."""
    if item.length <= CHANCE_WORDS:
        return 0.0
    own = exact & (_mean(found[item.n][:, item.in_stem[item.n]]) >= OWN_COPY)
    copies: Floats = found[n][own].sum(axis=0).astype(np.float64)
    if exact.sum() >= MOST_PAIRS and item.in_stem[n].any():
        # Pairs beyond MOST_PAIRS were dropped. Whole copies hold the rarest n-grams too, so these count them.
        copies = np.maximum(copies, np.quantile(held[item.in_stem[n]], 0.1))
    return copies


def _anywhere(item: Weighed, index: NgramIndex, counts: Counts) -> tuple[dict[int, bool | None], float | None]:
    seen = {}
    for n in NS:
        roles = index.gram_roles(item.position, n)
        asked = roles == ROLES.index(item.asks)
        if item.asks == "code":
            asked |= roles == ROLES.index("answer")
        seen[n] = counts[n][index.gram_ids(item.position, n)[asked]] > 0
    hits = {n: bool(each.any()) if len(each) else None for n, each in seen.items()}
    return hits, float(seen[8].mean()) if len(seen[8]) else None


def _pair_rows(item: Weighed, rows: slice, found: ByN, common: ByN, crowded: Flags, numbers: Flags) -> PairRows:
    weight = {n: np.where(common[n], 0.0, item.idf[n]) for n in WEIGHED}
    stem = item.in_stem
    shared, missing = found[item.n] & stem[item.n], ~found[item.n] & stem[item.n]
    whole: Flags = np.logical_and.reduce(np.hstack([found[n][:, stem[n]] for n in WEIGHED]), axis=1)
    numbers_only: Flags = np.logical_or.reduce(missing, axis=1) & ~np.logical_or.reduce(missing & ~numbers, axis=1)
    roles = {}
    for role in item.words:
        n = 5 if item.in_role[5][role].any() else 3
        roles[role] = _weighted(found[n], weight[n] * item.in_role[n][role])
    informative = [_distinct(found[n], stem[n] & item.rare[n] & ~common[n], item.ids[n]) for n in WEIGHED]
    return PairRows(
        rows=rows,
        score=_weighted(found[item.n], weight[item.n] * stem[item.n]),
        plain=_mean(found[item.n][:, stem[item.n]]),
        asked=_mean(found[item.n][:, item.in_role[item.n][item.asks]]) if item.words else np.zeros(len(shared)),
        score3=_weighted(found[3], weight[3] * stem[3]),
        whole=whole & bool(stem[3].any()),
        informative=np.maximum(*informative),
        recurring=(shared & crowded).sum(axis=1) * 2 > shared.sum(axis=1),
        roles=roles,
        numbers_only=numbers_only,
    )


def _mean(flags: Flags) -> Floats:
    return flags.mean(axis=1) if flags.shape[1] else np.zeros(len(flags))


def _weighted(found: Flags, weight: Floats) -> Floats:
    total = weight.sum()
    return found @ weight / total if total > 0 else np.zeros(len(found))


def _distinct(found: Flags, flags: Flags, ids: Longs) -> Longs:
    """Distinct n-grams among the flagged ones found: an item may repeat one."""
    firsts = np.unique(ids[flags], return_index=True)[1]
    counted: Longs = found[:, flags][:, firsts].sum(axis=1)
    return counted


def _holding_numbers(item: Weighed, source: Item) -> Flags:
    """bool[grams]: which of the item's deciding n-grams hold a number."""
    flags: list[Flags] = [np.zeros(0, bool)]
    for role in ROLES:
        if role not in item.words or len(item.words[role]) < item.n:
            continue
        words, text = item.words[role], source.fields[role].encode("utf-8", errors="replace")
        spelled = (text[a:b].decode("utf-8", errors="replace") for a, b in zip(words.starts, words.ends, strict=True))
        number = np.array([is_number(word) for word in spelled])
        flags.append(np.logical_or.reduce(np.lib.stride_tricks.sliding_window_view(number, item.n), axis=1))
    return np.concatenate(flags)
