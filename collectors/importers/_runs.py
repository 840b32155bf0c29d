"""Runs in one source: their names, and what is known of each, said once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from collectors.importers.importer import Facts, Item


def titles(known: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(key, name) with each name once: a second run of a name has the start of its key behind it."""
    taken: set[str] = set()
    found = []
    for key, name in known:
        name = name or key
        if name in taken:
            name = f"{name}-{key[:8]}"
        while name in taken:
            name += "+"
        taken.add(name)
        found.append((key, name))
    return found


def news(facts: Facts, state: dict[str, Any]) -> Iterator[Item]:
    """The facts, where they are not those of the last look."""
    mark = hashlib.sha256(repr(facts).encode("utf-8", "replace")).hexdigest()
    if state.get("facts") != mark:
        state["facts"] = mark
        yield facts
