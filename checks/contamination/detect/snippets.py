"""The text of a window, as people and the rules will read it."""

from __future__ import annotations

from checks.contamination.records import SNIPPET, Documents

CONTEXT = 400
"""Bytes of text kept on each side of a window, for the answer that follows it and for the eye."""


def snippet(docs: Documents, doc: int, start: int, end: int) -> str:
    """The text of a window, start to end in bytes of the batch, with context, at most SNIPPET bytes."""
    end = min(end, start + SNIPPET)
    context = min(CONTEXT, (SNIPPET - (end - start)) // 2)
    low, high = max(docs.offsets[doc], start - context), min(docs.offsets[doc + 1], end + context)
    # Context that starts or ends within a character loses its bytes, not more: UTF-8 continues with 10xxxxxx.
    while low < start and docs.text[low] & 0xC0 == 0x80:
        low += 1
    while end < high < docs.offsets[doc + 1] and docs.text[high] & 0xC0 == 0x80:
        high -= 1
    return docs.text[low:high].tobytes().decode("utf-8", errors="replace")
