"""Neighbours in meaning: what every embedder shares. Each item keeps its nearest documents; nobody is condemned.

A cosine has no natural threshold: it depends on the embedder and on how alike a benchmark's items are. So each item's
nearest OTHER item gives the null distribution, and a neighbour in the corpus is judged by how rare such nearness is
among items that are known to be different.

Near copies are what the lexical detectors find. They are the nearest of all, so they have places of their own: a
paraphrase has to be nearer than other paraphrases only.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect.minhash import CONFIRM
from checks.contamination.detect.signatures import N, shingle, shingles
from checks.contamination.detect.snippets import snippet
from checks.contamination.records import NS, PAIRS, Documents, Item
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Longs, Words

Floats = NDArray[np.float32]

NEAREST = 5
"""Documents kept per item, slice and kind: near copies, and others."""
OTHERS, COPIES = 0, 1
"""Kinds of neighbours: their places are NEAREST * kind to NEAREST * (kind + 1)."""
LEAST_NULL = 30
"""Other items below which a null distribution says nothing: the least p would be above 1 / 31."""


class Scanner(Protocol):
    """A detector at work on one slice."""

    def scan(self, docs: Documents, words: Words) -> pa.Table:
        """Pairs found in a batch."""

    def finish(self) -> pa.Table:
        """Pairs known only at the end of the slice."""


class SemanticIndex(Protocol):
    """The items of an audit as vectors."""

    def scanner(self) -> Scanner:
        """A fresh scanner for one slice."""

    def neighbour_p(self, items: Longs, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Empirical p of cosines between items and documents."""


def item_text(item: Item) -> str:
    """What stands for an item's meaning: question, choices and code; the answer too where code is asked for.

    A solution in words is left out: a paraphrased question mostly comes without it or with another. The passage stands
    in only where there is nothing else.
    """
    fields = item.fields
    roles = ["question", "choices", "code"] + (["answer"] if "code" in fields else [])
    texts = [fields[role] for role in roles if role in fields]
    return "\n".join(texts or fields.values())


def empirical_p(
    kinds: Longs, null: Floats, items: Longs, similarities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of a benchmark's items with another item as near as this: (1 + #{null >= s}) / (1 + #null).

    It answers "would a different problem of this kind come so near?". The corpus may be larger than the benchmark, and
    with more documents the nearest of them comes nearer: on web text that is no matter, in a corpus of the benchmark's
    own kind the share of clean items below a given p is larger than p.
    Formula: https://doi.org/10.2202/1544-6115.1585 (Phipson and Smyth 2010).

    Args:
        kinds: int64[items], benchmark of each item of the audit, numbered.
        null: float32[items], cosine of each to the nearest other item of its benchmark.
        items: int64[k], positions of items.
        similarities: float64[k], of each to a document.

    Returns:
        float64[k]; NaN where the benchmark has fewer than LEAST_NULL items.
    """
    out = np.full(len(items), np.nan)
    for kind in np.unique(kinds):
        others = np.sort(null[kinds == kind])
        mine = kinds[items] == kind
        if len(others) >= LEAST_NULL:
            as_near = len(others) - np.searchsorted(others, similarities[mine].astype(np.float32), side="left")
            out[mine] = (1 + as_near) / (1 + len(others))
    return out


def held_out(similarities: Floats, others: Longs, words: Words) -> Floats:
    """The null distribution: each item's cosine to its nearest other item that is not a copy of it.

    Twins inside a benchmark, the same problem with other numbers, are no example of different problems.

    Args:
        similarities: float32[items, k], to the nearest other items of its benchmark; -inf where there are fewer.
        others: int64[items, k], their positions.
        words: Of the items' texts, one document each.

    Returns:
        float32[items]; 0 for an item without a neighbour, the least similarity where all k neighbours are twins.
    """
    hashed, first = shingles(words.hashes, words.first)
    sets = [np.unique(hashed[first[i] : first[i + 1]]) for i in range(len(similarities))]
    out = np.zeros(len(similarities), np.float32)
    for item, own in enumerate(sets):
        for place in np.argsort(-similarities[item], kind="stable"):
            if not np.isfinite(similarities[item, place]):
                break
            other = sets[int(others[item, place])]
            out[item] = similarities[item, place]
            if np.isin(own, other).sum() < CONFIRM * max(1, min(len(own), len(other))):
                break
    return out


class Nearest:
    """The NEAREST documents of every item and kind so far; ties go to the document that came first."""

    def __init__(self, n_items: int) -> None:
        shape = (n_items, 2 * NEAREST)
        self.similarities = np.full(shape, -np.inf, np.float32)
        self.records = np.full(shape, -1, np.int64)
        self.docs = np.full(shape, -1, np.int64)
        """Document within the batch at hand; -1 for those of earlier batches."""
        self.starts = np.zeros(shape, np.int64)
        self.ends = np.zeros(shape, np.int64)
        """Window, bytes of the batch's text."""
        self.runs = np.zeros(shape, np.int64)
        """Words of the longest run that a near copy shares; 0 for others."""
        self._rows: dict[tuple[int, int], dict[str, Any]] = {}

    @property
    def state(self) -> tuple[Floats, Longs, Longs, Longs, Longs, Longs]:
        """The arrays that `offer` takes."""
        return self.similarities, self.records, self.docs, self.starts, self.ends, self.runs

    def settle(self, docs: Documents) -> None:
        """Write down the text of what a batch brought in, before the batch goes."""
        for item, slot in np.argwhere(self.docs >= 0).tolist():
            doc = int(self.docs[item, slot])
            start, end = int(self.starts[item, slot]), int(self.ends[item, slot])
            shift = int(docs.piece_starts[doc]) - int(docs.offsets[doc])
            similarity = float(self.similarities[item, slot])
            self._rows[item, slot] = {
                "item": item, "slice": 0, "record": int(docs.records[doc]), "byte_offset": int(docs.byte_offsets[doc]),
                "document_id": docs.ids[doc] if docs.ids is not None else None,
                "start": start + shift, "end": end + shift, "detector": "semantic", "score": similarity,
                "longest": int(self.runs[item, slot]), "similarity": similarity,
                "text": snippet(docs, doc, start, end),
            } | {f"grams{n}": b"" for n in NS}
        self.docs[:] = -1

    def table(self) -> pa.Table:
        """All neighbours, PAIRS, by item and record."""
        held = np.isfinite(self.similarities)
        rows = sorted((row for place, row in self._rows.items() if held[place]),
                      key=lambda row: (row["item"], row["record"]))
        return pa.Table.from_pylist(rows, schema=PAIRS)


@compiled
def worst(similarities, records, item, kind):
    """The place of an item's neighbour of a kind that goes first: least similar, then last come."""
    at = kind * NEAREST
    for k in range(at + 1, at + NEAREST):
        if similarities[item, k] < similarities[item, at] or (
            similarities[item, k] == similarities[item, at] and records[item, k] > records[item, at]
        ):
            at = k
    return at


@compiled
def offer(state, item, similarity, record, doc, start, end, run):
    """Put the best window of a document in its place among the item's neighbours of its kind, or leave it.

    `run` is above 0 for near copies. A document has one place: one that proves to be a copy is no other.
    """
    similarities, records, docs, starts, ends, runs = state
    kind, at = (COPIES if run > 0 else OTHERS), -1
    for k in range(similarities.shape[1]):
        if records[item, k] == record and similarities[item, k] > -np.inf:
            if k // NEAREST == kind:
                at = k
            elif kind == OTHERS:
                return
            else:
                similarities[item, k], docs[item, k] = -np.inf, -1
    if at < 0:
        at = worst(similarities, records, item, kind)
    if similarity > similarities[item, at]:
        similarities[item, at], records[item, at], docs[item, at] = similarity, record, doc
        starts[item, at], ends[item, at], runs[item, at] = start, end, run


@compiled
def copied_run(hashes, begin, end, own):
    """Words of the longest run that the words begin to end share with a text, if they hold CONFIRM of its shingles
    (`own`: sorted uint32); else 0.
    """
    seen = np.zeros(len(own), np.bool_)
    count, run, longest = 0, 0, 0
    for i in range(begin, end - N + 1):
        key = shingle(hashes, i)
        low, high = 0, len(own)
        while low < high:
            middle = (low + high) // 2
            if own[middle] < key:
                low = middle + 1
            else:
                high = middle
        if low == len(own) or own[low] != key:
            run = 0
            continue
        run += 1
        longest = max(longest, run)
        count += not seen[low]
        seen[low] = True
    return longest + N - 1 if count > 0 and count >= CONFIRM * len(own) else 0


def own_shingles(words: Words) -> tuple[NDArray[np.uint32], Longs]:
    """The distinct shingles of each text, ascending: those of text i are out[first[i]:first[i + 1]]."""
    hashed, first = shingles(words.hashes, words.first)
    sets = [np.unique(hashed[first[i] : first[i + 1]]) for i in range(len(first) - 1)]
    return (np.concatenate([np.empty(0, np.uint32), *sets]),
            np.cumsum([0, *map(len, sets)], dtype=np.int64))


def kinds_of(items: Sequence[Item]) -> Longs:
    """The benchmark of each item, numbered: int64[items]."""
    return np.unique([item.benchmark for item in items], return_inverse=True)[1].astype(np.int64)
