"""One way to compile a kernel: no GIL, no fast-math, kept on disk where there is a place to keep it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
from numba.core import config

Kernel = Callable[..., Any]

HERE = Path(__file__).parent
AUDITS = HERE.parent
CONSTANTS = ("text/fold.py", "detect/index.py", "records.py")
"""Sources without kernels whose constants are compiled into them."""


def compiled(function: Kernel) -> Kernel:
    """Compile a function of arrays and numbers with numba at its first call.

    The machine code is kept in `__pycache__`, else in the user's cache folder, or where NUMBA_CACHE_DIR says
    (https://numba.readthedocs.io/en/stable/developer/caching.html). Where none of these can be written, as in a
    read-only container, every process compiles for itself.
    """
    for folder in _places():
        with _cache_dir(folder / f"trainvitals-{_version()}"):
            try:
                return cast(Kernel, numba.njit(nogil=True, cache=True)(function))
            except RuntimeError:
                continue
    return cast(Kernel, numba.njit(nogil=True)(function))


def _places() -> list[Path]:
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    places = [Path(named)] if named else [HERE / "__pycache__", home]
    return [place for place in places if _writable(place)]


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


@cache
def _version() -> str:
    # numba looks at a kernel's own file only: it would go on with machine code of functions changed elsewhere.
    digest = hashlib.sha256()
    for path in sorted(AUDITS.rglob("*.py")):
        source = path.read_bytes()
        if path.relative_to(AUDITS).as_posix() in CONSTANTS or b"contamination.text.jit" in source:
            digest.update(source)
    return digest.hexdigest()[:16]


@contextmanager
def _cache_dir(folder: Path) -> Iterator[None]:
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        config.CACHE_DIR = before  # type: ignore[attr-defined]
