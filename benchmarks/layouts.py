"""Public benchmark layouts with made-up items: the columns are those that each data set documents, the text is ours.

Every layout is a function of a generator of text; it gives the row as the data set has it and, independent of our
reader, what of it a web page, a chat or an exercise book would print.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Row = Mapping[str, Any]

_NOUNS = (
    "lantern orchard violin harbour compass granite meadow turbine ledger pigeon quarry saddle beacon glacier kettle "
    "thimble anchor furnace cellar canyon parcel bakery ferry almanac walnut cobbler prairie satchel trellis mortar "
    "spindle gallery tunnel chestnut monsoon lagoon barley copper velvet timber railway observatory greenhouse "
    "pendulum archive customs steamer plateau vineyard foundry marble sextant bellows estuary hammock lighthouse "
    "drawbridge tannery pulley windmill aqueduct bobbin cistern daffodil ember fjord gondola heather ivory juniper"
).split()
_VERBS = (
    "carries measures polishes repairs borrows weighs delivers paints stacks counts buries lifts sketches auctions "
    "grinds filters rescues inspects labels trades weaves drains plants stores copies divides gathers heats lends "
    "mends orders packs quotes restores shelters tests unloads varnishes waters exports"
).split()
_ADJECTIVES = (
    "amber brittle crooked dusty eager faded gentle hollow idle jagged keen lively muddy narrow oaken pale quiet rusty "
    "sturdy tangled upright vivid weathered yellow zealous ancient bronze careful distant earnest frosted golden heavy"
).split()
_NAMES = (
    "Anselm Brigida Cornelius Dorothea Evander Fiorella Gideon Hedwig Ignatius Jacinta Kasimir Leocadia Mathilde "
    "Nestor Ottilie Prosper Quirin Rosalind Severin Thekla Ulrika Valentin Wilhelmina Xaver Yolanda Zacharias"
).split()
_PLACES = "Ravenna Tromso Coimbra Lublin Bergamo Uppsala Girona Maribor Ghent Turku Split Trier Evora Kotor".split()
_LINKS = "because although while after before until wherever unless so that whenever since".split()
_HAN = (
    "山水火木金土日月星云风雨雷电春夏秋冬东西南北中国人民学校老师学生图书馆历史地理数学物理化学生物经济政治法律文化艺术音乐"
    "河流海洋森林草原城市乡村工厂农业商业交通医院药物健康运动比赛冠军世界发展科技计算机网络信息数据语言文字翻译研究实验结果"
    "理论方法问题答案正确错误选择下列哪项关于说法主要原因影响作用特点功能结构过程变化增加减少提高降低"
)


class Words:
    """Made-up text, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, values: Sequence[str]) -> str:
        return values[int(self.rng.integers(len(values)))]

    def number(self, low: int = 3, high: int = 980) -> int:
        return int(self.rng.integers(low, high))

    def noun(self) -> str:
        return f"{self.pick(_ADJECTIVES)} {self.pick(_NOUNS)}"

    def clause(self) -> str:
        return f"{self.pick(_NAMES)} {self.pick(_VERBS)} {self.number()} {self.noun()}s near {self.pick(_PLACES)}"

    def sentence(self, clauses: int = 2) -> str:
        parts = [self.clause()]
        for _ in range(clauses - 1):
            parts += [self.pick(_LINKS), f"the {self.noun()} {self.pick(_VERBS)} the {self.noun()}"]
        return " ".join(parts) + "."

    def question(self) -> str:
        return f"Which {self.noun()} does {self.clause()} {self.pick(_LINKS)} the {self.noun()} {self.pick(_VERBS)} it?"

    def passage(self) -> str:
        return " ".join(self.sentence() for _ in range(4))

    def options(self, n: int = 4) -> list[str]:
        return [f"the {self.noun()} of {self.pick(_NAMES)} in {self.pick(_PLACES)}" for _ in range(n)]

    def short(self) -> str:
        return f"{self.noun()} {self.number()}"

    def han(self, n: int) -> str:
        return "".join(self.pick(_HAN) for _ in range(n))

    def code(self) -> tuple[str, str, str]:
        """A function header with its docstring, its body, and the task in words."""
        task = f"Return how often the {self.noun()} {self.pick(_VERBS)} the {self.noun()}, for {self.clause()}."
        name = f"{self.pick(_NOUNS)}_{self.pick(_NOUNS)}"
        doc = f'    """{task}\n    >>> {name}([1, 2])\n    {self.number()}\n    """\n'
        head = f"def {name}(items, limit={self.number()}):\n{doc}"
        body = f"    total = sum(items) * {self.number()}\n    return total % limit if items else {self.number()}\n"
        return head, body, task


@dataclass(frozen=True, slots=True)
class Made:
    """One item."""

    row: Row
    shown: str
    """What a page or an exercise prints: passage, question, choices."""
    answer: str


Maker = Callable[[Words, int], Made]


def _shown(*parts: object) -> str:
    lines: list[str] = []
    for part in parts:
        if isinstance(part, list):
            lines += [f"({letter}) {one}" for letter, one in zip("ABCDEFGHIJ", part, strict=False)]
        elif part:
            lines.append(str(part))
    return "\n".join(lines)


def _choice(
    g: Words, row: Callable[[str, list[str], int], Row], n: int = 4, passage: str = "", question: str = ""
) -> Made:
    q, options = question or g.question(), g.options(n)
    k = int(g.rng.integers(n))
    return Made(row(q, options, k), _shown(passage, q, options), options[k])


def _gsm8k(g: Words, i: int) -> Made:
    q, n = f"{g.sentence(3)} How many {g.noun()}s are left after {g.number()} days?", g.number()
    steps = f"{g.sentence(1)} So it is {n}.\n#### {n}"
    return Made({"question": q, "answer": steps}, q, steps)


def _mmlu(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"question": q, "subject": "anatomy", "choices": o, "answer": k})


def _mmlu_csv(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: dict(zip(("0", "1", "2", "3", "4", "5"), (q, *o, "ABCD"[k]), strict=True)))


def _mmlu_pro(g: Words, i: int) -> Made:
    def row(q: str, o: list[str], k: int) -> Row:
        return {"question_id": i, "question": q, "options": o, "answer": "ABCDEFGHIJ"[k], "answer_index": k,
                "cot_content": "", "category": "law", "src": "ori_mmlu"}  # fmt: skip

    return _choice(g, row, 10)


def _arc(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"id": f"Mercury_{i}", "question": q, "answerKey": "ABCD"[k],
                                       "choices": {"text": o, "label": list("ABCD")}})  # fmt: skip


def _arc_original(g: Words, i: int) -> Made:
    def row(q: str, o: list[str], k: int) -> Row:
        listed = [{"text": text, "label": label} for text, label in zip(o, "1234", strict=True)]
        return {"id": f"NYSEDREGENTS_{i}", "question": {"stem": q, "choices": listed}, "answerKey": str(k + 1)}

    return _choice(g, row)


def _hellaswag(g: Words, i: int) -> Made:
    a, b = g.sentence(2), g.noun()
    return _choice(g, lambda q, o, k: {
        "ind": i, "activity_label": g.noun(), "ctx_a": a, "ctx_b": b, "ctx": q, "endings": o, "source_id": f"v_{i}",
        "split": "val", "split_type": "indomain", "label": str(k)}, question=f"{a} {b}")  # fmt: skip


def _winogrande(g: Words, i: int) -> Made:
    q = g.sentence(3).replace("the ", "the _ ", 1)
    return _choice(g, lambda _, o, k: {"sentence": q, "option1": o[0], "option2": o[1], "answer": str(k + 1)}, 2, "", q)


def _piqa(g: Words, i: int) -> Made:
    q = f"How to {g.pick(_VERBS)} a {g.noun()} {g.pick(_LINKS)} the {g.noun()} {g.pick(_VERBS)} its {g.noun()}"
    return _choice(g, lambda _, o, k: {"goal": q, "sol1": o[0], "sol2": o[1], "label": k}, 2, "", q)


def _siqa(g: Words, i: int) -> Made:
    context, q = g.sentence(2), f"How would {g.pick(_NAMES)} feel afterwards?"
    return _choice(g, lambda _, o, k: {"context": context, "question": q, "answerA": o[0], "answerB": o[1],
                                       "answerC": o[2], "label": str(k + 1)}, 3, context, q)  # fmt: skip


def _boolq(g: Words, i: int) -> Made:
    q, p, yes = g.question().lower().rstrip("?"), g.passage(), bool(i % 2)
    return Made({"question": q, "passage": p, "answer": yes, "title": g.noun()}, _shown(p, q), "yes" if yes else "no")


def _openbookqa(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"id": f"7-{i}", "question_stem": q, "answerKey": "ABCD"[k],
                                       "choices": {"text": o, "label": list("ABCD")}, "fact1": g.sentence(1)})


def _csqa(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"id": f"{i:032x}", "question": q, "question_concept": g.pick(_NOUNS),
                                       "choices": {"label": list("ABCDE"), "text": o}, "answerKey": "ABCDE"[k]}, 5)


def _truthfulqa(g: Words, i: int) -> Made:
    q, right, wrong = g.question(), g.options(3), g.options(3)
    return Made({"type": "Adversarial", "category": "Myths", "question": q, "best_answer": right[0],
                 "correct_answers": right, "incorrect_answers": wrong, "source": "https://en.wikipedia.org/wiki/X"},
                q, right[0])  # fmt: skip


def _truthfulqa_mc(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {
        "question": q, "mc1_targets": {"choices": o, "labels": [int(j == k) for j in range(len(o))]},
        "mc2_targets": {"choices": o, "labels": [int(j == k) for j in range(len(o))]}})  # fmt: skip


def _humaneval(g: Words, i: int) -> Made:
    head, body, _ = g.code()
    return Made({"task_id": f"HumanEval/{i}", "prompt": head, "entry_point": head[4 : head.index("(")],
                 "canonical_solution": body, "test": "def check(candidate):\n    assert candidate([1]) == 1\n"},
                head, body)  # fmt: skip


def _mbpp(g: Words, i: int) -> Made:
    head, body, task = g.code()
    return Made({"task_id": i, "text": task, "code": head + body, "test_list": ["assert f([1]) == 1"],
                 "test_setup_code": "", "challenge_test_list": []}, task, head + body)  # fmt: skip


def _drop(g: Words, i: int) -> Made:
    p, q, n = g.passage(), g.question(), str(g.number())
    return Made({"section_id": f"nfl_{i}", "query_id": f"q{i}", "passage": p, "question": q,
                 "answers_spans": {"spans": [n], "types": ["number"]}}, _shown(p, q), n)  # fmt: skip


def _squad(g: Words, i: int) -> Made:
    p, q, a = g.passage(), g.question(), g.noun()
    return Made({"id": f"{i:024x}", "title": "Ravenna", "context": p, "question": q,
                 "answers": {"text": [a], "answer_start": [0]}}, _shown(p, q), a)  # fmt: skip


def _squad_nested(g: Words, i: int) -> Made:
    made = _squad(g, i)
    answers = [{"text": made.answer, "answer_start": 0}]
    qa = {"question": made.row["question"], "id": f"{i:024x}", "answers": answers, "is_impossible": False}
    paragraph = {"qas": [qa], "context": made.row["context"]}
    return Made({"title": "Ravenna", "paragraphs": [paragraph]}, made.shown, made.answer)


def _triviaqa(g: Words, i: int) -> Made:
    q, a = g.question(), g.noun()
    answer = {"value": a, "aliases": [a, a.title()], "normalized_value": a, "type": "WikipediaEntity"}
    return Made({"question": q, "question_id": f"tc_{i}", "question_source": "http://www.triviacountry.com/",
                 "answer": answer}, q, a)  # fmt: skip


def _triviaqa_original(g: Words, i: int) -> Made:
    q, a = g.question(), g.noun()
    answer = {"Value": a, "Aliases": [a]}
    return Made({"Question": q, "QuestionId": f"tc_{i}", "Answer": answer, "EntityPages": []}, q, a)


def _nq_open(g: Words, i: int) -> Made:
    q, a = g.question().lower(), g.noun()
    return Made({"question": q, "answer": [a]}, q, a)


def _race(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"example_id": f"high{i}.txt", "article": p, "answer": "ABCD"[k], "question": q,
                                       "options": o}, 4, p)  # fmt: skip


def _race_original(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"id": f"high{i}.txt", "article": p, "answers": ["ABCD"[k]], "questions": [q],
                                       "options": [o]}, 4, p)  # fmt: skip


def _lambada(g: Words, i: int) -> Made:
    text = g.passage()
    return Made({"text": text}, text, "")


def _bbh(g: Words, i: int) -> Made:
    made = _choice(g, lambda q, o, k: {"input": _shown(q, "Options:", o), "target": f"({'ABCD'[k]})"})
    return Made(made.row, str(made.row["input"]), str(made.row["target"]))


def _agieval(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"passage": p, "question": q, "label": "ABCD"[k], "answer": None, "other": None,
                                       "options": [f"({c}){one}" for c, one in zip("ABCD", o, strict=True)]}, 4, p)


def _gpqa(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {
        "Pre-Revision Question": q, "Question": q, "Correct Answer": o[k], "Incorrect Answer 1": o[(k + 1) % 4],
        "Incorrect Answer 2": o[(k + 2) % 4], "Incorrect Answer 3": o[(k + 3) % 4], "Explanation": g.sentence(),
        "Record ID": f"rec{i}", "Subdomain": "Genetics"})  # fmt: skip


def _ceval(g: Words, i: int) -> Made:
    q, o, k = f"{g.han(26)}？", [g.han(9) for _ in range(4)], int(g.rng.integers(4))
    row = {"id": i, "question": q, **dict(zip("ABCD", o, strict=True)), "answer": "ABCD"[k], "explanation": ""}
    return Made(row, _shown(q, o), o[k])


def _cmmlu(g: Words, i: int) -> Made:
    q, o, k = f"{g.han(24)}是什么", [g.han(8) for _ in range(4)], int(g.rng.integers(4))
    row = {"": i, "Question": q, **dict(zip("ABCD", o, strict=True)), "Answer": "ABCD"[k]}
    return Made(row, _shown(q, o), o[k])


def _anli(g: Words, i: int) -> Made:
    p, h = g.passage(), g.sentence(2)
    return Made({"uid": f"u{i}", "premise": p, "hypothesis": h, "label": i % 3, "reason": ""}, _shown(p, h), "")


def _xnli(g: Words, i: int) -> Made:
    p, h = g.sentence(2), g.sentence(2)
    return Made({"premise": p, "hypothesis": h, "label": "entailment"}, _shown(p, h), "entailment")


def _svamp(g: Words, i: int) -> Made:
    b, q, n = g.sentence(3), f"How many {g.noun()}s did {g.pick(_NAMES)} keep?", str(g.number())
    return Made({"ID": f"chal-{i}", "Body": b, "Question": q, "Equation": "( 8.0 - 3.0 )", "Answer": n,
                 "Type": "Subtraction"}, f"{b} {q}", n)  # fmt: skip


def _medqa(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"question": q, "answer": o[k], "options": dict(zip("ABCD", o, strict=True)),
                                       "meta_info": "step1", "answer_idx": "ABCD"[k]})  # fmt: skip


def _medmcqa(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {
        "id": f"{i:08x}-0000-4000-8000-000000000000", "question": q, "opa": o[0], "opb": o[1], "opc": o[2],
        "opd": o[3], "cop": k, "choice_type": "single", "exp": "", "subject_name": "Anatomy"})  # fmt: skip


def _pubmedqa(g: Words, i: int) -> Made:
    q, parts, a = g.question(), [g.sentence(3), g.sentence(3)], g.sentence(2)
    context = {"contexts": parts, "labels": ["BACKGROUND", "RESULTS"], "meshes": ["Humans"]}
    return Made({"pubid": 21645374 + i, "question": q, "context": context, "long_answer": a, "final_decision": "yes"},
                _shown(*parts, q), a)  # fmt: skip


def _pubmedqa_original(g: Words, i: int) -> Made:
    q, parts, a = g.question(), [g.sentence(3), g.sentence(3)], g.sentence(2)
    return Made({"QUESTION": q, "CONTEXTS": parts, "LABELS": ["A", "B"], "LONG_ANSWER": a, "final_decision": "no"},
                _shown(*parts, q), a)  # fmt: skip


def _logiqa(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"context": p, "query": q, "options": o, "correct_option": k}, 4, p)


def _logiqa2(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"id": i, "answer": k, "text": p, "question": q, "options": o, "type": {}}, 4, p)


def _strategyqa(g: Words, i: int) -> Made:
    q = g.question()
    return Made({"qid": f"{i:020x}", "term": g.pick(_NOUNS), "description": g.noun(), "question": q,
                 "answer": bool(i % 2), "facts": [g.sentence(1)], "decomposition": []}, q, "")  # fmt: skip


def _quality(g: Words, i: int) -> Made:
    p = g.passage()

    def row(q: str, o: list[str], k: int) -> Row:
        question = {"question": q, "question_unique_id": f"u{i}", "options": o, "gold_label": k + 1, "difficult": 0}
        return {"article_id": f"{i}", "set_unique_id": f"s{i}", "title": "X", "article": p, "questions": [question]}

    return _choice(g, row, 4, p)


def _apps(g: Words, i: int) -> Made:
    head, body, task = g.code()
    q = f"{task} {g.sentence(2)}\n\n-----Input-----\n{g.sentence(1)}"
    return Made({"problem_id": i, "question": q, "solutions": json.dumps([head + body]), "input_output": "{}",
                 "difficulty": "interview", "url": "https://codeforces.com/problemset/problem/1/A",
                 "starter_code": ""}, q, head + body)  # fmt: skip


def _ds1000(g: Words, i: int) -> Made:
    _, body, task = g.code()
    q = f"Problem:\n{task} {g.sentence(2)}\nA:\n<code>\nimport pandas as pd\n</code>\nBEGIN SOLUTION\n<code>\n"
    return Made({"prompt": q, "reference_code": body, "metadata": {"problem_id": i, "library": "Pandas"},
                 "code_context": "def test_execution(solution): ..."}, q, body)  # fmt: skip


def _bigcodebench(g: Words, i: int) -> Made:
    head, body, task = g.code()
    return Made({"task_id": f"BigCodeBench/{i}", "complete_prompt": head, "instruct_prompt": task,
                 "canonical_solution": body, "test": "", "libs": "['numpy']"}, f"{task}\n{head}", body)  # fmt: skip


def _ifeval(g: Words, i: int) -> Made:
    q = f"Write about this: {g.sentence(2)} Your answer must hold {g.number()} words and mention the {g.noun()} twice."
    return Made({"key": 1000 + i, "prompt": q, "instruction_id_list": ["length_constraints:number_words"],
                 "kwargs": [{"relation": "at least", "num_words": 300}]}, q, "")  # fmt: skip


def _simpleqa(g: Words, i: int) -> Made:
    q, a = g.question(), g.noun()
    metadata = "{'topic': 'Art', 'urls': ['https://en.wikipedia.org/wiki/X']}"
    return Made({"metadata": metadata, "problem": q, "answer": a}, q, a)


def _wmt(g: Words, i: int) -> Made:
    a, b = g.sentence(3), g.sentence(3)
    return Made({"translation": {"de": a, "en": b}}, f"{a}\n{b}", "")


def _math(g: Words, i: int) -> Made:
    formula = f"${g.number()}x^2 + {g.number()}$"
    q = f"{g.sentence(2)} Find the value of {formula} {g.pick(_LINKS)} the {g.noun()} is $\\frac{{1}}{{2}}$."
    s = f"{g.sentence(2)} Hence $\\boxed{{{g.number()}}}$."
    return Made({"problem": q, "level": "Level 5", "type": "Algebra", "solution": s}, q, s)


def _aime(g: Words, i: int) -> Made:
    q, s, n = f"{g.sentence(3)} Find $m+n$.", g.sentence(3), g.number()
    return Made({"ID": f"2024-I-{i}", "Problem": q, "Solution": s, "Answer": n}, q, s)


def _hotpotqa(g: Words, i: int) -> Made:
    q, a, parts = g.question(), g.noun(), [[g.noun(), [g.sentence(), g.sentence()]] for _ in range(3)]
    text = [sentence for _, sentences in parts for sentence in sentences]
    return Made({"_id": f"{i:024x}", "answer": a, "question": q, "supporting_facts": [[parts[0][0], 0]],
                 "context": parts, "type": "bridge", "level": "hard"}, _shown(*text, q), a)  # fmt: skip


def _coqa(g: Words, i: int) -> Made:
    p, q, a = g.passage(), g.question(), g.short()
    return Made({"source": "wikipedia", "id": f"c{i}", "filename": "X.txt", "story": p,
                 "questions": [{"input_text": q, "turn_id": 1}],
                 "answers": [{"span_start": 0, "span_text": a, "input_text": a, "turn_id": 1}]},
                _shown(p, q), a)  # fmt: skip


def _sciq(g: Words, i: int) -> Made:
    p = g.passage()
    return _choice(g, lambda q, o, k: {"question": q, "distractor1": o[(k + 1) % 4], "distractor2": o[(k + 2) % 4],
                                       "distractor3": o[(k + 3) % 4], "correct_answer": o[k], "support": p}, 4, p)


def _copa(g: Words, i: int) -> Made:
    p = g.sentence(3)
    return _choice(g, lambda _, o, k: {"premise": p, "choice1": o[0], "choice2": o[1], "question": "cause", "idx": i,
                                       "label": k}, 2, "", p)  # fmt: skip


def _bigbench(g: Words, i: int) -> Made:
    return _choice(g, lambda q, o, k: {"input": q, "target_scores": {one: int(j == k) for j, one in enumerate(o)}})


def _mgsm(g: Words, i: int) -> Made:
    q, n = f"{g.sentence(3)} Wie viele bleiben nach {g.number()} Tagen?", str(g.number())
    return Made({"0": q, "1": n}, q, n)


def _reddit(g: Words, i: int) -> Made:
    text, title, a = g.passage(), g.question(), g.sentence(2)
    return Made({"q_id": f"r{i}", "title": title, "selftext": text, "answers": {"text": [a], "score": [9]}},
                _shown(title, text), a)  # fmt: skip


Dump = Callable[[Sequence[Row]], bytes]


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _array(rows: Sequence[Row]) -> bytes:
    return json.dumps(list(rows), indent=1).encode()


def _wrapped(inside: str, **more: Any) -> Dump:
    return lambda rows: json.dumps({**more, inside: list(rows)}).encode()


def _keyed(rows: Sequence[Row]) -> bytes:
    return json.dumps({f"k{i:05}": row for i, row in enumerate(rows)}).encode()


def _separated(delimiter: str, header: bool = True) -> Dump:
    def dump(rows: Sequence[Row]) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        if header:
            writer.writerow(list(rows[0]))
        writer.writerows([row.values() for row in rows])
        return out.getvalue().encode()

    return dump


def _parquet(rows: Sequence[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink)
    return bytes(sink.getvalue())


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout and the file that it comes in."""

    name: str
    make: Maker
    ending: str = "jsonl"
    dump: Dump = _jsonl
    roles: str = ""
    """--map, where the columns say nothing."""


LAYOUTS: tuple[Layout, ...] = (
    Layout("GSM8K", _gsm8k), Layout("MATH", _math), Layout("AIME", _aime, "csv", _separated(",")),
    Layout("SVAMP", _svamp, "json", _array), Layout("MGSM", _mgsm, "tsv", _separated("\t", header=False)),
    Layout("MMLU", _mmlu, "parquet", _parquet), Layout("MMLU (CSV)", _mmlu_csv, "csv", _separated(",", header=False)),
    Layout("MMLU-Pro", _mmlu_pro, "parquet", _parquet), Layout("ARC", _arc, "parquet", _parquet),
    Layout("ARC (original)", _arc_original), Layout("HellaSwag", _hellaswag), Layout("WinoGrande", _winogrande),
    Layout("PIQA", _piqa), Layout("SIQA", _siqa), Layout("COPA", _copa), Layout("BoolQ", _boolq),
    Layout("OpenBookQA", _openbookqa), Layout("CommonsenseQA", _csqa), Layout("SciQ", _sciq),
    Layout("TruthfulQA (gen)", _truthfulqa), Layout("TruthfulQA (mc)", _truthfulqa_mc, "parquet", _parquet),
    Layout("HumanEval", _humaneval), Layout("MBPP", _mbpp), Layout("APPS", _apps), Layout("DS-1000", _ds1000),
    Layout("BigCodeBench", _bigcodebench), Layout("DROP", _drop, "parquet", _parquet),
    Layout("SQuAD v1 (rows)", _squad, "parquet", _parquet),
    Layout("SQuAD v2 (nested)", _squad_nested, "json", _wrapped("data", version="v2.0")),
    Layout("TriviaQA", _triviaqa),
    Layout("TriviaQA (original)", _triviaqa_original, "json", _wrapped("Data", Version=1.0)),
    Layout("NaturalQuestions-open", _nq_open), Layout("HotpotQA", _hotpotqa, "json", _array),
    Layout("CoQA", _coqa, "json", _wrapped("data", version="1.0")), Layout("RACE", _race),
    Layout("RACE (original)", _race_original, "json", _array), Layout("QuALITY", _quality), Layout("LAMBADA", _lambada),
    Layout("BBH", _bbh, "json", _wrapped("examples", canary="BENCHMARK DATA")),
    Layout("BIG-bench", _bigbench, "json", _wrapped("examples", name="task")), Layout("AGIEval", _agieval),
    Layout("GPQA", _gpqa, "csv", _separated(",")), Layout("C-Eval", _ceval, "csv", _separated(",")),
    Layout("CMMLU", _cmmlu, "csv", _separated(",")), Layout("ANLI", _anli), Layout("XNLI", _xnli),
    Layout("MedQA", _medqa), Layout("MedMCQA", _medmcqa), Layout("PubMedQA", _pubmedqa, "parquet", _parquet),
    Layout("PubMedQA (original)", _pubmedqa_original, "json", _keyed), Layout("LogiQA", _logiqa),
    Layout("LogiQA 2.0", _logiqa2), Layout("StrategyQA", _strategyqa, "json", _array), Layout("IFEval", _ifeval),
    Layout("SimpleQA", _simpleqa, "csv", _separated(",")), Layout("WMT", _wmt),
    Layout("ELI5", _reddit, roles="question=title,question=selftext,answer=answers,id=q_id"),
)  # fmt: skip


def items_of(layout: Layout, n: int, seed: int) -> list[Made]:
    """So many items of a layout, none of which another layout or seed has."""
    number = next(i for i, known in enumerate(LAYOUTS) if known.name == layout.name)
    words = Words(1_000_003 * seed + number)
    return [layout.make(words, i) for i in range(n)]


def write(layout: Layout, made: Sequence[Made], folder: Path, name: str) -> Path:
    """The layout's own file with these items."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{layout.ending}"
    path.write_bytes(layout.dump([one.row for one in made]))
    return path
