"""Benchmarks: the items of a test set by role, whatever its layout.

    benchmarks = read_benchmarks(["gsm8k_test.jsonl", "samples_mmlu_2026-01-01.jsonl", "hf://owner/name:test"])
    read_benchmark("mine.csv", parse_roles("question=stem,answer=key,id=nr"))

lm-eval's `samples_*.jsonl` are read for the documents they hold, one item per `doc_id`, so that an audit needs nothing
but the files that the evaluation left behind.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from checks.contamination.readers import hub, rows
from checks.contamination.readers.choices import strings_in, value_at
from checks.contamination.readers.compressed import SUFFIXES as COMPRESSED
from checks.contamination.readers.corpus import files_of, is_dataset_name, kind_of
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.nested import along, flattened
from checks.contamination.readers.roles import (
    ID_NAMES,
    INDEX_NAMES,
    Roles,
    columns_of,
    first_number,
    guess_roles,
    item_fields,
)  # fmt: skip
from checks.contamination.records import ROLES, Benchmark, Item, Tally
from trainvitals.errors import UsageError

__all__ = ["parse_roles", "read_benchmark", "read_benchmarks"]

SAMPLE_ROWS = 200
"""Rows whose columns decide the roles."""
SPLITS = ("test", "validation", "dev")
"""Split of a data set that is taken where none is named, in this order; all of them where it has none of these."""
DUPLICATE_ID = "The id occurs more than once: #2, #3 ... were added from the second on."
NO_TEXT = "The row has no text in the columns used: it was kept as an item that cannot be tested."


def parse_roles(text: str) -> dict[str, tuple[str, ...]]:
    """Roles as given on the command line: `question=ctx,answer=label`; a role given twice takes both columns.

    Raises:
        UsageError: no such role, or no column after it.
    """
    roles: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, _, column = (side.strip() for side in part.partition("="))
        if role not in (*ROLES, "id") or not column:
            raise UsageError(f"Role {part!r} is not known. Write --map {'=COLUMN, '.join(ROLES)}=COLUMN or id=COLUMN.")
        roles[role] = (*roles.get(role, ()), column)
    return roles


def read_benchmarks(paths: Sequence[str], roles: Roles | None = None) -> list[Benchmark]:
    """All benchmarks behind files, folders, globs and data set names; their names are made unique.

    Given `roles` hold for those benchmarks that have the columns; the others are guessed.

    Raises:
        UsageError: nothing there, not readable, or no column that could be the question.
    """
    sources = list(dict.fromkeys(source for path in paths for source in _sources(os.fspath(path))))
    found: dict[str, Benchmark] = {}
    for source in sources:
        name = _unique(_name(source), source, found.keys())
        found[name] = read_benchmark(source, roles, name=name, roles_must_fit=len(sources) == 1)
    columns = {column for names in (roles or {}).values() for column in names}
    if roles and not any(columns & set(benchmark.roles) for benchmark in found.values()):
        raise UsageError(f"No benchmark has the columns of --map: {', '.join(sorted(columns))}. Check their names.")
    return list(found.values())


def read_benchmark(
    source: str, roles: Roles | None = None, *, name: str = "", roles_must_fit: bool = True
) -> Benchmark:
    """One file, or one split of a data set.

    Args:
        source: path, URL or data set name.
        roles: columns of each role (and of `id`), all that is used; None to guess.
        name: of the benchmark; empty for the file's or data set's.
        roles_must_fit: False to guess where the benchmark lacks the columns of `roles`.

    Raises:
        UsageError: not readable, no rows, or no column that could be the question.
    """
    tally = Tally()
    ledger = Ledger(source, tally)
    by_number = roles is not None and all(name.isdigit() for names in roles.values() for name in names)
    read = rows.read_rows(source, _kind(source), ledger, numbered=by_number)
    if not read:
        ledger.close()
        why = "".join(f" {problem.place}: {problem.what}" for problem in tally.problems[:3])
        raise UsageError(f"{source} holds no rows.{why} Give a benchmark with at least one item.")
    read, sample_ids = _documents(read)
    given, read = _given_roles(roles, read)
    if roles and roles_must_fit and not given:
        has = _listed(columns_of(read[:SAMPLE_ROWS]))
        raise UsageError(f"{source} lacks columns of --map {dict(roles)}. It has {has}.")
    if not given:
        read = flattened(read, _has_question)
    columns = columns_of(read[:SAMPLE_ROWS])
    chosen: dict[str, Sequence[str]] = dict(given or _headless(columns) or guess_roles(columns))
    if not chosen.get("question") and not chosen.get("code"):
        raise UsageError(
            f"{source} has no column that looks like a question. It has {_listed(columns)}. "
            f"Say which is which, such as: {_suggested(read[:SAMPLE_ROWS], columns)}"
        )
    ids = sample_ids if sample_ids and "id" not in chosen else _ids(read, chosen.pop("id", ()), columns)
    name = name or _name(source)
    first = first_number(read, chosen)
    items = [
        Item(name, item_id, item_fields(row, chosen, first))
        for row, item_id in zip(read, _unique_ids(ids, ledger), strict=True)
    ]
    for number, item in enumerate(items):
        if not item.fields:
            ledger.note(NO_TEXT, f"row {number} (id {item.item_id})")
    ledger.close()
    used = {column: role for role, names in chosen.items() for column in names}
    sha256 = tally.sha256 or rows.canonical_sha256(read)
    return Benchmark(name, source, sha256, items, read, used, tally.problems)


def _has_question(read: Sequence[rows.Row]) -> bool:
    return bool(guess_roles(columns_of(read[:SAMPLE_ROWS])).keys() & {"question", "code"})


def _given_roles(roles: Roles | None, read: list[rows.Row]) -> tuple[Roles, list[rows.Row]]:
    """The roles, or none where the rows lack one of the columns; and the rows that hold them, which may lie inside."""
    named = [name for names in (roles or {}).values() for name in names]
    for found in (read, *(along(read, name) for name in named if "." in name)):
        columns = {value for value in columns_of(found[:SAMPLE_ROWS]).values()}
        if roles and all(name in columns or _reaches(found[:SAMPLE_ROWS], name) for name in named):
            return roles, found
    return {}, read


def _reaches(read: Sequence[rows.Row], name: str) -> bool:
    return any(value_at(row, name) is not None for row in read)


def _headless(columns: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Two columns without names are question and answer: NQ-open, MGSM, pairs of translations."""
    return {"question": ("0",), "answer": ("1",)} if set(columns) == {"0", "1"} else {}


def _suggested(read: Sequence[rows.Row], columns: Mapping[str, str]) -> str:
    """A --map to copy: the column with the longest text as the question, the next as the answer."""
    lengths = {
        name: sum(len("\n".join(strings_in(value_at(row, name)))) for row in read) for name in columns.values()
    }
    longest = sorted((name for name in lengths if lengths[name]), key=lambda name: -lengths[name])[:2]
    pairs = zip(("question", "answer"), longest or ["COLUMN"], strict=False)
    return " ".join(f"--map {shlex.quote(f'{role}={name}')}" for role, name in pairs)


def _sources(path: str) -> list[str]:
    files = files_of(path)
    if files or not is_dataset_name(path):
        if not files:
            raise UsageError(f"No benchmark file {path!r}. Name files, folders, globs or hf://owner/name:split.")
        return files
    splits = hub.splits_of(path)
    preferred = next((url for name in SPLITS for url in splits if url.endswith(f":{name}")), None)
    return [preferred] if preferred and len(splits) > 1 else splits


def _kind(source: str) -> str:
    if is_dataset_name(source) and not os.path.lexists(source):
        return "dataset"
    stem = _without_compression(os.path.basename(source).lower())
    return "csv" if stem.endswith((".csv", ".tsv")) else kind_of(source)


def _without_compression(name: str) -> str:
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def _name(source: str) -> str:
    """File name without its endings; data set and configuration."""
    if is_dataset_name(source) and not os.path.lexists(source):
        name = hub.parse_name(source)
        return "-".join(filter(None, [name.path.rstrip("/").split("/")[-1], name.config]))
    return os.path.splitext(_without_compression(os.path.basename(source)))[0]


def _unique(name: str, source: str, taken: Collection[str]) -> str:
    folder = os.path.basename(os.path.dirname(source))
    candidates = [name, *([f"{folder}-{name}"] if folder else []), *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _documents(read: list[rows.Row]) -> tuple[list[rows.Row], list[str]]:
    """The documents of lm-eval samples with their `doc_id`, each once; other rows as they are, without ids."""
    if not all("doc_id" in row and ("doc" in row or "arguments" in row) for row in read[:SAMPLE_ROWS]):
        return read, []
    documents: dict[str, rows.Row] = {}
    for row in read:
        documents.setdefault(str(row.get("doc_id")), _document(row))
    return list(documents.values()), list(documents)


def _document(sample: rows.Row) -> rows.Row:
    """The `doc` of a sample; where it is not an object, what the model was shown and the target.

    https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/evaluator.py writes `arguments` as
    {"gen_args_0": {"arg_0": prompt, "arg_1": continuation or settings}}, older versions as [[prompt, ...]].
    """
    document = sample.get("doc")
    if isinstance(document, Mapping) and document:
        return document
    arguments: Any = sample.get("arguments")
    for _ in range(2):
        if isinstance(arguments, Mapping):
            arguments = next(iter(arguments.values()), None)
        elif isinstance(arguments, list):
            arguments = arguments[0] if arguments else None
    return {"question": arguments if isinstance(arguments, str) else "", "answer": sample.get("target")}


def _ids(read: Sequence[rows.Row], given: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Ids from the given column, else from the first usual one that is unique, else row numbers from 0."""
    names = [columns[name] for name in ID_NAMES if name in columns]
    indices = [columns[name] for name in INDEX_NAMES if name in columns]
    found = [[_id(value_at(row, name), i) for i, row in enumerate(read)] for name in (given or names + indices)]
    unique = next((ids for ids in found if len(set(ids)) == len(ids)), None)
    return unique or (found[0] if found and (given or names) else [str(i) for i in range(len(read))])


def _id(value: Any, row: int) -> str:
    return str(value) if type(value) in (str, int) and value != "" else str(row)


def _unique_ids(ids: Sequence[str], ledger: Ledger) -> list[str]:
    seen: Counter[str] = Counter()
    taken = set(ids)
    unique = []
    for number, item_id in enumerate(ids):
        seen[item_id] += 1
        own = item_id
        if seen[item_id] > 1:
            ledger.note(DUPLICATE_ID, f"row {number} (id {item_id})")
            while own in taken:
                own = f"{item_id}#{seen[item_id]}"
                seen[item_id] += own in taken
            taken.add(own)
        unique.append(own)
    return unique


def _listed(columns: Mapping[str, str]) -> str:
    names = sorted(set(columns.values()))
    return "columns " + ", ".join(names[:30]) if names else "no columns"
