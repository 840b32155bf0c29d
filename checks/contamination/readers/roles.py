"""Which column of a benchmark is what, and the text of an item by role.

One list of names per role covers the usual layouts (GSM8K, MMLU, ARC, BoolQ, MATH, SQuAD, RACE, AGIEval, BBH ...);
`SPECIAL` has those whose columns mean something else than their names. Names are compared in lower case, with _ for
spaces; `question.stem` reaches into an object. `test` columns, hints and wrong answers of open questions are no text of
an item and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from checks.contamination.readers.choices import Choices, answers, choices_of, joined, value_at
from checks.contamination.records import ROLES

Row = Mapping[str, Any]
Roles = Mapping[str, Sequence[str]]
"""Columns of each role, in the order in which their text is joined."""

NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "question_stem", "question_content", "query", "problem", "prompt", "ctx", "goal",
                 "sentence", "premise", "instruction", "input", "inputs", "input_text", "turns", "text", "content"),
    "passage": ("passage", "context", "contexts", "article", "support", "paragraph", "story", "background"),
    "choices": ("choices", "options", "endings", "multiple_choice_targets", "target_scores"),
    "answer": ("answer", "answerkey", "solution", "target", "targets", "canonical_solution", "correct_answer",
               "best_answer", "correct_answers", "answers", "gold", "gold_label", "label", "output", "completion",
               "response", "solutions", "code", "reference_code", "cop", "correct_option", "answer_number",
               "answers_spans.spans", "final_decision", "long_answer", "target_scores"),
}  # fmt: skip
CHOICE_COLUMNS = (
    ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
    *(tuple(f"{stem}{end}" for end in ends)
      for stem in ("option", "option_", "choice", "choice_", "ending", "ending_", "sol", "answer", "answer_", "op",
                   "opt")
      for ends in ("0123456789", "123456789", "abcdefghij")),
    ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    ("correct_answer", "distractor1", "distractor2", "distractor3"),
    ("correct_answer", "incorrect_answer_1", "incorrect_answer_2", "incorrect_answer_3"),
)  # fmt: skip
"""Choices spread over columns: MMLU, WinoGrande, PIQA, SIQA, COPA, MedMCQA, SWAG, SciQ, GPQA. Two must be there."""
ZERO_BASED = ("sol1", "choice1")
"""First choice column of layouts that number columns from 1 and answers from 0: PIQA, COPA."""
SPECIAL: tuple[tuple[tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    # BigCodeBench, MultiPL-E, HumanEval: the prompt is a function header with its docstring.
    (("complete_prompt", "instruct_prompt"), {
        "question": ("instruct_prompt",), "code": ("complete_prompt",), "answer": ("canonical_solution",)}),
    (("prompt", "tests"), {"code": ("prompt",)}),
    (("prompt", "canonical_solution"), {"code": ("prompt",), "answer": ("canonical_solution",)}),
    # ANLI, RTE, MNLI: the premise is a text from elsewhere, as a passage is.
    (("premise", "hypothesis"), {"passage": ("premise",), "question": ("hypothesis",), "answer": ("label",)}),
    # LogiQA 2.0, ReClor: the text that the question is about.
    (("text", "question", "options"), {
        "passage": ("text",), "question": ("question",), "choices": ("options",), "answer": ("answer", "label")}),
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
    # PubMedQA: the abstract's conclusion, and yes, no or maybe.
    (("question", "context.contexts"), {
        "question": ("question",), "passage": ("context.contexts",), "answer": ("final_decision", "long_answer")}),
    # COPA: its question is one of the words "cause" and "effect", which no text prints behind the premise.
    (("premise", "question", "choice1", "choice2"), {
        "question": ("premise",), "choices": ("choice1", "choice2"), "answer": ("label",)}),
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
_PAIR = re.compile(r"translation\.[a-z]{2,3}([_-]\w+)?")
"""WMT: {"translation": {"de": ..., "en": ...}}."""


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
    pair = [name for key, name in columns.items() if _PAIR.fullmatch(key)]
    if len(pair) > 1:
        return {"question": (pair[0],), "answer": (pair[1],)}
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


def known_names() -> set[str]:
    """All names that any layout gives its columns, in their canonical form."""
    names = {name for names in NAMES.values() for name in names}
    names |= {name for group in CHOICE_COLUMNS for name in group if not name.isdigit()}
    return names | {name for needs, _ in SPECIAL for name in needs} | {*ID_NAMES, *INDEX_NAMES}


def item_fields(row: Row, roles: Roles, first: int = 0) -> dict[str, str]:
    """The text of one row by role, in the order of `ROLES`, empty roles left out.

    `first` is the number of the first choice where the answer is a number.
    """
    columns = roles.get("choices", ())
    choices = choices_of(row, columns, first) if columns else Choices()
    fields = {role: _clean(_plain(row, roles.get(role, ()))) for role in ROLES}
    fields["choices"] = _clean("\n".join(choices.texts))
    fields["answer"] = _clean("\n".join(dict.fromkeys(
        text for name in roles.get("answer", ()) for text in answers(value_at(row, name), choices)
    )))  # fmt: skip
    return {role: text for role, text in fields.items() if text.strip()}


def first_number(rows: Sequence[Row], roles: Roles) -> int:
    """Whether answers that are numbers count choices from 0 or from 1: the rows tell, else the columns' own numbers.

    WinoGrande and SIQA count from 1, PIQA from 0, whatever their columns are called: no row of the first kind says 0,
    and one of them says the number of choices.
    """
    columns = roles.get("choices", ())
    zero = last = False
    for row in rows if columns else ():
        n = len(choices_of(row, columns).texts)
        for name in roles.get("answer", ()):
            value = value_at(row, name)
            text = "" if isinstance(value, bool) else str(value).strip().removesuffix(".0")
            zero |= text == "0"
            last |= n > 0 and text == str(n)
    if zero or last:
        return int(not zero)
    own = canonical(columns[0]) if len(columns) > 1 else ""
    return int(own.endswith(("1", "answera")) and own not in ZERO_BASED)


def _plain(row: Row, columns: Sequence[str]) -> str:
    values = {name: value_at(row, name) for name in columns}
    return joined({name: v if not isinstance(v, int | float) else str(v) for name, v in values.items()}, columns)


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()
