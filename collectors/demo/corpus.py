"""Text for the demo, as documents per domain: from this Python installation, a folder, or a `datasets` dataset."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainvitals.card import UNATTRIBUTED
from trainvitals.errors import UsageError

MAX_CHARS_PER_DOCUMENT = 4_000
"""Longer texts are cut at line ends, so that even a domain of one file has documents to hold out."""
MAX_DOMAINS = 64
MAX_RECORDS = 200_000
"""Records read from a dataset whose domains do not fill up."""


@dataclass(slots=True)
class Corpus:
    """Documents per domain; the order of the domains is the order of their ids."""

    source: str
    """Where the text comes from, for people."""
    max_chars: int
    """Characters that a domain may hold; what comes after is left out."""
    documents: dict[str, list[str]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    """Planned share of training tokens per domain; they add up to 1."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files or records that were left out, by reason."""
    chars: Counter[str] = field(default_factory=Counter)
    """Characters held per domain."""

    def add(self, domain: str, text: str) -> None:
        """Add a text, cut into documents, as far as the domain's limit allows."""
        for document in _cut(text):
            if self.full(domain):
                return
            self.documents.setdefault(domain, []).append(document)
            self.chars[domain] += len(document)

    def full(self, domain: str) -> bool:
        """Whether the domain holds `max_chars`."""
        return self.chars[domain] >= self.max_chars

    def share_equally(self) -> Corpus:
        """Plan the same share for every domain."""
        self.shares = {domain: 1 / len(self.documents) for domain in self.documents}
        return self


def _cut(text: str) -> Iterator[str]:
    """Pieces of at most `MAX_CHARS_PER_DOCUMENT`, ending at a line end where there is one; blank pieces dropped."""
    start = 0
    while start < len(text):
        end = start + MAX_CHARS_PER_DOCUMENT
        if end < len(text):
            line_end = text.rfind("\n", start, end)
            end = line_end + 1 if line_end > start else end
        piece = text[start:end]
        start = end
        if piece.strip():
            yield piece


def read_folder(folder: str | os.PathLike[str], max_chars: int) -> Corpus:
    """One domain per file or per sub-folder of `folder`, shares equal.

    Text is UTF-8 in files of any kind, or the `text` field of `.jsonl` records. Binary and undecodable files are left
    out and counted, hidden ones left out.

    Raises:
        UsageError: no such folder, nothing readable in it, or too many domains for a demo.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"--data {root} is not a folder. Give a folder with one text file or sub-folder per domain.")
    corpus = Corpus(str(root), max_chars)
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    domains = {entry.name if entry.is_dir() else entry.stem for entry in entries}
    if len(domains) > MAX_DOMAINS:
        raise UsageError(f"--data {root} holds {len(domains)} files and folders, and each one is a domain (at most "
                         f"{MAX_DOMAINS}). Put the files of one domain into one sub-folder.")
    for entry in entries:
        domain = entry.name if entry.is_dir() else entry.stem
        for path in _files_below(entry) if entry.is_dir() else [entry]:
            if corpus.full(domain):
                break
            for text in _texts_of(path, corpus.skipped):
                corpus.add(domain, text)
    if not corpus.documents:
        found = f" ({_describe(corpus.skipped)})" if corpus.skipped else " (it is empty)"
        raise UsageError(f"--data {root} holds no readable text{found}. Put one UTF-8 text file or one sub-folder per "
                         "domain there (.txt, .md, .py ..., or .jsonl with a text field).")
    return corpus.share_equally()


def _files_below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _texts_of(path: Path, skipped: Counter[str]) -> Iterator[str]:
    """The texts of one file; what cannot be read is counted in `skipped`."""
    try:
        raw = path.read_bytes()
    except OSError:
        skipped["unreadable file"] += 1
        return
    if b"\0" in raw[:8192]:
        skipped["binary file"] += 1
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        skipped["file not in UTF-8"] += 1
        return
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        yield text
        return
    for line in text.splitlines():
        try:
            record = json.loads(line) if line.strip() else {"text": ""}
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("text"), str):
            yield record["text"]
        else:
            skipped["JSON line without a text field"] += 1


def _describe(skipped: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in sorted(skipped.items()))


def skipped_line(corpus: Corpus) -> str:
    """One line for people about what was left out; empty if nothing was."""
    return f"left out of {corpus.source}: {_describe(corpus.skipped)}" if corpus.skipped else ""


def read_dataset(name: str, domain_column: str, text_column: str, max_chars: int) -> Corpus:
    """Stream a dataset through `datasets`; one domain per value of `domain_column`, shares equal.

    Columns may be dotted paths into nested records (`meta.source`). Reading stops once every domain seen in the last
    10,000 records is full, or after `MAX_RECORDS`.

    Raises:
        UsageError: `datasets` is not installed or cannot load the name; a column is missing; nothing readable.
    """
    corpus = Corpus(name, max_chars)
    fruitless = 0
    for record in _stream(name):
        domain, text = _column(record, domain_column, name), _column(record, text_column, name)
        if domain is None or not isinstance(text, str):
            corpus.skipped["record without domain or text"] += 1
            continue
        fruitless = fruitless + 1 if corpus.full(str(domain)) else 0
        if fruitless >= 10_000:
            break
        corpus.add(str(domain), text)
        if len(corpus.documents) > MAX_DOMAINS:
            raise UsageError(f"Column {domain_column!r} of {name} has more than {MAX_DOMAINS} values. Choose a column "
                             "with one value per domain.")
    if not corpus.documents:
        raise UsageError(f"The dataset {name} holds no text in column {text_column!r}. Name one with --text-column.")
    return corpus.share_equally()


def _stream(name: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise UsageError("--dataset needs the package datasets. Install it: pip install datasets.") from error
    try:
        splits = datasets.load_dataset(name, streaming=True)
        split = splits["train"] if "train" in splits else next(iter(splits.values()))
        yield from split.take(MAX_RECORDS)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"The dataset {name!r} cannot be loaded: {reason.rstrip('.')}. Give a name on the hub, or a "
                         "local folder of .jsonl, .csv or .parquet files.") from error


def _column(record: dict[str, Any], path: str, name: str) -> Any:
    value: Any = record
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise UsageError(f"The dataset {name} has no column {path!r}. It has: {', '.join(map(str, record))}.")
        value = value[key]
    return value


def check_domains(corpus: Corpus) -> None:
    """Refuse domain names that the run store reserves.

    Raises:
        UsageError: a domain is called as the label of tokens without one.
    """
    if UNATTRIBUTED in corpus.documents:
        raise UsageError(f"A domain of {corpus.source} is called {UNATTRIBUTED!r}, the label of tokens without a "
                         "domain. Rename it.")
