"""The runs at a path, at any depth; new ones appear at the next look."""

from __future__ import annotations

from collections.abc import Iterator

from trainvitals.store.folder import open_folder
from trainvitals.store.listing import looks_like_run

MOST_DEPTH, MOST_FOLDERS = 6, 5_000


def runs_below(path: str) -> list[str]:
    """Paths of all runs at or below a folder or URL. Raises StoreUnreachable; empty where there is no folder."""
    return list(_below(path.rstrip("/") or "/", MOST_DEPTH, [MOST_FOLDERS]))


def _below(path: str, depth: int, left: list[int]) -> Iterator[str]:
    left[0] -= 1
    if left[0] < 0:
        return
    folder = open_folder(path)
    if looks_like_run(folder.entries()):
        yield path
    elif depth:
        for name in sorted(folder.child_names()):
            if not name.startswith("."):
                yield from _below(f"{path.rstrip('/')}/{name}", depth - 1, left)
