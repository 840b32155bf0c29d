"""Corpora: which files there are, how they are cut into slices, and the documents of a slice.

    options = CorpusOptions()
    for part in plan_slices(["shards/*.jsonl.gz", "s3://bucket/web/", "hf://owner/name:train"], options):
        tally = Tally()
        for documents in read_slice(part, tally, options): ...

Whatever cannot be read is a `Problem` in the tally and the reading goes on; memory does not grow with the input.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence

import fsspec
import pyarrow as pa

from checks.contamination.readers import arrays, columnar, hub, jsonl, stored, texts, tokens
from checks.contamination.readers.compressed import SUFFIXES as COMPRESSED
from checks.contamination.readers.compressed import codec_of, plain_blocks
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
BOOKKEEPING = ("state.json", "dataset_info.json", "dataset_dict.json",
               "license", "licence", "copying", "notice", "success")  # fmt: skip
"""Names of files that `datasets`, publishers and Hadoop write beside the shards."""
NO_TEXT = (".md5", ".sha1", ".sha256", ".sha512", ".md5sum", ".sha256sum", ".crc", ".asc", ".sig", ".idx", ".lock",
           ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg", ".ico")  # fmt: skip
"""Checksums, signatures, indices and images: what they hold is no training text."""

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
}
"""Kinds of files in a folder that no reader takes, and what is said of them."""
STOPPED = "Reading stopped here: what follows in this shard was not read. ({})"


def plan_slices(paths: Sequence[str], options: CorpusOptions) -> list[Slice]:
    """All slices of a corpus, in the order of `paths` and by name within a folder or glob; a file counts once.

    Args:
        paths: files, folders, globs, fsspec URLs, and data sets as `owner/name` or `hf://owner/name/config:split`.
        options: how to cut and what to read.

    Raises:
        UsageError: a path that names nothing, or token shards without a tokenizer.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        for shard, kind in _shards(os.fspath(path), options):
            file = shard if "://" in shard else os.path.realpath(shard)
            if file not in found or found[file][1] in UNREAD:
                found[file] = shard, kind
    if not found:
        raise UsageError(f"No file of a corpus in {', '.join(paths) or 'an empty list'}. Name files, folders or globs.")
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


def _shards(path: str, options: CorpusOptions) -> Iterator[tuple[str, str]]:
    """Shards that one argument names, each with its kind."""
    files, alone = files_of(path)
    if not files and is_dataset_name(path):
        for name in hub.splits_of(path):
            yield name, "dataset"
        return
    if not files:
        raise UsageError(f"No file, folder or glob {path!r}. Name files, folders, globs, URLs or hf://owner/name.")
    for file in files:
        kind = kind_of(file) or (_kind_by_content(file) if alone else "unknown")
        if kind == "tokens" and not options.tokenizer:
            if alone:
                raise UsageError(f"{file} holds token ids. Name their tokenizer.json with --tokenizer.")
            kind = "token ids"
        yield file, kind


def files_of(path: str) -> tuple[list[str], bool]:
    """Files behind a path, folder, glob or URL, sorted; and whether they were named, not found in a folder."""
    if path.startswith(hub.SCHEME) and not path.startswith("hf://datasets/"):
        return [], True
    if not stored.is_url(path):
        if os.path.isdir(path):
            inside = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
            return sorted(file for file in inside if _counts(os.path.relpath(file, path))), False
        if os.path.lexists(path):
            if os.path.exists(path) and not os.path.isfile(path):
                raise UsageError(f"{path} is no file that can be read twice. Write its content to a file first.")
            return [path], True
        return sorted(filter(os.path.isfile, glob.glob(path, recursive=True))), True
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        if filesystem.isdir(inner):
            found, alone = [name for name in filesystem.find(inner) if _counts(name[len(inner) :].strip("/"))], False
        else:
            found, alone = (filesystem.glob(inner) if glob.has_magic(inner) else [inner]), True
        return sorted(filesystem.unstrip_protocol(name) for name in found if filesystem.isfile(name)), alone
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{path} cannot be opened: {_reason(error)}. Check the URL and its package.") from error


def _counts(relative: str) -> bool:
    """Whether a file in a folder is data: names that begin with . or _ are not, as in Spark and pyarrow.dataset."""
    parts = relative.lower().split("/")
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and parts[-1] not in BOOKKEEPING and not parts[-1].endswith(NO_TEXT)


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
    line = opening.removeprefix(jsonl.BOM).lstrip().partition(b"\n")
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
    return "jsonl" if opening.lstrip()[:2] in (b'{"', b"{'") else "text"


def _ranges(shard: str, kind: str, options: CorpusOptions) -> list[tuple[int, int | None, int]]:
    """Parts of a shard as (start, stop, bytes)."""
    if kind == "dataset":
        return [(0, None, 0)]
    try:
        size = stored.stored_size(shard)
        if size > options.slice_bytes and kind == "jsonl" and codec_of(shard) is None:
            count = -(-size // options.slice_bytes)
            cuts = [size * i // count for i in range(count + 1)]
            return [(start, stop, stop - start) for start, stop in zip(cuts, cuts[1:], strict=False)]
        if size > options.slice_bytes and kind == "parquet" and not stored.is_url(shard):
            return _group_ranges(shard, options)
    except (OSError, pa.ArrowException):
        return [(0, None, 0)]  # its reader will say what is wrong with the file
    return [(0, None, size)]


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
