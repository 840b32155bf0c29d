"""How the kernels of this folder are compiled: no GIL, no fast-math, kept on disk where there is a place to keep it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
from numba.core import config

Kernel = Callable[..., Any]
HERE = Path(__file__).parent


@cache
def version() -> str:
    """Changes with every source of this folder: machine code and saved states of another version are not used."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(HERE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiled(function: Kernel) -> Kernel:
    """Compile a function of arrays, records and numbers with numba at its first call.

    The machine code is kept in `__pycache__`, else in the user's cache folder, or where NUMBA_CACHE_DIR says; where
    none can be written every process compiles for itself. The folder carries `version()`, because numba looks at a
    kernel's own file only and would go on with machine code of functions and constants changed elsewhere.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    before = config.CACHE_DIR  # type: ignore[attr-defined]
    try:
        for place in [Path(named)] if named else [HERE / "__pycache__", home]:
            if not _writable(place):
                continue
            config.CACHE_DIR = str(place / f"trainvitals-{version()}")  # type: ignore[attr-defined]
            try:
                return cast(Kernel, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
            except RuntimeError:
                continue
    finally:
        config.CACHE_DIR = before  # type: ignore[attr-defined]
    return cast(Kernel, numba.njit(nogil=True, error_model="numpy")(function))


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
