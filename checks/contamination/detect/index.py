"""The inverted index of all n-grams of all benchmark items, n = 3, 5, 8 and 13 together, as plain arrays.

    field of an item (a unit) ─▶ words ─▶ grams of each n ─▶ gram ids ─▶ units

It is saved as one .npy file per array and loaded memory-mapped, so any number of processes share one copy. Grams are
found by 64-bit hashes of words; the letters of the items' words are kept beside, for hits are verified on the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checks.contamination.detect.programs import PROGRAMS, Programs
from checks.contamination.records import NS, ROLES, Item
from checks.contamination.text.words import MIX_1, MIX_2, Hashes, Longs, Points, Words, spellings, split_words
from trainvitals.errors import UsageError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

FORMAT = 2
GRAM_STEP = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of the polynomial over word hashes (2^64 over the golden ratio)."""

MOST_ITEMS = 64
"""Grams in more items than this are boilerplate of the benchmark: they count towards a match, but never start one."""
ANCHORED = 0.85
"""Share of a unit's weight, rarest grams first, that may start a match. Any window that holds more than the rest holds
an anchor: the prefix filter of Chaudhuri et al. 2006 (https://doi.org/10.1109/ICDE.2006.9)."""
SHORT = 7
"""Fields up to this many words count only when they occur whole: one changed word leaves nothing of them."""
LOOSE, STRICT = (30, 0.35), (8, 0.5)
"""Share of a field's weight in one window from which it is a candidate: (words, share), linear in between. Loose on
purpose: edited copies of GSM8K keep 0.69 to 0.93 of their 3-grams and unrelated pairs 0.21 at most (GSM-Plus,
https://github.com/qtli/GSM-Plus), and corpus frequencies judge again later."""
WINDOW_FACTOR, WINDOW_EXTRA = 2, 20
"""Length of the window for a field of w words: WINDOW_FACTOR * w + WINDOW_EXTRA words, room for
insertions; short fields have no room."""


def gram_hashes(hashes: Hashes, n: int) -> Hashes:
    """Hashes of all runs of n words: uint64[w - n + 1], from uint64[w]."""
    count = max(len(hashes) - n + 1, 0)
    grams = np.full(count, n, np.uint64)
    for k in range(n):
        grams = grams * GRAM_STEP + hashes[k : k + count]
    half = np.uint64(33)
    grams = (grams ^ (grams >> half)) * MIX_1
    grams = (grams ^ (grams >> half)) * MIX_2
    return grams ^ (grams >> half)


@dataclass(frozen=True, slots=True)
class Grams:
    """All grams of one n, numbered in the order in which the items first have them.

    So a text that repeats an item walks through memory in steps of one.
    """

    keys: Hashes
    """uint64[g]: hash of each gram."""
    order: Ints
    """int32[g]: ids in the order of their hashes."""
    buckets: Ints
    """int32[2^b + 1]: grams whose hashes have the top bits t are order[buckets[t]:buckets[t + 1]]."""
    item_counts: NDArray[np.uint32]
    """uint32[g]: in how many items each gram occurs."""
    ids: Ints
    """int32: gram ids of all units one after another, in the order of the text."""
    first: Longs
    """int64[units + 1]: ids of unit u are ids[first[u]:first[u + 1]]."""

    @property
    def shift(self) -> int:
        """How far a hash is shifted to the right to give its bucket."""
        return 64 - (len(self.buckets) - 1).bit_length() + 1


@dataclass(frozen=True, slots=True)
class Posting:
    """Which units a gram may start a match with: units[first[gram]:first[gram + 1]]."""

    first: Longs
    units: Ints


@dataclass(frozen=True)
class NgramIndex:
    """Everything that a scanner has to know of the benchmarks. A unit is one field of one item.

    Build it with `NgramIndex.build` or `NgramIndex.load`; all arrays are read-only by convention.
    """

    item_units: Longs
    """int64[items + 1]: units of item i are item_units[i] to item_units[i + 1], in the order of `ROLES`."""
    unit_items: Ints
    unit_roles: NDArray[np.int8]
    unit_words: Longs
    """int64[units + 1]: words of unit u."""
    word_hashes: Hashes
    word_starts: Longs
    """int64[w]: byte within the field's UTF-8."""
    word_ends: Longs
    letters: Points
    """uint32: the folded letters of all words."""
    word_letters: Longs
    """int64[w + 1]: letters of word w are letters[word_letters[w]:word_letters[w + 1]]."""
    grams: Mapping[int, Grams]
    """By n, for n in `NS`."""
    weights: Floats
    """float32[3-grams]: log(1 + items / items with the gram)."""
    filter: Hashes
    """uint64[2^b]: blocked Bloom filter of the 3-grams' hashes, small enough for a processor's cache."""
    anchors: Posting
    """From 3-grams: the rarest of each unit."""
    long_anchors: Posting
    """From 8-grams."""
    unit_weights: Floats
    """float32[units]: sum of the weights of the unit's distinct 3-grams."""
    unit_shares: Floats
    """float32[units]: share of that weight from which a window is a candidate."""
    unit_needs: Floats
    """float32[units]: weight of anchors that every such window has; inf for units without any."""
    unit_windows: Longs
    """int64[units]: length of the window, words."""
    programs: Programs
    """The items' code."""

    def __len__(self) -> int:
        return len(self.item_units) - 1

    @property
    def sizes(self) -> dict[int, int]:
        """How many distinct grams there are, by n, and under PROGRAMS the runs of tokens of code."""
        return {n: len(grams.keys) for n, grams in self.grams.items()} | {PROGRAMS: len(self.programs.keys)}

    @classmethod
    def build(cls, items: Sequence[Item]) -> NgramIndex:
        """Index the items, in the order in which PAIRS will number them.

        Raises:
            UsageError: a field's role is not one of `ROLES`.
        """
        units = list(_units(items))
        encoded = [text.encode("utf-8", errors="replace") for _, _, text in units]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        text = np.frombuffer(b"".join(encoded), np.uint8)
        words = split_words(text, offsets)
        letters, word_letters = spellings(text, words)
        unit_items = np.array([item for item, _, _ in units], np.int32)
        unit_of_word = np.repeat(np.arange(len(units)), np.diff(words.first))
        grams = {n: _grams(words, unit_items, n) for n in NS}
        weights = np.log1p(len(items) / grams[3].item_counts).astype(np.float32)
        return cls(
            item_units=np.searchsorted(unit_items, np.arange(len(items) + 1)).astype(np.int64),
            unit_items=unit_items,
            unit_roles=np.array([role for _, role, _ in units], np.int8),
            unit_words=words.first,
            word_hashes=words.hashes.copy(),
            word_starts=words.starts - offsets[unit_of_word],
            word_ends=words.ends - offsets[unit_of_word],
            letters=letters,
            word_letters=word_letters,
            grams=grams,
            weights=weights,
            filter=_filter(grams[3].keys),
            long_anchors=_posting(grams[8], *_distinct(grams[8])),
            programs=Programs.of(items),
            **_measures(np.diff(words.first), grams[3], weights),
        )

    def save(self, folder: Path) -> None:
        """Write the arrays to a folder, created where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / "index.json").write_text(json.dumps({"format": FORMAT, "items": len(self)}))

    @classmethod
    def load(cls, folder: Path) -> NgramIndex:
        """Map a saved index into memory, read-only.

        Raises:
            UsageError: the folder holds no index, or one of another format.
        """
        card = folder / "index.json"
        if not card.exists():
            raise UsageError(f"{folder} holds no n-gram index. Name the folder that NgramIndex.save wrote to.")
        if (found := json.loads(card.read_text()).get("format")) != FORMAT:
            raise UsageError(f"The n-gram index in {folder} has format {found}, this version reads {FORMAT}. Build it "
                             "again from the benchmarks.")

        def array(name: str) -> NDArray[np.generic]:
            if not (folder / f"{name}.npy").exists():
                raise UsageError(f"The n-gram index in {folder} lacks {name}.npy. Build it again from the benchmarks.")
            # A plain array over the mapping: numba compiles for arrays, not for np.memmap and its costly slices.
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

        plain = {f.name: array(f.name) for f in fields(cls) if f.name not in _PARTS}
        parts = {name: Posting(*(array(f"{name}-{f.name}") for f in fields(Posting)))  # type: ignore[arg-type]
                 for name in ("anchors", "long_anchors")}
        programs = Programs(*(array(f"programs-{f.name}") for f in fields(Programs)))  # type: ignore[arg-type]
        grams = {n: Grams(*(array(f"grams{n}-{f.name}") for f in fields(Grams))) for n in NS}  # type: ignore[arg-type]
        return cls(grams=grams, programs=programs, **parts, **plain)  # type: ignore[arg-type]

    def gram_ids(self, item: int, n: int) -> Longs:
        """Ids of the item's n-grams, in the order of role, then position; grams never cross fields. int64."""
        grams = self.grams[n]
        first, last = self.item_units[item], self.item_units[item + 1]
        return grams.ids[grams.first[first] : grams.first[last]].astype(np.int64)

    def gram_roles(self, item: int, n: int) -> NDArray[np.int8]:
        """Position in `ROLES` of the field that each of `gram_ids` comes from. int8."""
        units = slice(self.item_units[item], self.item_units[item + 1])
        first = self.grams[n].first[self.item_units[item] : self.item_units[item + 1] + 1]
        return np.repeat(self.unit_roles[units], np.diff(first))

    def item_counts(self, n: int) -> NDArray[np.uint32]:
        """In how many items each n-gram occurs: uint32, by gram id."""
        return self.grams[n].item_counts

    def shared(self, item: int, hashes: Hashes) -> dict[int, Bools]:
        """Which of the item's grams occur in a run of word hashes: by n, bool in the order of `gram_ids`."""
        return {n: np.isin(self.grams[n].keys[self.gram_ids(item, n)], gram_hashes(hashes, n)) for n in NS}

    def field_words(self, item: int) -> dict[str, Words]:
        """The words of each of the item's fields, positions within the field's UTF-8."""
        found = {}
        for unit in range(self.item_units[item], self.item_units[item + 1]):
            here = slice(self.unit_words[unit], self.unit_words[unit + 1])
            first = np.array([0, self.unit_words[unit + 1] - self.unit_words[unit]], np.int64)
            found[ROLES[self.unit_roles[unit]]] = Words(self.word_hashes[here], self.word_starts[here],
                                                        self.word_ends[here], first)
        return found

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _PARTS}
        for name in ("anchors", "long_anchors"):
            found |= {f"{name}-{f.name}": getattr(getattr(self, name), f.name) for f in fields(Posting)}
        found |= {f"programs-{f.name}": getattr(self.programs, f.name) for f in fields(Programs)}
        for n, grams in self.grams.items():
            found |= {f"grams{n}-{f.name}": getattr(grams, f.name) for f in fields(Grams)}
        return found


_PARTS = {"grams", "anchors", "long_anchors", "programs"}


def _units(items: Sequence[Item]) -> list[tuple[int, int, str]]:
    units = []
    for number, item in enumerate(items):
        if strange := set(item.fields) - set(ROLES):
            raise UsageError(f"Item {item.item_id} of {item.benchmark} has a field of role {sorted(strange)[0]!r}. "
                             f"The roles are {', '.join(ROLES)}.")
        units += [(number, place, item.fields[role]) for place, role in enumerate(ROLES) if item.fields.get(role)]
    return units


def _grams(words: Words, unit_items: Ints, n: int) -> Grams:
    lengths = np.maximum(np.diff(words.first) - n + 1, 0)
    first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    unit = np.repeat(np.arange(len(lengths)), lengths)
    at = np.arange(first[-1]) - first[unit] + words.first[unit]
    keys, seen, ranks = np.unique(gram_hashes(words.hashes, n)[at], return_index=True, return_inverse=True)
    by_place = np.argsort(seen)
    order = np.empty(len(keys), np.int32)
    order[by_place] = np.arange(len(keys))
    ids = order[ranks]
    pairs = np.unique(ids.astype(np.int64) * (int(unit_items.max(initial=0)) + 1) + unit_items[unit])
    item_counts = np.bincount(pairs // (int(unit_items.max(initial=0)) + 1), minlength=len(keys)).astype(np.uint32)
    bits = max(len(keys).bit_length() + 1, 4)
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    buckets = np.append(np.searchsorted(keys, edges), len(keys)).astype(np.int32)
    return Grams(keys[by_place], order, buckets, item_counts, ids, first)


def _filter(keys: Hashes) -> Hashes:
    """Two bits of one 64-bit block per key, 16 bits of filter per key or more: about 2 % of strangers pass."""
    blocks = np.zeros(1 << max((len(keys) // 4).bit_length(), 10), np.uint64)
    one = np.uint64(1)
    bits = (one << (keys & np.uint64(63))) | (one << ((keys >> np.uint64(6)) & np.uint64(63)))
    np.bitwise_or.at(blocks, (keys >> np.uint64(12)) & np.uint64(len(blocks) - 1), bits)
    return blocks


def _distinct(grams: Grams) -> tuple[Longs, Longs]:
    """Each unit with each of its distinct grams once, sorted by unit, then gram."""
    unit = np.repeat(np.arange(len(grams.first) - 1), np.diff(grams.first))
    pairs = np.unique(unit * max(len(grams.keys), 1) + grams.ids)
    return pairs // max(len(grams.keys), 1), pairs % max(len(grams.keys), 1)


def _posting(grams: Grams, units: Longs, ids: Longs) -> Posting:
    rare = grams.item_counts[ids] <= MOST_ITEMS
    units, ids = units[rare], ids[rare]
    order = np.argsort(ids, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(ids, minlength=len(grams.keys)))]).astype(np.int64)
    return Posting(first, units[order].astype(np.int32))


def _measures(lengths: Longs, grams: Grams, weights: Floats) -> dict[str, Any]:
    """Weights, thresholds, windows and anchors of all units, by their lengths in words and their 3-grams."""
    units, ids = _distinct(grams)
    order = np.lexsort((ids, grams.item_counts[ids], units))
    units, ids = units[order], ids[order]
    weight = weights[ids].astype(np.float64)
    total = np.bincount(units, weight, minlength=len(lengths))
    before = np.cumsum(weight) - weight  # of all units so far; less that of earlier units: of rarer grams of this one
    start = np.cumsum(total) - total
    chosen = before - start[units] < ANCHORED * total[units] + 1e-6
    anchors = _posting(grams, units[chosen], ids[chosen])
    kept = chosen & (grams.item_counts[ids] <= MOST_ITEMS)
    anchored = np.bincount(units[kept], weight[kept], minlength=len(lengths))
    (most_words, loose), (few_words, strict) = LOOSE, STRICT
    shares = np.interp(lengths, [few_words, most_words], [strict, loose])
    shares[lengths <= SHORT] = 1.0
    needs = np.maximum(shares * total - (total - anchored), np.minimum(0.1 * total, anchored / 2)) - 1e-3
    return {
        "anchors": anchors,
        "unit_weights": total.astype(np.float32),
        "unit_shares": shares.astype(np.float32),
        "unit_needs": np.where(anchored > 0, needs, np.inf).astype(np.float32),
        "unit_windows": np.where(lengths <= SHORT, np.maximum(lengths, 3), WINDOW_FACTOR * lengths + WINDOW_EXTRA),
    }
