"""The semantic detector that needs no weights: cosine of TF-IDF vectors of windows, in the same pass as the others.

A term is a word, counted once per window. idf is scikit-learn's smooth one, ln((1 + items) / (1 + items with it)) + 1,
of the benchmark alone, so that no slice needs to know of another; words that no item has count in full, as a document
about something else should
(https://scikit-learn.org/stable/modules/generated/sklearn.feature_extraction.text.TfidfTransformer.html).
Counting a word once beats counting repeats: the rephrased GSM8K ranks first in .989 as whole documents (1 + ln tf:
.984, tf: .957), and in .983 by windows and with LEAST.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect.arrays import load_arrays, save_arrays
from checks.contamination.detect.semantic import (
    COPIES,
    OTHERS,
    Floats,
    Nearest,
    copied_run,
    empirical_p,
    held_out,
    item_text,
    kinds_of,
    offer,
    own_shingles,
    worst,
)
from checks.contamination.detect.signatures import UInts
from checks.contamination.records import PAIRS, Documents, Item
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Hashes, Longs, Words, split_words

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

SHORTEST, LONGEST = 32, 512
"""Words in a window: the power of two that holds the item, between these; half of it on to the next window."""
COMMON = 64
"""Items (at least; a hundredth of a large benchmark) from which a word is too common to look neighbours up by."""
LEAST = 0.1
"""Least cosine that the words with postings give by themselves: two of 1,315 paraphrases of GSM8K fall below, and
the scan is five times as fast."""
RARE = 8
"""Of each item's words, the rarest that neighbours are looked up by however common they are."""


@dataclass(frozen=True, slots=True)
class TfidfIndex:
    """The items as sparse unit vectors, and as an inverted index by word: read-only, shared by all workers."""

    table: Hashes
    """uint64[2^k]: open-addressing hash table of the items' words; 0 is empty."""
    ids: Ints
    """int32[2^k]: term of each slot."""
    squares: Doubles
    """float64[terms]: idf^2."""
    commons: Doubles
    """float64[terms]: idf^2 of the words that are too common to look neighbours up by, else 0."""
    absent: Doubles
    """float64[1]: idf^2 of words that no item has."""
    windows: Longs
    """int64[classes], ascending: words in a window, one class of items each."""
    post_first: Longs
    """int64[classes * terms + 1]: postings of term t for class c begin at post_first[c * terms + t]."""
    post_items: Ints
    post_weights: Doubles
    """idf^2 / norm of the item: what the word adds to the product with a window's vector."""
    rest_first: Longs
    """int64[items + 1]: terms of each item that have no posting, because they are common."""
    rest_terms: Ints
    rest_weights: Doubles
    rest_totals: Doubles
    """float64[items]: sum of its rest_weights."""
    norms: Doubles
    """float64[items]: of the vector of idf of the item's words."""
    shingles: UInts
    """uint32: distinct shingles of all items, each item's ascending: they tell a near copy."""
    shingle_first: Longs
    """int64[items + 1]."""
    kinds: Longs
    """int64[items]: benchmark of each item, numbered."""
    null: Floats
    """float32[items]: cosine to the nearest other item of its benchmark."""

    @classmethod
    def build(cls, items: Sequence[Item]) -> TfidfIndex:
        """Index the items, in the order in which PAIRS will number them; then measure the null distribution."""
        texts = [item_text(item).encode("utf-8", errors="replace") for item in items]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        text = np.frombuffer(b"".join(texts), np.uint8)
        words = split_words(text, offsets)
        parts = _vectors(words, len(items))
        kinds = kinds_of(items)
        index = cls(**parts, kinds=kinds, null=np.empty(0, np.float32))
        count = len(items)
        docs = Documents(text, offsets, np.arange(count), np.full(count, -1), np.zeros(count, np.int64))
        best = Nearest(count)
        index.look(docs, words, best, apart=kinds)
        return cls(**parts, kinds=kinds, null=held_out(best.similarities, best.records, words))

    def save(self, folder: Path) -> None:
        """Write the arrays to a folder, created where it is missing."""
        save_arrays(folder, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, folder: Path) -> TfidfIndex:
        """Map a saved index into memory, read-only."""
        return cls(**load_arrays(folder))

    def scanner(self) -> TfidfScanner:
        """A fresh scanner for one slice."""
        return TfidfScanner(self)

    def neighbour_p(self, items: Longs, similarities: Doubles) -> Doubles:
        """Empirical p of cosines (float64[k]) between items (positions, int64[k]) and documents: `empirical_p`."""
        return empirical_p(self.kinds, self.null, items, similarities)

    def look(self, docs: Documents, words: Words, best: Nearest, apart: Longs | None = None) -> None:
        """Offer all windows of a batch to the items' neighbours.

        `apart`, int64[documents], says that the documents are the items themselves and of which benchmark: each is
        offered to the other items of its benchmark only.
        """
        _look(
            words.hashes, words.first, words.starts, words.ends, docs.records, self.table, self.ids, self.squares,
            self.commons, float(self.absent[0]), self.windows, self.post_first, self.post_items, self.post_weights,
            self.rest_first, self.rest_terms, self.rest_weights, self.rest_totals, self.norms, self.shingles,
            self.shingle_first, best.state, self.kinds,
            np.empty(0, np.int64) if apart is None else apart,
        )


class TfidfScanner:
    """Keeps the nearest documents of each item over the batches of one slice."""

    def __init__(self, index: TfidfIndex) -> None:
        self.index = index
        self.best = Nearest(len(index.kinds))

    def scan(self, docs: Documents, words: Words) -> pa.Table:
        """Nothing yet: neighbours are known at the end of the slice."""
        self.index.look(docs, words, self.best)
        self.best.settle(docs)
        return PAIRS.empty_table()

    def finish(self) -> pa.Table:
        """The nearest documents of each item, PAIRS."""
        return self.best.table()


def _vectors(words: Words, n_items: int) -> dict[str, NDArray[Any]]:
    """All arrays of a TfidfIndex that follow from the items' words."""
    owner = np.repeat(np.arange(n_items), np.diff(words.first))
    vocabulary, term = np.unique(words.hashes, return_inverse=True)
    pairs = np.unique(np.stack([owner, term]), axis=1) if len(term) else np.empty((2, 0), np.int64)
    owner, term = pairs
    found_in = np.bincount(term, minlength=len(vocabulary))
    squares = (np.log((1 + n_items) / (1 + found_in)) + 1) ** 2
    norms = np.sqrt(np.bincount(owner, weights=squares[term], minlength=n_items))
    weight = squares[term] / norms[owner]
    common = found_in > max(COMMON, n_items // 100)
    order = np.lexsort((term, found_in[term], owner))
    begins = np.searchsorted(owner, np.arange(n_items + 1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - begins[owner[order]]
    posted = ~common[term] | (place < RARE)
    lengths = np.maximum(np.diff(words.first), 1)
    sizes = np.clip(1 << np.ceil(np.log2(lengths)).astype(np.int64), SHORTEST, LONGEST)
    windows, classes = np.unique(sizes, return_inverse=True)
    slot = classes[owner] * len(vocabulary) + term
    by_slot = np.argsort(slot[posted], kind="stable")
    table, ids = _hash_table(vocabulary)
    own, own_first = own_shingles(words)
    return {
        "shingles": own, "shingle_first": own_first,
        "table": table, "ids": ids, "squares": squares, "commons": squares * common, "norms": norms,
        "absent": np.array([(np.log(1 + n_items) + 1) ** 2]), "windows": windows,
        "post_first": np.searchsorted(slot[posted][by_slot], np.arange(len(windows) * len(vocabulary) + 1)),
        "post_items": owner[posted][by_slot].astype(np.int32), "post_weights": weight[posted][by_slot],
        "rest_first": np.searchsorted(owner[~posted], np.arange(n_items + 1)),
        "rest_terms": term[~posted].astype(np.int32), "rest_weights": weight[~posted],
        "rest_totals": np.bincount(owner[~posted], weights=weight[~posted], minlength=n_items),
    }


def _hash_table(vocabulary: Hashes) -> tuple[Hashes, Ints]:
    size = 1 << max(4, int(4 * len(vocabulary)).bit_length())
    table, ids = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    for term in range(len(vocabulary)):
        _place(table, ids, vocabulary[term], term)
    return table, ids


@compiled
def _place(table, ids, key, value):
    """Value of a key in an open-addressing table; where it has none, this value from now on."""
    mask = np.uint64(len(table) - 1)
    at = key & mask
    while ids[at] >= 0 and table[at] != key:
        at = (at + np.uint64(1)) & mask
    if ids[at] < 0:
        table[at], ids[at] = key, value
    return ids[at]


@compiled
def _terms(hashes, low, n, table, ids, absent_from, out):
    """Term of each word of a document; words that no item has are numbered from `absent_from` on."""
    mask = np.uint64(len(table) - 1)
    size = 16
    while size < 2 * n:
        size *= 2
    own, own_ids = np.zeros(size, np.uint64), np.full(size, np.int32(-1), np.int32)
    fresh = absent_from
    for i in range(n):
        key = hashes[low + i]
        at = key & mask
        while ids[at] >= 0 and table[at] != key:
            at = (at + np.uint64(1)) & mask
        out[i] = ids[at] if ids[at] >= 0 else _place(own, own_ids, key, fresh)
        if out[i] == fresh:
            fresh += 1
    return fresh


@compiled
def _look(
    hashes, first, starts, ends, records, table, ids, squares, commons, absent, windows, post_first, post_items,
    post_weights, rest_first, rest_terms, rest_weights, rest_totals, norms, shingles, shingle_first, state, kinds,
    apart,
):
    n_terms, n_items = len(squares), len(norms)
    longest = 0
    for doc in range(len(first) - 1):
        longest = max(longest, first[doc + 1] - first[doc])
    terms = np.empty(longest, np.int64)
    last_seen = np.zeros(n_terms + longest, np.int64)  # window in which each term was last seen
    distinct = np.empty(longest, np.int64)
    products, touched = np.zeros(n_items), np.empty(n_items, np.int64)
    floors = np.empty(n_items)
    for item in range(n_items):
        floors[item] = state[0][item, worst(state[0], state[1], item, OTHERS)]
    # The best window of the document at hand for each item, of each kind.
    best = np.empty((n_items, 2))
    best_begin, best_end = np.empty((n_items, 2), np.int64), np.empty((n_items, 2), np.int64)
    runs, offered, offers = np.zeros(n_items, np.int64), np.full(n_items, -1, np.int64), np.empty(n_items, np.int64)
    window = 0
    for doc in range(len(first) - 1):
        low, n = first[doc], first[doc + 1] - first[doc]
        if n == 0:
            continue
        _terms(hashes, low, n, table, ids, n_terms, terms)
        was_begin, was_end, known, square, common, n_offers = -1, -1, 0, 0.0, 0.0, 0
        for level in range(len(windows)):
            for begin in range(0, n, windows[level] // 2):
                end = min(begin + windows[level], n)
                if begin != was_begin or end != was_end:
                    was_begin, was_end, known, square, common = begin, end, 0, 0.0, 0.0
                    window += 1
                    for i in range(begin, end):
                        term = terms[i]
                        if last_seen[term] != window:
                            last_seen[term] = window
                            if term < n_terms:
                                distinct[known] = term
                                known += 1
                                square += squares[term]
                                common += commons[term]
                            else:
                                square += absent
                count = 0
                for i in range(known):
                    at = level * n_terms + distinct[i]
                    for k in range(post_first[at], post_first[at + 1]):
                        item = post_items[k]
                        if products[item] == 0.0:
                            touched[count] = item
                            count += 1
                        products[item] += post_weights[k]
                norm = np.sqrt(square)
                for i in range(count):
                    item = touched[i]
                    product = products[item]
                    products[item] = 0.0
                    most = product + min(rest_totals[item], common / norms[item])
                    if product < LEAST * norm or most < floors[item] * norm:
                        continue
                    if len(apart) and (item == doc or kinds[item] != apart[doc]):
                        continue
                    for k in range(rest_first[item], rest_first[item + 1]):
                        if last_seen[rest_terms[k]] == window:
                            product += rest_weights[k]
                    if offered[item] != doc:
                        offered[item], offers[n_offers], runs[item] = doc, item, 0
                        best[item, OTHERS] = best[item, COPIES] = -np.inf
                        n_offers += 1
                    own = shingles[shingle_first[item]:shingle_first[item + 1]]
                    run = copied_run(hashes, low + begin, low + end, own)
                    kind = COPIES if run > 0 else OTHERS
                    runs[item] = max(runs[item], run)
                    if product / norm > best[item, kind]:
                        best[item, kind] = product / norm
                        best_begin[item, kind], best_end[item, kind] = starts[low + begin], ends[low + end - 1]
                if end == n:
                    break
        for i in range(n_offers):
            item = offers[i]
            kind = COPIES if runs[item] > 0 else OTHERS
            offer(state, item, np.float32(best[item, kind]), records[doc], doc, best_begin[item, kind],
                  best_end[item, kind], runs[item])
            floors[item] = state[0][item, worst(state[0], state[1], item, OTHERS)]
