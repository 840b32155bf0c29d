"""Decompression that survives damage: a broken gzip member or zstd frame is named, and reading goes on at the next.

`gzip.open` and `pyarrow.CompressedInputStream` stop at the first damage and do not say where the next member starts,
so members are fed one by one. Formats: https://www.rfc-editor.org/rfc/rfc1952 and https://www.rfc-editor.org/rfc/rfc8878.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.stored import BLOCK, head, stored_blocks
from trainvitals.errors import UsageError

STORED_BLOCK = 1 << 16
"""Stored bytes per step: small, because the rest of a block is copied whenever a member ends in it."""
ZSTD_STEP = 1 << 10
"""Stored bytes per call of zstd, whose output cannot be bounded: 1 KiB can become 33 MB."""
HEADER = 10
"""Bytes needed to recognise the start of a member."""


FREE, EXPANSION = 64 << 20, 200
"""A file may expand to 64 MiB, and to 200 times its stored bytes more: text is packed 3 to 20 times smaller."""
BOMB = "It expands to more than {} times its stored bytes: the rest was not read."


class Member(Protocol):
    """One gzip member or zstd frame being decompressed."""

    done: bool
    rest: bytes
    """Stored bytes after the end of the member."""
    taken: int
    """Stored bytes of the last feed that were used before it failed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompressed blocks of bounded size."""


class GzipMember:
    """A gzip member: RFC 1952."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.done, self.rest, self.taken = False, b"", 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self.taken, size = 0, len(data)
        while data and not self._zlib.eof:
            before = self._zlib.copy()
            try:
                yield self._zlib.decompress(data, BLOCK)
            except zlib.error:
                # What the failed call had already made is lost with it: make it again up to the very byte.
                for byte in range(len(data)):
                    yield before.decompress(data[byte : byte + 1])
                    self.taken += 1
                raise
            data = self._zlib.unconsumed_tail
            self.taken = size - len(data)
        self.done, self.rest = self._zlib.eof, self._zlib.unused_data


class ZstdFrame:
    """A zstd frame: RFC 8878."""

    def __init__(self) -> None:
        # Windows up to 2 GiB, as `zstd --long=31` writes them.
        self._zstd = _zstandard().ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        self.done, self.rest, self.taken = False, b"", 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), ZSTD_STEP):
            self.taken = at
            yield self._zstd.decompress(data[at : at + ZSTD_STEP])
            if self._zstd.eof:
                self.done, self.rest = True, self._zstd.unused_data + data[at + ZSTD_STEP :]
                return


@dataclass(frozen=True, slots=True)
class Codec:
    """A compressed format whose files are members one after another."""

    name: str
    magic: bytes
    member: Callable[[], Member]
    starts: Callable[[bytes], bool]
    """Whether these bytes begin a member: the magic, and the bits that a real header leaves 0."""

    def error(self) -> type[Exception]:
        """What its library raises on damage."""
        return zlib.error if self.name == "gzip" else _zstandard().ZstdError


def _starts_gzip(data: bytes) -> bool:
    return data[:3] == b"\x1f\x8b\x08" and len(data) > 3 and not data[3] & 0xE0


def _starts_zstd(data: bytes) -> bool:
    skippable = data[1:4] == b"\x2a\x4d\x18" and data[0] & 0xF0 == 0x50
    return skippable or (data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 4 and not data[4] & 0x08)


GZIP = Codec("gzip", b"\x1f\x8b\x08", GzipMember, _starts_gzip)
ZSTD = Codec("zstd", b"\x28\xb5\x2f\xfd", ZstdFrame, _starts_zstd)
SUFFIXES = {".gz": GZIP, ".gzip": GZIP, ".zst": ZSTD, ".zstd": ZSTD}


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise UsageError("Reading zstd needs the package zstandard, which is not installed.") from error


def codec_of(shard: str) -> Codec | None:
    """The shard's compression, by its first bytes; by its suffix where those are damaged, too."""
    first = head(shard)
    for codec in (GZIP, ZSTD):
        if codec.starts(first):
            return codec
    by_name = next((codec for suffix, codec in SUFFIXES.items() if shard.lower().endswith(suffix)), None)
    # A file that was decompressed on its way here keeps its name: text is text.
    text_like = not any(byte < 9 for byte in first)
    return None if text_like else by_name


def plain_blocks(shard: str, ledger: Ledger, stop: int | None = None) -> Iterator[bytes]:
    """The shard's content from its start, decompressed where it is compressed."""
    codec = codec_of(shard)
    if codec is None:
        return stored_blocks(shard, ledger.tally, 0, stop)
    return _bounded(_coalesced(expand(stored_blocks(shard, ledger.tally, size=STORED_BLOCK), codec, ledger)), ledger)


def _bounded(blocks: Iterator[bytes], ledger: Ledger) -> Iterator[bytes]:
    """No more than `EXPANSION` times the stored bytes: a few kilobytes can hold terabytes of line breaks."""
    size = 0
    for block in blocks:
        yield block
        size += len(block)
        if size > FREE + EXPANSION * ledger.tally.bytes_read:
            ledger.note(BOMB.format(EXPANSION), f"after {size:,} bytes", gap=True)
            return


def _coalesced(blocks: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def expand(blocks: Iterator[bytes], codec: Codec, ledger: Ledger) -> Iterator[bytes]:
    """Decompress members one after another; what cannot be read is named by its stored bytes.

    Where reading goes on after damage, a line break keeps the half record before it apart from what follows.
    """
    reader = _Expansion(codec, ledger)
    for block in blocks:
        yield from reader.take(block)
    yield from reader.finish()


class _Expansion:
    """Where the reading of one compressed file stands."""

    def __init__(self, codec: Codec, ledger: Ledger) -> None:
        self.codec, self.ledger, self.error = codec, ledger, codec.error()
        self.data, self.at = b"", 0  # stored bytes not yet fed, and the offset of the first
        self.member: Member | None = None
        self.member_at = 0
        self.lost_at: int | None = None  # start of a range that could not be read
        self.why = ""
        self.open_line = False

    def take(self, block: bytes) -> Iterator[bytes]:
        """Decompress one stored block."""
        self.data += block
        while self.data:
            if self.member is None:
                if len(self.data) < HEADER:
                    return
                self._find_member()
            if self.member is not None:
                yield from self._feed(self.member)

    def finish(self) -> Iterator[bytes]:
        """Name what the end of the file leaves open."""
        end = self.at + len(self.data)
        if self.member is not None:
            what = f"The {self.codec.name} data ends in the middle: the file is cut off. All up to there was read."
            self.ledger.note(what, f"stored byte {end}", gap=True)
        elif self.data.strip(b"\0") or self.lost_at is not None:
            self._lost(self.at)
            self._name_lost(end, "nothing follows that could be read")
        yield from ()

    def _find_member(self) -> None:
        place = 0 if self.codec.starts(self.data) else self.data.find(self.codec.magic, 1)
        while 0 < place <= len(self.data) - HEADER and not self.codec.starts(self.data[place : place + HEADER]):
            place = self.data.find(self.codec.magic, place + 1)
        keep = place if place >= 0 else len(self.data) - HEADER + 1
        # Zeros between or after members are padding, as tapes and block devices leave it.
        if self.data[:keep].strip(b"\0"):
            self._lost(self.at)
        self.data, self.at = self.data[keep:], self.at + keep
        if self.codec.starts(self.data) and len(self.data) >= HEADER:
            self.member, self.member_at = self.codec.member(), self.at
            if self.lost_at is not None:
                self._name_lost(self.at, "reading went on behind them")

    def _feed(self, member: Member) -> Iterator[bytes]:
        data, self.data = self.data, b""
        try:
            for plain in member.feed(data):
                if plain:
                    self.open_line = not plain.endswith(b"\n")
                    yield plain
        except self.error as error:
            self._lost(self.at + member.taken)
            self.why = str(error)
            skip = max(0, self.member_at + 1 - self.at)
            self.data, self.at, self.member = data[skip:], self.at + skip, None
            if self.open_line:
                self.open_line = False
                yield b"\n"
            return
        self.at += len(data) - len(member.rest)
        if member.done:
            self.data, self.member = member.rest, None

    def _lost(self, at: int) -> None:
        if self.lost_at is None:
            self.lost_at, self.why = at, f"no {self.codec.name} header"

    def _name_lost(self, until: int, after: str) -> None:
        what = f"Damaged {self.codec.name} data ({self.why}): the stored bytes from about there were lost, {after}."
        self.ledger.note(what, f"stored bytes {self.lost_at} to {until}", gap=True)
        self.lost_at = None
