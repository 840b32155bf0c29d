"""Doing something with a module once it is imported, now or later, without importing it oneself."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

log = logging.getLogger("trainvitals")

Install = Callable[[ModuleType], None]


def when_imported(name: str, install: Install) -> None:
    """Call `install` with a module: at once where it is imported already, else when it has been.

    What `install` raises is said in the log, and the import goes on.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        _try(install, module)
        return
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.waiting.setdefault(name, []).append(install)


def _try(install: Install, module: ModuleType) -> None:
    try:
        install(module)
    except Exception as error:  # noqa: BLE001 - an import of the script's must not fail by us
        log.warning("trainvitals: %s cannot be mirrored (%r). The script goes on.", module.__name__, error)


class _Finder(MetaPathFinder):
    """Finds nothing itself: it lets the others find the module, and adds a call to the end of its execution."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Install]] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        installs = self.waiting.pop(name)  # so that looking for it does not come back here
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            spec = None
        loader: Any = getattr(spec, "loader", None)
        if spec is None or not hasattr(loader, "exec_module"):
            self.waiting[name] = installs  # it may be there later
            return None
        execute = loader.exec_module

        def then(module: ModuleType) -> None:
            execute(module)
            for install in installs:
                _try(install, module)

        loader.exec_module = then
        return spec


_FINDER = _Finder()
