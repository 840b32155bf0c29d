"""Both errors of the verdicts: what was planted is condemned, what only looks alike is not. Rates are printed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from checks.contamination.judge.rules import Rules
from checks.contamination.judge.verdict import judge_items
from checks.contamination.partial import Merged
from checks.contamination.recall.plant import AROUND, _within
from checks.contamination.recall.rewrites import one_word, rewrapped, verbatim
from checks.contamination.records import ITEMS, MATCHES, NS, Item, Tally
from tests.contamination.auditing import SHARD, audit, gsm8k, humaneval, rows, twin_scan, web_text

LOREM = "somewhere else other people were talking about the weather and nothing that matters here at all".split()


def filler(count: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(LOREM, count))


def buried(texts: Sequence[str], around: int = 60) -> list[str]:
    return [f"{filler(around, 2 * k)}\n{text}\n{filler(around, 2 * k + 1)}" for k, text in enumerate(texts)]


def unpunctuated(text: str, rng: np.random.Generator) -> str:
    """As many corpora are cleaned: "Janets", "1000"."""
    return re.sub(r"[^\w\s]", "", text)


def slipped(text: str, rng: np.random.Generator) -> str:
    """Two letters swapped inside one long word."""
    found = [m for m in re.finditer(r"[a-z]{6,}", text) if m.group()[2] != m.group()[3]]
    if not found:
        return text
    at = found[int(rng.integers(len(found)))].start() + 2
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def rates(name: str, found: pd.DataFrame, planted: Sequence[int]) -> tuple[float, float]:
    """Precision and recall of `contaminated`; printed."""
    truth = np.zeros(len(found), bool)
    truth[list(planted)] = True
    flagged = (found["verdict"] == "contaminated").to_numpy()
    both = int((truth & flagged).sum())
    precision, recall = both / max(flagged.sum(), 1), both / truth.sum()
    suspects = int((found["verdict"] == "suspect").sum())
    print(f"{name}: planted {truth.sum()}, contaminated {flagged.sum()}, suspect {suspects}, "
          f"precision {precision:.3f}, recall {recall:.3f}")
    return precision, recall


def test_items_planted_in_web_text_are_found_and_no_others() -> None:
    items, texts = gsm8k(), web_text(step=25)
    rng = np.random.default_rng(0)
    planted = rng.permutation(len(items))[:450].tolist()
    edits = (verbatim, rewrapped, slipped, unpunctuated)
    documents = [_within(edits[k % 4](items[item].fields["question"], rng), texts, AROUND, rng)
                 for k, item in enumerate(planted)]
    found, _ = audit(items, documents + texts)
    precision, recall = rates("GSM8K in T0", found, planted)
    assert precision >= 0.99 and recall >= 0.99
    for k, edit in enumerate(edits):
        share = (found["verdict"].iloc[planted[k::4]] == "contaminated").mean()
        print(f"  {edit.__name__}: {share:.3f}")
        assert share >= (0.96 if edit is slipped else 0.98)  # a slip may make a known word, or unmake a number


def test_one_word_changed_is_suspect_and_never_clean() -> None:
    items, texts = gsm8k(), web_text(step=100)
    rng = np.random.default_rng(1)
    planted = rng.permutation(len(items))[:150].tolist()
    edited = [one_word(items[item].fields["question"], rng) for item in planted]
    found, _ = audit(items, [_within(text, texts, AROUND, rng) for text in edited])
    told = found["verdict"].iloc[planted].value_counts().to_dict()
    print("one word changed:", told)
    assert told.get("clean", 0) == 0 and told["suspect"] >= 0.8 * len(planted)


def test_the_training_set_of_a_benchmark_is_no_leak_of_its_test_set() -> None:
    found, _ = audit(gsm8k(), [f"{row['question']}\n{row['answer']}" for row in rows("corpora/gsm8k_train.jsonl")])
    print(found.groupby(["verdict", "evidence_kind"]).size())
    assert (found["any8"].sum(), found["any13"].sum()) == (82, 3)  # the any-hit rules of the literature
    assert not (found["verdict"] == "contaminated").any()
    assert (found["verdict"] == "suspect").mean() < 0.005


@pytest.mark.parametrize(("items", "path", "any8", "any13"), [
    (gsm8k, "corpora/gsm8k_test_rephrased.jsonl", 88, 0),
    (humaneval, "corpora/humaneval_rephrased_python.jsonl", 17, 2),
])
def test_paraphrases_are_never_contaminated(items, path, any8, any13) -> None:  # type: ignore[no-untyped-def]
    found, _ = audit(items(), [row["text"] for row in rows(path)], semantic=True)
    print(path, found.groupby(["verdict", "evidence_kind"]).size().to_dict())
    assert (found["any8"].sum(), found["any13"].sum()) == (any8, any13)
    assert not (found["verdict"] == "contaminated").any()


def test_boilerplate_of_code_condemns_nothing() -> None:
    corpus = [text for row in rows("corpora/codealpaca_top1_with_verdicts.jsonl") for text in row["train"]]
    prime = "def is_prime(n):\n  for i in range(2, n):\n    if n % i == 0:\n      return False\n  return True"
    corpus += ["print([1, 2, 3, 4, 5, 6, 7, 8])", prime] * 20
    found, _ = audit(humaneval(), corpus)
    print("HumanEval x CodeAlpaca:", found.groupby(["verdict", "evidence_kind"]).size().to_dict())
    assert set(found["verdict"]) == {"clean"}


def latex_items(count: int) -> list[Item]:
    """Short problems in LaTeX, many of them siblings that differ in a number."""
    rng = np.random.default_rng(7)

    def n(low: int = 2, high: int = 99) -> int:
        return int(rng.integers(low, high))

    kinds = [
        lambda: f"Compute $\\sin {n()}^\\circ$.",
        lambda: f"Compute $\\dbinom{{{n()}}}{{{n(2, 9)}}}$.",
        lambda: f"Simplify $\\sqrt{{{n(10, 999)}}}$.",
        lambda: f"How many positive divisors does {n(10, 999)} have?",
        lambda: f"What is the greatest common factor of ${n()}$ and ${n()}$?",
        lambda: f"If $a@b={n()}a-{n()}b$, what is the value of ${n()}@{n()}$?",
        lambda: f"In triangle $ABC$, $AB = {n()}$, $AC = {n()}$, and $\\angle BAC = {n()}^\\circ$. Let $D$ be the "
                f"midpoint of $BC$. Find the length of $AD$ to the nearest tenth.",
        lambda: f"Define $g(x)=\\begin{{cases}} x+{n()} & x>{n()} \\\\ x^2-{n()} & x \\le {n()}\\end{{cases}}$. "
                f"What is $g(g({n()}))$?",
    ]
    texts = dict.fromkeys(kinds[int(rng.integers(len(kinds)))]() for _ in range(3 * count))
    return [Item("latex", str(k), {"question": text, "answer": str(k)}) for k, text in enumerate([*texts][:count])]


def test_short_formulas_are_found_and_their_siblings_are_not() -> None:
    items = latex_items(300)
    found, _ = audit(items, buried([item.fields["question"] for item in items[:100]]))
    precision, recall = rates("LaTeX with siblings", found, range(100))
    assert precision >= 0.99 and recall >= 0.99
    assert set(found["evidence_kind"][100:]) <= {"", "edited numbers", "edited copy", "template"}


NAMES = "Tracy Remy Kai Sydney Jordan Alex Casey Riley Quinn Robin Sasha Skylar Taylor Jan Lee Austin".split()
ASKED = ("What does {} need to do before this?", "How would you describe {}?", "What will {} want to do next?",
         "How would {} feel afterwards?", "Why did {} do this?")


def social_items(count: int) -> list[Item]:
    """A passage of its own each, one of five questions about a name: the layout of SIQA."""
    rng = np.random.default_rng(3)
    endings = "hat cup pen fig jar map oar urn".split()
    things = [f"{start}{end}" for start in "red old wet new big odd raw shy".split() for end in endings]
    items = []
    for k in range(count):
        name, other = rng.choice(NAMES, 2, replace=False)
        first, second, third = rng.choice(things, 3, replace=False)
        passage = f"{name} went out to buy the {first} but {other} had sold it with the {second} and the {third}."
        question = ASKED[k % len(ASKED)].format(name)
        items.append(Item("social", str(k), {"question": question, "passage": passage, "choices": "glad\nsad\nbored"}))
    return items


def test_a_question_that_is_a_template_needs_its_passage() -> None:
    items = social_items(250)
    leaked = [f"{item.fields['passage']} {item.fields['question']}" for item in items[:80]]
    others = [f"{filler(12, k)}. {ASKED[k % 5].format(NAMES[k % 16])} {filler(9, k + 999)}" for k in range(1, 200)]
    found, _ = audit(items, buried(leaked) + others)
    precision, recall = rates("template questions", found, range(80))
    assert precision >= 0.99 and recall >= 0.99


def test_a_passage_alone_is_a_common_source() -> None:
    items = social_items(200)
    found, _ = audit(items, buried([item.fields["passage"] for item in items[:80]]))
    assert set(found["verdict"][:80]) == {"suspect"} and set(found["evidence_kind"][:80]) == {"passage only"}
    assert not (found["verdict"] == "contaminated").any()


QUESTION = ("A gardener plants nineteen rows of tulips along the canal and then gives away every third bulb to the 40 "
            "pupils of a nearby school; how many bulbs remain in the greenhouse at the end of spring?")
ANSWER = "First count the bulbs of all rows, then take away what the pupils got.\n#### 418"
ITEM = {"question": QUESTION, "answer": ANSWER, "passage": f"The canal of the town was dug {filler(20, 1)} long ago."}
LIGHT = {"question": "What is photosynthesis?", "choices": "a plant eats light\na dog"}
STRANGERS = [Item("b", str(k), {"question": f"Question {k} asks {filler(15, k)} number {k}?"}) for k in range(1, 60)]


@pytest.mark.parametrize(("text", "verdict", "kind"), [
    (QUESTION, "contaminated", "question only"),
    (f"{QUESTION}\n{ANSWER}", "contaminated", "question and answer"),
    (f"{QUESTION} The answer is 418.", "contaminated", "question and answer"),
    (QUESTION.replace("tulips", "roses"), "suspect", "edited copy"),
    (QUESTION.replace("tulips", "tullips"), "contaminated", "question only"),
    (QUESTION.replace("gives away", "does not give away"), "suspect", "edited copy"),
    (QUESTION.replace("40", "60"), "suspect", "edited numbers"),
    (QUESTION.replace("nineteen", "seventeen"), "suspect", "edited numbers"),
    (" ".join(QUESTION.split()[17:] + QUESTION.split()[:9]), "suspect", "edited copy"),
    (ITEM["passage"], "suspect", "passage only"),
    (ANSWER, "clean", ""),
    ("A gardener plants nineteen rows of something along the river", "clean", ""),
])
def test_kinds_of_evidence(text: str, verdict: str, kind: str) -> None:
    found, matches = audit([Item("b", "0", ITEM), *STRANGERS], buried([text]))
    assert (found["verdict"][0], found["evidence_kind"][0]) == (verdict, kind), found["rule"][0]
    assert found["rule"][0]
    assert not (found["verdict"][1:] == "contaminated").any()
    if verdict != "clean":
        assert found["best_document"][0] == "corpus.jsonl#0"
        assert {"contaminated": {"contaminated"}, "suspect": {"suspect"}}[verdict] <= set(matches["level"])


@pytest.mark.parametrize(("fields", "text", "verdict"), [
    ({"question": "Why?"}, "Why? Because.", "untestable"),
    ({"question": "", "answer": "4"}, "4", "untestable"),
    ({"question": "Compute sin 17"}, "compute SIN(17)", "contaminated"),
    (LIGHT, "what is photosynthesis", "suspect"),
    (LIGHT, "What is photosynthesis? (A) A plant eats light. (B) A dog.", "contaminated"),
    ({"question": "Which of the following is really true?", "choices": "Cats bark\nDogs bark"},
     "Copyright quiz. Which of the following is really true? (A) It lasts. (B) It ends.", "suspect"),
    ({"question": "Why did Timothy's older brother leave the farm so early?"},
     "Why did Timothys older brother leave the farm so early?", "contaminated"),
    ({"question": "What happens to you if you swallow watermelon seeds?"},
     "what happens to you if you swallow watermelonn seeds", "suspect"),
    ({"question": "What happens to you if you swallow watermelon seeds?"},
     "what happens to you if you plant all kinds of seeds", "clean"),
    ({"code": "def triple_all(values):\n    return the values times three in a new list"},
     "def triple_all(values): return the values times three in a new list", "contaminated"),
])
def test_short_and_odd_items(fields: dict[str, str], text: str, verdict: str) -> None:
    found, _ = audit([Item("b", "0", fields), *STRANGERS], buried([text]))
    assert found["verdict"][0] == verdict, found["rule"][0]


def test_a_short_question_in_many_documents_is_a_leak_where_its_answer_follows() -> None:
    items = [Item("b", str(k), {"question": "Who was the man behind The Chipmunks?", "answer": answer})
             for k, answer in enumerate(("David Seville", "7"))]
    told = buried([f"Question: {items[0].fields['question']}\nAnswer: David Seville, 7 times."] * 20 + ["none"] * 40)
    asked = buried([items[0].fields["question"]] * 20 + ["none"] * 40)
    for item, documents, verdict in ((items[0], told, "contaminated"), (items[0], asked, "suspect"),
                                     (items[1], told, "suspect")):
        found, _ = audit([item, *STRANGERS], documents)
        assert found["verdict"][0] == verdict, found["rule"][0]


@pytest.mark.parametrize("written", [
    lambda text: json.dumps({"prompt": text}),
    lambda text: json.dumps([json.dumps(text.splitlines(keepends=True))]),
    lambda text: f"<pre>{html.escape(text)}</pre>",
    lambda text: text.replace("'", "&#39;").replace('"', "&ldquo;"),
])
def test_code_inside_json_and_pages_is_found_verbatim(written: Callable[[str], str]) -> None:
    items = humaneval()
    found, _ = audit(items, buried([written(item.fields["code"]) for item in items]))
    assert (found["verdict"] == "contaminated").all(), found[found["verdict"] != "contaminated"]["rule"].tolist()


def test_a_passage_and_most_of_its_question_are_no_less_than_the_passage() -> None:
    texts = [ITEM["passage"], f"{ITEM['passage']}\n" + QUESTION.replace("tulips", "roses").replace("rows", "beds")]
    for text in texts:
        found, _ = audit([Item("b", "0", ITEM), *STRANGERS], buried([text]))
        assert found["verdict"][0] != "clean", found["rule"][0]


def test_a_leak_in_many_documents_is_a_leak_and_a_phrase_in_many_is_a_template() -> None:
    phrase = Item("b", "phrase", {"question": "Which one is right?"})
    documents = buried([QUESTION] * 150 + ["Which one is right?"] * 150 + ["nothing"] * 100)
    found, _ = audit([Item("b", "0", {"question": QUESTION}), phrase, *STRANGERS], documents)
    assert found["verdict"][0] == "contaminated" and found["documents"][0] == 150
    assert (found["verdict"][1], found["evidence_kind"][1]) == ("suspect", "template")


def test_a_question_that_is_a_template_and_has_no_passage_needs_its_choices() -> None:
    items = [Item("b", str(k), {"question": f"Which of the following countries has the city of {name} as its capital?",
                                "choices": f"{name}land\nUp{name}\nNew {name}ia\n{name}stan"})
             for k, name in enumerate(NAMES)]
    documents = buried([items[0].fields["question"], f"{items[1].fields['question']}\n{items[1].fields['choices']}"])
    found, _ = audit(items, documents)
    assert found["verdict"].tolist()[:2] == ["suspect", "contaminated"]
    assert not (found["verdict"][2:] == "contaminated").any()


@pytest.mark.parametrize("edited", [QUESTION.replace("gives away", "does not give away"),
                                    QUESTION.replace("canal", "river"), QUESTION.replace("third", "fourth")])
def test_a_turned_copy_in_many_documents_is_no_copy(edited: str) -> None:
    found, matches = audit([Item("b", "0", ITEM), *STRANGERS], buried([edited] * 40 + ["nothing of the kind"] * 60))
    assert found["verdict"][0] == "suspect", found["rule"][0]
    assert not (matches["level"] == "contaminated").any() and (matches["text"] == "").any()


def test_similar_meaning_alone_is_suspect_at_a_small_p_and_never_more() -> None:
    items = [Item("b", str(k), {"question": f"{filler(12, k)} {k}"}) for k in range(3)]
    index, merged = twin_scan(items, ["unrelated words only"])
    pairs = merged.pairs.to_pylist()
    for row, similarity in zip(pairs, (0.99, 0.9, 0.1), strict=True):
        row |= {"detector": "semantic", "similarity": similarity} | {f"grams{n}": b"" for n in NS}
    merged = Merged(pa.Table.from_pylist(pairs, schema=merged.pairs.schema), merged.counts, {0: Tally(1, 1)})
    found, matches = judge_items(items, index, merged, SHARD, p_value=lambda k, s: np.where(s > 0.95, 0.001, 0.2))
    assert found["verdict"].to_pylist() == ["suspect", "clean", "clean"]
    assert found["evidence_kind"].to_pylist() == ["similar meaning", "", ""]
    assert found["nearest_document"].to_pylist() == ["corpus.jsonl#0"] * 3
    assert matches["level"].to_pylist() == ["suspect", "below", "below"]


def test_tables_have_their_schemas_and_no_corpus_no_pairs() -> None:
    items = [Item("b", "0", ITEM), *STRANGERS]
    index, merged = twin_scan(items, [])
    found, matches = judge_items(items, index, merged, SHARD)
    assert found.schema == ITEMS and matches.schema == MATCHES
    assert set(found["verdict"].to_pylist()) == {"clean"} and matches.num_rows == 0
    assert found["item_id"].to_pylist() == [item.item_id for item in items]


def test_the_cut_falls_from_one_to_four_fifths() -> None:
    rules = Rules()
    assert [round(rules.cut(words), 2) for words in (3, 10, 20, 30, 300)] == [1.0, 1.0, 0.9, 0.8, 0.8]
