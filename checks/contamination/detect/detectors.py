"""The benchmark side of the detectors: built once, kept on disk, mapped into memory by every worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checks.contamination.detect.embedders import EmbeddingIndex
from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.minhash import MinHashIndex
from checks.contamination.detect.semantic import SemanticIndex
from checks.contamination.detect.tfidf import TfidfIndex
from checks.contamination.records import Item

NO_SEMANTIC, TFIDF = "none", "tfidf"


@dataclass(frozen=True, slots=True)
class Detectors:
    """Read-only, shared by all workers."""

    ngrams: NgramIndex
    minhash: MinHashIndex
    semantic: SemanticIndex | None


def store_detectors(items: Sequence[Item], semantic: str, folder: Path) -> None:
    """Build all indexes and write them to a folder.

    Args:
        items: All items of the audit.
        semantic: `tfidf`, `none`, or the name of an embedder.
        folder: Created where it is missing.

    Raises:
        UsageError: an embedder that cannot be loaded.
    """
    NgramIndex.build(items).save(folder / "ngrams")
    MinHashIndex.build(items).save(folder / "minhash")
    if semantic == TFIDF:
        TfidfIndex.build(items).save(folder / "tfidf")
    elif semantic != NO_SEMANTIC:
        EmbeddingIndex.build(items, semantic).save(folder / "embeddings")


def load_detectors(folder: Path) -> Detectors:
    """The indexes that `store_detectors` wrote."""
    found: SemanticIndex | None = None
    if (folder / "tfidf").is_dir():
        found = TfidfIndex.load(folder / "tfidf")
    elif (folder / "embeddings").is_dir():
        found = EmbeddingIndex.load(folder / "embeddings")
    return Detectors(NgramIndex.load(folder / "ngrams"), MinHashIndex.load(folder / "minhash"), found)
