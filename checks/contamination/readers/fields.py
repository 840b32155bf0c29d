"""Which columns of a record are its text, for records as Python objects and, in the same words, for Arrow arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT_COLUMNS = (
    "text", "content", "contents", "document", "raw_content", "body",
    "title", "system", "system_prompt", "context", "passage", "instruction", "instructions", "input", "inputs",
    "prompt", "question", "query", "problem", "messages", "conversations", "conversation", "choices", "options",
    "completion", "response", "output", "targets", "target", "answer", "answers", "solution", "chosen", "rejected",
    "code",
)  # fmt: skip
"""Columns known to hold text, of documents, instructions, questions and chats: all that do are joined in this order."""
ID_COLUMNS = ("id", "doc_id", "document_id", "_id", "uuid", "task_id", "warc_record_id", "url")
MESSAGE_KEYS = ("content", "value", "text")
"""Where chat formats keep a message's text: OpenAI, ShareGPT, content parts."""
JOIN = "\n"
_JOIN = pa.scalar(JOIN, pa.large_string())

NO_TEXT = "The text column is missing, null, empty or not text: the record was skipped."
ALL_COLUMNS = "No column is known to hold text: all strings of the record were joined. Name the column to choose."


def strings_in(value: Any) -> list[str]:
    """All text in a JSON value: a string itself, those in a list, one string per message or object."""
    kind = type(value)  # plain types, as JSON and Arrow give them: isinstance is half of the time here
    if kind is str:
        return [value]
    if kind is dict:
        text = joined(value, [key for key in MESSAGE_KEYS if key in value] or value)
        return [text] if text else []
    if kind is list:
        return [part for element in value for part in strings_in(element)]
    return []


def joined(record: Mapping[str, Any], columns: Iterable[str]) -> str:
    """The text of these columns, one after the other; empty where they hold none."""
    return JOIN.join([part for column in columns if column in record for part in strings_in(record[column])])


def record_text(record: Mapping[str, Any], text_columns: Sequence[str] = ()) -> tuple[str, list[str], bool]:
    """A record's text, empty where it has none; the columns it is from; and whether any is known to hold text."""
    known = [column for column in text_columns or TEXT_COLUMNS if column in record]
    texts = {column: joined(record, (column,)) for column in known or ([] if text_columns else record)}
    read = [column for column, text in texts.items() if text]
    return JOIN.join([texts[column] for column in read]), read, bool(known or text_columns)


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a table to read, by what they are for."""

    text: tuple[str, ...]
    """Joined in this order."""
    id: str
    """Empty for none."""
    known: bool = True
    """False where every string column was taken for want of a known one."""

    def all(self) -> list[str]:
        """The columns that have to be read."""
        return list(dict.fromkeys([*self.text, *([self.id] if self.id else [])]))


def choose_columns(schema: pa.Schema, text_columns: Sequence[str] = (), id_column: str = "") -> Columns:
    """The columns of a table with this schema; no text column where it holds no text at all."""
    with_text = [name for name in schema.names if holds_text(schema.field(name).type)]
    guessed = [name for name in ID_COLUMNS if name in schema.names]
    document_id = id_column if id_column in schema.names else "" if id_column or not guessed else guessed[0]
    if text_columns:
        return Columns(tuple(name for name in text_columns if name in with_text), document_id)
    known = any(name in schema.names for name in TEXT_COLUMNS)
    text = [name for name in TEXT_COLUMNS if name in with_text] if known else with_text
    return Columns(tuple(text), document_id, known)


def holds_text(kind: pa.DataType) -> bool:
    """Whether values of this type hold strings, at any depth."""
    if _is_list(kind):
        return holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_text(field.type) for field in kind)
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def table_text(columns: Mapping[str, pa.Array], chosen: Columns) -> tuple[pa.Array, list[str]]:
    """The text of every row, null where it has none, and the columns it is from: `record_text` for arrays."""
    filled = [name for name in chosen.text if columns[name].null_count < len(columns[name])]
    texts = {name: _without_empty(column_text(columns[name])) for name in filled}
    read = [name for name, text in texts.items() if text.null_count < len(text)]
    if not read:
        return pa.nulls(len(next(iter(columns.values()), ())), pa.large_string()), []
    return _joined_rows([texts[name] for name in read]), read


def _without_empty(text: pa.Array) -> pa.Array:
    empty = pc.equal(pc.binary_length(text), 0)
    return text if not pc.any(empty).as_py() else pc.if_else(empty, None, text)


def column_text(array: pa.Array) -> pa.Array:
    """The text of each value as a large string, null where it holds none: `strings_in`, joined, for arrays."""
    kind = array.type
    if _is_list(kind) and holds_text(kind):
        return _joined_lists(array)
    if pa.types.is_struct(kind) and holds_text(kind):
        names = [key for key in MESSAGE_KEYS if kind.get_field_index(key) >= 0] or [field.name for field in kind]
        parts = [column_text(pc.struct_field(array, name)) for name in names]
        return pc.if_else(array.is_valid(), _without_empty(_joined_rows(parts)), None)
    if holds_text(kind):
        return array.cast(pa.large_string())
    return pa.nulls(len(array), pa.large_string())


def _joined_rows(parts: Sequence[pa.Array]) -> pa.Array:
    """Row by row, nulls left out; null where all are null: pyarrow 26 drops such rows altogether."""
    if len(parts) == 1:
        return parts[0]
    missing = reduce(pc.and_, [part.is_null() for part in parts])
    first = pc.if_else(missing, pa.scalar("", pa.large_string()), parts[0])
    return pc.if_else(missing, None, pc.binary_join_element_wise(first, *parts[1:], _JOIN, null_handling="skip"))


def _joined_lists(lists: pa.Array) -> pa.Array:
    values = column_text(lists.flatten())
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    kept = values.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(kept)])[ends]
    joins = pc.binary_join(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.drop_null()), _JOIN)
    return pc.if_else(pa.array(np.diff(offsets) > 0), joins, None)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
