"""Planting: the same for a seed, each edit does what its name says, and recall is counted in the very document."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from checks.contamination.recall.plant import ANY, PARAPHRASE, Planted, false_alarms, plant, planted_text, recall_table
from checks.contamination.recall.rewrites import EDITS, SYNONYMS
from checks.contamination.records import DETECTORS, Item
from checks.contamination.text.words import words_of
from tests.contamination.auditing import audit, gsm8k, humaneval, web_text
from trainvitals.errors import UsageError

TEXT = ("Ann buys 16 eggs, but she eats three of them. If every egg costs $2.50, how much money is left from 1200 "
        "dollars?")
ITEMS = [Item("b", str(k), {"question": f"{TEXT} And {k} more?", "answer": str(k)}) for k in range(60)]
SAMPLE = [f"document {k} " + "lorem ipsum dolor sit amet " * 60 for k in range(30)]


def edited(name: str, seed: int = 0) -> str:
    return EDITS[name](TEXT, np.random.default_rng(seed))


def test_edits_do_what_they_say() -> None:
    words = TEXT.split()
    assert edited("verbatim") == edited("padded") == TEXT
    assert all((words_of(edited("re-wrapped", seed)).hashes == words_of(TEXT).hashes).all() for seed in range(9))
    other = edited("one word changed").split()
    assert sum(a != b for a, b in zip(words, other, strict=True)) == 1
    assert re.findall(r"\d+", edited("one word changed")) == re.findall(r"\d+", TEXT)
    changed = edited("numbers changed")
    assert re.sub(r"\d+", "#", changed) == re.sub(r"\d+", "#", TEXT)
    assert not set(re.findall(r"\b\d+\b(?!\.)", changed)) & {"16", "1200"}
    assert sorted(set(words) - set(edited("distractor added").split())) == []
    assert edited("clauses reversed").startswith("but she eats three of them, Ann buys 16 eggs")
    assert set(re.findall(r"\w+", edited("clauses reversed"))) == set(re.findall(r"\w+", TEXT))
    assert "purchases" in edited("word-substituted paraphrase")
    assert all(word != other for word, other in SYNONYMS.items())


def test_the_seed_decides_and_a_third_of_the_items_stays_out() -> None:
    first, again, other = (plant(ITEMS, SAMPLE, seed=seed, per_edit=4) for seed in (1, 1, 2))
    assert first.documents == again.documents and first.truth.equals(again.truth)
    assert first.documents != other.documents
    assert first.truth["item"].is_unique and not set(first.truth["item"]) & set(first.controls)
    assert len(first.controls) >= len(ITEMS) // 3
    for row in first.truth[first.truth["edit"] == "padded"].itertuples():
        assert planted_text(ITEMS[row.item]) in first.documents[row.record]
        assert 200 <= len(first.documents[row.record].split()) - len(planted_text(ITEMS[row.item]).split()) <= 400
    assert set(first.documents[len(first.truth):]) <= set(SAMPLE)


def test_only_eligible_items_are_planted_and_paraphrases_of_the_benchmark_are_used() -> None:
    planted = plant(ITEMS, SAMPLE, eligible=range(30), paraphrases={k: f"In other words {k}" for k in range(30)})
    assert set(planted.truth["item"]) <= set(range(30))
    mine = planted.truth[planted.truth["edit"] == PARAPHRASE]
    assert len(mine) and all(f"In other words {row.item}" in planted.documents[row.record] for row in mine.itertuples())


def test_too_little_to_plant_is_said() -> None:
    with pytest.raises(UsageError, match="no text to plant"):
        plant(ITEMS, [" "])
    with pytest.raises(UsageError, match="3 at least"):
        plant(ITEMS, SAMPLE, eligible=[1, 2])


def test_recall_counts_matches_in_the_planted_document_only() -> None:
    columns = ["record", "item", "item_id", "benchmark", "edit"]
    truth = pd.DataFrame([(k, k, str(k), "b", "verbatim") for k in range(4)], columns=columns)
    found = [("0", 0, "exact", "contaminated"), ("0", 0, "minhash", "suspect"), ("1", 1, "minhash", "suspect"),
             ("2", 9, "exact", "contaminated"), ("3", 3, "exact", "below")]
    matches = pd.DataFrame([{"benchmark": "b", "item_id": i, "record": r, "detector": d, "level": level}
                            for i, r, d, level in found])
    table = pd.DataFrame(recall_table(Planted([], truth, [4]), matches)).set_index("detector")
    assert table["found"].to_dict() == {"exact": 1, "minhash": 2, "code": 0, "semantic": 0, ANY: 2}
    assert table["contaminated"].to_dict() == {"exact": 1, "minhash": 0, "code": 0, "semantic": 0, ANY: 1}
    assert table["recall"][ANY] == 0.5
    # Newcombe 1998, method 3, for 2 of 4 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E)
    assert (round(table["low"][ANY], 4), round(table["high"][ANY], 4)) == (0.1500, 0.8500)
    verdicts = pd.DataFrame({"verdict": ["contaminated"] * 4 + ["suspect"]})
    assert false_alarms(Planted([], truth, [4]), verdicts)["suspect"] == 1


FLOORS = {"verbatim": 0.99, "re-wrapped": 0.99, "padded": 0.99, "one word changed": 0.99, "numbers changed": 0.9,
          "distractor added": 0.95, "clauses reversed": 0.9}
"""Between the figures measured here and the research's for GSM-Plus: .97 of number changes, .72 of reversed ones."""


@pytest.mark.parametrize("items", [gsm8k, humaneval])
def test_recall_on_real_text(items) -> None:  # type: ignore[no-untyped-def]
    benchmark = items()[:400]
    planted = plant(benchmark, web_text(step=25), seed=4, per_edit=25)
    found, matches = audit(benchmark, planted.documents)
    table = pd.DataFrame(recall_table(planted, matches))
    print(table.pivot(index="edit", columns="detector", values=["recall", "contaminated"]).round(2).to_string())
    alarms = false_alarms(planted, found)
    print(alarms)
    together = table[table["detector"] == ANY].set_index("edit")
    for edit, floor in FLOORS.items():
        assert together["recall"][edit] >= floor, edit
    assert alarms["contaminated"] == 0 and alarms["suspect"] <= 0.02 * alarms["items"] + 1
    assert set(table["detector"]) == {*DETECTORS, ANY}
