"""Dataclasses of arrays as folders of .npy files, mapped into memory by every worker instead of being sent to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_arrays(folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write each array to `folder/<name>.npy`; the folder is created where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def load_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """All arrays that `save_arrays` wrote, read-only and mapped into memory."""
    # A plain array over the mapping: numba compiles for arrays, not for np.memmap.
    return {path.stem: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in folder.glob("*.npy")}
