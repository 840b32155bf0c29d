"""Members of a zip file, zstd ones too (method 93, which Python's zipfile reads from 3.14 on), within bounds."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import zstandard

from trainvitals.errors import UsageError

ZSTD, HEADER = 93, 30
MOST_MEMBER, MOST_MEMBERS = 256 << 20, 500_000


def members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Name -> member. Raises UsageError where it is no zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UsageError(f"{path} is no whole zip file: {error}. If the job is running, wait for its end.") from error
    if len(found) > MOST_MEMBERS:
        raise UsageError(f"{path} has {len(found):,} members; at most {MOST_MEMBERS:,} are read.")
    return found


def member(path: Path, info: zipfile.ZipInfo) -> bytes:
    """The content of a member, at most `MOST_MEMBER` bytes. Raises UsageError."""
    try:
        with path.open("rb") as file:
            if info.compress_type != ZSTD:
                with zipfile.ZipFile(file) as archive, archive.open(info) as stored:
                    data = stored.read(MOST_MEMBER + 1)
            else:
                file.seek(info.header_offset)
                name, extra = struct.unpack("<HH", file.read(HEADER)[26:30])
                file.seek(info.header_offset + HEADER + name + extra)
                packed = io.BytesIO(file.read(info.compress_size))
                data = zstandard.ZstdDecompressor().stream_reader(packed).read(MOST_MEMBER + 1)
    except (OSError, EOFError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile,
            zstandard.ZstdError) as error:
        raise UsageError(f"{info.filename} of {path} cannot be read: {error}.") from error
    if len(data) > MOST_MEMBER:
        raise UsageError(f"{info.filename} of {path} has more than {MOST_MEMBER:,} bytes.")
    return data
