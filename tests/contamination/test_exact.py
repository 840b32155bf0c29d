"""The exact detector against a twin in plain Python, against published counts, and against what must not fool it."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checks.contamination.detect.exact import ExactScanner
from checks.contamination.detect.index import SHORT, NgramIndex
from checks.contamination.records import NS, PAIRS, ROLES, SNIPPET, Documents, Item
from checks.contamination.text.words import split_words
from tests.contamination import twin
from trainvitals.errors import UsageError

DATA = Path(__file__).parents[3] / "shared" / "data"
VOCABULARY = ["ab", "Cd", "e", "été", "漢", "x_1", "zwölf"]


def documents(texts: Sequence[str | bytes]) -> Documents:
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    n = len(raw)
    return Documents(np.frombuffer(b"".join(raw), np.uint8), np.cumsum([0, *map(len, raw)], dtype=np.int64),
                     np.arange(n), np.full(n, -1), np.zeros(n, np.int64))


def scanned(index: NgramIndex, texts: Sequence[str | bytes], batch: int = 1_000) -> tuple[pa.Table, dict[int, Any]]:
    scanner, tables = ExactScanner(index), [PAIRS.empty_table()]
    for at in range(0, len(texts), batch):
        docs = documents(texts[at : at + batch])
        docs = replace(docs, records=docs.records + at)
        tables.append(scanner.scan(docs, split_words(docs.text, docs.offsets)))
    tables.append(scanner.finish())
    return pa.concat_tables(tables), scanner.gram_counts()


def item(number: int, **fields: str) -> Item:
    return Item("bench", str(number), {role: fields[role] for role in ROLES if role in fields})


def bits(row: dict[str, Any], index: NgramIndex) -> dict[int, list[bool]]:
    return {n: np.unpackbits(np.frombuffer(row[f"grams{n}"], np.uint8), bitorder="little",
                             count=len(index.gram_ids(row["item"], n))).astype(bool).tolist() for n in NS}


def rows(path: str) -> list[dict[str, Any]]:
    if not (DATA / path).exists():
        pytest.skip(f"{DATA / path} is not there")
    opened = gzip.open(DATA / path, "rt") if path.endswith(".gz") else (DATA / path).open()
    with opened as file:
        return [json.loads(line) for line in file]


# -- against the twin ----------------------------------------------------------------------------------------------

texts = st.lists(st.sampled_from(VOCABULARY), max_size=40).map(" ".join)
fields = st.dictionaries(st.sampled_from(ROLES), texts.filter(bool), min_size=1, max_size=3)
benchmarks = st.lists(fields, min_size=1, max_size=4).map(lambda all_: [item(i, **f) for i, f in enumerate(all_)])
quick = settings(deadline=None, max_examples=300)


@quick
@given(benchmarks)
def test_index_holds_all_grams_in_order(items: list[Item]) -> None:
    index = NgramIndex.build(items)
    for n in NS:
        grams = [twin.item_grams(each, n) for each in items]
        names: dict[int, twin.Gram] = {}
        for number, expected in enumerate(grams):
            ids = index.gram_ids(number, n).tolist()
            assert len(ids) == len(expected)
            assert all(names.setdefault(k, gram) == gram for k, gram in zip(ids, expected, strict=True))
            of_role = {role: len(twin.grams(twin.words(text), n)) for role, text in items[number].fields.items()}
            roles = [ROLES.index(role) for role, count in of_role.items() for _ in range(count)]
            assert index.gram_roles(number, n).tolist() == roles
        assert len(set(names.values())) == len(names) == len(index.item_counts(n))
        for k, gram in names.items():
            assert index.item_counts(n)[k] == sum(gram in own for own in grams)


@quick
@given(benchmarks, st.lists(texts, max_size=4))
@example([item(0, question="ab ab ab ab")], ["ab ab ab e ab ab ab ab"])
def test_counts_windows_and_bits_are_the_twins(items: list[Item], corpus: list[str]) -> None:
    index = NgramIndex.build(items)
    pairs, counts = scanned(index, corpus)
    for n in NS:
        ids, found = counts[n]
        expected = twin.documents_with(items, corpus, n)
        assert twin.ascending(ids.tolist()) and sorted(found.tolist()) == sorted(expected.values())
        by_gram = {g: k for i, each in enumerate(items)
                   for k, g in zip(index.gram_ids(i, n).tolist(), twin.item_grams(each, n), strict=True)}
        assert dict(zip(ids.tolist(), found.tolist(), strict=True)) == {by_gram[g]: c for g, c in expected.items()}
    weight = twin.weights(items)
    for row in pairs.to_pylist():
        raw = corpus[row["record"]].encode()
        window = twin.words(raw[row["start"] : row["end"]].decode())
        for n in NS:
            own = set(twin.grams(window, n))
            assert bits(row, index)[n] == [gram in own for gram in twin.item_grams(items[row["item"]], n)]
        split = [twin.words(text) for text in items[row["item"]].fields.values()]
        assert row["longest"] == max(twin.longest_run(field, window) for field in split)
    reported = {(row["item"], row["record"]) for row in pairs.to_pylist()}
    for number, each in enumerate(items):
        for record, text in enumerate(corpus):
            for role, field in each.fields.items():
                own, document = twin.words(field), twin.words(text)
                if len(own) > SHORT:
                    need = float(np.interp(len(own), [8, 30], [0.5, 0.35]))
                    expected_pair = twin.best_share(own, document, 2 * len(own) + 20, weight) >= need + 1e-4
                else:
                    leads = role in ("question", "code", "passage")
                    expected_pair = len(own) >= 3 and leads and twin.contains(document, own)
                assert not expected_pair or (number, record) in reported


@quick
@given(benchmarks, st.lists(texts, max_size=6), st.integers(1, 5))
def test_batches_and_memory_maps_change_nothing(items: list[Item], corpus: list[str], batch: int) -> None:
    index = NgramIndex.build(items)
    whole, counts = scanned(index, corpus)
    parts, counts_of_parts = scanned(index, corpus, batch)
    order = [(name, "ascending") for name in ("item", "record", "start", "end")]
    assert parts.sort_by(order).equals(whole.sort_by(order))
    for n in NS:
        assert all(np.array_equal(a, b) for a, b in zip(counts[n], counts_of_parts[n], strict=True))


def test_a_saved_index_finds_the_same(tmp_path: Path) -> None:
    items, corpus = story_items(40), story_corpus()
    index = NgramIndex.build(items)
    index.save(tmp_path / "index")
    loaded = NgramIndex.load(tmp_path / "index")
    assert not loaded.letters.flags.writeable
    one, other = scanned(index, corpus), scanned(loaded, corpus)
    assert one[0].num_rows >= 40 and one[0].equals(other[0])
    assert all(np.array_equal(a, b) for n in NS for a, b in zip(one[1][n], other[1][n], strict=True))
    with pytest.raises(UsageError, match="holds no n-gram index"):
        NgramIndex.load(tmp_path)


# -- what it must find ---------------------------------------------------------------------------------------------


def story(rng: random.Random, length: int) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(length))


def story_items(count: int) -> list[Item]:
    rng = random.Random(0)
    return [item(i, passage=story(rng, 400), question=story(rng, 12), answer=story(rng, 30)) for i in range(count)]


def story_corpus() -> list[str]:
    rng = random.Random(1)
    return [f"{story(rng, 300)} {' '.join(each.fields.values())} {story(rng, 300)}" for each in story_items(40)]


@pytest.mark.parametrize("role", ["passage", "question", "answer"])
def test_one_field_alone_is_found(role: str) -> None:
    items, rng = story_items(40), random.Random(2)
    corpus = [f"{story(rng, 900)}\n{each.fields[role].upper()}.\n{story(rng, 900)}" for each in items]
    pairs = scanned(NgramIndex.build(items), corpus)[0].to_pylist()
    assert [(row["item"], row["record"]) for row in pairs] == [(i, i) for i in range(40)]
    found = [corpus[row["record"]][row["start"] : row["end"]] for row in pairs]
    assert found == [each.fields[role].upper() for each in items]


def test_a_leaked_file_as_one_document_gives_every_item_in_its_own_window() -> None:
    items = story_items(300)
    text = "\n\n".join("\n".join(each.fields.values()) for each in items)
    pairs = scanned(NgramIndex.build(items), [text, "nothing here"])[0].to_pylist()
    assert [row["item"] for row in pairs] == list(range(300))
    assert [text[row["start"] : row["end"]] for row in pairs] == ["\n".join(each.fields.values()) for each in items]
    assert all(row["score"] == 1 for row in pairs)


def test_fields_far_apart_give_a_window_each() -> None:
    each, rng = story_items(1)[0], random.Random(3)
    corpus = [f"{each.fields['passage']} {story(rng, 5_000)} {each.fields['question']} {each.fields['answer']}"]
    pairs = scanned(NgramIndex.build([each, *story_items(5)[1:]]), corpus)[0].sort_by([("score", "descending")])
    assert pairs["item"].to_pylist() == [0, 0]
    best = pairs.to_pylist()[0]
    assert best["start"] > 5_000, "the window with the question ranks above the one with the passage"


def test_edited_copies_are_found_and_short_items_only_whole() -> None:
    rng = random.Random(4)
    items = [item(i, question=story(rng, 40 if i < 60 else 5)) for i in range(120)]
    corpus = []
    for each in items[:60]:
        words = each.fields["question"].split()
        for at in rng.sample(range(40), 4):
            words[at] = "changed"
        corpus.append(" ".join([*words[20:], story(rng, 15), *words[:20]]))
    corpus += [f"well {each.fields['question']}?" for each in items[60:]]
    corpus += [" ".join(each.fields["question"].split()[:4]) for each in items[60:]]
    pairs = scanned(NgramIndex.build(items), corpus)[0].to_pylist()
    assert [(row["item"], row["record"]) for row in pairs] == [(i, i) for i in range(120)]


def test_a_faint_copy_is_found_wherever_it_stands() -> None:
    """38 % of the item's 3-grams and no run of five words, across every block edge: as little as is kept."""
    rng = random.Random(6)
    own = story(rng, 60).split()
    faint = " ".join("changed" if k % 5 == 4 else word for k, word in enumerate(own[:54]))
    corpus = [f"{story(rng, before)} {faint} {story(rng, 200)}" for before in range(160)]
    pairs = scanned(NgramIndex.build([item(0, question=" ".join(own))]), corpus)[0].to_pylist()
    assert [row["record"] for row in pairs] == list(range(160))
    assert {(row["longest"], round(row["score"], 2)) for row in pairs} == {(4, 0.38)}


def test_an_item_stands_alone() -> None:
    only = item(0, question="The quick brown fox jumps over the lazy dog near the river bank today")
    pairs = scanned(NgramIndex.build([only]), ["no", f"So: {only.fields['question']}!"])[0].to_pylist()
    assert [(row["record"], row["start"], row["score"]) for row in pairs] == [(1, 4, 1.0)]


# -- what must not fool it -----------------------------------------------------------------------------------------


def test_boilerplate_of_the_benchmark_starts_no_pair() -> None:
    rng = random.Random(5)
    template = "Read the following passage carefully and then choose the best answer to the question below"
    items = [item(i, question=f"{template} {story(rng, 20)}") for i in range(100)]
    corpus = [template] * 50 + [items[7].fields["question"]]
    pairs, counts = scanned(NgramIndex.build(items), corpus)
    assert [(row["item"], row["record"]) for row in pairs.to_pylist()] == [(7, 50)]
    assert counts[13][1].max() == 51, "it is counted all the same"


def test_equal_hashes_of_other_words_make_no_pair() -> None:
    index = NgramIndex.build(story_items(40))
    assert scanned(index, story_corpus())[0].num_rows >= 40
    other = index.letters.copy()
    other[index.word_letters[:-1]] += 1  # every word now spells differently from what its hash says
    assert scanned(replace(index, letters=other), story_corpus())[0].num_rows == 0


def test_records_pieces_ids_and_snippets_keep_their_place() -> None:
    each = item(0, question="Wie viele Äpfel hat Jörg, wenn er dreißig Körbe mit je zwölf Äpfeln füllt?")
    pad = "ü" * 5_001
    text = f"{pad} {each.fields['question']} {pad}".encode()
    docs = replace(documents([b"\xff\x00 bad", text, b""]), records=np.array([3, 9, 11]), ids=["a", "b", "c"],
                   byte_offsets=np.array([5, 70, 90]), piece_starts=np.array([0, 1_000, 0]))
    scanner = ExactScanner(NgramIndex.build([each]))
    (row,) = scanner.scan(docs, split_words(docs.text, docs.offsets)).to_pylist()
    assert (row["record"], row["byte_offset"], row["document_id"], row["detector"]) == (9, 70, "b", "exact")
    assert (row["start"], row["end"]) == (1_000 + 10_003, 1_000 + 10_003 + len(each.fields["question"].encode()) - 1)
    assert each.fields["question"] in row["text"] and "\ufffd" not in row["text"]
    assert len(row["text"].encode()) <= SNIPPET and row["similarity"] is None


def test_nothing_in_nothing_out() -> None:
    for items in ([], [item(0, answer="B")], [item(0, question="¿?")]):
        index = NgramIndex.build(items)
        assert scanned(index, ["", "some text of a document", b"\xc3"])[0].schema == PAIRS
        assert len(index) == len(items)
    with pytest.raises(UsageError, match="role 'title'"):
        NgramIndex.build([Item("bench", "0", {"title": "x"})])


# -- published counts ----------------------------------------------------------------------------------------------


def any_hit(index: NgramIndex, texts: Sequence[str]) -> dict[int, int]:
    counts = scanned(index, texts)[1]
    return {n: sum(bool(np.isin(index.gram_ids(i, n), counts[n][0]).any()) for i in range(len(index))) for n in NS}


def test_any_hit_counts_on_real_pairs() -> None:
    """Items with any 8- or 13-gram anywhere in a corpus: GSM8K test questions against the training set's questions and
    answers, and against a paraphrase of each; HumanEval prompts and solutions against a paraphrase of each.
    """
    questions = [row["question"] for row in rows("benchmarks/gsm8k_test.jsonl")]
    gsm8k = NgramIndex.build([item(i, question=question) for i, question in enumerate(questions)])
    train = any_hit(gsm8k, [f"{row['question']} {row['answer']}" for row in rows("corpora/gsm8k_train.jsonl")])
    rephrased = any_hit(gsm8k, [row["text"] for row in rows("corpora/gsm8k_test_rephrased.jsonl")])
    humaneval = NgramIndex.build([item(i, question=row["prompt"], code=row["canonical_solution"])
                                  for i, row in enumerate(rows("benchmarks/humaneval.jsonl.gz"))])
    python = any_hit(humaneval, [row["text"] for row in rows("corpora/humaneval_rephrased_python.jsonl")])
    assert [(counts[8], counts[13]) for counts in (train, rephrased, python)] == [(82, 3), (88, 0), (17, 2)]


def test_any_hit_counts_on_judged_pairs() -> None:
    """HumanEval items against the nearest CodeAlpaca row, 18 of 164 of which a judge called the same problem."""
    judged = rows("corpora/codealpaca_top1_with_verdicts.jsonl")
    index = NgramIndex.build([item(i, question=row["test"]) for i, row in enumerate(judged)])
    found = {n: [0, 0] for n in NS}
    for number, row in enumerate(judged):
        raw = np.frombuffer(row["train"][0].encode(), np.uint8)
        words = split_words(raw, np.array([0, len(raw)], np.int64))
        for n, shared in index.shared(number, words.hashes).items():
            found[n][not row["results"][0]] += bool(shared.any())
    assert found == {3: [13, 67], 5: [4, 24], 8: [0, 2], 13: [0, 0]}
