"""One slice through all detectors: the function that every engine runs."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from checks.contamination.detect.detectors import Detectors
from checks.contamination.detect.exact import ExactScanner
from checks.contamination.detect.minhash import MinHashScanner
from checks.contamination.detect.semantic import Scanner
from checks.contamination.partial import MERGE_ROWS, Partial, in_slice, thin
from checks.contamination.readers.corpus import CorpusOptions, read_slice
from checks.contamination.records import Slice, Tally
from checks.contamination.text.words import split_words


def scan_slice(
    piece: Slice, detectors: Detectors, options: CorpusOptions, on_bytes: Callable[[int], None] | None = None
) -> Partial:
    """Read one slice once and let every detector see each batch.

    Bad input never raises: it becomes problems of the tally. `on_bytes` hears how many more bytes have been read.
    """
    tally = Tally()
    exact = ExactScanner(detectors.ngrams)
    scanners: list[Scanner] = [exact, MinHashScanner(detectors.minhash, detectors.ngrams)]
    if detectors.semantic is not None:
        scanners.append(detectors.semantic.scanner())
    found: list[pa.Table] = []
    cut = told = 0
    for docs in read_slice(piece, tally, options):
        words = split_words(docs.text, docs.offsets)
        found += [scanner.scan(docs, words) for scanner in scanners]
        if sum(table.num_rows for table in found) > MERGE_ROWS:
            thinned, dropped = thin(pa.concat_tables(found))
            found, cut = [thinned], cut + dropped
        if on_bytes is not None:
            on_bytes(tally.bytes_read - told)
            told = tally.bytes_read
    found += [scanner.finish() for scanner in scanners]
    pairs, dropped = thin(in_slice(pa.concat_tables(found), piece.index))
    return Partial(piece.index, tally, pairs, exact.gram_counts(), cut + dropped)
