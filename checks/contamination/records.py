"""The plain records that the parts of an audit hand to each other, and the schemas of the tables it leaves behind.

    benchmarks ─▶ Item ─▶ index ─┐
    corpora ─▶ Slice ─▶ Documents ─▶ detectors ─▶ PAIRS + gram counts ─▶ merge ─▶ evidence ─▶ verdicts ─▶ audit folder

A slice is the unit of work and of resumption. What a slice yields depends on nothing but its bytes and the index, and
the merge orders by slice and record: any number of workers gives the same folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

NS = (3, 5, 8, 13)
"""Lengths of n-grams, in words: 3 sees edited copies, 5 decides, 8 and 13 are the any-hit rules of the literature."""

ROLES = ("question", "passage", "choices", "answer", "code")
"""What a field of an item is. `answer` is the reference answer or solution; `code` is a prompt or solution in code."""

Verdict = Literal["contaminated", "suspect", "clean", "untestable"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

EvidenceKind = Literal[
    "question and answer", "question only", "answer only", "passage only", "edited numbers", "edited copy", "template",
    "similar meaning", ""
]
"""`template`: what is shared recurs in many documents or items. `edited copy`: words added, dropped or moved.
`similar meaning`: the semantic detector alone. Empty for items without evidence."""

DETECTORS = ("exact", "minhash", "code", "semantic")


@dataclass(frozen=True, slots=True)
class Item:
    """One benchmark item: its text by role, empty fields left out, in the order of `ROLES`."""

    benchmark: str
    item_id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark as read from one file or data set."""

    name: str
    source: str
    """Path or name it was read from."""
    sha256: str
    """Of the file's bytes; of the rows' canonical JSON where there is no file. The benchmark's revision."""
    items: Sequence[Item]
    rows: Sequence[Mapping[str, Any]]
    """The original rows, same order as `items`: the cleaned benchmark is made of these."""
    roles: Mapping[str, str]
    """Role of each column that was used."""
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the input that could not be used as it stands. Nothing is skipped without one."""

    source: str
    """Path or URL."""
    place: str
    """"line 17, byte 40213", "row 5", "member 3" ..."""
    what: str
    """One sentence: what is wrong and what was done with it."""
    records: int = 0
    """Records that were skipped for it."""
    gap: bool = False
    """Whether text that is there was not searched: a broken line is a gap, a blank one is none."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one shard that one worker reads in one go: bytes of a plain file, row groups of Parquet, or all."""

    index: int
    """Position among all slices of the audit: the order of merging."""
    shard: str
    """Path, URL or data set name."""
    kind: str
    """Reader: jsonl, parquet, arrow, text, tokens, dataset, signatures."""
    start: int = 0
    stop: int | None = None
    """End of the range, not included; None for the end of the shard."""
    size: int = 0
    """Bytes to read, for the progress bar and the order of work; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class Documents:
    """A batch of documents as concatenated UTF-8 bytes: detectors see arrays, never one Python object per document.

    A document too long for one batch comes in several pieces, each repeating the last `OVERLAP` bytes of the piece
    before it; `piece_starts` is then above 0 and `records` repeats.
    """

    text: np.ndarray
    """uint8[bytes]."""
    offsets: np.ndarray
    """int64[n + 1]: document i is text[offsets[i]:offsets[i + 1]]."""
    records: np.ndarray
    """int64[n]: number of the record within its slice, from 0; blank and broken records are counted too."""
    byte_offsets: np.ndarray
    """int64[n]: where the record starts in the (decompressed) shard; -1 where that has no meaning."""
    piece_starts: np.ndarray
    """int64[n]: byte within the document at which this piece starts."""
    ids: Sequence[str] | None = None
    """The documents' own ids, where the records carry any."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


OVERLAP = 1 << 16
"""Bytes that two pieces of one document share: more than the longest window."""


@dataclass(slots=True)
class Tally:
    """What a reader counted in one slice, or the sum over many: `documents + skipped == records` always holds."""

    records: int = 0
    documents: int = 0
    skipped: int = 0
    """Records not scanned: blank lines, broken ones, records without text. Each kind has its problem."""
    bytes_read: int = 0
    """Of the shard as stored."""
    text_bytes: int = 0
    """Of UTF-8 text handed to the detectors, overlaps not counted twice."""
    sha256: str = ""
    """Of the slice's stored bytes; empty where there is no file."""
    problems: list[Problem] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    """Columns that text was read from, sorted."""
    unsearched: dict[str, int] = field(default_factory=dict)
    """Bytes of text that was read and not searched, by "column: why". `text_bytes` and these are all text read."""
    no_text: dict[str, int] = field(default_factory=dict)
    """Bytes of strings that are no text (links, hashes, ids ...), by "column: why"."""


PAIRS = pa.schema(
    [
        ("item", pa.int32()),  # position in the list of all items of the audit
        ("slice", pa.int32()),
        ("record", pa.int64()),
        ("byte_offset", pa.int64()),  # of the record in the shard, -1 where unknown
        ("document_id", pa.string()),  # the record's own id, null where it has none
        ("start", pa.int64()),  # matched window within the document, bytes
        ("end", pa.int64()),
        ("detector", pa.string()),
        ("score", pa.float32()),  # preliminary: orders candidates within a slice
        ("longest", pa.int32()),  # longest run of matching words
        ("similarity", pa.float32()),  # Jaccard estimate, cosine, share of runs of tokens; null for exact
        # Which grams of the item occur in the window: one bit per gram in the index's order for this item,
        # np.packbits(bitorder="little"). Empty for the semantic detector.
        ("grams3", pa.binary()),
        ("grams5", pa.binary()),
        ("grams8", pa.binary()),
        ("grams13", pa.binary()),
        ("text", pa.string()),  # the window with context, at most SNIPPET bytes; empty beyond the best BEST documents
    ]
)
"""One row per (item, document, detector) with enough in common to matter, sorted by item, slice, record, detector."""

SNIPPET = 6_000
BEST = 20
"""Documents per item and slice that keep their text."""
MOST_PAIRS = 1_000
"""Documents per item, detector and slice that are kept; the rest are counted."""

ITEMS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("item_id", pa.string()),
        ("verdict", pa.string()),
        ("evidence_kind", pa.string()),
        ("rule", pa.string()),  # the rule that decided, one sentence with its numbers
        ("score", pa.float32()),  # idf-weighted 5-gram containment in the best window, 0 to 1
        ("best_document", pa.string()),  # "shard#record"; null without evidence
        ("detector", pa.string()),  # that decided; null for clean and untestable items
        ("documents", pa.int32()),  # documents that are evidence for this verdict
        ("longest", pa.int32()),  # longest common run, words
        ("words", pa.int32()),  # length of the question (or code), words
        ("any3", pa.bool_()),  # the any-hit rules of the literature, anywhere in the corpus; null where too short
        ("any5", pa.bool_()),
        ("any8", pa.bool_()),
        ("any13", pa.bool_()),
        ("covered8", pa.float32()),  # share of the item's 8-grams seen anywhere (PaLM's rule is >= 0.7)
        ("nearest_document", pa.string()),  # by the semantic detector, whatever the verdict
        ("nearest_similarity", pa.float32()),
        ("nearest_p", pa.float32()),  # empirical p against held-out neighbours
        ("judge", pa.string()),  # empty: for a judge's or a human's verdict
        ("text", pa.string()),  # the item as shown to people: fields joined, each after its role
    ]
)
"""items.parquet: one row per item."""

MATCHES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("item_id", pa.string()),
        ("document", pa.string()),  # "shard#record"
        ("shard", pa.string()),
        ("record", pa.int64()),  # from 0 within the shard
        ("byte_offset", pa.int64()),
        ("document_id", pa.string()),
        ("detector", pa.string()),
        ("rank", pa.int32()),  # 1 = best for this item and detector
        ("level", pa.string()),  # contaminated, suspect, or "below": kept for the sweep and the nearest neighbour
        ("evidence_kind", pa.string()),
        ("score", pa.float32()),
        ("similarity", pa.float32()),
        ("p", pa.float32()),  # semantic only
        ("longest", pa.int32()),
        ("start", pa.int64()),  # window within the document, bytes
        ("end", pa.int64()),
        ("text", pa.string()),  # empty beyond the best documents
        ("spans", pa.list_(pa.list_(pa.int32(), 2))),  # characters of `text` that the item shares
        ("item_spans", pa.list_(pa.list_(pa.int32(), 2))),  # characters of the item's text in items.parquet
    ]
)
"""matches.parquet: one row per (item, document, detector), sorted by benchmark, item, detector and rank."""
