"""Items by their text, without a look at how they were answered: copies merged, and groups that are alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

SAME, PERMUTATIONS, SHINGLE = 0.9, 64, 5
"""Jaccard similarity of 5-character shingles from which two texts are copies; convention."""
MOST_TEXTS, MOST_CHARS = 10_000, 4_000
LEAST_TEXTS, LEAST_GROUP = 40, 10
DIMENSIONS, FEATURES, TERMS = 50, 20_000, 5


@dataclass(frozen=True, slots=True)
class Groups:
    """Texts that are alike."""

    labels: NDArray[np.int64]
    """Group of each text, -1 where it is in none (N,)."""
    names: tuple[str, ...]
    """Distinguishing terms of each group."""
    nearest: tuple[NDArray[np.int64], ...]
    """Members of each group, the most typical first."""


def first_of_copies(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each text the index of the first that is the same or nearly so; "" is a copy of nothing."""
    first = np.arange(len(texts))
    exact: dict[str, int] = {}
    index = MinHashLSH(threshold=SAME, num_perm=PERMUTATIONS)
    sketches: dict[int, MinHash] = {}
    for at, text in enumerate(texts):
        bare = " ".join(text[:MOST_CHARS].casefold().split())
        if not bare:
            continue
        if bare in exact:
            first[at] = exact[bare]
            continue
        exact[bare] = at
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([bare[i : i + SHINGLE].encode() for i in range(max(1, len(bare) - SHINGLE + 1))])
        alike = [other for other in index.query(sketch) if sketches[other].jaccard(sketch) >= SAME]
        if alike:
            first[at] = exact[bare] = min(alike)
        else:
            index.insert(at, sketch)
            sketches[at] = sketch
    return first


def alike(texts: Sequence[str]) -> Groups | None:
    """Groups by TF-IDF, its 50 main directions and HDBSCAN; None for few texts, or where scikit-learn is not there."""
    filled = np.flatnonzero([bool(text.strip()) for text in texts])
    if len(filled) < LEAST_TEXTS:
        return None
    if len(filled) > MOST_TEXTS:
        filled = np.sort(np.random.default_rng(0).choice(filled, MOST_TEXTS, replace=False))
    try:
        from sklearn.cluster import HDBSCAN  # type: ignore[import-untyped]
        from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
        from sklearn.preprocessing import normalize  # type: ignore[import-untyped]
    except ImportError:
        return None
    read = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=0.5, max_features=FEATURES, ngram_range=(1, 2),
                           token_pattern=r"(?u)[^\W\d_]\w+")  # fmt: skip
    try:
        weights = read.fit_transform([texts[int(at)][:MOST_CHARS] for at in filled])
    except ValueError:  # no term is in two texts
        return None
    size = min(DIMENSIONS, weights.shape[1] - 1, len(filled) - 1)
    if size < 2:
        return None
    places = normalize(TruncatedSVD(size, random_state=0).fit_transform(weights))
    found = HDBSCAN(min_cluster_size=max(LEAST_GROUP, len(filled) // 100), min_samples=5, copy=True).fit(places).labels_
    labels = np.full(len(texts), -1, np.int64)
    labels[filled] = found
    vocabulary = read.get_feature_names_out()
    names, nearest = [], []
    for group in range(int(found.max(initial=-1)) + 1):
        inside = found == group
        apart = np.asarray(weights[inside].mean(axis=0) - weights[~inside].mean(axis=0)).ravel() if not inside.all() \
            else np.asarray(weights.mean(axis=0)).ravel()
        names.append(", ".join(_terms([str(vocabulary[i]) for i in np.argsort(-apart)[: 4 * TERMS]])))
        centre = places[inside].mean(axis=0)
        nearest.append(filled[inside][np.argsort(-(places[inside] @ centre), kind="stable")])
    return Groups(labels, tuple(names), tuple(nearest))


def _terms(ranked: Sequence[str]) -> list[str]:
    """The first few that do not say the same again."""
    kept: list[str] = []
    for term in ranked:
        if not any(set(term.split()) & set(other.split()) for other in kept):
            kept.append(term)
    return kept[:TERMS]


def opening(text: str) -> str:
    """The first three words, numbers as one: what a template begins with; "" of a text that is no longer."""
    words = re.sub(r"\d+", "#", text.casefold()).split()
    return " ".join(words[:3])[:60] if len(words) > 3 else ""
