"""The exact detector: which items of the index have their n-grams in a document, within one window.

The thresholds for a pair are loose on purpose: evidence is weighed later, when it is known how many documents of the
whole corpus hold each gram.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect import hits, windows
from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.programs import PROGRAMS, ProgramScanner, table
from checks.contamination.detect.snippets import snippet
from checks.contamination.records import NS, PAIRS, Documents
from checks.contamination.text.fold import fold_table
from checks.contamination.text.words import Longs, Words, frozen


class ExactScanner:
    """Scans one slice, batch after batch; what it finds in a document depends on nothing but that document."""

    def __init__(self, index: NgramIndex) -> None:
        self._index = index
        self._probes = hits.probes(index)
        self._fields = windows.fields(index)
        self._state = hits.state(index)
        self._scratch = windows.scratch(index)
        self._bits = windows.bits(index)
        self._item_bytes = (np.diff(index.grams[3].first[index.item_units]) + 7) // 8  # for the n with most grams
        self._documents = 0
        self._programs = ProgramScanner(index.programs)

    def scan(self, docs: Documents, words: Words) -> pa.Table:
        """The pairs (PAIRS, `slice` 0) of a batch, sorted by item and record; several rows where an item's fields lie
        far from each other in one document. Behind them those of the detector for code, which shares the index.
        """
        found, code = self._scan_words(docs, words), self._programs.scan(docs)
        return pa.concat_tables([found, table(code)]) if code else found

    def _scan_words(self, docs: Documents, words: Words) -> pa.Table:
        hit_at, hit_gram, candidates = hits.find_hits(
            self._probes, self._state, frozen(words.hashes), frozen(words.first), self._documents
        )
        self._documents += len(docs)
        if not len(candidates):
            return PAIRS.empty_table()
        documents, units, blocks = candidates.reshape(-1, 3).T
        order = np.lexsort((blocks, units, documents))
        folds = fold_table()
        batch = windows.Batch(*map(frozen, (docs.text, words.starts, words.ends, words.first, *folds)))
        rows, scores = np.empty((len(units), 5), np.int64), np.empty(len(units), np.float64)
        packed = np.empty((len(NS), int(self._item_bytes[self._index.unit_items[units]].sum())), np.uint8)
        ends = np.zeros((len(units) + 1, len(NS)), np.int64)
        found = windows.judge(
            self._fields, batch, self._scratch, self._bits, hit_at, hit_gram, documents[order], units[order],
            blocks[order], rows, scores, packed, ends,
        )
        rows, ends = rows[:found], ends[: found + 1]
        grams = [_binary(packed[k], ends[:, k]) for k in range(len(NS))]
        pairs = _table(docs, words, rows, scores[:found], grams)
        return pairs.take(pa.array(np.lexsort((rows[:, 2], rows[:, 0], rows[:, 1]))))

    def finish(self) -> pa.Table:
        """Nothing: all pairs are known with their batch."""
        return PAIRS.empty_table()

    def gram_counts(self) -> dict[int, tuple[Longs, NDArray[np.uint32]]]:
        """For each n: ids of the grams seen so far, ascending, and in how many documents (pieces) each was."""
        held, found = self._state, {}
        for n, counts in zip(NS, (held.three, held.five, held.eight, held.thirteen), strict=True):
            ids = np.flatnonzero(counts.documents).astype(np.int64)
            found[n] = ids, counts.documents[ids]
        ids = np.flatnonzero(self._programs.counts).astype(np.int64)
        return found | {PROGRAMS: (ids, self._programs.counts[ids])}


def _table(
    docs: Documents, words: Words, rows: Longs, scores: NDArray[np.float64], grams: list[pa.Array]
) -> pa.Table:
    doc, item, first, last, longest = rows.T
    starts, ends = words.starts[first], words.ends[last - 1]
    base = docs.piece_starts[doc] - docs.offsets[doc]
    ids = pa.nulls(len(doc), pa.string()) if docs.ids is None else pa.array([docs.ids[d] for d in doc], pa.string())
    columns = [
        pa.array(item.astype(np.int32)),
        pa.array(np.zeros(len(doc), np.int32)),
        pa.array(docs.records[doc].astype(np.int64)),
        pa.array(docs.byte_offsets[doc].astype(np.int64)),
        ids,
        pa.array(starts + base),
        pa.array(ends + base),
        pa.array(["exact"] * len(doc), pa.string()),
        pa.array(scores.astype(np.float32)),
        pa.array(longest.astype(np.int32)),
        pa.nulls(len(doc), pa.float32()),
        *grams,
        pa.array([snippet(docs, *window) for window in zip(doc, starts, ends, strict=True)], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=PAIRS)


def _binary(data: NDArray[np.uint8], first: Longs) -> pa.Array:
    offsets, content = pa.py_buffer(first.astype(np.int32).tobytes()), pa.py_buffer(data[: first[-1]].tobytes())
    return pa.Array.from_buffers(pa.binary(), len(first) - 1, [None, offsets, content])
