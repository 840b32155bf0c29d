"""MinHash signatures and the detectors built on windows, beside datasketch and rensa on the same shingles.

    python -m benchmarks contamination

All candidates get the same shingles as hashes (datasketch's own hash function is left out) and as many permutations;
CPU seconds of all threads, best of three.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Table
from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.minhash import MinHashIndex, MinHashScanner, candidates
from checks.contamination.detect.signatures import NUM_PERM, SEED, permutations, shingles, signatures
from checks.contamination.detect.tfidf import TfidfIndex
from checks.contamination.records import Documents, Item
from checks.contamination.text.words import Words, split_words

DATA = Path(__file__).parents[2] / "shared" / "data"
REPEATS = 3


def texts(megabytes: float) -> tuple[str, list[str]]:
    """What the corpus is, and its documents: real ones where they are at hand, else random words."""
    path = DATA / "corpora" / "t0_sample.jsonl.gz"
    if path.exists():
        with gzip.open(path, "rt") as file:
            found = [json.loads(line)["prompt"] for line in file]
        name = "T0 training sample"
    else:
        rng = np.random.default_rng(0)
        found = [" ".join(f"word{k}" for k in rng.zipf(1.3, 150) % 50_000) for _ in range(int(megabytes * 1_000))]
        name = "random words"
    kept, size = [], 0
    for text in found:
        kept.append(text)
        size += len(text)
        if size > megabytes * 1e6:
            break
    return name, kept


def items() -> list[Item]:
    """GSM8K's test items where they are at hand, else random words."""
    path = DATA / "benchmarks" / "gsm8k_test.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [Item("gsm8k", str(i), {role: row[role] for role in ("question", "answer")})
                for i, row in enumerate(rows)]
    rng = np.random.default_rng(1)
    return [Item("made up", str(i), {"question": " ".join(f"word{k}" for k in rng.zipf(1.3, 45) % 50_000)})
            for i in range(1_319)]


def batch(documents: list[str]) -> tuple[Documents, Words]:
    """The documents as one batch, and its words."""
    raw = [text.encode() for text in documents]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    count = len(raw)
    docs = Documents(np.frombuffer(b"".join(raw), np.uint8), offsets, np.arange(count), np.full(count, -1),
                     np.zeros(count, np.int64))
    return docs, split_words(docs.text, docs.offsets)


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of all threads, best of REPEATS, after one call that compiles and warms up."""
    work()
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


def by_datasketch(hashed: np.ndarray, first: np.ndarray) -> np.ndarray:
    from datasketch import MinHash

    sets = [hashed[a:b].tolist() for a, b in zip(first[:-1], first[1:], strict=True)]
    made = MinHash.generator(sets, num_perm=NUM_PERM, seed=SEED, hashfunc=lambda value: value)
    return np.array([minhash.hashvalues for minhash in made])


def by_rensa(hashed: np.ndarray, first: np.ndarray) -> Any:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_flat_token_hashes(hashed, first, NUM_PERM, SEED)


def run(quick: bool) -> list[Table]:
    """Signatures beside other libraries, and the cost of our two windowed detectors."""
    name, documents = texts(3 if quick else 16)
    docs, words = batch(documents)
    megabytes = len(docs.text) / 1e6
    hashed, first = shingles(words.hashes, words.first)
    perms = permutations()
    wide, offsets = hashed.astype(np.uint64), first.astype(np.uint64)
    part = by_datasketch(hashed[: first[200]], first[:201])
    if not np.array_equal(part, signatures(hashed, first, perms)[:200]):
        raise RuntimeError("Our signatures are not datasketch's.")
    peers: dict[str, Callable[[], Any]] = {
        "TrainVitals": lambda: signatures(hashed, first, perms),
        "datasketch 2, pre-hashed integers": lambda: by_datasketch(hashed, first),
        "rensa, flat token hashes": lambda: by_rensa(wide, offsets),
    }
    rows = []
    for peer, work in peers.items():
        took = seconds(work)
        rows.append([peer, f"{megabytes / took:,.0f}", f"{len(hashed) / took / 1e6:,.1f}"])
    return [
        Table(f"MinHash, {NUM_PERM} permutations, {len(documents):,} documents ({name}, {megabytes:.0f} MB)",
              ["library", "MB of text/s and core", "million shingles/s and core"], rows,
              notes="One signature per document from the same hashes of its 3-word shingles. Ours and datasketch's are "
                    "bit-identical; rensa's permutations are its own."),
        detectors(docs, words, f"{name}, {megabytes:.0f} MB"),
    ]


def detectors(docs: Documents, words: Words, corpus: str) -> Table:
    """What the windowed detectors cost, words given."""
    found = items()
    ngrams, minhash, tfidf = NgramIndex.build(found), MinHashIndex.build(found), TfidfIndex.build(found)
    works: dict[str, Callable[[], Any]] = {
        "words of UTF-8 text (shared by all detectors)": lambda: split_words(docs.text, docs.offsets),
        "windowed MinHash, candidates": lambda: candidates(minhash, words),
        "windowed MinHash, confirmed": lambda: MinHashScanner(minhash, ngrams).scan(docs, words),
        "TF-IDF neighbours": lambda: tfidf.scanner().scan(docs, words),
    }
    rows = [[what, f"{len(docs.text) / 1e6 / seconds(work):,.0f}"] for what, work in works.items()]
    return Table(f"Detectors on {corpus}, {len(found):,} items", ["step", "MB of text/s and core"], rows,
                 notes="Windowed MinHash signs only windows that can reach the threshold.")
