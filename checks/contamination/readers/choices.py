"""The choices of an item and what its answer says of them, in all the forms in which data sets write both.

An answer names choices by label ("C"), by several ("CD", "A, C", ["A", "C"]), by number (2, "2", 2.0), by flags
([0, 1, 0, 0]) or by text. One that names no choice ("E" of four, 7) is kept as it is written; None and NaN are none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MESSAGE_KEYS = ("content", "value", "text")
"""Where chat formats keep a message's text, and TriviaQA its answer beside the aliases."""
TEXT_KEYS = ("text", "content", "option", "choice", "value", "answer")
LABEL_KEYS = ("label", "key", "id", "letter")
FLAGS = 3
"""Choices from which a list of as many zeros and ones is flags and not numbers of choices."""
_MARKED = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-Za-z])\s?[).:]\s+")
_SEVERAL = re.compile(r"[A-Z](?:(?:\s*[,;/&+]\s*|\s+and\s+|\s+)?[A-Z])+")
_DRESSED = re.compile(r"\(?([A-Za-z0-9]+)[).:]?")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of one item."""

    texts: Sequence[str] = ()
    labels: Sequence[str] = ()
    """What the answer column calls each of them."""
    first: int = 0
    """Number of the first choice where the answer is a number."""
    right: Sequence[str] = ()
    """Texts of the right ones, where the choices themselves say so (BIG-bench's target_scores)."""


def strings_in(value: Any) -> list[str]:
    """The text in a JSON value: a string itself, those in a list, one string per message or object."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        text = joined(value, [key for key in MESSAGE_KEYS if key in value] or value)
        return [text] if text else []
    if isinstance(value, list):
        return [part for element in value for part in strings_in(element)]
    return []


def joined(record: Mapping[str, Any], columns: Iterable[str]) -> str:
    """The text of these columns, one after the other; empty where they hold none."""
    return "\n".join([part for column in columns if column in record for part in strings_in(record[column])])


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """A column's value; `question.stem` reaches into an object where no column is called so."""
    if path in row or "." not in path:
        return row.get(path)
    name, _, part = path.partition(".")
    inner = row.get(name)
    return value_at(inner, part) if isinstance(inner, Mapping) else None


def choices_of(row: Mapping[str, Any], columns: Sequence[str], first: int = 0) -> Choices:
    """The choices in one column, or spread over several."""
    if len(columns) > 1:
        texts = ["\n".join(strings_in(value)) or _number(value) for value in (value_at(row, name) for name in columns)]
        while texts and not texts[-1]:
            texts.pop()
        return Choices(texts, LETTERS[: len(texts)], first)
    value = _parsed(value_at(row, columns[0]))
    if isinstance(value, Mapping):
        return _of_object(value, first)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):  # [{"label": "A", "text": ...}]
        texts = [_first_of(choice, TEXT_KEYS) for choice in value]
        pairs = zip(value, LETTERS, strict=False)
        return Choices(texts, [_first_of(choice, LABEL_KEYS) or letter for choice, letter in pairs], first)
    if isinstance(value, list):
        texts = ["\n".join(strings_in(choice)) or _number(choice) for choice in value]
        return Choices(texts, LETTERS[: len(texts)], first)
    return _of_text(value, first) if isinstance(value, str) else Choices()


def _of_object(value: Mapping[str, Any], first: int) -> Choices:
    listed = value.get("text", value.get("choices"))
    if isinstance(listed, list):  # ARC, CommonsenseQA: {"text": [...], "label": [...]}; TruthfulQA: {"choices": ...}
        texts = ["\n".join(strings_in(text)) or _number(text) for text in listed]
        labels = value.get("label")
        own = [str(one) for one in labels] if isinstance(labels, list) else LETTERS[: len(texts)]
        return Choices(texts, own, first)
    present = {name: one for name, one in value.items() if one is not None}
    if all(isinstance(one, int | float) for one in present.values()):  # BIG-bench: {"yes": 1, "no": 0}
        best = max(present.values(), default=0)
        return Choices(list(present), (), first, [name for name, score in present.items() if score == best])
    # MedQA: {"A": ..., "B": ...}
    return Choices(["\n".join(strings_in(one)) or _number(one) for one in present.values()], list(present), first)


def _of_text(value: str, first: int) -> Choices:
    """MathQA's "a ) 38 , b ) 27 , c ) 30"; any other text is one choice."""
    marks = list(_MARKED.finditer(value))
    letters = "".join(mark[1].upper() for mark in marks)
    if len(marks) > 1 and letters == LETTERS[: len(letters)]:
        ends = [mark.start() for mark in marks[1:]] + [len(value)]
        texts = [value[mark.end() : end].strip(" ,;\n") for mark, end in zip(marks, ends, strict=True)]
        return Choices(texts, [mark[1] for mark in marks], first)
    return Choices([value] if value else [], (), first)


def _first_of(choice: Any, keys: Sequence[str]) -> str:
    if not isinstance(choice, Mapping):
        return "\n".join(strings_in(choice)) if keys is TEXT_KEYS else ""
    return next(("\n".join(strings_in(choice[key])) or _number(choice[key]) for key in keys if key in choice), "")


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _parsed(value: Any) -> Any:
    """A list or an object that a CSV file holds as Python or JSON text; any other value as it is."""
    if not (isinstance(value, str) and (value[:1] + value[-1:]) in ("[]", "{}")):
        return value
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return found if isinstance(found, list | dict) else value


def answers(value: Any, choices: Choices) -> list[str]:
    """Texts of the answer: of the choices that it names, or what the column says."""
    if value is None or value != value:  # NaN is not equal to itself
        return []
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, Mapping) and isinstance(value.get("labels"), list):  # TruthfulQA
        return [text for text, label in zip(choices.texts, value["labels"], strict=False) if label == 1]
    if isinstance(value, Mapping) and choices.right:
        return list(choices.right)
    if not choices.texts:
        return [str(value)] if isinstance(value, int | float) else _listed(value)
    if isinstance(value, int | float | str):
        value = _parsed(value)
        if not isinstance(value, list):
            return _chosen(value, choices)
    if isinstance(value, list):
        if _are_flags(value, choices):
            return [text for text, flag in zip(choices.texts, value, strict=True) if flag]
        return [text for one in value for text in answers(one, choices)]
    return strings_in(value)


def _listed(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for one in value for text in strings_in(one) or filter(None, [_number(one)])]
    return strings_in(value)


def _are_flags(value: Sequence[Any], choices: Choices) -> bool:
    return len(value) == len(choices.texts) >= FLAGS and all(type(one) is not str and one in (0, 1) for one in value)


def _chosen(value: int | float | str, choices: Choices) -> list[str]:
    whole = isinstance(value, float) and value.is_integer()
    answer = str(int(value)) if whole else str(value).strip()
    is_number = answer.isascii() and answer.isdigit()
    if answer in choices.texts and answer not in choices.labels and not is_number:
        return [answer]
    if (found := _one(answer, choices)) is not None:
        return [found]
    if _SEVERAL.fullmatch(answer):
        named = [choices.labels.index(c) if c in choices.labels else -1 for c in re.sub(r"\band\b|[^A-Z]", "", answer)]
        if min(named) >= 0 and len(set(named)) == len(named):
            return [choices.texts[i] for i in named]
    parts = re.split(r"\s*[,;]\s*", answer)
    found_all = [_one(part, choices) for part in parts]
    if len(parts) > 1 and all(one is not None for one in found_all):
        return [one for one in found_all if one is not None]
    return [answer]


def _one(answer: str, choices: Choices) -> str | None:
    """The choice that a label or a number names, in brackets or not; None where there is none."""
    dressed = _DRESSED.fullmatch(answer)
    for name in (answer, dressed[1] if dressed else answer):
        labels = list(choices.labels)
        for form in (name, name.upper(), name.lower()):
            if form in labels and labels.index(form) < len(choices.texts):
                return choices.texts[labels.index(form)]
        if name.isascii() and name.isdigit() and len(name) < 4 and 0 <= int(name) - choices.first < len(choices.texts):
            return choices.texts[int(name) - choices.first]
    return None
