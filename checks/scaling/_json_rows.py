"""Rows of JSON: a list of objects, one object per line, lists per column, or the log that a trainer keeps.

Known by their shape: Hugging Face's trainer_state.json (`log_history`), TensorBoard's JSON download (lists of time,
step, value), and one list of objects below any key (`{"metrics": [...]}`).
"""

from __future__ import annotations

import json
from typing import Any

from checks.scaling._files import clip, parse_json
from trainvitals.errors import UsageError

MOST_ROWS = 2_000_000
MOST_COLUMNS = 2_000
SHAPES = "Give a list of objects, one object per line, or lists per column."

Row = tuple[int, list[str]]


def read_rows(text: str, where: str) -> tuple[list[str], list[Row], bool]:
    """Names, numbered rows of cells as text, and whether the numbers are lines of the file.

    Raises:
        UsageError: it is no JSON, or none of a shape that is a table.
    """
    body = text.strip()
    objects = body.splitlines()
    if len(objects) > 1 and objects[0].rstrip().endswith("}") and objects[0].startswith("{"):
        found = [
            (i, parse_json(line, f"{where}, line {i:,}", "Give one object per line."))
            for i, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
        return (*_table(found, where), True)
    return (*_table(list(enumerate(_records(parse_json(body, where, SHAPES), where), 1)), where), False)


def _records(found: Any, where: str) -> list[Any]:
    if isinstance(found, dict):
        lists = {key: value for key, value in found.items() if isinstance(value, list)}
        if isinstance(found.get("log_history"), list):
            return list(found["log_history"])
        if len(lists) == len(found) and lists and all(_scalars(value) for value in lists.values()):
            if len({len(value) for value in lists.values()}) > 1:
                raise UsageError(f"{where} has columns of unlike lengths. Give as many values in each.")
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        inner = [value for value in lists.values() if value and all(isinstance(row, dict) for row in value)]
        if len(inner) == 1:
            return list(inner[0])
        if found and all(isinstance(value, dict) for value in found.values()):  # pandas: column -> index -> value
            index = list(dict.fromkeys(key for value in found.values() for key in value))
            return [{name: value.get(key) for name, value in found.items()} for key in index[: MOST_ROWS + 1]]
    if isinstance(found, list):
        return found
    raise UsageError(f"{where} is JSON, but no table. {SHAPES}")


def _scalars(values: list[Any]) -> bool:
    return not any(isinstance(value, dict | list) for value in values)


def _table(found: list[tuple[int, Any]], where: str) -> tuple[list[str], list[Row]]:
    if not found:
        raise UsageError(f"{where} has no rows. {SHAPES}")
    if len(found) > MOST_ROWS:
        raise UsageError(f"{where} has {len(found):,} rows; at most {MOST_ROWS:,} are read. Keep every tenth.")
    if all(isinstance(row, list) for _, row in found):
        return _of_lists(found, where)
    rows: list[tuple[int, dict[str, str]]] = []
    names: dict[str, None] = {}
    for i, row in found:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: entry {i:,} is {clip(str(row), 30)!r}, where the others are objects. {SHAPES}")
        flat = _flat(row)
        names |= dict.fromkeys(flat)
        rows.append((i, flat))
        if len(names) > MOST_COLUMNS:
            raise UsageError(f"{where} has more than {MOST_COLUMNS:,} columns. Keep those that are needed.")
    return list(names), [(i, [row.get(name, "") for name in names]) for i, row in rows]


def _of_lists(found: list[tuple[int, Any]], where: str) -> tuple[list[str], list[Row]]:
    first = found[0][1]
    if first and all(isinstance(name, str) for name in first):
        names, found = list(first), found[1:]
    elif all(len(row) == 3 for _, row in found):
        names = ["Wall time", "Step", "Value"]  # TensorBoard's download of one scalar
    else:
        raise UsageError(f"{where} is a list of lists without names of columns. {SHAPES}")
    if bad := next((i for i, row in found if len(row) != len(names)), 0):
        raise UsageError(f"{where}: entry {bad:,} has not the {len(names)} values of the others. {SHAPES}")
    return names, [(i, [_cell(value) for value in row]) for i, row in found]


def _flat(row: dict[str, Any]) -> dict[str, str]:
    """The values of an object as text, those of objects inside it one level down."""
    flat: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{name}": _cell(inner) for name, inner in value.items()}
        else:
            flat[str(key)] = _cell(value)
    return flat


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, dict | list) else repr(value)
