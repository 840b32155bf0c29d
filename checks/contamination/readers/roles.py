"""Which column of a benchmark is what, and the text of an item by role.

One list of names per role covers the usual layouts (GSM8K, MMLU, ARC, BoolQ, MATH, SQuAD, RACE, AGIEval, BBH ...);
`SPECIAL` has those whose columns mean something else than their names. Names are compared in lower case, with _ for
spaces; `question.stem` reaches into an object. `test` columns, hints and wrong answers of open questions are no text of
an item and are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checks.contamination.readers.fields import joined, strings_in
from checks.contamination.records import ROLES

Row = Mapping[str, Any]
Roles = Mapping[str, Sequence[str]]
"""Columns of each role, in the order in which their text is joined."""

NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "question_stem", "question_content", "query", "problem", "prompt", "ctx", "goal",
                 "sentence", "premise", "instruction", "input", "inputs", "turns", "text", "content"),
    "passage": ("passage", "context", "article", "support", "paragraph", "story", "background"),
    "choices": ("choices", "options", "endings", "multiple_choice_targets"),
    "answer": ("answer", "answerkey", "solution", "target", "targets", "canonical_solution", "correct_answer",
               "best_answer", "correct_answers", "answers", "gold", "label", "output", "completion", "response",
               "solutions", "code", "cop", "correct_option", "answer_number", "answers_spans.spans"),
}  # fmt: skip
CHOICE_COLUMNS = (
    ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"), ("option1", "option2"), ("sol1", "sol2"),
    ("answera", "answerb", "answerc"), ("choice1", "choice2"), ("opa", "opb", "opc", "opd"),
    ("ending0", "ending1", "ending2", "ending3"),
    ("correct_answer", "distractor1", "distractor2", "distractor3"),
    ("correct_answer", "incorrect_answer_1", "incorrect_answer_2", "incorrect_answer_3"),
)  # fmt: skip
"""Choices spread over columns: MMLU, WinoGrande, PIQA, SIQA, COPA, MedMCQA, SWAG, SciQ, GPQA. Two must be there."""
ONE_BASED = ("option1", "answera")
"""First choice column of layouts that number answers from 1: WinoGrande, SIQA."""
SPECIAL: tuple[tuple[tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    # BigCodeBench, MultiPL-E, HumanEval: the prompt is a function header with its docstring.
    (("complete_prompt", "instruct_prompt"), {
        "question": ("instruct_prompt",), "code": ("complete_prompt",), "answer": ("canonical_solution",)}),
    (("prompt", "tests"), {"code": ("prompt",)}),
    (("prompt", "canonical_solution"), {"code": ("prompt",), "answer": ("canonical_solution",)}),
    # ANLI, RTE, MNLI: the premise is a text from elsewhere, as a passage is.
    (("premise", "hypothesis"), {"passage": ("premise",), "question": ("hypothesis",), "answer": ("label",)}),
    # GLUE's RTE, MRPC, WNLI.
    (("sentence1", "sentence2"), {"passage": ("sentence1",), "question": ("sentence2",), "answer": ("label",)}),
    # SVAMP, ASDiv: the question alone ("How many are left?") is nobody's.
    (("body", "question"), {"question": ("body", "question"), "answer": ("answer",)}),
    # SWAG.
    (("startphrase", "ending0"), {
        "question": ("startphrase",), "choices": ("ending0", "ending1", "ending2", "ending3"), "answer": ("label",)}),
    # MBPP: a task in words, the solution in code.
    (("text", "code", "test_list"), {"question": ("text",), "answer": ("code",)}),
    (("prompt", "code", "test_list"), {"question": ("prompt",), "answer": ("code",)}),
    # MATH-500 and DeepMath: worked solution and final answer.
    (("problem", "solution", "answer"), {"question": ("problem",), "answer": ("solution", "answer")}),
    # SIQA: its questions are templates ("How would X feel?"); the one-sentence context is what makes an item itself.
    (("context", "question", "answera", "answerb"), {
        "question": ("context", "question"), "choices": ("answera", "answerb", "answerc"), "answer": ("label",)}),
    # COPA: its question is one of the words "cause" and "effect".
    (("premise", "question", "choice1", "choice2"), {
        "question": ("premise", "question"), "choices": ("choice1", "choice2"), "answer": ("label",)}),
    (("question.stem", "question.choices"), {
        "question": ("question.stem",), "choices": ("question.choices",), "answer": ("answerkey",)}),
    # TruthfulQA, multiple choice: the labels 0 and 1 lie beside the choices.
    (("question", "mc1_targets"), {
        "question": ("question",), "choices": ("mc1_targets",), "answer": ("mc1_targets",)}),
    (("instruction", "input"), {
        "question": ("instruction", "input"), "answer": ("output", "response", "completion", "answer")}),
    # llm-decontaminator: a test item beside its nearest training rows.
    (("test", "train"), {"question": ("test",)}),
)  # fmt: skip
ID_NAMES = ("task_id", "id", "question_id", "qid", "unique_id", "problem_id", "record_id", "_id", "uuid")
"""Columns of ids: where one repeats, that is worth a word."""
INDEX_NAMES = ("uid", "ind", "idx", "index", "doc_id")
"""Columns that may be ids, or may number something else (HellaSwag's `ind`): taken only where they never repeat."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def canonical(name: str) -> str:
    """A column's name in the form in which names are compared."""
    return name.strip().lower().replace(" ", "_")


def columns_of(rows: Iterable[Row]) -> dict[str, str]:
    """Columns with a value in any row, by canonical name; parts of objects as `column.part`."""
    found: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if value is None or value == "" or value == []:
                continue
            found.setdefault(canonical(name), name)
            if isinstance(value, Mapping):
                for part in value:
                    found.setdefault(f"{canonical(name)}.{canonical(str(part))}", f"{name}.{part}")
    return found


def guess_roles(columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Columns of each role for a benchmark with these columns (by canonical name); without a question if none fits."""
    for needs, roles in SPECIAL:
        if all(name in columns for name in needs):
            chosen = {role: tuple(columns[name] for name in names if name in columns) for role, names in roles.items()}
            return {role: names for role, names in chosen.items() if names}
    roles = {}
    for role, names in NAMES.items():
        first = next((columns[name] for name in names if name in columns), None)
        if first is not None:
            roles[role] = (first,)
    if "choices" not in roles:
        spread = next((group for group in CHOICE_COLUMNS if sum(name in columns for name in group[:2]) == 2), ())
        if spread:
            roles["choices"] = tuple(columns[name] for name in spread if name in columns)
    if roles.get("answer") == roles.get("question"):
        roles.pop("answer", None)
    return roles


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of one item."""

    texts: Sequence[str]
    labels: Sequence[str]
    """What the answer column calls each of them; a choice may be called by several names in `answer`."""
    first: int = 0
    """Number of the first choice where the answer is a number."""


def item_fields(row: Row, roles: Roles) -> dict[str, str]:
    """The text of one row by role, in the order of `ROLES`, empty roles left out."""
    choices = _choices(row, roles.get("choices", ()))
    fields = {role: _clean(_plain(row, roles.get(role, ()))) for role in ROLES}
    fields["choices"] = _clean("\n".join(choices.texts))
    fields["answer"] = _clean("\n".join(dict.fromkeys(
        text for name in roles.get("answer", ()) for text in _answer(value_at(row, name), choices)
    )))  # fmt: skip
    return {role: text for role, text in fields.items() if text.strip()}


def value_at(row: Row, path: str) -> Any:
    """A column's value; `question.stem` reaches into an object where no column is called so."""
    if path in row or "." not in path:
        return row.get(path)
    name, _, part = path.partition(".")
    inner = row.get(name)
    return value_at(inner, part) if isinstance(inner, Mapping) else None


def _plain(row: Row, columns: Sequence[str]) -> str:
    values = {name: value_at(row, name) for name in columns}
    return joined({name: v if not isinstance(v, int | float) else str(v) for name, v in values.items()}, columns)


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _choices(row: Row, columns: Sequence[str]) -> Choices:
    if len(columns) != 1:
        texts = [str(value_at(row, name) or "") for name in columns]
        first = int(bool(columns) and canonical(columns[0]) in ONE_BASED)
        return Choices(texts, LETTERS[: len(texts)], first)
    value = value_at(row, columns[0])
    if isinstance(value, Mapping):  # ARC, CommonsenseQA: {"text": [...], "label": [...]}; TruthfulQA: {"choices": ...}
        texts = strings_in(value.get("text", value.get("choices")))
        if not texts and all(isinstance(text, str) for text in value.values()):  # MedQA: {"A": ..., "B": ...}
            return Choices(list(value.values()), [str(label) for label in value])
        return Choices(texts, [str(label) for label in value.get("label", LETTERS[: len(texts)])])
    if isinstance(value, list) and value and isinstance(value[0], Mapping):  # [{"label": "A", "text": ...}]
        texts = [str(choice.get("text", "")) for choice in value]
        pairs = zip(value, LETTERS, strict=False)
        return Choices(texts, [str(choice.get("label", letter)) for choice, letter in pairs])
    texts = strings_in(_listed(value))
    return Choices(texts, LETTERS[: len(texts)])


def _listed(value: Any) -> Any:
    """A list that a CSV file holds as Python or JSON text; any other value as it is."""
    if not (isinstance(value, str) and value.startswith("[") and value.endswith("]")):
        return value
    try:
        items = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else value


def _answer(value: Any, choices: Choices) -> list[str]:
    """Text of the answer: the choice that an index or a letter stands for, or what the column says."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, Mapping) and isinstance(value.get("labels"), list):  # TruthfulQA
        return [text for text, label in zip(choices.texts, value["labels"], strict=False) if label == 1]
    if isinstance(value, int | float | str):
        return [_chosen(str(value).strip(), choices) if choices.texts else str(value)]
    return strings_in(value)


def _chosen(answer: str, choices: Choices) -> str:
    if answer in choices.labels:
        return choices.texts[list(choices.labels).index(answer)]
    if answer.isdecimal() and 0 <= int(answer) - choices.first < len(choices.texts):
        return choices.texts[int(answer) - choices.first]
    return answer
