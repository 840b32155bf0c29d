"""Configuration files in the small part of YAML that trackers write: nested blocks of `key: value`, and plain lists.

Anchors, tags, flow mappings and block scalars are not YAML's here: they stay the text that they are. So nothing is
built, expanded or run, whoever wrote the file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from collectors.importers._growing import text_of

MOST_BYTES = 1 << 20
MOST_DEPTH = 16
_BLANKS = " \t\r"
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False, "{}": {}, "[]": []}
_WHOLE, _DECIMAL = re.compile(r"[-+]?\d{1,18}"), re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_KEY = r'''"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^ \t"'#\[{-][^\n]*?|-[^ \t#:][^\n]*?'''
_PAIR = re.compile(rf"({_KEY}):(?:[ \t]+(.*)|[ \t]*)$")


def read_settings(path: Path) -> dict[str, Any]:
    """The file as nested dictionaries; what is not understood is left out, and none where there is no file."""
    return settings(text_of(path, MOST_BYTES))


def settings(text: str) -> dict[str, Any]:
    """The same of a text."""
    root: dict[str, Any] = {}
    stack: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    last: tuple[int, dict[str, Any], str] | None = None
    for line in text.split("\n"):
        body = line.strip(_BLANKS)
        if not body or body.startswith(("#", "---", "...", "%")):
            continue
        indent = len(line) - len(line.lstrip(" "))
        if body.startswith("- ") and last is not None and indent >= last[0]:
            _, home, key = last
            items = home[key] if isinstance(home[key], list) else []
            home[key] = [*items, _scalar(body[2:])] if len(items) < 1_000 else items
            continue
        found = _PAIR.fullmatch(body)
        if found is None:
            if last is not None and indent > last[0] and isinstance(last[1][last[2]], str):  # a long text, folded
                last[1][last[2]] += f" {body}"
            continue
        while indent < stack[-1][0]:
            stack.pop()
        if last is not None and indent > last[0] and last[1].get(last[2]) is None and len(stack) < MOST_DEPTH:
            inner: dict[str, Any] = {}
            last[1][last[2]] = inner
            stack.append((indent, inner))
        home, key = stack[-1][1], str(_scalar(found[1], quoted_only=True))
        home[key] = _scalar(found[2] or "")
        last = indent, home, key
    return root


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    if not isinstance(value, dict) or not value and prefix:
        return {prefix: value}
    return {name: inner for key, item in value.items()
            for name, inner in flat(item, f"{prefix}.{key}" if prefix else str(key)).items()}


def _scalar(word: str, quoted_only: bool = False) -> Any:
    word = word.strip(_BLANKS)
    if word[:1] == '"':
        try:
            return json.loads(word[: word.rindex('"') + 1])
        except (ValueError, RecursionError):
            return word
    if word[:1] == "'":
        return word[1 : word.rfind("'")].replace("''", "'") if word.rfind("'") > 0 else word
    word = word.split(" #", 1)[0].rstrip(_BLANKS)
    if quoted_only:
        return word
    if word.lower() in _WORDS:
        value = _WORDS[word.lower()]
        return type(value)() if isinstance(value, (dict, list)) else value
    if _WHOLE.fullmatch(word):
        return int(word)
    return float(word) if _DECIMAL.fullmatch(word) else word
