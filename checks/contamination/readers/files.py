"""Which files a path names: folders are walked, links followed once, and what is no data is named instead of read.

Only regular files are opened: a pipe or a device would never end. What an audit has written is never a corpus.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import fsspec

from checks.contamination.readers import stored
from trainvitals.errors import UsageError

BOOKKEEPING = ("state.json", "dataset_info.json", "dataset_dict.json",
               "license", "licence", "copying", "notice", "success")  # fmt: skip
"""Names of files that `datasets`, publishers and Hadoop write beside the shards."""
NO_TEXT = (".md5", ".sha1", ".sha256", ".sha512", ".md5sum", ".sha256sum", ".crc", ".asc", ".sig", ".idx", ".lock",
           ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg", ".ico")  # fmt: skip
"""Checksums, signatures, indices and images: what they hold is no training text."""
AUDIT = ("audit.json", "items.parquet", "matches.parquet")
"""Files that together make a folder an audit."""
UNFINISHED = ("work/started", "work/plan.json")
"""Files that make it one that has not ended."""
WRITTEN = ("audit.json", "items.parquet", "matches.parquet", "sweep.parquet", "report.html", "replace.csv",
           "drop_documents.csv", "provenance.json", "work", "clean")  # fmt: skip
"""What an audit writes: left out of a corpus."""
NAMES_SAID = 3
"""Files of each kind that are named where they are left out."""

SPECIAL = "special file"
BROKEN_LINK = "broken link"
UNREADABLE = "unreadable folder"


@dataclass(slots=True)
class Found:
    """What the paths of a corpus or of benchmarks name."""

    files: list[tuple[str, bool]] = field(default_factory=list)
    """Regular files, and whether each was named (or matched by a glob), not found in a folder."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """What cannot be read, and what it is: SPECIAL, BROKEN_LINK or UNREADABLE."""
    passed: list[str] = field(default_factory=list)
    """Hidden files, checksums, images and their like."""
    empty: list[str] = field(default_factory=list)
    """Files of no bytes in folders: a million of them must not become a million pieces of work."""
    audits: list[str] = field(default_factory=list)
    """Folders that audits were written into."""

    def left_out(self) -> list[str]:
        """What was found and is not searched, one sentence a kind; nothing of it may hold text of a corpus."""
        said = []
        for what, names in (
            ("as no data (hidden, checksums, images, licences)", self.passed),
            ("as empty", self.empty),
            ("as the output of an earlier audit", self.audits),
        ):
            if names:
                more = f" and {len(names) - NAMES_SAID:,} more" if len(names) > NAMES_SAID else ""
                said.append(f"Left out {what}: {', '.join(names[:NAMES_SAID])}{more}.")
        return said


def find(path: str, found: Found, skip: str = "") -> None:
    """Add what a path, folder, glob or URL names, sorted; nothing where there is no such thing.

    Args:
        path: The path.
        found: Where it is added.
        skip: A folder that is passed over without a word: the audit that is being made.

    Raises:
        UsageError: a pipe or a device that was named itself, or a URL that cannot be opened.
    """
    if stored.is_url(path):
        _find_url(path, found)
    elif os.path.isdir(path):
        _walk(path, found, skip)
    elif os.path.lexists(path):
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is no file that can be read twice. Write its content to a file first.")
        found.files.append((path, True))
    else:
        for match in sorted(glob.glob(path, recursive=True)):
            if os.path.isdir(match):
                if "**" not in path:  # which lists the files in it by themselves
                    _walk(match, found, skip)
            elif os.path.isfile(match):
                found.files.append((match, True))
            else:
                found.unread.append((match, SPECIAL if os.path.exists(match) else BROKEN_LINK))


def _walk(root: str, found: Found, skip: str) -> None:
    seen: set[tuple[int, int]] = set()
    skipped = os.path.realpath(skip) if skip else ""
    pending = [root]
    files: list[str] = []
    while pending:
        folder = pending.pop()
        if skipped and os.path.realpath(folder) == skipped:
            continue
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                continue  # by another link, or by a link to a folder around it
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError:
            found.unread.append((folder, UNREADABLE))
            continue
        if _is_audit(folder, names):
            found.audits.append(folder)
            names = [name for name in names if name not in WRITTEN]
        for name in names:
            path = os.path.join(folder, name)
            try:
                about = os.stat(path)
            except OSError:
                found.unread.append((path, BROKEN_LINK))
                continue
            if stat.S_ISDIR(about.st_mode) and not name.startswith((".", "_")):
                pending.append(path)
            elif not _is_data(name):
                found.passed.append(path)
            elif not stat.S_ISREG(about.st_mode):
                found.unread.append((path, SPECIAL))
            elif about.st_size == 0:
                found.empty.append(path)
            else:
                files.append(path)
    found.files += [(path, False) for path in sorted(files)]


def _is_audit(folder: str, names: Iterable[str]) -> bool:
    inside = set(names)
    return inside.issuperset(AUDIT) or (
        "work" in inside and all(os.path.isfile(os.path.join(folder, name)) for name in UNFINISHED)
    )


def _is_data(name: str) -> bool:
    """Names that begin with . or _ are none, as in Spark and pyarrow.dataset."""
    low = name.lower()
    return not low.startswith((".", "_")) and low not in BOOKKEEPING and not low.endswith(NO_TEXT)


def _find_url(path: str, found: Found) -> None:
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        if not filesystem.isdir(inner):
            names = filesystem.glob(inner) if glob.has_magic(inner) else [inner]
            found.files += [(filesystem.unstrip_protocol(n), True) for n in sorted(names) if filesystem.isfile(n)]
            return
        names = sorted(filesystem.find(inner))
        audits = set(_audits_of(names))
        found.audits += [filesystem.unstrip_protocol(name) for name in sorted(audits)]
        for name in names:
            inside = [name[len(folder) + 1 :] for folder in audits if name.startswith(f"{folder}/")]
            if any(rest.split("/")[0] in WRITTEN for rest in inside):
                continue
            parts = name[len(inner) :].strip("/").split("/")
            full = filesystem.unstrip_protocol(name)
            if _is_data(parts[-1]) and not any(part.startswith((".", "_")) for part in parts):
                found.files.append((full, False))
            else:
                found.passed.append(full)
    except (OSError, ValueError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise UsageError(f"{path} cannot be opened: {reason}. Check the URL and its package.") from error


def _audits_of(names: Iterable[str]) -> Iterator[str]:
    known = set(names)
    for name in known:
        folder, _, last = name.rpartition("/")
        if last == AUDIT[0] and all(f"{folder}/{other}" in known for other in AUDIT):
            yield folder
