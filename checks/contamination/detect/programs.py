"""The detector for code: programs that are the benchmark's but for names, comments, documentation and layout.

Each item that holds a program is a set of runs of tokens (`text/code.py`). A document is a candidate where most of
these stand close together; how rare they are in the corpus is judged when all of it is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from checks.contamination.detect.snippets import snippet
from checks.contamination.records import NS, PAIRS, Documents, Item
from checks.contamination.text.code import N, Tokens, holds_code, runs_of, tokenise, tokens_of
from checks.contamination.text.words import Hashes, Longs

PROGRAMS = 12
"""The key of runs of tokens among the counts of n-grams by n: no n of NS."""
CANDIDATE = 0.5
"""Share of a program's runs in one stretch of a document from which it is a candidate."""
MOST_ITEMS = 64
"""Runs in more items than this count towards a match, but find none."""
NAMED = 6
"""Tokens in a row that have to be the same, names included."""
STRETCH, STRETCH_EXTRA = 2, 20
"""Tokens of a document in which the runs have to stand: STRETCH * tokens of the program + STRETCH_EXTRA."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of the items as runs of tokens, numbered."""

    keys: Hashes
    """uint64[runs], ascending: each distinct run of all programs."""
    item_first: Longs
    """int64[items + 1]: distinct runs of item i are item_runs[item_first[i]:item_first[i + 1]]."""
    item_runs: Longs
    lengths: Longs
    """int64[items]: tokens of each item's program; 0 where it has none."""
    run_first: Longs
    """int64[runs + 1]: items with run r are run_items[run_first[r]:run_first[r + 1]]."""
    run_items: Longs

    @classmethod
    def of(cls, items: Sequence[Item]) -> Programs:
        found = [tokens_of(program_of(item)) for item in items]
        runs = [np.unique(hashes[told]) for hashes, told in map(runs_of, found)]
        keys = np.unique(np.concatenate([np.empty(0, np.uint64), *runs]))
        numbered = [np.searchsorted(keys, own) for own in runs]
        item_runs = np.concatenate([np.empty(0, np.int64), *numbered]).astype(np.int64)
        sizes = np.array([0, *map(len, runs)], np.int64)
        owner = np.repeat(np.arange(len(items)), sizes[1:])
        order = np.argsort(item_runs, kind="stable")
        return cls(keys, np.cumsum(sizes), item_runs, np.array([len(each) for each in found], np.int64),
                   np.searchsorted(item_runs[order], np.arange(len(keys) + 1)), owner[order])

    def runs(self, item: int) -> Longs:
        """Numbers of the item's distinct runs."""
        return self.item_runs[self.item_first[item] : self.item_first[item + 1]]


def program_of(item: Item) -> str:
    """The code that an item asks for or is: header and solution, or either where the other is prose; "" without any."""
    parts = [item.fields[role] for role in ("code", "answer") if role in item.fields and is_code(item.fields[role])]
    return "\n".join(parts)


def is_code(text: str) -> bool:
    """Whether a text is a program: dense in brackets, and with runs of tokens that tell something."""
    if not any(sign in text for sign in ("def ", "return", "{", "};", "fn ", "for ", "while ", "lambda", "=>")):
        return False
    raw = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    return bool(len(raw)) and bool(holds_code(raw, np.array([0, len(raw)], np.int64))[0])


class ProgramScanner:
    """Finds programs in the batches of one slice."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.counts = np.zeros(len(programs.keys), np.uint32)
        """uint32[runs]: documents with each run so far."""

    def scan(self, docs: Documents) -> list[dict[str, Any]]:
        """Rows of PAIRS without their text's bits: one per document and item that it is a candidate for."""
        programs = self.programs
        if not len(programs.keys):
            return []
        tokens = tokenise(docs.text, docs.offsets)
        if len(tokens) < N:
            return []
        hashes, told = runs_of(tokens)
        at = np.flatnonzero(told)
        place = np.minimum(np.searchsorted(programs.keys, hashes[at]), len(programs.keys) - 1)
        hit = programs.keys[place] == hashes[at]
        at, run = at[hit], place[hit]
        doc = np.searchsorted(tokens.first, at, side="right") - 1
        seen = np.unique(doc * len(programs.keys) + run)
        np.add.at(self.counts, seen % len(programs.keys), np.uint32(1))
        edges = np.searchsorted(doc, np.arange(len(docs) + 1))
        found = [(each, item, slice(edges[each], edges[each + 1])) for each, item in self._candidates(seen)]
        rows = [self._row(docs, tokens, each, item, at[own], run[own]) for each, item, own in found]
        return [row for row in rows if row is not None]

    def _candidates(self, seen: Longs) -> list[tuple[int, int]]:
        """Documents and items that share enough distinct runs; `seen`: document * runs + run."""
        programs, size = self.programs, len(self.programs.keys)
        fan = np.diff(programs.run_first)[seen % size]
        rare = fan <= MOST_ITEMS
        seen, fan = seen[rare], fan[rare]
        first = programs.run_first[seen % size]
        flat = np.repeat(first, fan) + np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan)
        pairs, shared = np.unique(np.repeat(seen // size, fan) * len(programs.lengths) + programs.run_items[flat],
                                  return_counts=True)
        needed = CANDIDATE * np.diff(programs.item_first)[pairs % len(programs.lengths)]
        return [(int(pair // len(programs.lengths)), int(pair % len(programs.lengths)))
                for pair in pairs[shared >= np.maximum(needed, 1)]]

    def _row(self, docs: Documents, tokens: Tokens, doc: int, item: int, at: Longs, run: Longs
             ) -> dict[str, Any] | None:
        own = np.isin(run, self.programs.runs(item))
        at, run = at[own], run[own]
        width = STRETCH * int(self.programs.lengths[item]) + STRETCH_EXTRA
        best, first, last = _richest(at.tolist(), run.tolist(), width)
        share = best / len(self.programs.runs(item))
        if share < CANDIDATE:
            return None
        start, end = int(tokens.starts[at[first]]), int(tokens.ends[at[last] + N - 1])
        shift = int(docs.piece_starts[doc]) - int(docs.offsets[doc])
        return {
            "item": item, "slice": 0, "record": int(docs.records[doc]), "byte_offset": int(docs.byte_offsets[doc]),
            "document_id": docs.ids[doc] if docs.ids is not None else None,
            "start": start + shift, "end": end + shift, "detector": "code", "score": share,
            "longest": _longest(at) + N - 1, "similarity": share, "text": snippet(docs, doc, start, end),
        } | {f"grams{n}": b"" for n in NS}


def _richest(at: Sequence[int], run: Sequence[int], width: int) -> tuple[int, int, int]:
    """Most distinct runs in a stretch of `width` tokens, the first hit of it and the last."""
    inside: Counter[int] = Counter()
    best, first, last, low = 0, 0, 0, 0
    for high, each in enumerate(run):
        inside[each] += 1
        while at[high] - at[low] >= width:
            inside[run[low]] -= 1
            if not inside[run[low]]:
                del inside[run[low]]
            low += 1
        if len(inside) > best:
            best, first, last = len(inside), low, high
    return best, first, last


def _longest(at: Longs) -> int:
    """Length of the longest row of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(at) != 1)
    edges = np.concatenate([[-1], breaks, [len(at) - 1]])
    return int(np.diff(edges).max())


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of PAIRS."""
    return pa.Table.from_pylist(rows, schema=PAIRS)


def named_share(one: Tokens, other: Tokens) -> float:
    """Share of the runs of NAMED tokens of one, names as they are, that stand in the other; 0 where it has none."""
    ours, theirs = (set(map(tuple, np.lib.stride_tricks.sliding_window_view(each.keys, NAMED).tolist()))
                    if len(each) >= NAMED else set() for each in (one, other))
    return len(ours & theirs) / len(ours) if ours else 0.0
