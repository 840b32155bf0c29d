"""Corpora of which only MinHash signatures are at hand: a Parquet file of them, or a shared LSH in Redis.

No text, no proof: what is found here is `suspect` at most. And a signature stands for a whole document, so that only
documents of about the length of an item can be found; an item inside a longer text needs the text (`minhash.py`).

A Parquet file of signatures has one row per document and
  - `id` or `document_id` (optional),
  - `signature`, `hashvalues` or `minhash`: a list of integers, or bytes of datasketch's LeanMinHash,
  - `seed`, `scheme`, `shingle_words` and `shingle_hash`, in the schema's metadata or as columns; LeanMinHash bytes
    carry the first two. `scheme` is affine32, datasketch's default since 2.0. `shingle_hash` says what was hashed:
    `sha1` is datasketch's default over `shingle_words` folded words joined by one blank, `words` is
    `signatures.shingles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import LeanMinHash, MinHash, MinHashLSH
from datasketch.hashfunc import sha1_hash32

from checks.contamination.detect.lsh import Bands, near
from checks.contamination.detect.minhash import JACCARD, WHOLE, Unit, units_of
from checks.contamination.detect.signatures import N, UInts, permutations, shingles, signatures
from checks.contamination.records import NS, PAIRS, ROLES, Item
from checks.contamination.text.words import Longs, Words, spellings, words_of
from trainvitals.errors import UsageError

SCHEME = "affine32"
SIGNATURE_COLUMNS = ("signature", "hashvalues", "minhash")
ID_COLUMNS = ("document_id", "id")
BATCH_ROWS = 65_536
CHECKED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How signatures were made. Two signatures compare only where all of it is equal."""

    num_perm: int
    seed: int
    shingle_words: int = N
    shingle_hash: str = "words"

    def sign(self, items: Sequence[Item]) -> tuple[list[Unit], UInts]:
        """The items' texts, whole and by field, and their signatures: uint32[units, num_perm]."""
        units = [unit for unit in units_of(items) if len(unit.hashes) >= self.shingle_words]
        hashed, first = self._hashed(items, units)
        return units, signatures(hashed, first, permutations(self.num_perm, self.seed))

    def _hashed(self, items: Sequence[Item], units: Sequence[Unit]) -> tuple[UInts, Longs]:
        if self.shingle_hash == "words":
            words = np.concatenate([np.empty(0, np.uint64), *(unit.hashes for unit in units)])
            return shingles(words, np.cumsum([0, *(len(unit.hashes) for unit in units)]))
        spelled = _spelled_units(items)
        sets = [
            [sha1_hash32(" ".join(words[i : i + self.shingle_words]).encode())
             for i in range(len(words) - self.shingle_words + 1)]
            for words in (spelled[unit.item, unit.role][unit.offset :][: len(unit.hashes)] for unit in units)
        ]
        return np.array([h for hashes in sets for h in hashes], np.uint32), np.cumsum([0, *map(len, sets)])


def _spelled_units(items: Sequence[Item]) -> dict[tuple[int, int], list[str]]:
    """The folded words of each item's fields and of the whole item, by item and role."""
    found: dict[tuple[int, int], list[str]] = {}
    for number, item in enumerate(items):
        fields = {ROLES.index(role): spelled(text) for role, text in item.fields.items()}
        found |= {(number, role): words for role, words in fields.items()}
        found[number, WHOLE] = [word for role in sorted(fields) for word in fields[role]]
    return found


def spelled(text: str) -> list[str]:
    """The words of a text as the detectors see them: letters and digits, folded."""
    words: Words = words_of(text)
    points, first = spellings(np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8), words)
    letters = "".join(map(chr, points.tolist()))
    return [letters[a:b] for a, b in zip(first[:-1], first[1:], strict=True)]


def scan_signatures(path: Path, items: Sequence[Item], shingles_by: Mapping[str, Any] | None = None) -> pa.Table:
    """Documents whose stored signature is near an item's: PAIRS without text and n-grams.

    Args:
        path: Parquet file of signatures, see the module.
        items: All items of the audit.
        shingles_by: `shingle_words` and `shingle_hash` (and `seed`, `scheme`) where the file does not say.

    Raises:
        UsageError: the file cannot be read, does not say how its signatures were made, or made them in another way.
    """
    with _opened(path) as file:
        return _scan_file(file, str(path), items, dict(shingles_by or {}))


def check_signatures(path: Path) -> None:
    """Refuse a file that is no Parquet file of signatures, or whose first rows compare with none of ours.

    Raises:
        UsageError: as `scan_signatures`.
    """
    with _opened(path) as file:
        for batch in islice(file.iter_batches(CHECKED_ROWS), 1):
            list(_rows(batch, str(path), {}))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} cannot be read as a Parquet file of signatures: {error}.") from error


def _scan_file(file: pq.ParquetFile, name: str, items: Sequence[Item], said: Mapping[str, Any]) -> pa.Table:
    recipe: Recipe | None = None
    tables: list[pa.Table] = []
    row = 0
    for batch in file.iter_batches(BATCH_ROWS):
        for found, values, ids in _rows(batch, name, said):
            if recipe is None:
                recipe, (units, own) = found, found.sign(items)
                bands = Bands.build(own)
            if found != recipe:
                raise UsageError(f"{name} mixes signatures of {recipe} and {found}. Split it into one file of each.")
            tables.append(_pairs(bands, units, values, ids, row))
            row += len(values)
    return pa.concat_tables(tables) if tables else PAIRS.empty_table()


def _rows(batch: pa.RecordBatch, name: str, said: Mapping[str, Any]) -> Iterator[tuple[Recipe, UInts, list[Any]]]:
    """Runs of rows that were made in one way: how, uint32[rows, num_perm], and the documents' ids."""
    column = next((c for c in SIGNATURE_COLUMNS if c in batch.schema.names), None)
    if column is None:
        raise UsageError(f"{name} has no column {', '.join(SIGNATURE_COLUMNS)}. Rename the column with signatures.")
    told = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    for key in ("seed", "scheme", "shingle_words", "shingle_hash"):
        if key in batch.schema.names and batch.num_rows:
            values = batch[key].unique().to_pylist()
            if len(values) > 1:
                raise UsageError(f"{name} mixes signatures of {key} {values[0]} and {values[1]}. Split it into one "
                                 "file of each.")
            told[key] = values[0]
    raw = batch[column]
    if pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type) or pa.types.is_fixed_size_binary(raw.type):
        lean = [LeanMinHash.deserialize(value) for value in raw.to_pylist()]
        kinds = {(minhash.seed, minhash.scheme, len(minhash)) for minhash in lean}
        if len(kinds) > 1:
            raise UsageError(f"{name} mixes signatures of seed, scheme and length {sorted(kinds)[0]} and "
                             f"{sorted(kinds)[1]}. Split it into one file of each.")
        told |= {"seed": lean[0].seed, "scheme": lean[0].scheme} if lean else {}
        values = np.array([minhash.hashvalues for minhash in lean])
    else:
        values = np.array(raw.to_pylist())
    if len(values) == 0:
        return
    recipe = _recipe(name, {**said, **told}, values)
    ids = next((batch[c].cast(pa.string()).to_pylist() for c in ID_COLUMNS if c in batch.schema.names), None)
    yield recipe, values.astype(np.uint32), ids or [None] * len(values)


def _recipe(name: str, told: Mapping[str, Any], values: np.ndarray[Any, Any]) -> Recipe:
    missing = [key for key in ("seed", "scheme", "shingle_words", "shingle_hash") if key not in told]
    if missing:
        raise UsageError(f"{name} does not say the {', '.join(missing)} of its signatures, without which they compare "
                         "with nothing. Write them to the schema's metadata.")
    if told["scheme"] != SCHEME:
        raise UsageError(f"{name} has signatures of the scheme {told['scheme']!r}; only {SCHEME!r} can be compared. "
                         "Make them again with datasketch 2 or later.")
    if told["shingle_hash"] not in ("words", "sha1"):
        raise UsageError(f"{name} names the shingle_hash {told['shingle_hash']!r}; 'words' and 'sha1' are known.")
    if told["shingle_hash"] == "words" and int(told["shingle_words"]) != N:
        raise UsageError(f"{name} has shingles of {told['shingle_words']} words; shingle_hash 'words' has {N}.")
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise UsageError(f"{name} has signatures of different lengths, or that are not integers.")
    return Recipe(values.shape[1], int(told["seed"]), int(told["shingle_words"]), str(told["shingle_hash"]))


def _pairs(bands: Bands, units: Sequence[Unit], values: UInts, ids: Sequence[Any], first_row: int) -> pa.Table:
    """Rows of PAIRS for the stored signatures that are near a unit's."""
    least = int(np.ceil(JACCARD * values.shape[1]))
    best: dict[tuple[int, int], int] = {}
    for row, unit, matches in near(bands, values, least).tolist():
        key = (units[unit].item, row)
        best[key] = max(best.get(key, 0), matches)
    rows = [_pair(item, first_row + row, ids[row], matches / values.shape[1])
            for (item, row), matches in sorted(best.items())]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def _pair(item: int, record: int, document_id: Any, similarity: float) -> dict[str, object]:
    return {
        "item": item, "slice": 0, "record": record, "byte_offset": -1, "document_id": document_id, "start": 0, "end": 0,
        "detector": "minhash", "score": similarity, "longest": 0, "similarity": similarity, "text": "",
    } | {f"grams{n}": b"" for n in NS}


def open_lsh(url: str, name: str, *, num_perm: int, bands: int, rows: int) -> MinHashLSH:
    """The LSH that other processes keep in Redis under `name`, through datasketch's own storage.

    Args:
        url: redis://host:port/database.
        name: datasketch's `basename`, the prefix of all keys.
        num_perm: Length of the signatures in it.
        bands: Bands of the LSH.
        rows: Signature values per band.

    Raises:
        UsageError: the URL is no redis:// URL.
    """
    place = urlsplit(url)
    if place.scheme not in ("redis", "rediss") or not place.hostname:
        raise UsageError(f"{url!r} is no address of a Redis server. Give redis://HOST:PORT/DATABASE.")
    database = place.path.strip("/")
    server = {"host": place.hostname, "port": place.port or 6379, "db": int(database) if database.isdigit() else 0,
              "username": place.username, "password": place.password, "ssl": place.scheme == "rediss"}
    storage = {"type": "redis", "basename": name.encode(), "redis": server}
    # Keys stay as they are: datasketch's default pickles them, and what others put on a server is not to be unpickled.
    return MinHashLSH(num_perm=num_perm, params=(bands, rows), storage_config=storage, prepickle=False)


def query_lsh(lsh: MinHashLSH, items: Sequence[Item], recipe: Recipe) -> dict[int, list[str]]:
    """Keys of an LSH that share a band with an item: by item, sorted. An LSH keeps no signatures, so no similarity.

    Args:
        lsh: Of `open_lsh`, or any datasketch LSH with bytes or strings as keys.
        items: All items of the audit.
        recipe: How the signatures in it were made.
    """
    units, own = recipe.sign(items)
    found: dict[int, set[str]] = {}
    for unit, row in zip(units, own, strict=True):
        keys = lsh.query(MinHash(hashvalues=row, seed=recipe.seed, scheme=SCHEME))
        found.setdefault(unit.item, set()).update(key.decode() if isinstance(key, bytes) else str(key) for key in keys)
    return {item: sorted(keys) for item, keys in sorted(found.items()) if keys}
