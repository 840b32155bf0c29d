"""Corpora: which files there are, how they are cut into slices, and the documents of a slice.

    options = CorpusOptions()
    for part in plan_slices(["shards/*.jsonl.gz", "s3://bucket/web/", "hf://owner/name:train"], options):
        tally = Tally()
        for documents in read_slice(part, tally, options): ...

Whatever cannot be read is a `Problem` in the tally and the reading goes on; memory does not grow with the input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from checks.contamination.readers import arrays, columnar, files, hub, jsonl, stored, texts, tokens
from checks.contamination.readers.compressed import BOMB, EXPANSION, FREE, codec_of, plain_blocks
from checks.contamination.readers.compressed import SUFFIXES as COMPRESSED
from checks.contamination.readers.encodings import SNIFFED, sniffed
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.options import CorpusOptions
from checks.contamination.records import OVERLAP, Documents, Slice, Tally
from trainvitals.errors import UsageError

__all__ = ["CorpusOptions", "files_of", "is_dataset_name", "kind_of", "plan_slices", "read_slice"]

KINDS = {
    "jsonl": (".jsonl", ".ndjson", ".jsonlines"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".arrows", ".feather", ".ipc"),
    "tokens": (".npy", ".bin"),
    "text": (".txt", ".text", ".md", ".rst", ".tex", ".html", ".htm", ".xml", ".csv", ".tsv", ".py", ".c", ".h",
             ".cpp", ".cc", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".php", ".sh", ".sql", ".lean", ".ipynb"),
}  # fmt: skip
MOST_SHARDS = 200_000
"""Files of a corpus; each is a piece of work of its own, of milliseconds."""

Reader = Callable[[Slice, Ledger, CorpusOptions], Iterator[Documents]]
READERS: dict[str, Reader] = {
    "jsonl": jsonl.read_jsonl,
    "json": arrays.read_json,
    "parquet": columnar.read_parquet,
    "arrow": columnar.read_arrow,
    "text": texts.read_text,
    "tokens": tokens.read_tokens,
    "dataset": hub.read_dataset,
}

NO_DOCUMENTS = "The shard holds no documents."
UNREAD = {
    "unknown": "A file of a kind that is not read: it was not searched. Name it by itself to have it read as text.",
    "token ids": "Token ids without their tokenizer: they were not searched. Name its tokenizer.json with --tokenizer.",
    files.SPECIAL: "A pipe, a socket or a device, no file: it was not searched.",
    files.BROKEN_LINK: "A link that leads nowhere: what it should name was not searched.",
    files.UNREADABLE: "A folder that cannot be listed: what is in it was not searched.",
}
"""Kinds of files in a folder that no reader takes, and what is said of them."""
STOPPED = "Reading stopped here: what follows in this shard was not read. ({})"


def plan_slices(
    paths: Sequence[str], options: CorpusOptions, *, out: str = "", left_out: list[str] | None = None
) -> list[Slice]:
    """All slices of a corpus, in the order of `paths` and by name within a folder or glob; a file counts once.

    Args:
        paths: files, folders, globs, fsspec URLs, and data sets as `owner/name` or `hf://owner/name/config:split`.
        options: how to cut and what to read.
        out: folder of the audit that is being made, which is no part of its corpus.
        left_out: takes sentences on what lies there and is no text: empty and hidden files, earlier audits.

    Raises:
        UsageError: a path that names nothing, or token shards without a tokenizer.
    """
    found: dict[str, tuple[str, str]] = {}
    all_left: list[str] = []
    for path in paths:
        for shard, kind in _shards(os.fspath(path), options, out, all_left):
            file = shard if "://" in shard else os.path.realpath(shard)
            if file not in found or found[file][1] in UNREAD:
                found[file] = shard, kind
    if left_out is not None:
        left_out += dict.fromkeys(all_left)
    if not found:
        said = "".join(f" {sentence}" for sentence in all_left[:3])
        raise UsageError(
            f"No file of a corpus in {', '.join(paths) or 'an empty list'}.{said} Name files, folders or globs."
        )
    if len(found) > MOST_SHARDS:
        raise UsageError(
            f"The corpus has {len(found):,} files, more than {MOST_SHARDS:,}. Pack them into JSONL or Parquet, or "
            "audit its folders one by one."
        )
    slices: list[Slice] = []
    for shard, kind in found.values():
        for start, stop, size in _ranges(shard, kind, options):
            slices.append(Slice(len(slices), shard, kind, start, stop, size))
    return slices


def read_slice(part: Slice, tally: Tally, options: CorpusOptions) -> Iterator[Documents]:
    """The documents of one slice in batches of about 2 MB, counted into `tally` as they leave.

    Raises:
        UsageError: a missing tokenizer or optional package, or a data set that cannot be reached.
    """
    ledger = Ledger(part.shard, tally)
    try:
        if part.kind not in READERS:
            ledger.note(UNREAD[part.kind], "the whole file", gap=True)
            return
        for documents in READERS[part.kind](part, ledger, options):
            pieces = int((documents.piece_starts > 0).sum())
            tally.documents += len(documents) - pieces
            tally.text_bytes += len(documents.text) - OVERLAP * pieces
            yield documents
            if part.kind == "parquet" and tally.text_bytes > FREE + EXPANSION * tally.bytes_read:
                ledger.note(BOMB.format(EXPANSION), f"after {tally.text_bytes:,} bytes of text", gap=True)
                return
        if not tally.documents and part.start == 0:
            ledger.note(NO_DOCUMENTS, "the whole shard")
    except (OSError, pa.ArrowInvalid) as error:
        lost = tally.records - tally.documents - tally.skipped  # of the batch that was being made
        tally.skipped += lost
        place = f"after {tally.records} records, {tally.bytes_read} bytes"
        ledger.note(STOPPED.format(_reason(error)), place, records=lost, gap=True)
    finally:
        ledger.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _shards(path: str, options: CorpusOptions, out: str, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """Shards that one argument names, each with its kind."""
    found = found_at(path, out)
    left_out += found.left_out()
    if not (found.files or found.unread or found.empty or found.audits or found.passed):
        if not is_dataset_name(path):
            raise UsageError(f"No file, folder or glob {path!r}. Name files, folders, globs, URLs or hf://owner/name.")
        for name in hub.splits_of(path):
            yield name, "dataset"
        return
    for file, alone in found.files:
        kind = kind_of(file) or (_kind_by_content(file) if alone else "unknown")
        if kind == "tokens" and not options.tokenizer:
            if alone:
                raise UsageError(f"{file} holds token ids. Name their tokenizer.json with --tokenizer.")
            kind = "token ids"
        yield file, kind
    yield from found.unread


def found_at(path: str, out: str = "") -> files.Found:
    """The files that a path, folder, glob or URL names; none of a data set."""
    found = files.Found()
    if not path.startswith(hub.SCHEME) or path.startswith("hf://datasets/"):
        files.find(path, found, out)
    return found


def files_of(path: str) -> list[str]:
    """The regular files with data among them."""
    return [file for file, _ in found_at(path).files]


def is_dataset_name(path: str) -> bool:
    return path.startswith(hub.SCHEME) or bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:\w+)?", path) and not kind_of(path))


def kind_of(shard: str) -> str:
    """The reader for a file, by its suffix; empty where that says nothing."""
    name = shard.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    kind = next((kind for kind, suffixes in KINDS.items() if name.endswith(suffixes)), "")
    return _json_kind(shard) if kind == "json" else kind


def _json_kind(shard: str) -> str:
    """Many .json files are JSON Lines: the first line decides."""
    try:
        opening = _opening(shard)
    except OSError:
        return "jsonl"  # its reader will say what is wrong with the file
    name, mark = sniffed(opening)
    opening = opening[mark:] if name == "utf-8" else opening[mark:].decode(name, "replace").encode("utf-8", "replace")
    line = opening.lstrip().partition(b"\n")
    is_lines = line[0].startswith(b"{") and (not line[1] or line[0].rstrip().endswith(b"}"))
    return "jsonl" if is_lines else "json"


def _opening(shard: str) -> bytes:
    """The first block of a shard's content, decompressed."""
    return next(iter(plain_blocks(shard, Ledger(shard, Tally()))), b"")


def _kind_by_content(shard: str) -> str:
    try:
        opening = _opening(shard)
    except OSError:
        return "text"
    if opening[:4] == b"PAR1":
        return "parquet"
    if opening[:6] == columnar.ARROW_MAGIC:
        return "arrow"
    name, mark = sniffed(opening)
    start = opening[mark:].decode(name, "replace").lstrip()[:2]
    return "jsonl" if start in ('{"', "{'") else "text"


def _ranges(shard: str, kind: str, options: CorpusOptions) -> list[tuple[int, int | None, int]]:
    """Parts of a shard as (start, stop, bytes)."""
    if kind == "dataset":
        return [(0, None, 0)]
    try:
        size = stored.stored_size(shard)
        if size > options.slice_bytes and kind == "jsonl" and codec_of(shard) is None and _is_utf8(shard):
            count = -(-size // options.slice_bytes)
            cuts = [size * i // count for i in range(count + 1)]
            return [(start, stop, stop - start) for start, stop in zip(cuts, cuts[1:], strict=False)]
        if size > options.slice_bytes and kind == "parquet" and not stored.is_url(shard):
            return _group_ranges(shard, options)
    except (OSError, pa.ArrowException):
        return [(0, None, 0)]  # its reader will say what is wrong with the file
    return [(0, None, size)]


def _is_utf8(shard: str) -> bool:
    """Whether lines of the file end at the byte of a line break."""
    return sniffed(stored.head(shard, SNIFFED))[0] == "utf-8"


def _group_ranges(shard: str, options: CorpusOptions) -> list[tuple[int, int | None, int]]:
    with columnar.open_parquet(shard) as file:
        bounds = [*columnar.group_starts(file), stored.stored_size(shard)]
    ranges: list[tuple[int, int | None, int]] = []
    first = 0
    for group in range(1, len(bounds)):
        if group == len(bounds) - 1 or bounds[group + 1] - bounds[first] > options.slice_bytes:
            ranges.append((first, group, bounds[group] - bounds[first]))
            first = group
    return [(0, None, bounds[-1])] if len(ranges) == 1 else ranges
