"""Partials: merging in any grouping and any order gives the same, and a partial is on disk whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination import partial as partials
from checks.contamination.partial import Partial, merge, records_before, saved, thin
from checks.contamination.records import PAIRS, Problem, Tally


def pairs(rows: list[tuple[int, int, int, str, float, int]]) -> pa.Table:
    """PAIRS of (item, slice, record, detector, score, start); the text names the row."""
    return pa.Table.from_pylist(
        [
            {
                "item": item, "slice": piece, "record": record, "byte_offset": record * 100, "document_id": None,
                "start": start, "end": start + 10, "detector": detector, "score": score, "longest": 5,
                "similarity": None, "grams3": b"\x07", "grams5": b"\x01", "grams8": b"", "grams13": b"",
                "text": f"{item}/{piece}/{record}/{detector}/{start}",
            }
            for item, piece, record, detector, score, start in rows
        ],
        schema=PAIRS,
    )


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3), st.integers(0, 4), st.sampled_from(["exact", "minhash"]),
        st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 2),
    ),
    max_size=60,
    unique_by=lambda row: (row[0], row[1], row[2], row[3], row[5]),
)


@settings(deadline=None, max_examples=150)
@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_merge_does_not_depend_on_order_or_grouping(rows: list, order: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partials, "MOST_PAIRS", 4)
        patch.setattr(partials, "BEST", 2)
        whole, cut = thin(pairs(rows))
        parts = [Partial(i, Tally(), *_thinned(rows, i)) for i in range(4)]
        order.shuffle(parts)  # type: ignore[attr-defined]
        for most in (0, 10**6):
            patch.setattr(partials, "MERGE_ROWS", most)
            merged = merge(parts, {3: 5})
            assert merged.pairs.equals(whole)
            assert merged.cut == cut
            assert merged.counts[3].tolist() == [0, 4, 0, 8, 0]


def _thinned(rows: list, piece: int) -> tuple:
    table, cut = thin(pairs([row for row in rows if row[1] == piece]))
    return table, {3: (np.array([1, 3]), np.array([1, 2], np.uint32))}, cut


def test_thin_keeps_the_best_window_of_a_document_and_the_text_of_the_best_documents() -> None:
    many = [(0, 0, record, "exact", 0.5, 0) for record in range(partials.MOST_PAIRS + 5)]
    table, cut = thin(pairs([*many, (0, 0, 7, "exact", 0.9, 40)]))
    rows = table.to_pylist()
    assert cut == 5
    assert len(rows) == partials.MOST_PAIRS
    assert [row["record"] for row in rows if row["text"]] == list(range(partials.BEST))
    assert rows[7]["start"] == 40
    assert rows[7]["score"] == pytest.approx(0.9)


def test_a_partial_comes_back_as_it_was_and_an_unfinished_one_is_not_there(tmp_path: Path) -> None:
    tally = Tally(5, 4, 1, 100, 80, "ab", [Problem("x.jsonl", "line 2", "broken", 1)])
    table, counts, cut = _thinned([(0, 0, 1, "exact", 0.5, 0)], 0)
    Partial(12, tally, table, counts, cut).save(tmp_path)
    Partial(12, tally, table, counts, cut).save(tmp_path)  # a second attempt replaces the first
    (tmp_path / "0000013.4711").mkdir()  # what a kill in the middle of saving leaves
    back = Partial.load(tmp_path, 12)
    assert saved(tmp_path) == {12}
    assert back.tally == tally
    assert back.pairs.equals(table)
    assert back.counts[3][1].tolist() == [1, 2]


def test_records_are_counted_through_the_slices_of_a_shard_and_unknown_after_a_lost_one() -> None:
    tallies = {0: Tally(records=10), 1: Tally(records=5), 3: Tally(records=7)}
    shards = {0: "a", 1: "a", 2: "a", 3: "a", 4: "b"}
    assert records_before(tallies, shards).to_dict() == {0: 0, 1: 10, 2: 15, 3: -1, 4: 0}
