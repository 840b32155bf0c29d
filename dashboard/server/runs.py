"""Which runs a folder holds: the board's list, found again every few seconds however many viewers ask."""

from __future__ import annotations

import os
from collections import deque

import streamlit as st

from trainvitals.errors import TrainVitalsError
from trainvitals.store.folder import Folder, open_folder

DEPTH, MOST_FOLDERS, MOST_RUNS = 4, 5_000, 2_000
"""How deep below the folder a run may lie (runs/team/project/sweep/run), and how much is looked at."""
OF_A_RUN = {"frames", "events"}
EVALS = "evals"
"""Results that were imported for a model whose training nobody recorded make a folder a run as well."""
LOOK_SECONDS, FAR_SECONDS = 2.0, 30.0
"""A local folder is looked through at most this often; one in an object store, where each look is a request."""


def runs_below(folder: str) -> dict[str, str]:
    """Path below the folder -> whole path of every run, nearer ones first; of the folder itself if it is one.

    A folder that cannot be listed costs the runs inside it and no others.
    """
    return far(folder) if "://" in folder else near(folder)


@st.cache_data(ttl=LOOK_SECONDS, max_entries=8, show_spinner=False)
def near(folder: str) -> dict[str, str]:
    """The runs of a local folder, kept."""
    return _look_through(folder)


@st.cache_data(ttl=FAR_SECONDS, max_entries=8, show_spinner=False)
def far(folder: str) -> dict[str, str]:
    """The runs of an object store, kept."""
    return _look_through(folder)


def look_again(folder: str) -> dict[str, str]:
    """The same as it is now; of an object store, as it was last seen."""
    if "://" not in folder:
        near.clear()
    return runs_below(folder)


def unreachable(folder: str) -> str:
    """Why an object store does not say what it holds; "" where it does."""
    if "://" not in folder:
        return ""
    try:
        open_folder(folder).child_names()
    except (TrainVitalsError, OSError) as error:
        return str(error)
    return ""


def _look_through(folder: str) -> dict[str, str]:
    root = folder.rstrip("/") or folder
    found: dict[str, str] = {}
    pending, seen, looked = deque([(root, "")]), set[str](), 0
    while pending and looked < MOST_FOLDERS and len(found) < MOST_RUNS:
        path, name = pending.popleft()
        looked += 1
        try:
            # Links that lead round in a circle come back to a place that was seen.
            real = path if "://" in path else os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            place = open_folder(path)
            children = place.child_names()
            if OF_A_RUN & set(children) or _holds_card(place, path) or EVALS in children and _holds_results(path):
                found[name or root.rsplit("/", 1)[-1]] = path
            elif not name or name.count("/") < DEPTH - 1:
                wanted = [child for child in children if not child.startswith(".")]
                # A run that can be come by twice has the name without a link in it.
                wanted.sort(key=lambda child: os.path.islink(f"{path}/{child}"))
                pending += [(f"{path}/{child}", f"{name}/{child}" if name else child) for child in wanted]
        except (TrainVitalsError, OSError):
            continue
    return found


def _holds_card(place: Folder, path: str) -> bool:
    if "://" not in path:
        return os.path.lexists(f"{path}/run.json")
    try:
        place.open("run.json").close()
        return True
    except FileNotFoundError:
        return False


def _holds_results(path: str) -> bool:
    return any(name.endswith(".parquet") for name in open_folder(f"{path}/{EVALS}").entries())
