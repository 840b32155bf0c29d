"""Text in other encodings than UTF-8: decoded where the bytes say which it is; named as not searched where they do not.

A byte-order mark decides; else NUL bytes at every second or fourth place are UTF-16 or UTF-32; else bytes that are no
UTF-8 and all letters of Windows-1252 are that (https://encoding.spec.whatwg.org takes Latin-1 for it, too).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np

from checks.contamination.readers.ledger import Ledger

MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SNIFFED = 1 << 16
"""Bytes that are looked at where there is no mark."""
PLAIN_NULS = 0.6
"""Share of the high bytes that are NUL in UTF-16 of a script of the Latin kind; convention."""
CONTROLS = 0.01
"""Share of control characters above which bytes are no text; convention."""
FOREIGN = 0.3
"""Share of bytes above 127 from which bytes that are no UTF-8 may be of any encoding; convention."""
_LETTERS = bytes(b for b in range(0xC0, 0xFE) if b not in b"\xd0\xd7\xde\xf0\xf7")
_SIGNS = b"\x80\x82\x84\x85\x8a\x8c\x8e\x91\x92\x93\x94\x95\x96\x97\x99\x9a\x9c\x9e\x9f" + bytes(range(0xA0, 0xC0))
_ASCII = bytes(range(128))
_WESTERN_BYTES = _ASCII + _LETTERS + _SIGNS
_CONTROL_BYTES = bytes([*range(9), 11, *range(14, 27), *range(28, 32), 127])
_ALL_BUT_CONTROLS = bytes(b for b in range(256) if b not in _CONTROL_BYTES)

RECODED = "The file is {}: it was decoded."
WESTERN = "No UTF-8 but Windows-1252 or Latin-1, as it seems: it was decoded as that."
DAMAGED = "The file is not valid UTF-8: it was scanned as it is, words end at the invalid bytes."
NUL = "The file holds NUL bytes: it was scanned as it is, words end there."
NO_TEXT = "Binary data or an encoding that is not known: what text it may hold was not searched. Save it as UTF-8."
WRONG_UNITS = "Bytes that {} does not know were replaced."


def sniffed(opening: bytes) -> tuple[str, int]:
    """The encoding that a file's first bytes tell, and the length of its mark; utf-8 where they tell none."""
    for mark, name in MARKS:
        if opening.startswith(mark):
            return name, len(mark)
    nul = np.frombuffer(opening[: min(len(opening), SNIFFED) // 4 * 4], np.uint8) == 0
    if not len(nul):
        return "utf-8", 0
    share = nul.reshape(-1, 4).mean(axis=0)
    if share[1:].min() > PLAIN_NULS and share[0] < 0.1:
        return "utf-32-le", 0
    if share[:3].min() > PLAIN_NULS and share[3] < 0.1:
        return "utf-32-be", 0
    even, odd = (share[0] + share[2]) / 2, (share[1] + share[3]) / 2
    if odd > PLAIN_NULS and even < 0.1:
        return "utf-16-le", 0
    if even > PLAIN_NULS and odd < 0.1:
        return "utf-16-be", 0
    return "utf-8", 0


def utf8_blocks(blocks: Iterator[bytes], ledger: Ledger, *, whole: bool = True) -> Iterator[bytes]:
    """The blocks of a file as UTF-8, without a mark; `whole` for a file that is one text, whose damage is named here.

    A reader of lines names damage line by line itself.
    """
    first = next(blocks, b"")
    name, mark = sniffed(first)
    if name != "utf-8":
        ledger.note(RECODED.format(name.upper()), "byte 0")
        yield from _recoded(_from(first[mark:], blocks), name, ledger)
    elif whole:
        yield from _checked(_from(first[mark:], blocks), ledger)
    else:
        yield from _from(first, blocks)


def _from(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from blocks


def _recoded(blocks: Iterator[bytes], name: str, ledger: Ledger) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(name)("replace")
    for block in blocks:
        text = decoder.decode(block)
        if "\ufffd" in text:
            ledger.note(WRONG_UNITS.format(name.upper()), "somewhere in it", gap=True)
        yield text.encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _checked(blocks: Iterator[bytes], ledger: Ledger) -> Iterator[bytes]:
    start, held = 0, b""
    for block in blocks:
        data = held + block
        cut = _last_whole(data)
        yield _as_utf8(data[:cut], start, ledger)
        start, held = start + cut, data[cut:]
    if held:
        yield _as_utf8(held, start, ledger)


def _last_whole(data: bytes) -> int:
    """Where a character that the end cuts off begins."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needs > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def _as_utf8(data: bytes, start: int, ledger: Ledger) -> bytes:
    controls = len(data.translate(None, _ALL_BUT_CONTROLS))
    if controls > CONTROLS * len(data):
        ledger.note(NO_TEXT, f"from byte {start}", gap=True)
        return data
    if b"\0" in data:
        ledger.note(NUL, f"byte {start + data.index(0)}")
    try:
        data.decode()
        return data
    except UnicodeDecodeError as error:
        place = f"byte {start + error.start}"
    if (recoded := as_western(data)) is not None:
        ledger.note(WESTERN, place)
        return recoded
    invalid = len(data) - len(data.decode("utf-8", "ignore").encode())
    ledger.note(DAMAGED if invalid <= CONTROLS * len(data) else NO_TEXT, place, gap=invalid > CONTROLS * len(data))
    return data


def as_western(data: bytes) -> bytes | None:
    """Windows-1252 as UTF-8; None where the bytes are hardly that: UTF-8 with damage, another script, no text."""
    high = data.translate(None, _ASCII)
    if not high or data.translate(None, _WESTERN_BYTES) or len(high) > FOREIGN * len(data):
        return None
    if re.search(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", data):
        return None  # characters of UTF-8: Western text has no such pairs but by the rarest chance
    return data.decode("cp1252", "replace").encode()


def decoded(content: bytes) -> tuple[str, str]:
    """A whole file as text, and what is to be said of it; empty where it is plain UTF-8."""
    name, mark = sniffed(content)
    if name != "utf-8":
        return content[mark:].decode(name, "replace"), RECODED.format(name.upper())
    try:
        return content[mark:].decode(), ""
    except UnicodeDecodeError:
        western = as_western(content)
    if western is not None:
        return western.decode(), WESTERN
    return content[mark:].decode("utf-8", "replace"), "Invalid UTF-8: the bytes were replaced."
