"""The text of a record: all of its strings, for records as Python objects and, in the same words, for Arrow arrays.

There is no list of columns that hold text: a leak lies in the column that nobody thought of. Strings that a machine
wrote for machines are left out by what they look like, never by their column's name alone, and counted by column.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from checks.contamination.readers.batches import string_buffers

ORDER = (
    "title", "system", "system_prompt", "text", "content", "contents", "value", "document", "raw_content", "body",
    "context", "passage", "article", "support", "premise", "instruction", "instructions", "input", "inputs", "prompt",
    "question", "question_stem", "stem", "query", "problem", "sentence", "ctx", "goal", "messages", "conversations",
    "conversation", "choices", "options", "endings", "completion", "response", "output", "targets", "target", "answer",
    "answers", "solution", "chosen", "rejected", "code",
)  # fmt: skip
"""Order in which the text of columns is joined, so that a question stands before its answer in every format; columns of
other names follow by name."""
ID_COLUMNS = ("id", "doc_id", "document_id", "_id", "uuid", "task_id", "warc_record_id", "url")
SPEAKERS = ("role", "from", "type")
"""Keys of chat formats whose values name a speaker or a kind of content."""
LETTERS = ("label",)
"""Keys of the letters or numbers of choices."""
SENTENCE_SPACES = 3
"""Spaces from which the key of an object is text itself: a data set may be keyed by its questions."""
TOKEN_LIST = 16
"""Integers in a row from which a list may be token ids."""
JOIN = "\n"
_JOIN = pa.scalar(JOIN, pa.large_binary())
_RANK = {name: rank for rank, name in enumerate(ORDER)}

_MACHINE = (
    r"(?:[a-z][a-z0-9+.-]{1,15}://|data:|urn:|<urn:)[!-~]*"  # links, and data in links
    r"|(?:[a-z0-9]{2,10}:)?[0-9a-fA-F]{32,128}"  # hashes
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}[0-9:.]*(?:Z|[+-][0-9:]{2,5})?"  # points in time
)
MOST_OF_ID = 200
"""Characters of an id."""
_PATTERNS = {
    **dict.fromkeys(ID_COLUMNS, rf"[!-~]{{1,{MOST_OF_ID}}}"),
    **dict.fromkeys(SPEAKERS, r"[A-Za-z_-]{1,20}"),
    **dict.fromkeys(LETTERS, r"[A-Za-z0-9]{1,2}"),
}
"""What a string under one of these keys looks like if it is no text."""
SHORTEST_MACHINE, LONGEST_MACHINE = 8, 400
"""Characters of such a string; what is shorter or longer is searched."""
MACHINE = "links, hashes and times"
NAMED = "ids and labels"
BINARY = "binary data"
NOT_NAMED = "not named by --text-column"

NO_TEXT = "The record holds no text: it was skipped."
ONLY_TOKENS = "The records hold token ids only: they were skipped. Name their tokenizer.json with --tokenizer."


@dataclass(slots=True)
class LeftOut:
    """Bytes of strings that were not searched, by "column: why"."""

    no_text: dict[str, int] = field(default_factory=dict)
    """Of strings that are no text."""
    text: dict[str, int] = field(default_factory=dict)
    """Of text: what makes a search incomplete."""

    def add(self, other: LeftOut) -> None:
        """Take over what another has counted."""
        for mine, theirs in ((self.no_text, other.no_text), (self.text, other.text)):
            for name, size in theirs.items():
                _count(mine, name, size)


MOST_NAMES = 200
"""Columns that are told apart; a data set may have a column per record."""
OTHERS = "other columns"


def _count(into: dict[str, int], name: str, size: int) -> None:
    if size:
        name = name if name in into or len(into) < MOST_NAMES else OTHERS
        into[name] = into.get(name, 0) + size


def rank(name: str) -> tuple[int, str]:
    """Sorts columns in the order in which their text is joined."""
    return _RANK.get(name, len(ORDER)), name


_MACHINE_RE = re.compile(_MACHINE, re.ASCII)
_KEY_RES = {key: re.compile(pattern, re.ASCII) for key, pattern in _PATTERNS.items()}


def why_no_text(key: str, value: str) -> str:
    """Why a string is no text; empty where it is."""
    if len(value) > LONGEST_MACHINE:
        return ""
    own = _KEY_RES.get(key)
    if own is not None and own.fullmatch(value):
        return NAMED
    return MACHINE if len(value) >= SHORTEST_MACHINE and _MACHINE_RE.fullmatch(value) else ""


def strings_in(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings of a JSON value at any depth, each with the key it stands under; keys that are sentences, too."""
    stack = [(key, value)]
    while stack:
        key, value = stack.pop()
        kind = type(value)  # plain types, as JSON and Arrow give them: isinstance is half of the time here
        if kind is str:
            if value:
                yield key, value
        elif kind is list:
            stack.extend((key, element) for element in reversed(value))
        elif kind is dict:
            for name in sorted(value, key=rank, reverse=True):
                stack.append((name, value[name]))
                if name.count(" ") >= SENTENCE_SPACES:
                    stack.append((key, name))


def record_text(record: Any, left: LeftOut, only: Collection[str] = ()) -> tuple[str, list[str]]:
    """The text of a record, empty where it has none, and the columns it is from; `only` these, where given."""
    if type(record) is not dict:
        record = {"": record}
    texts, read = [], []
    for column in sorted(record, key=rank):
        found = []
        if column.count(" ") >= SENTENCE_SPACES:
            found.append(column)
        for key, value in strings_in(record[column], column):
            if why := why_no_text(key, value):
                _count(left.no_text, _place(column, key, why), len(value.encode("utf-8", "surrogatepass")))
            else:
                found.append(value)
        if not found:
            continue
        if only and column not in only:
            size = sum(len(value.encode("utf-8", "surrogatepass")) for value in found)
            _count(left.text, f"{column}: {NOT_NAMED}", size)
            continue
        texts += found
        read.append(column)
    return JOIN.join(texts), read


def holds_tokens(record: Any) -> bool:
    """Whether a record without text holds what may be token ids."""
    lists = [value for value in record.values() if type(value) is list] if type(record) is dict else []
    return any(len(value) >= TOKEN_LIST and all(type(n) is int for n in value[:TOKEN_LIST]) for value in lists)


def _place(column: str, key: str, why: str) -> str:
    return f"{column}: {why}" if key == column else f"{column}.{key}: {why}"


# -- the same for Arrow ----------------------------------------------------------------------------------------------


def text_columns_of(schema: pa.Schema) -> list[str]:
    """The columns that hold strings or bytes at any depth, in the order in which their text is joined."""
    return sorted({name for name in schema.names if holds_text(schema.field(name).type)}, key=rank)


def holds_text(kind: pa.DataType) -> bool:
    """Whether values of this type hold strings, or bytes that may be text, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return holds_text(kind.storage_type)
    if pa.types.is_dictionary(kind) or _is_list(kind) or pa.types.is_run_end_encoded(kind):
        return holds_text(kind.value_type)
    if pa.types.is_map(kind):
        return holds_text(kind.key_type) or holds_text(kind.item_type)
    if pa.types.is_struct(kind):
        return any(holds_text(part.type) for part in kind)
    return _is_string(kind) or _is_bytes(kind)


def table_text(
    columns: Mapping[str, pa.Array], rows: int, left: LeftOut, only: Collection[str] = ()
) -> tuple[pa.Array, list[str]]:
    """The text of every row as large binary, null where it has none, and the columns it is from: `record_text`."""
    texts: dict[str, pa.Array] = {}
    for name in sorted(columns, key=rank):
        text = column_text(columns[name], name, name, left)
        if text.null_count == len(text):
            continue
        if only and name not in only:
            _count(left.text, f"{name}: {NOT_NAMED}", _size(text))
            continue
        texts[name] = text
    if not texts:
        return pa.nulls(rows, pa.large_binary()), []
    return _joined_rows(list(texts.values())), list(texts)


def column_text(array: pa.Array, column: str, key: str, left: LeftOut) -> pa.Array:
    """The text of each value as large binary, null where it holds none."""
    array = _plain(array)
    kind = array.type
    if _is_string(kind):
        return _leaf(array, column, key, left)
    if _is_bytes(kind):
        return _leaf(_decoded(array, column, key, left), column, key, left)
    if not holds_text(kind):
        return pa.nulls(len(array), pa.large_binary())
    if _is_list(kind):
        return _joined_lists(array, column, key, left)
    order = sorted(range(kind.num_fields), key=lambda i: rank(kind.field(i).name))
    return _joined_rows([column_text(pc.struct_field(array, [i]), column, kind.field(i).name, left) for i in order])


def _plain(array: pa.Array) -> pa.Array:
    """Without encodings: dictionaries, extension types, views, run ends; a map as the list of its entries."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array))
    if pa.types.is_map(kind):
        return array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return array.cast(pa.large_list(kind.value_type))
    return array


def _leaf(array: pa.Array, column: str, key: str, left: LeftOut) -> pa.Array:
    # Bytes, for the parser lets any through.
    text = array.cast(pa.large_string()).view(pa.large_binary())
    lengths = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
    if (empty := (lengths == 0) & text.is_valid().to_numpy(zero_copy_only=False)).any():
        text = pc.if_else(pa.array(empty), None, text)
    short = np.flatnonzero((lengths > 0) & (lengths <= LONGEST_MACHINE))
    for pattern, why in ((_PATTERNS.get(key, ""), NAMED), (_MACHINE, MACHINE)):
        if why == MACHINE:
            short = short[lengths[short] >= SHORTEST_MACHINE]
        if not pattern or not len(short):
            continue
        candidates = text if len(short) == len(text) else text.take(pa.array(short))
        matched = _matches(candidates, pattern, lengths[short])
        if matched.any():
            found = short[matched]
            _count(left.no_text, _place(column, key, why), int(lengths[found].sum()))
            kept = np.ones(len(text), bool)
            kept[found] = False
            text = pc.if_else(pa.array(kept), text, None) if kept.any() else pa.nulls(len(text), text.type)
            short = short[~matched]
    return text


def _matches(text: pa.Array, pattern: str, lengths: np.ndarray) -> np.ndarray:
    """Which of the values match as a whole; one look at all bytes tells ids, which have no white space."""
    if pattern == _PATTERNS["id"] and lengths.max() <= MOST_OF_ID:
        data, _ = string_buffers(text)
        if data.min() > ord(" ") and data.max() <= ord("~"):
            return np.ones(len(text), bool)
    found = pc.match_substring_regex(text, rf"^(?:{pattern})\z")
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _decoded(array: pa.Array, column: str, key: str, left: LeftOut) -> pa.Array:
    """Bytes that are UTF-8 without control characters as strings; the others are no text."""
    array = array.cast(pa.large_binary())
    kept = []
    for value in array.to_pylist():
        if value is not None and (not _is_text(value)):
            _count(left.no_text, _place(column, key, BINARY), len(value))
            value = None
        kept.append(value)
    return pa.array(kept, pa.large_binary()).view(pa.large_string())


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in value


def _size(text: pa.Array) -> int:
    return int(pc.sum(pc.binary_length(text)).as_py() or 0)


def _joined_rows(parts: Sequence[pa.Array]) -> pa.Array:
    """Row by row, nulls left out; null where all are null: pyarrow 26 drops such rows altogether."""
    parts = [part for part in parts if part.null_count < len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    missing = reduce(pc.and_, [part.is_null() for part in parts])
    first = pc.if_else(missing, pa.scalar(b"", pa.large_binary()), parts[0])
    return pc.if_else(missing, None, pc.binary_join_element_wise(first, *parts[1:], _JOIN, null_handling="skip"))


def _joined_lists(lists: pa.Array, column: str, key: str, left: LeftOut) -> pa.Array:
    values = column_text(lists.flatten(), column, key, left)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    kept = values.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(kept)])[ends]
    joins = pc.binary_join(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.drop_null()), _JOIN)
    return pc.if_else(pa.array(np.diff(offsets) > 0), joins, None)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )
