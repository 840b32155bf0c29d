"""Recall on the user's own text: clean items planted in a sample of the corpus, scanned and judged like the corpus."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks.contamination.detect.detectors import Detectors
from checks.contamination.engines.slice import scan_slice
from checks.contamination.judge.verdict import judge_items
from checks.contamination.partial import merge
from checks.contamination.readers.corpus import CorpusOptions, plan_slices, read_slice
from checks.contamination.recall.plant import false_alarms, plant, recall_table
from checks.contamination.records import Item, Slice, Tally

SAMPLE = 2_000
"""Documents of the sample."""
SHARDS = 20
"""Slices that the sample is drawn from, spread over the corpus."""
LONGEST = 20_000
"""Bytes of a document that are used."""


def measure_recall(
    items: Sequence[Item],
    clean: Collection[int],
    pieces: Sequence[Slice],
    detectors: Detectors,
    options: CorpusOptions,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Plant items in a copy of a sample of the corpus and count what each detector finds, by kind of edit.

    Args:
        items: All items of the audit.
        clean: Positions of those that the audit called clean: no other can be planted and its finding be our doing.
        pieces: The slices of the corpus.
        detectors: Of the audit.
        options: Of the corpus.
        folder: Where the planted documents are written.
        seed: Of the sample and the edits.

    Returns:
        `table` and `false_alarms` of plant.py, and `sample` (documents); or `reason` where nothing could be planted.
    """
    sample = _sample(pieces, options, seed)
    if not sample or len(clean) < 3:
        return {"reason": f"Recall was not measured: {len(sample)} documents to plant in and {len(clean)} clean items."}
    planted = plant(items, sample, seed=seed, eligible=clean)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "planted.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in planted.documents))
    copies = plan_slices([str(path)], CorpusOptions())
    partials = [scan_slice(piece, detectors, CorpusOptions()) for piece in copies]
    merged = merge(partials, detectors.ngrams.sizes)
    p_value = detectors.semantic.neighbour_p if detectors.semantic else None
    found, matches = judge_items(items, detectors.ngrams, merged, copies, p_value=p_value)
    return {
        "sample": len(sample),
        "table": [_strict(row) for row in recall_table(planted, matches.to_pandas())],
        "false_alarms": _strict(false_alarms(planted, found.to_pandas())),
    }


def _sample(pieces: Sequence[Slice], options: CorpusOptions, seed: int) -> list[str]:
    """Documents from the first batch of slices that lie apart."""
    apart = np.linspace(0, len(pieces) - 1, min(SHARDS, len(pieces)), dtype=int).tolist()
    texts = [text for k in sorted(set(apart)) for text in _first_texts(pieces[k], options)]
    picked = np.random.default_rng(seed).permutation(len(texts))[:SAMPLE]
    return [texts[k] for k in sorted(picked)]


def _first_texts(piece: Slice, options: CorpusOptions) -> Iterator[str]:
    for docs in read_slice(piece, Tally(), options):
        for start, stop in zip(docs.offsets[:-1], docs.offsets[1:], strict=True):
            yield docs.text[start : min(stop, start + LONGEST)].tobytes().decode("utf-8", errors="replace")
        return


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
