"""The list of importers: every one in this folder. Adding a format means adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from collectors import importers
from collectors.importers.importer import Importer
from trainvitals.errors import UsageError


@cache
def all_importers() -> tuple[Importer, ...]:
    """Every importer, by its format.

    Raises:
        UsageError: two importers have one format.
    """
    found: dict[str, Importer] = {}
    for file in pkgutil.iter_modules(importers.__path__):
        module = importlib.import_module(f"{importers.__name__}.{file.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Importer) and thing.__module__ == module.__name__:
                if "format" not in vars(thing):
                    continue
                if thing.format in found:
                    raise UsageError(f"Two importers are called {thing.format!r}: in "
                                     f"{type(found[thing.format]).__module__} and {thing.__module__}. Rename one.")
                found[thing.format] = thing()
    return tuple(found[name] for name in sorted(found))
