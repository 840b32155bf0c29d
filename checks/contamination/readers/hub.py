"""Hugging Face data sets by name, streamed. `datasets` is imported only when a name is given."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from checks.contamination.readers.columnar import ROWS, Rows
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import Documents, Slice
from trainvitals.errors import UsageError

SCHEME = "hf://"


@dataclass(frozen=True, slots=True)
class Name:
    """What `hf://[owner/]name[/config][:split]` says. A local folder may stand in the place of the name."""

    path: str
    config: str | None
    split: str | None

    def url(self, split: str | None = None) -> str:
        """The name in its full form."""
        config = f"/{self.config}" if self.config else ""
        chosen = split or self.split
        return f"{SCHEME}{self.path}{config}" + (f":{chosen}" if chosen else "")


def parse_name(text: str) -> Name:
    """Take a data set's name apart.

    Raises:
        UsageError: more parts than owner, name and configuration.
    """
    path, _, split = text.removeprefix(SCHEME).partition(":")
    parts = path.split("/")
    if os.path.isdir(path) or len(parts) < 3:
        return Name(path, None, split or None)
    if len(parts) > 3:
        raise UsageError(f"{text!r} is not a data set. Write hf://owner/name, hf://owner/name/config or ...:split.")
    return Name("/".join(parts[:2]), parts[2], split or None)


def splits_of(text: str) -> list[str]:
    """The full name of every split of a data set, or of the one that is named.

    Raises:
        UsageError: no such data set, or the hub cannot be reached.
    """
    name = parse_name(text)
    if name.split:
        return [name.url()]
    return [name.url(split) for split in _ask(text, "get_dataset_split_names", name.path, name.config)]


def tables(text: str, rows: int = ROWS) -> Iterator[Any]:
    """The data set's rows as Arrow tables.

    Raises:
        UsageError: no such data set, or the hub cannot be reached.
    """
    name = parse_name(text)
    stream = _ask(text, "load_dataset", name.path, name.config, split=name.split, streaming=True)
    yield from stream.with_format("arrow").iter(batch_size=rows)


def read_dataset(part: Slice, ledger: Ledger, options: CorpusOptions) -> Iterator[Documents]:
    """Rows of one split, in the data set's own order. There are no stored bytes to hash.

    Raises:
        UsageError: no such data set, or the hub cannot be reached.
    """
    rows: Rows | None = None
    for table in tables(part.shard):
        rows = rows or Rows(table.schema, ledger, options)
        yield from rows.documents(table)


def _ask(text: str, function: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(importlib.import_module("datasets"), function)(*arguments, **options)
    except ImportError as error:
        raise UsageError(f"{text} is no file; to read it as a data set, install trainvitals[train].") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{text} is no file or folder here, and as a data set: {reason}. Check the name.") from error
