"""Where audits lie: in a run's `audits` folder, beside runs, or in the folder that the board was given."""

from __future__ import annotations

import os

import streamlit as st

from trainvitals.errors import TrainVitalsError
from trainvitals.store.folder import Folder, LocalFolder, open_folder

MARKS = ("audit.json", "items.parquet")
"""Either makes a folder an audit: an unfinished one has its items first."""
DEPTH, MOST_FOLDERS = 4, 2_000
"""How deep below the runs folder an audit may lie, and how many folders are looked at."""
OF_A_RUN = {"frames", "events"}
"""What a run's folder holds; its audits are all in `audits`."""
LOOK_SECONDS = 5.0
"""A folder is listed at most this often, however many viewers ask."""


@st.cache_data(ttl=LOOK_SECONDS, max_entries=8, show_spinner=False)
def audits_below(folder: str) -> dict[str, str]:
    """Name -> path of the audits in a folder or in its runs, or of the folder itself; the newest first.

    A broken audit is listed too, so that its page can say what is wrong with it.
    """
    root = folder.rstrip("/") or folder
    found: list[tuple[str, str]] = []
    pending, looked = [(root, "")], 0
    while pending and looked < MOST_FOLDERS:
        path, name = pending.pop(0)
        looked += 1
        try:
            place = open_folder(path)
            if _holds_audit(place):
                found.append((name or root.rsplit("/", 1)[-1], path))
            elif not name or name.count("/") < DEPTH - 1:
                names = [child for child in place.child_names() if not child.startswith(".")]
                if OF_A_RUN & set(names):
                    names = [child for child in names if child == "audits"]
                pending += [(f"{path}/{child}", f"{name}/{child}" if name else child) for child in names]
        except (TrainVitalsError, OSError):
            continue
    found.sort(key=lambda entry: -_modified(entry[1]))
    short = ["/".join(part for part in name.split("/") if part != "audits") or name for name, _ in found]
    return {s if short.count(s) == 1 else name: path for s, (name, path) in zip(short, found, strict=True)}


def _holds_audit(place: Folder) -> bool:
    for name in MARKS:
        # Not opened where a look is enough: a pipe would be waited for without an end.
        if isinstance(place, LocalFolder):
            if os.path.lexists(place.root / name):
                return True
            continue
        try:
            place.open(name).close()
            return True
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
    return False


def _modified(path: str) -> float:
    try:
        return os.stat(f"{path}/audit.json").st_mtime
    except OSError:
        return 0.0
