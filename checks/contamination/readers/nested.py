"""Rows that lie inside other values: SQuAD's paragraphs, data sets keyed by id, lists of questions to one article."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from checks.contamination.readers.roles import canonical, known_names

Row = Mapping[str, Any]
LEVELS = 4
"""Lists inside lists that are opened; SQuAD has three."""
ALIKE = 0.5
"""Share of its neighbours' keys that a row has where an object holds rows by id; convention."""
PLURALS = {"questions": "question", "answers": "answer", "options": "options", "choices": "choices", "labels": "label",
           "solutions": "solution", "queries": "query", "problems": "problem", "targets": "target"}  # fmt: skip


def keyed_rows(value: Mapping[str, Any]) -> list[Row]:
    """The rows of an object that holds them by id (DROP, PubMedQA); empty for any other.

    The key becomes the row's `id`, unless it has one.
    """
    inside = [one for one in value.values() if isinstance(one, Mapping)]
    if not inside or len(inside) < len(value):
        return []
    names = set(inside[0])
    if not names or any(len(names & set(one)) < ALIKE * len(names) for one in inside):
        return []
    return [{"id": key, **one} for key, one in value.items()]


def columns_as_rows(value: Mapping[str, Any]) -> list[Row]:
    """The rows of an object that holds columns, as pandas writes them: lists, or objects by row number; else empty."""
    columns = list(value.values())
    if len(columns) > 1 and all(isinstance(column, list) and len(column) == len(columns[0]) > 1 for column in columns):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if len(columns) < 2 or not all(isinstance(column, Mapping) for column in columns):
        return []
    keys = list(columns[0])
    numbered = keys and all(str(key).isdigit() for key in keys)
    if not numbered or any(list(column) != keys for column in columns):
        return []
    return [{name: column[key] for name, column in value.items()} for key in keys]


def flattened(rows: list[Row], fits: Callable[[Sequence[Row]], bool]) -> list[Row]:
    """The rows that `fits` accepts: these, or those in the first list inside them that leads to some; else these.

    A row from inside has its parents' other columns, too, unless it has columns of those names itself.
    """
    level = [columns_as_rows(rows[0]), rows, keyed_rows(rows[0])] if len(rows) == 1 else [rows]
    for _ in range(LEVELS):
        for candidate in level:
            for form in (candidate, _unzipped(candidate)):
                if form and fits(form):
                    return form
        level = [opened for candidate in level for opened in _opened(candidate)]
    return rows


def _opened(rows: list[Row]) -> list[list[Row]]:
    """For each column that holds lists of objects, or an object of rows, the rows inside it."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _inner(value))
    if len(rows) == 1:  # the file itself: its version and its licence are no columns of its rows
        known = known_names()
        rows = [{key: value for key, value in rows[0].items() if key in names or canonical(key) in known}]
    return [[_merged(row, name, inner) for row in rows for inner in _inner(row.get(name))] for name in names]


def _inner(value: Any) -> list[Row]:
    if isinstance(value, list):
        return [one for one in value if isinstance(one, Mapping)]
    return keyed_rows(value) if isinstance(value, Mapping) and len(value) > 1 else []


def _merged(row: Row, name: str, inner: Row) -> Row:
    # An id of a parent is that of many rows.
    return {key: value for key, value in row.items() if key not in (name, "id", "_id")} | dict(inner)


def _unzipped(rows: list[Row]) -> list[Row]:
    """One row for each question of rows that hold lists of them beside lists of their answers (RACE, CoQA)."""
    found: list[Row] = []
    for row in rows:
        parallel = {name: _texts(value) for name, value in row.items()}
        questions = parallel.get("questions") or parallel.get("question") or []
        n = len(questions)
        if not n or not all(isinstance(question, str) for question in questions):
            return []
        lists = {name: values for name, values in parallel.items() if len(values) == n}
        others = {name: value for name, value in row.items() if name not in lists}
        found += [
            others | {PLURALS.get(name, name): values[i] for name, values in lists.items()} for i in range(n)
        ]
    return found


def _texts(value: Any) -> list[Any]:
    """A column's list; CoQA's answers are {"input_text": [...], "answer_start": [...]}, its questions objects."""
    if isinstance(value, Mapping):
        value = next((one for one in value.values() if isinstance(one, list)), [])
    if not isinstance(value, list):
        return []
    return [one.get("input_text", one) if isinstance(one, Mapping) else one for one in value]


def along(rows: Sequence[Row], path: str) -> list[Row]:
    """The rows that a path such as `data.paragraphs.qas.question` reaches through lists, with all columns on its way
    under their paths; the rows as they are where there is no list on it.
    """
    if not any(_passes_list(row, path) for row in rows):
        return list(rows)
    found: list[tuple[dict[str, Any], Row]] = [({}, row) for row in rows]
    prefix = ""
    for part in path.split(".")[:-1]:
        below: list[tuple[dict[str, Any], Row]] = []
        for above, row in found:
            kept = above | {f"{prefix}{name}": value for name, value in row.items() if name != part}
            inner = row.get(part)
            inner = inner if isinstance(inner, list) else [inner]
            below += [(kept, one) for one in inner if isinstance(one, Mapping)]
        found, prefix = below, f"{prefix}{part}."
    return [above | {f"{prefix}{name}": value for name, value in row.items()} for above, row in found]


def _passes_list(row: Row, path: str) -> bool:
    value: Any = row
    for part in path.split("."):
        if isinstance(value, list):
            return True
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return False
