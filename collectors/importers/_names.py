"""Names of the runs in one source."""

from __future__ import annotations

from collections.abc import Iterable


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
