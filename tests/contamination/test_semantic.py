"""Neighbours in meaning held against scikit-learn, and on real paraphrases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from checks.contamination.detect.embedders import EmbeddingIndex
from checks.contamination.detect.minhash import CONFIRM
from checks.contamination.detect.semantic import LEAST_NULL, NEAREST, empirical_p, held_out, item_text
from checks.contamination.detect.tfidf import LEAST, TfidfIndex
from checks.contamination.records import PAIRS, SNIPPET, Item
from checks.contamination.text.words import Words, split_words, words_of
from tests.contamination.test_minhash import documents, read
from trainvitals.errors import UsageError


def babble(rng: random.Random, words: int) -> str:
    """Words as unevenly common as those of a language."""
    return " ".join(f"w{int(10 * 40 ** rng.random())}" for _ in range(words))


def search(index: TfidfIndex | EmbeddingIndex, texts: Sequence[str], batch: int = 1_000) -> pd.DataFrame:
    scanner = index.scanner()
    for k in range(0, len(texts), batch):
        docs = documents(texts[k : k + batch], k)
        assert scanner.scan(docs, split_words(docs.text, docs.offsets)).num_rows == 0
    table = scanner.finish()
    assert table.schema == PAIRS
    return table.to_pandas()


def _is_copy(item: str, window: str) -> bool:
    ours, theirs = (set(zip(words, words[1:], words[2:], strict=False)) for words in (item.split(), window.split()))
    return len(ours & theirs) >= CONFIRM * max(len(ours), 1)


def by_sklearn(items: Sequence[Item], texts: Sequence[str], size: int) -> pd.DataFrame:
    """The NEAREST documents of each item, copies of it apart, by cosine of the best of their windows."""
    windows = []
    for record, text in enumerate(texts):
        words = text.split()
        for begin in range(0, max(len(words), 1), size // 2):
            windows.append((record, " ".join(words[begin : begin + size])))
            if begin + size >= len(words):
                break
    own = [item_text(item) for item in items]
    vocabulary = sorted({word for text in [*own, *texts] for word in text.split()})
    vectorizer = TfidfVectorizer(binary=True, vocabulary=vocabulary, token_pattern=r"\S+").fit(own)
    cosines = (vectorizer.transform(own) @ vectorizer.transform([text for _, text in windows]).T).toarray()
    table = pd.DataFrame(cosines.T, index=[record for record, _ in windows]).groupby(level=0).max()
    rows = [(item, record, cosine) for item in table for record, cosine in table[item].items() if cosine >= LEAST]
    found = pd.DataFrame(rows, columns=["item", "record", "similarity"])
    found["similarity"] = found["similarity"].astype(np.float32)
    found["copy"] = [any(_is_copy(own[item], text) for number, text in windows if number == record)
                     for item, record in zip(found["item"], found["record"], strict=True)]
    found = found.sort_values(["item", "similarity", "record"], ascending=[True, False, True]).groupby(["item", "copy"])
    return found.head(NEAREST).sort_values(["item", "record"]).reset_index(drop=True)


@pytest.mark.parametrize("n_items", [1, 2, 40])
def test_cosines_are_those_of_scikit_learn(n_items: int) -> None:
    rng = random.Random(n_items)
    items = [Item("b", str(i), {"question": babble(rng, rng.randrange(20, 33))}) for i in range(n_items)]
    texts = [babble(rng, rng.choice([1, 10, 30, 60, 200])) for _ in range(120)]
    texts += [item.fields["question"] for item in items[:3]]
    ours = search(TfidfIndex.build(items), texts)
    expected = by_sklearn(items, texts, 32)
    assert ours["item"].tolist() == expected["item"].tolist()
    np.testing.assert_allclose(ours["similarity"], expected["similarity"], atol=1e-6)
    assert (ours["record"] == expected["record"]).mean() > 0.99  # ties to the last digit may fall otherwise


def test_a_window_deep_in_a_document_is_found_and_shown() -> None:
    rng = random.Random(1)
    items = [Item("b", str(i), {"question": babble(rng, 30)}) for i in range(20)]
    text = " ".join([babble(rng, 900), items[7].fields["question"], babble(rng, 900)])
    rows = search(TfidfIndex.build(items), [babble(rng, 50), text])
    [row] = rows[(rows["item"] == 7) & (rows["record"] == 1)].to_dict("records")
    assert row["longest"] >= 25
    assert row["similarity"] > 0.6 and row["start"] > 500 and len(row["text"]) <= SNIPPET
    assert len(set(text[row["start"] : row["end"]].split()) & set(items[7].fields["question"].split())) > 10


def test_batches_change_nothing_and_ties_go_to_the_first(tmp_path: Path) -> None:
    rng = random.Random(2)
    items = [Item("b", str(i), {"question": babble(rng, 25)}) for i in range(30)]
    texts = [babble(rng, 40) for _ in range(80)] + [item.fields["question"] for item in items] * 8
    index = TfidfIndex.build(items)
    index.save(tmp_path)
    whole = search(index, texts)
    pd.testing.assert_frame_equal(search(TfidfIndex.load(tmp_path), texts, batch=7), whole)
    for item in range(30):
        copies = whole[(whole["item"] == item) & (whole["longest"] > 0)]
        assert copies["record"].tolist() == [80 + 30 * k + item for k in range(NEAREST)]
        assert set(copies["longest"]) == {25}
        assert (whole[whole["item"] == item]["longest"] == 0).sum() == NEAREST


def edited(rng: random.Random, text: str, share: float) -> str:
    words = text.split()
    for at in rng.sample(range(len(words)), int(share * len(words))):
        words[at] = "".join(rng.choices("abcdefghijklm", k=5))
    return " ".join(words)


@pytest.mark.parametrize("embedder", ["tfidf", "letters"])
def test_near_copies_leave_room_for_a_paraphrase(embedder: str) -> None:
    rng = random.Random(9)
    letters = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(300)]

    def babble(rng: random.Random, words: int) -> str:
        return " ".join(rng.choices(letters, k=words))

    items = [Item("b", str(i), {"question": babble(rng, 30)}) for i in range(40)]
    question = items[7].fields["question"]
    shuffled = question.split()
    rng.shuffle(shuffled)
    texts = [babble(rng, 60) for _ in range(50)]
    copies = [edited(rng, question, 0.07) for _ in range(60)]
    texts += [*copies[:30], " ".join(shuffled), *copies[30:]]
    index = TfidfIndex.build(items) if embedder == "tfidf" else EmbeddingIndex.build(items, bag_of_letters)
    found = search(index, texts)
    mine = found[found["item"] == 7]
    others = mine[mine["longest"] == 0].sort_values("similarity", ascending=False)
    assert others["record"].iloc[0] == 80 and len(others) <= NEAREST
    assert (mine["longest"] > 0).sum() == NEAREST
    assert set(mine[mine["longest"] > 0]["record"]) <= {*range(50, 111)} - {80}
    if embedder == "tfidf":  # a model adds in another order in other batches
        pd.testing.assert_frame_equal(search(index, texts, batch=13), found)


def test_documents_and_items_without_words() -> None:
    index = TfidfIndex.build([Item("b", "0", {"question": "?!"}), Item("b", "1", {"question": "some words"})])
    assert search(index, ["", "...", "some words"])["item"].tolist() == [1]
    assert search(TfidfIndex.build([]), ["some words"]).empty


def test_p_counts_held_out_neighbours() -> None:
    null = np.linspace(0.01, 1, 100, dtype=np.float32)
    kinds = np.zeros(100, np.int64)
    p = empirical_p(kinds, null, np.array([0, 1, 2]), np.array([1.1, 0.905, 0.0]))
    np.testing.assert_allclose(p, [1 / 101, 11 / 101, 1.0])
    few = np.arange(100) >= LEAST_NULL - 1
    assert np.isnan(empirical_p(few.astype(np.int64), null, np.array([0]), np.array([0.5]))).all()


def test_twins_are_no_held_out_neighbours() -> None:
    rng = random.Random(3)
    texts = [babble(rng, 30) for _ in range(3)]
    texts.append(texts[0] + " and more")
    docs = documents(texts)
    words: Words = split_words(docs.text, docs.offsets)
    similarities = np.array([[0.9, 0.3], [0.2, 0.1], [0.1, -np.inf], [0.9, -np.inf]], np.float32)
    null = held_out(similarities, np.array([[3, 1], [0, 2], [1, -1], [0, -1]]), words)
    np.testing.assert_allclose(null, [0.3, 0.2, 0.1, 0.9], rtol=1e-6)  # the last has twins only


def test_what_stands_for_an_item() -> None:
    assert item_text(Item("b", "0", {"question": "q", "passage": "p", "choices": "c", "answer": "a"})) == "q\nc"
    assert item_text(Item("b", "0", {"answer": "return 1", "code": "def f():"})) == "def f():\nreturn 1"
    assert item_text(Item("b", "0", {"passage": "p", "answer": "a"})) == "p\na"


def test_paraphrases_of_gsm8k_come_first() -> None:
    rows = read("benchmarks/gsm8k_test.jsonl")
    paraphrases = [row["text"] for row in read("corpora/gsm8k_test_rephrased.jsonl")]
    told = np.array([len(text.split("Answer:")[0]) > len("Question: ") + 5 for text in paraphrases])
    web = [row["prompt"] for row in read("corpora/t0_sample.jsonl.gz")[:8_000]]
    index = TfidfIndex.build([Item("gsm8k", str(i), {"question": row["question"]}) for i, row in enumerate(rows)])
    found = search(index, paraphrases + web).sort_values(["item", "similarity"], ascending=[True, False])
    first = found.groupby("item")["record"].first().reindex(range(len(rows)))
    recall = float((first == np.arange(len(rows)))[told].mean())
    right = found[found["item"] == found["record"]]
    p = index.neighbour_p(right["item"].to_numpy(), right["similarity"].to_numpy(np.float64))
    clean = search(index, web)
    false = index.neighbour_p(clean["item"].to_numpy(), clean["similarity"].to_numpy(np.float64))
    print(f"first {recall:.3f} of {told.sum()}; p <= .01: {np.mean(p <= 0.01):.3f} of paraphrases, "
          f"{np.sum(false <= 0.01)} of {len(false)} neighbours in other text")
    assert recall >= 0.97 and np.mean(false <= 0.01) <= 0.001


def bag_of_letters(texts: list[str]) -> np.ndarray:
    return np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts],
                    np.float32)


def test_any_function_can_embed() -> None:
    rng = random.Random(4)
    letters = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(300)]
    items = [Item("b", str(i), {"question": " ".join(rng.choices(letters, k=25))}) for i in range(40)]
    texts = [" ".join(rng.choices(letters, k=rng.choice([3, 30, 200]))) for _ in range(60)]
    shuffled = items[9].fields["question"].split()
    rng.shuffle(shuffled)
    texts.insert(33, " ".join(shuffled))
    index = EmbeddingIndex.build(items, bag_of_letters)
    whole = search(index, texts)
    best = whole[whole["item"] == 9].sort_values("similarity").iloc[-1]
    assert best["record"] == 33 and best["similarity"] == pytest.approx(1, abs=1e-5)
    pd.testing.assert_frame_equal(search(index, texts, batch=11), whole)
    short = [k for k, text in enumerate(texts) if len(words_of(text)) <= 48]
    unit = bag_of_letters([items[9].fields["question"], *(texts[k] for k in short)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    known = dict(zip(short, unit[1:] @ unit[0], strict=True))
    for row in whole[whole["item"] == 9].itertuples():
        assert row.record not in known or row.similarity == pytest.approx(known[row.record], abs=1e-5)


def test_embedders_that_cannot_work(tmp_path: Path) -> None:
    items = [Item("b", "0", {"question": "one two three"})]
    with pytest.raises(UsageError, match="one finite row per text"):
        EmbeddingIndex.build(items, lambda texts: np.full((len(texts), 3), np.nan, np.float32))
    with pytest.raises(UsageError, match="not a function"):
        EmbeddingIndex.build(items, bag_of_letters).save(tmp_path)
