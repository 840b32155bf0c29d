"""The stored bytes of a shard: opened wherever they lie, hashed and counted in the same pass that reads them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import fsspec

from checks.contamination.records import Tally

BLOCK = 4 << 20
"""Bytes per read. pyarrow's JSON parser is fastest on blocks of 4 to 8 MiB (600 MB/s; 370 MB/s on 1 MiB)."""


def is_url(shard: str) -> bool:
    """Whether fsspec has to open it."""
    return "://" in shard


def open_stored(shard: str) -> BinaryIO:
    """The shard's bytes as they are stored, from a path or an fsspec URL.

    Raises:
        OSError: cannot be opened, or is no regular file: a pipe or a device may never end.
    """
    if not is_url(shard):
        # Not to wait for a writer of a pipe that has taken the file's place.
        number = os.open(shard, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, "Not a regular file", shard)
        return os.fdopen(number, "rb")
    filesystem, path = fsspec.core.url_to_fs(shard)
    return cast(BinaryIO, filesystem.open(path, "rb"))


def stored_size(shard: str) -> int:
    """Bytes of the shard as stored."""
    if not is_url(shard):
        return os.path.getsize(shard)
    filesystem, path = fsspec.core.url_to_fs(shard)
    return int(filesystem.size(path))


def head(shard: str, size: int = 512) -> bytes:
    """The shard's first bytes."""
    with open_stored(shard) as file:
        return file.read(size)


def byte_at(shard: str, position: int) -> bytes:
    """One stored byte."""
    with open_stored(shard) as file:
        file.seek(position)
        return file.read(1)


def stored_blocks(
    shard: str, tally: Tally, start: int = 0, stop: int | None = None, size: int = BLOCK
) -> Iterator[bytes]:
    """Bytes [start, stop) in blocks. `tally.sha256` is set at the end: a half-read range has no hash."""
    digest = hashlib.sha256()
    with open_stored(shard) as file:
        file.seek(start)
        left = None if stop is None else stop - start
        while left is None or left > 0:
            block = file.read(size if left is None else min(size, left))
            if not block:
                break
            digest.update(block)
            tally.bytes_read += len(block)
            if left is not None:
                left -= len(block)
            yield block
    tally.sha256 = digest.hexdigest()


@contextmanager
def local_path(shard: str, tally: Tally, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """A path that libraries which seek can open; [start, stop) is hashed on the way.

    A shard behind a URL is copied to a temporary file, so that it crosses the network once.
    """
    blocks = stored_blocks(shard, tally, start, stop)
    if not is_url(shard):
        for _ in blocks:
            pass
        yield shard
        return
    folder = tempfile.mkdtemp(prefix="trainvitals-")
    try:
        path = os.path.join(folder, "shard")
        with open(path, "wb") as file:
            for block in blocks:
                file.write(block)
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)
