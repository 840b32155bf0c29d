"""Edited copies of benchmark items, found by MinHash signatures of windows.

A signature of a whole document says nothing about an item buried in it: the Jaccard similarity of a 45-word question
and a 245-word document is 0.17 at best. So windows of about the length of the items get signatures of their own,
lowered from blocks of 8 shingles, and meet the benchmark's bands only. A window that holds too few of the benchmark's
shingles to reach JACCARD with any item is never signed, which is nearly all of an ordinary text.

What a band finds is a candidate. It is confirmed on the text: CONFIRM of the item's 3-word shingles in the window.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect.arrays import load_arrays, save_arrays
from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.lsh import Bands, Ints, bitmap, has, probe, shift_of
from checks.contamination.detect.signatures import (
    EMPTY,
    NUM_PERM,
    SEED,
    N,
    UInts,
    lower,
    permutations,
    premix,
    shingle,
    shingles,
    signatures,
)
from checks.contamination.detect.snippets import snippet
from checks.contamination.records import NS, PAIRS, ROLES, Documents, Item
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Hashes, Longs, Words, words_of

JACCARD = 0.3
"""Least estimate of a candidate: a window at .35, one sd above, stays in with probability .88, one at .40 with .99."""
CONFIRM = 0.4
"""Least share of the item's (or, for a part of a long item, the part's) shingles in the window. GSM-Plus: edited copies
hold .5 and more in 92-100 %, two unrelated items share .21 at most."""
BLOCK = 8
"""Shingles per block; windows begin and end at blocks."""
SHORTEST, LONGEST = 16, 512
"""Windows, in shingles: powers of two between these. A longer item is looked for in parts of LONGEST."""
LEAST_WORDS = 8
"""Words of a text with a signature of its own; below, the exact detector alone decides."""
WHOLE = -1
"""In place of a role: all fields of the item, one after another."""


class Unit(NamedTuple):
    """A text that is looked for: one field of an item, the whole item, or a part of a long one."""

    item: int
    role: int
    """Position in ROLES, or WHOLE."""
    offset: int
    """Words of the field or item before this part."""
    words: int
    """Length of the field or item."""
    hashes: Hashes
    """uint64[at most LONGEST]: the words of this part."""


def units_of(items: Sequence[Item]) -> Iterator[Unit]:
    """The texts that stand for the items: each field of LEAST_WORDS or more, and all fields of an item together."""
    for number, item in enumerate(items):
        fields = {ROLES.index(role): words_of(text).hashes for role, text in item.fields.items()}
        texts = list(fields.items())
        if len(fields) > 1:
            texts.append((WHOLE, np.concatenate([fields[role] for role in sorted(fields)])))
        for role, hashes in texts:
            if len(hashes) < LEAST_WORDS:
                continue
            last = max(len(hashes) - LONGEST, 0)
            for offset in [*range(0, last, LONGEST // 2), last]:
                yield Unit(number, role, offset, len(hashes), hashes[offset : offset + LONGEST])


@dataclass(frozen=True, slots=True)
class MinHashIndex:
    """The benchmark side of the detector: read-only, shared by all workers."""

    perms: UInts
    """uint32[2, num_perm]."""
    bands: Bands
    items: Ints
    """int32[u]: item of each unit."""
    roles: Ints
    """int32[u]: its role, or WHOLE."""
    offsets: Ints
    """int32[u]: words of the field before the unit."""
    lengths: Ints
    """int32[u]: words of the field."""
    sizes: Ints
    """int32[u]: shingles of the unit."""
    seen: NDArray[np.uint8]
    """Bitmap over the leading bits of the benchmark's shingles, premixed."""

    @classmethod
    def build(cls, items: Sequence[Item]) -> MinHashIndex:
        """Sign all units of all items; items too short for a signature have none."""
        units = list(units_of(items))
        perms = permutations(NUM_PERM, SEED)
        first = np.cumsum([0, *(len(unit.hashes) for unit in units)])
        words = np.concatenate([np.empty(0, np.uint64), *(unit.hashes for unit in units)])
        hashed, starts = shingles(words, first)
        columns = np.array([unit[:4] for unit in units], np.int32).reshape(-1, 4)
        item, role, offset, length = (np.ascontiguousarray(column) for column in columns.T)
        return cls(
            perms, Bands.build(signatures(hashed, starts, perms)), item, role, offset, length,
            np.diff(starts).astype(np.int32), bitmap(_leading(hashed)),
        )

    def save(self, folder: Path) -> None:
        """Write the arrays to a folder, created where it is missing."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "bands"}
        save_arrays(folder, own)
        save_arrays(folder / "bands", {field.name: getattr(self.bands, field.name) for field in fields(self.bands)})

    @classmethod
    def load(cls, folder: Path) -> MinHashIndex:
        """Map a saved index into memory, read-only."""
        return cls(**load_arrays(folder), bands=Bands(**load_arrays(folder / "bands")))

    def windows(self) -> Longs:
        """Window lengths in blocks, ascending: those that some unit can reach JACCARD with."""
        if not len(self.sizes):
            return np.empty(0, np.int64)
        sizes = [1 << k for k in range(SHORTEST.bit_length() - 1, LONGEST.bit_length())]
        useful = [
            size for size in sizes if np.any((self.sizes >= JACCARD * size) & (self.sizes <= size / JACCARD))
        ] or [SHORTEST]
        return np.array(useful, np.int64) // BLOCK


class Candidates(NamedTuple):
    """Windows whose signature is close to a unit's; positions in words from the start of the document."""

    docs: Longs
    units: Longs
    starts: Longs
    ends: Longs
    matches: Longs
    """Equal values of the two signatures."""


def candidates(index: MinHashIndex, words: Words) -> Candidates:
    """Windows of a batch that LSH finds and that reach JACCARD by estimate, in the order of the documents."""
    least = int(index.sizes.min()) if len(index.sizes) else 0
    bands = index.bands
    found = _scan(
        words.hashes, words.first, index.windows(), least, index.seen, index.perms[0], index.perms[1], bands.signatures,
        bands.keys, bands.rows, bands.seen, int(np.ceil(JACCARD * index.perms.shape[1])),
    )
    return Candidates(*np.ascontiguousarray(found.T))


class MinHashScanner:
    """Finds edited copies in the batches of one slice."""

    def __init__(self, index: MinHashIndex, ngrams: NgramIndex) -> None:
        self.index = index
        self.ngrams = ngrams

    def scan(self, docs: Documents, words: Words) -> pa.Table:
        """Confirmed copies in a batch, PAIRS: one row per document, item and part of it at most."""
        found = candidates(self.index, words)
        item = self.index.items[found.units]
        role = self.index.roles[found.units]
        order = np.lexsort((found.units, found.starts, -found.matches, role, item, found.docs))
        keys = np.stack([found.docs, item, role])[:, order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        rows = [self._confirmed(docs, words, Candidates(*(column[i] for column in found))) for i in order[fresh]]
        return pa.Table.from_pylist([row for row in rows if row is not None], schema=PAIRS)

    def finish(self) -> pa.Table:
        """Nothing is left for the end of the slice."""
        return PAIRS.empty_table()

    def _confirmed(self, docs: Documents, words: Words, found: Candidates) -> dict[str, object] | None:
        """The row of a candidate, or None where the text does not bear it out."""
        doc, unit = int(found.docs), int(found.units)
        item, role = int(self.index.items[unit]), int(self.index.roles[unit])
        low, high = int(words.first[doc]), int(words.first[doc + 1])
        begin, end = self._reach(unit, low + int(found.starts), low + int(found.ends), low, high)
        hits = self._hits(item, words.hashes[begin:end])
        if not hits.any():
            return None
        begin, end = begin + int(hits.argmax()), begin + len(hits) - int(hits[::-1].argmax()) + N - 1
        shared = self.ngrams.shared(item, words.hashes[begin:end])
        own = slice(None) if role == WHOLE else self.ngrams.gram_roles(item, N) == role
        grams = shared[N][own]
        if grams.sum() < CONFIRM * min(len(grams), int(self.index.sizes[unit])):
            return None
        start, stop = int(words.starts[begin]), int(words.ends[end - 1])
        shift = int(docs.piece_starts[doc]) - int(docs.offsets[doc])
        row = {
            "item": item, "slice": 0, "record": int(docs.records[doc]), "byte_offset": int(docs.byte_offsets[doc]),
            "document_id": docs.ids[doc] if docs.ids is not None else None,
            "start": start + shift, "end": stop + shift, "detector": "minhash",
            "score": float(shared[N].mean()), "longest": _longest(hits) + N - 1,
            "similarity": int(found.matches) / self.index.perms.shape[1], "text": snippet(docs, doc, start, stop),
        }
        return row | {f"grams{n}": np.packbits(shared[n], bitorder="little").tobytes() for n in NS}

    def _reach(self, unit: int, begin: int, end: int, low: int, high: int) -> tuple[int, int]:
        """The words between which the whole field must lie where this window holds its part."""
        length, offset = int(self.index.lengths[unit]), int(self.index.offsets[unit])
        slack = max(BLOCK, length // 4)
        return max(low, begin - offset - slack), min(high, max(end, begin - offset + length) + slack)

    def _hits(self, item: int, hashes: Hashes) -> NDArray[np.bool_]:
        """Which shingles of a run of words are the item's: bool[words - N + 1]."""
        fields = [words.hashes for words in self.ngrams.field_words(item).values()]
        first = np.cumsum([0, *(len(field) for field in fields)])
        own, _ = shingles(np.concatenate(fields), first)
        run, _ = shingles(hashes, np.array([0, len(hashes)]))
        return np.isin(run, own)


def _longest(hits: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hits, [False]])))
    return int((edges[1::2] - edges[::2]).max())


def _leading(hashed: UInts) -> Hashes:
    """Premixed shingles as keys of a bitmap, which reads the leading bits of 64."""
    out = np.empty(len(hashed), np.uint64)
    _premixed(hashed, out)
    return out


@compiled
def _premixed(hashed, out):
    for i in range(len(hashed)):
        out[i] = np.uint64(premix(hashed[i])) << np.uint64(32)


@compiled
def _scan(hashes, first, windows, least_size, known, a, b, table, keys, rows, seen, least):
    """Windows of all documents near a unit: int64[found, 5], the columns of Candidates."""
    known_shift, seen_shift = shift_of(known), shift_of(seen)
    stamps = np.zeros(len(table), np.int64)
    units, matches = np.empty(len(table), np.int64), np.empty(len(table), np.int64)
    out = np.empty((256, 5), np.int64)
    count, stamp = 0, 0
    if len(windows) == 0:
        return out[:0]
    row = np.empty(len(a), np.uint32)
    for doc in range(len(first) - 1):
        low = first[doc]
        total = first[doc + 1] - low - (N - 1)
        if total <= 0:
            continue
        n_blocks = (total + BLOCK - 1) // BLOCK
        mixed = np.empty(total, np.uint32)
        upto = np.zeros(n_blocks + 1, np.int64)  # shingles of the benchmark before each block
        for i in range(total):
            mixed[i] = premix(shingle(hashes, low + i))
            upto[i // BLOCK + 1] += has(known, known_shift, np.uint64(mixed[i]) << np.uint64(32))
        for i in range(n_blocks):
            upto[i + 1] += upto[i]
        signed = np.zeros(n_blocks, np.bool_)
        blocks = np.empty((0, len(a)), np.uint32)
        for level in range(len(windows)):
            size = windows[level]
            if level > 0 and n_blocks <= windows[level - 1]:
                break  # the whole document was one window already
            stride = max(1, size // 4)
            for begin in range(0, n_blocks, stride):
                end = min(begin + size, n_blocks)
                length = min(end * BLOCK, total) - begin * BLOCK
                # J = shared / (window + item - shared) >= JACCARD needs this many shared shingles.
                need = JACCARD / (1 + JACCARD) * (length + max(least_size, JACCARD * length))
                if upto[end] - upto[begin] >= need:
                    if len(blocks) == 0:
                        blocks = np.full((n_blocks, len(a)), EMPTY)
                    row[:] = EMPTY
                    for block in range(begin, end):
                        if not signed[block]:
                            signed[block] = True
                            lower(blocks[block], mixed, block * BLOCK, min((block + 1) * BLOCK, total), a, b)
                        for k in range(len(a)):
                            row[k] = min(row[k], blocks[block, k])
                    stamp += 1
                    found = probe(row, table, keys, rows, seen, seen_shift, least, stamps, stamp, units, matches)
                    if count + found > len(out):
                        more = np.empty((2 * (count + found), 5), np.int64)
                        more[:count] = out[:count]
                        out = more
                    for i in range(found):
                        out[count, 0], out[count, 1], out[count, 2] = doc, units[i], begin * BLOCK
                        out[count, 3], out[count, 4] = begin * BLOCK + length + N - 1, matches[i]
                        count += 1
                if end == n_blocks:
                    break
    return out[:count]
