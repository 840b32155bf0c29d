"""How a vocabulary spells its tokens: the text behind the marks of byte-level BPE, SentencePiece and WordPiece, and the
script of that text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

SCRIPTS = ("latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "bengali", "tamil", "thai", "georgian",
           "hangul", "kana", "han", "common", "other", "partial")
"""`common`: digits, punctuation, space, symbols, emoji. `partial`: bytes that are no whole character by themselves."""

# First code point of each range, from https://www.unicode.org/Public/UNIDATA/Blocks.txt (main blocks of each script).
_RANGES: tuple[tuple[int, str], ...] = (
    (0x0000, "common"), (0x0041, "latin"), (0x005B, "common"), (0x0061, "latin"), (0x007B, "common"),
    (0x00AA, "latin"), (0x00AB, "common"), (0x00BA, "latin"), (0x00BB, "common"), (0x00C0, "latin"),
    (0x00D7, "common"), (0x00D8, "latin"), (0x00F7, "common"), (0x00F8, "latin"), (0x02B0, "common"),
    (0x0370, "greek"), (0x0400, "cyrillic"), (0x0530, "other"), (0x0590, "hebrew"), (0x0600, "arabic"),
    (0x0700, "other"), (0x0750, "arabic"), (0x0780, "other"), (0x0870, "arabic"), (0x0900, "devanagari"),
    (0x0980, "bengali"), (0x0A00, "other"), (0x0B80, "tamil"), (0x0C00, "other"), (0x0E00, "thai"), (0x0E80, "other"),
    (0x10A0, "georgian"), (0x1100, "hangul"), (0x1200, "other"), (0x1C80, "cyrillic"), (0x1C90, "georgian"),
    (0x1CC0, "other"), (0x1E00, "latin"), (0x1F00, "greek"), (0x2000, "common"), (0x2C00, "other"), (0x2C60, "latin"),
    (0x2C80, "other"), (0x2DE0, "cyrillic"), (0x2E00, "common"), (0x2E80, "han"), (0x2FE0, "other"),
    (0x3000, "common"), (0x3040, "kana"), (0x3100, "other"), (0x3130, "hangul"), (0x3190, "other"), (0x31F0, "kana"),
    (0x3200, "common"), (0x3400, "han"), (0x4DC0, "common"), (0x4E00, "han"), (0xA000, "other"), (0xA640, "cyrillic"),
    (0xA6A0, "other"), (0xA720, "latin"), (0xA800, "other"), (0xA8E0, "devanagari"), (0xA900, "other"),
    (0xAC00, "hangul"), (0xD7B0, "other"), (0xF900, "han"), (0xFB00, "latin"), (0xFB07, "other"), (0xFB1D, "hebrew"),
    (0xFB50, "arabic"), (0xFE00, "common"), (0xFE70, "arabic"), (0xFF00, "common"), (0xFF21, "latin"),
    (0xFF3B, "common"), (0xFF41, "latin"), (0xFF5B, "common"), (0xFF66, "kana"), (0xFFA0, "hangul"),
    (0xFFE0, "common"), (0x10000, "other"), (0x1F000, "common"), (0x1FC00, "other"), (0x20000, "han"),
    (0x323B0, "other"),
)
_STARTS = [start for start, _ in _RANGES]


@cache
def script_of(character: str) -> int:
    """Index into SCRIPTS.

    >>> [SCRIPTS[script_of(c)] for c in "aЖ漢7"]
    ['latin', 'cyrillic', 'han', 'common']
    """
    return SCRIPTS.index(_RANGES[bisect_right(_STARTS, ord(character)) - 1][1])


@cache
def _byte_alphabet() -> dict[str, int]:
    """Bytes by the printable characters that byte-level BPE writes them as.

    https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes_to_unicode)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(b): b for b in printable}
    rest = [b for b in range(256) if b not in printable]
    return alphabet | {chr(256 + i): b for i, b in enumerate(rest)}


def byte_level(token: str) -> bytes:
    """The text of a token of byte-level BPE, UTF-8, maybe a part of a character."""
    alphabet = _byte_alphabet()
    # Added tokens are spelled as they are, outside of the alphabet.
    return bytes(alphabet[c] for c in token) if all(c in alphabet for c in token) else token.encode()


_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def sentencepiece(token: str) -> bytes:
    """The text of a token of SentencePiece or WordPiece, UTF-8; `<0xE2>` is a byte."""
    byte = _BYTE_TOKEN.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    # WordPiece marks the inside of a word with ##, SentencePiece its beginning with a low line.
    return token.removeprefix("##").replace("▁", " ").encode()


def script_bytes(text: bytes) -> NDArray[np.float64]:
    """Bytes of the text by script, [len(SCRIPTS)]."""
    row = np.zeros(len(SCRIPTS))
    for character in text.decode("utf-8", errors="surrogateescape"):
        if "\udc80" <= character <= "\udcff":
            row[_PARTIAL] += 1
        else:
            row[script_of(character)] += len(character.encode())
    return row


def speller(tokens: Iterable[str | None]) -> Callable[[str], bytes]:
    """Which of the two spellings a vocabulary has: a space is spelled `Ġ` by byte-level BPE alone."""
    return byte_level if any("Ġ" in token for token in tokens if token) else sentencepiece


def readable(text: bytes) -> str:
    """The text of a token as people read it: bytes that are no whole character as <0xE2>."""
    raw = text.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in raw)


_PARTIAL = SCRIPTS.index("partial")
