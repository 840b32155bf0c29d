"""Whether a run's folder holds results of evals, and when they change: light, so that every page may ask."""

from __future__ import annotations

import streamlit as st

from trainvitals.store.folder import open_folder

FOLDER = "evals"
LOOK_SECONDS = 2.0
"""A folder's results are listed at most this often, however many viewers ask."""

Stamp = tuple[tuple[str, int, float], ...]


@st.cache_data(ttl=LOOK_SECONDS, max_entries=32, show_spinner=False)
def stamp(path: str) -> Stamp:
    """Name, bytes and time of every file of results: changes when one does."""
    folder = open_folder(path)
    times = folder.times(FOLDER)
    return tuple(sorted((name, size, times.get(name, 0.0)) for name, size in folder.sizes(FOLDER).items()))


def has_evals(path: str) -> bool:
    """Whether a run's folder holds files of results."""
    return any(name.endswith(".parquet") for name, _, _ in stamp(path))
