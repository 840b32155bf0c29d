"""Windowed MinHash held against datasketch, a brute-force twin, its own S curve and edited copies of real items."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import LeanMinHash, MinHash

from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.lsh import Bands, near, s_curve
from checks.contamination.detect.minhash import (
    BLOCK,
    CONFIRM,
    JACCARD,
    WHOLE,
    MinHashIndex,
    MinHashScanner,
    candidates,
    units_of,
)
from checks.contamination.detect.signature_files import Recipe, open_lsh, query_lsh, scan_signatures, spelled
from checks.contamination.detect.signatures import EMPTY, NUM_PERM, SEED, N, permutations, shingles, signatures
from checks.contamination.records import PAIRS, Documents, Item
from checks.contamination.text.words import split_words, words_of
from trainvitals.errors import UsageError

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def documents(texts: Sequence[str], first_record: int = 0) -> Documents:
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    count = len(raw)
    return Documents(np.frombuffer(b"".join(raw), np.uint8), offsets, np.arange(first_record, first_record + count),
                     np.full(count, -1), np.zeros(count, np.int64))


def scan(items: Sequence[Item], texts: Sequence[str]) -> pa.Table:
    docs = documents(texts)
    scanner = MinHashScanner(MinHashIndex.build(items), NgramIndex.build(items))
    return scanner.scan(docs, split_words(docs.text, docs.offsets))


def babble(rng: random.Random, words: int, vocabulary: int = 3_000) -> str:
    return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(words))


def test_signatures_are_datasketchs() -> None:
    rng = random.Random(0)
    texts = ["", "one two", "a b c", *(babble(rng, rng.randrange(3, 300), 50) for _ in range(60))]
    docs = documents(texts)
    words = split_words(docs.text, docs.offsets)
    hashed, first = shingles(words.hashes, words.first)
    perms = permutations()
    ours = signatures(hashed, first, perms)
    assert (ours[:2] == EMPTY).all()
    for row, low, high in zip(ours, first[:-1], first[1:], strict=True):
        theirs = MinHash(num_perm=NUM_PERM, seed=SEED, hashfunc=lambda value: value)
        theirs.update_batch(hashed[low:high].tolist())
        assert MinHash(hashvalues=row, seed=SEED, permutations=perms, scheme="affine32") == theirs
    assert len(np.unique(hashed)) > 0.99 * len({tuple(words.hashes[i : i + 3]) for d in range(len(texts))
                                                for i in range(words.first[d], words.first[d + 1] - 2)})


def test_shingles_never_cross_documents() -> None:
    docs = documents(["a b", "c d e", "f"])
    words = split_words(docs.text, docs.offsets)
    hashed, first = shingles(words.hashes, words.first)
    assert first.tolist() == [0, 0, 1, 1] and len(hashed) == 1


def twin(items: Sequence[Item], text: str) -> dict[tuple[int, int, int], int]:
    """Windows and units with a band and JACCARD in common, by datasketch: (unit, first word, end) -> equal values."""

    def sign(hashes: np.ndarray) -> MinHash:
        minhash = MinHash(num_perm=NUM_PERM, seed=SEED, hashfunc=lambda value: value)
        minhash.update_batch(shingles(hashes, np.array([0, len(hashes)]))[0].tolist())
        return minhash

    hashes = words_of(text).hashes
    total = len(hashes) - N + 1
    spans = set()
    for size in (MinHashIndex.build(items).windows() * BLOCK).tolist():
        for begin in range(0, total, max(BLOCK, size // 4)):
            spans.add((begin, min(begin + size, total)))
            if begin + size >= total:
                break  # the tail lies in the window before, and in shorter ones
    found = {}
    for k, unit in enumerate(units_of(items)):
        own = sign(unit.hashes)
        for begin, end in spans:
            other = sign(hashes[begin : end + N - 1])
            same = own.hashvalues == other.hashvalues
            if same.mean() >= JACCARD and same.reshape(-1, 2).all(axis=1).any():
                found[k, begin, end + N - 1] = int(same.sum())
    return found


def test_windows_agree_with_a_brute_force_twin() -> None:
    rng = random.Random(1)
    items = [Item("b", str(i), {"question": babble(rng, n), "answer": babble(rng, 12)}) for i, n in
             enumerate([9, 25, 40, 90])]
    question = items[2].fields["question"].split()
    edited = " ".join(question[:15] + ["new", "words"] + question[15:])
    text = " ".join([babble(rng, 37), edited, babble(rng, 90), items[3].fields["question"], babble(rng, 5)])
    docs = documents([text])
    got = candidates(MinHashIndex.build(items), split_words(docs.text, docs.offsets))
    ours = {(int(u), int(a), int(b)): int(m) for u, a, b, m in
            zip(got.units, got.starts, got.ends, got.matches, strict=True)}
    expected = twin(items, text)
    assert {key: expected.get(key) for key in ours} == ours
    hashes = words_of(text).hashes
    for key in set(expected) - set(ours):  # only windows that the prefilter may skip: true similarity below JACCARD
        own = list(units_of(items))[key[0]].hashes
        a, b = (set(shingles(h, np.array([0, len(h)]))[0].tolist()) for h in (own, hashes[key[1] : key[2]]))
        assert len(a & b) / len(a | b) < JACCARD
    assert {int(MinHashIndex.build(items).items[u]) for u, _, _ in ours} == {2, 3}


@pytest.mark.parametrize("jaccard", [0.1, 0.2, 0.35])
def test_lsh_finds_as_often_as_its_curve_says(jaccard: float) -> None:
    rng = np.random.default_rng(2)
    pairs, size = 400, 200
    shared = round(2 * size * jaccard / (1 + jaccard))
    sets = rng.integers(0, 2**32, (pairs, 2 * size - shared), dtype=np.uint32)
    first = np.arange(pairs + 1) * size
    perms = permutations()
    ours = signatures(np.ascontiguousarray(sets[:, :size]).ravel(), first, perms)
    theirs = signatures(np.ascontiguousarray(sets[:, -size:]).ravel(), first, perms)
    found = near(Bands.build(ours), theirs, 0)
    share = float(np.mean(np.isin(np.arange(pairs), found[found[:, 0] == found[:, 1], 0])))
    expected = s_curve(shared / (2 * size - shared))
    print(f"J {jaccard}: found {share:.3f}, curve {expected:.3f}")
    assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / pairs) + 1 / pairs


@pytest.mark.parametrize("before, after", [(0, 0), (0, 500), (500, 0), (3, 5), (700, 700)])
def test_nothing_is_lost_at_the_ends(before: int, after: int) -> None:
    rng = random.Random(3)
    items = [Item("b", str(n), {"question": babble(rng, n)}) for n in (8, 20, 50, 130, 400, 1_500)]
    texts = [" ".join([babble(rng, before), item.fields["question"], babble(rng, after)]) for item in items]
    rows = scan(items, texts).to_pylist()
    assert [(row["item"], row["record"]) for row in rows] == [(i, i) for i in range(len(items))]
    for row, item, text in zip(rows, items, texts, strict=True):
        assert row["score"] == 1.0 and row["longest"] == len(item.fields["question"].split())
        assert text[row["start"] : row["end"]] == item.fields["question"]


def test_part_of_a_long_item_is_found() -> None:
    rng = random.Random(4)
    words = babble(rng, 2_000).split()
    items = [Item("b", "0", {"passage": " ".join(words)})]
    [row] = scan(items, [babble(rng, 100) + " " + " ".join(words[700:1_300]) + " " + babble(rng, 100)]).to_pylist()
    assert 0.29 < row["score"] < 0.31 and row["longest"] == 600


def test_no_items_short_items_and_no_words() -> None:
    assert scan([], ["some text of no great length"]).num_rows == 0
    assert scan([Item("b", "0", {"question": "two words"})], ["two words", "", "..."]).num_rows == 0
    assert scan([Item("b", "0", {"question": babble(random.Random(5), 20)})], ["", "a", "a b"]).schema == PAIRS


def test_short_fields_are_looked_for_together() -> None:
    items = [Item("b", "0", {"question": "What is the capital of France", "choices": "Paris\nRome\nOslo\nBern"})]
    assert [unit.role for unit in units_of(items)] == [WHOLE]
    [row] = scan(items, ["Quiz: what is the capital of France? Paris, Rome, Oslo, or Bern?"]).to_pylist()
    assert row["item"] == 0


def test_batches_and_stored_index_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(6)
    items = [Item("b", str(i), {"question": babble(rng, 40), "answer": babble(rng, 30)}) for i in range(40)]
    texts = [" ".join([babble(rng, rng.randrange(300)), rng.choice(items).fields["question"], babble(rng, 30)])
             for _ in range(60)]
    whole = scan(items, texts)
    MinHashIndex.build(items).save(tmp_path)
    scanner = MinHashScanner(MinHashIndex.load(tmp_path), NgramIndex.build(items))
    parts = []
    for k in range(0, len(texts), 7):
        docs = documents(texts[k : k + 7], k)
        parts.append(scanner.scan(docs, split_words(docs.text, docs.offsets)))
    assert pa.concat_tables(parts).equals(whole) and whole.num_rows >= 60 and scanner.finish().num_rows == 0


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?!])\s+", text)


Edit = Callable[[str, random.Random, str], str]
EDITS: dict[str, tuple[Edit, float]] = {
    # Least recall: windowed MinHash at J >= .35 on GSM-Plus, with padding.
    "verbatim": (lambda text, rng, other: text, 0.99),
    "numbers": (lambda text, rng, other: re.sub(r"\d+", lambda m: str(int(m[0]) + rng.randint(1, 9)), text), 0.86),
    "reversed": (lambda text, rng, other: " ".join(sentences(text)[::-1]), 0.67),
    "distractor": (lambda text, rng, other: " ".join(
        [*sentences(text)[:1], sentences(other)[0], *sentences(text)[1:]]), 0.71),
}


def read(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()) as file:
        return [json.loads(line) for line in file]


def test_edited_copies_in_real_text_and_nothing_else() -> None:
    rng = random.Random(7)
    rows = read("benchmarks/gsm8k_test.jsonl")[:150]
    web = [row["prompt"] for row in read("corpora/t0_sample.jsonl.gz")[:3_000]]
    pool = " ".join(web).split()
    items = [Item("gsm8k", str(i), {role: row[role] for role in ("question", "answer")}) for i, row in enumerate(rows)]
    assert scan(items, web).num_rows == 0
    for kind, (edit, least) in EDITS.items():
        texts = []
        for row in rows:
            length = rng.randint(500, 1_500)
            at, cut = rng.randrange(len(pool) - length), rng.randrange(length)
            texts.append(" ".join([*pool[at : at + cut], edit(row["question"], rng, rng.choice(rows)["question"]),
                                   *pool[at + cut : at + length]]))
        found = {(row["item"], row["record"]) for row in scan(items, texts).to_pylist()}
        recall = float(np.mean([(i, i) in found for i in range(len(rows))]))
        print(f"{kind}: recall {recall:.3f}, other pairs {sum(item != record for item, record in found)}")
        assert recall >= least


def signature_file(path: Path, column: pa.Array, **metadata: str) -> Path:
    table = pa.table({"id": [f"doc{i}" for i in range(len(column))], "signature": column})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.fixture
def stored() -> tuple[list[Item], list[MinHash]]:
    """Items, and signatures of three documents as a user of datasketch makes them: the second is item 1 but a word."""
    rng = random.Random(8)
    items = [Item("b", str(i), {"question": babble(rng, 40)}) for i in range(3)]
    texts = [babble(rng, 60), "Well: " + items[1].fields["question"].upper(), babble(rng, 40)]
    made = []
    for words in map(spelled, texts):
        made.append(MinHash(num_perm=64, seed=5))
        made[-1].update_batch([" ".join(words[i : i + 2]).encode() for i in range(len(words) - 1)])
    return items, made


def test_stored_signatures(tmp_path: Path, stored: tuple[list[Item], list[MinHash]]) -> None:
    items, made = stored
    how = {"shingle_words": "2", "shingle_hash": "sha1"}
    lists = pa.array([m.hashvalues.tolist() for m in made], pa.list_(pa.uint32(), 64))
    as_lists = signature_file(tmp_path / "a.parquet", lists, seed="5", scheme="affine32", **how)
    buffers = [bytearray(LeanMinHash(m).bytesize()) for m in made]
    for buffer, minhash in zip(buffers, made, strict=True):
        LeanMinHash(minhash).serialize(buffer)
    as_lean = signature_file(tmp_path / "b.parquet", pa.array([bytes(b) for b in buffers], pa.binary()), **how)
    truth = MinHash(num_perm=64, seed=5)
    words = spelled(items[1].fields["question"])
    truth.update_batch([" ".join(words[i : i + 2]).encode() for i in range(len(words) - 1)])
    for path in (as_lists, as_lean):
        [row] = scan_signatures(path, items).to_pylist()
        assert (row["item"], row["record"], row["document_id"], row["text"]) == (1, 1, "doc1", "")
        assert row["similarity"] == pytest.approx(truth.jaccard(made[1])) and row["similarity"] > 0.9


@pytest.mark.parametrize("change, complaint", [
    ({"scheme": "legacy"}, "scheme 'legacy'"), ({"seed": None}, "does not say the seed"),
    ({"shingle_hash": "md5"}, "'md5'"), ({"shingle_hash": "words"}, "shingles of 2 words"),
])
def test_signatures_made_otherwise_are_refused(
    tmp_path: Path, stored: tuple[list[Item], list[MinHash]], change: dict[str, str | None], complaint: str
) -> None:
    items, made = stored
    how = {"seed": "5", "scheme": "affine32", "shingle_words": "2", "shingle_hash": "sha1"} | change
    path = signature_file(tmp_path / "a.parquet", pa.array([m.hashvalues.tolist() for m in made]),
                          **{key: value for key, value in how.items() if value is not None})
    with pytest.raises(UsageError, match=complaint):
        scan_signatures(path, items)


def test_signatures_of_two_seeds_and_files_of_something_else_are_refused(tmp_path: Path) -> None:
    lean = [LeanMinHash(MinHash(num_perm=16, seed=seed)) for seed in (1, 2)]
    buffers = [bytearray(minhash.bytesize()) for minhash in lean]
    for buffer, minhash in zip(buffers, lean, strict=True):
        minhash.serialize(buffer)
    path = signature_file(tmp_path / "a.parquet", pa.array([bytes(b) for b in buffers], pa.binary()))
    with pytest.raises(UsageError, match="mixes signatures of seed"):
        scan_signatures(path, [])
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(UsageError, match="has no column signature"):
        scan_signatures(tmp_path / "b.parquet", [])
    (tmp_path / "c.parquet").write_text("no such thing")
    with pytest.raises(UsageError, match="cannot be read"):
        scan_signatures(tmp_path / "c.parquet", [])


def test_an_lsh_shared_through_redis(stored: tuple[list[Item], list[MinHash]], monkeypatch: pytest.MonkeyPatch) -> None:
    fakeredis = pytest.importorskip("fakeredis")
    storage = pytest.importorskip("datasketch.storage")
    server = fakeredis.FakeServer()
    monkeypatch.setattr(storage.redis, "Redis", lambda **kwargs: fakeredis.FakeRedis(server=server))
    items, made = stored
    writer = open_lsh("redis://localhost:6379/0", "corpus", num_perm=64, bands=32, rows=2)
    for number, minhash in enumerate(made):
        writer.insert(f"doc{number}".encode(), minhash)
    reader = open_lsh("redis://localhost:6379/0", "corpus", num_perm=64, bands=32, rows=2)
    assert query_lsh(reader, items, Recipe(64, 5, 2, "sha1")) == {1: ["doc1"]}
    with pytest.raises(UsageError, match="no address of a Redis server"):
        open_lsh("localhost", "corpus", num_perm=64, bands=32, rows=2)


def test_the_curve_and_the_threshold_say_what_the_docstring_says() -> None:
    assert [round(s_curve(s), 3) for s in (0.1, 0.2, 0.25, 0.3, 0.35)] == [0.474, 0.927, 0.984, 0.998, 1.0]
    assert CONFIRM < 0.5
