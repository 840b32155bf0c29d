"""Which folders are runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from trainvitals.store.folder import open_folder

LISTERS = 8
"""Folders that are looked at side by side: a store behind a network has a wait for each."""


def list_runs(path: str | os.PathLike[str]) -> list[str]:
    """Paths of the runs in a folder, or of the folder itself if it is one; empty where there is none.

    Raises StoreUnreachable where a store does not answer, or refuses.
    """
    folder = open_folder(path)
    root = str(folder).rstrip("/")
    if looks_like_run(folder.entries()):
        return [root]
    children = [f"{root}/{name}" for name in folder.child_names()]
    with ThreadPoolExecutor(LISTERS, thread_name_prefix="trainvitals-list") as pool:
        return [child for child, is_run in zip(children, pool.map(_is_run, children), strict=True) if is_run]


def _is_run(path: str) -> bool:
    """Whether this is a run; a folder that cannot be looked at is none."""
    try:
        return looks_like_run(open_folder(path).entries())
    except OSError:
        return False


def looks_like_run(entries: Mapping[str, bool]) -> bool:
    return entries.get("run.json") is False or any(entries.get(name) for name in ("frames", "events"))
