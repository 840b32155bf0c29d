"""What the stored vocabulary tells of every token: its text, its bytes by script, whether it begins a word."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainvitals.spelling import SCRIPTS, readable, script_bytes, speller

WORDLESS = (SCRIPTS.index("common"), SCRIPTS.index("partial"))


class Vocabulary:
    """K tokens by the labels of `tokens/counts`, `17 Ġthe` or, where the spelling is not known, `17`."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.spelled: tuple[str | None, ...] = tuple(label.partition(" ")[2] or None for label in labels)
        self.known = np.array([spelling is not None for spelling in self.spelled])
        """[K] whether the spelling is known; it is not of special tokens and ids outside of the tokenizer."""
        decode = speller(self.spelled)
        self._bytes = [decode(spelling) if spelling else b"" for spelling in self.spelled]

    def text(self, token: int) -> str:
        """The token as people read it: bytes that are no whole character as <0xE2>, special tokens by their id."""
        if not self.known[token]:
            return f"id {self.labels[token]}"
        return readable(self._bytes[token])

    @cached_property
    def bytes(self) -> NDArray[np.float64]:
        """[K, scripts] UTF-8 bytes of every token by script."""
        return np.stack([script_bytes(raw) for raw in self._bytes]) if self._bytes else np.zeros((0, len(SCRIPTS)))

    @cached_property
    def script(self) -> NDArray[np.int64]:
        """[K] the script of most of a token's letters; `common` or `partial` of one without letters; -1 unspelled."""
        letters = self.bytes.copy()
        letters[:, WORDLESS] = 0
        found = np.where(letters.any(axis=1), letters.argmax(axis=1), self.bytes.argmax(axis=1))
        return np.where(self.known, found, -1)

    @cached_property
    def words(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """[K] tokens of letters, and those of them that begin a word; None where the spelling marks no beginnings."""
        marks = any(s.startswith(("Ġ", "▁")) for s in self.spelled if s)
        inside = any(s.startswith("##") for s in self.spelled if s)
        if not (marks or inside):
            return None
        letters = np.array([raw.decode("utf-8", "replace").strip().isalpha() for raw in self._bytes])
        if inside and not marks:
            begins = np.array([s is not None and not s.startswith("##") for s in self.spelled])
        else:
            begins = np.array([raw.startswith(b" ") for raw in self._bytes])
        return letters, letters & begins

    def spelling(self, word: str) -> list[int]:
        """Tokens that are this word, with or without a space before it, in upper or lower case as given."""
        wanted = word.encode()
        return [i for i, raw in enumerate(self._bytes) if raw and raw.strip(b" ") == wanted.strip(b" ")]

    def containing(self, word: str) -> list[int]:
        """Tokens with the word in them."""
        wanted = word.encode()
        return [i for i, raw in enumerate(self._bytes) if wanted in raw]
