"""The list of collectors: every one in this folder. Adding a collector means adding a file."""

from __future__ import annotations

import importlib
import pkgutil

from collectors import signals
from collectors.signals.collector import Collector
from trainvitals.errors import UsageError


def all_collectors() -> tuple[type[Collector], ...]:
    """Every collector, in the order in which they are called.

    Raises:
        UsageError: two collectors have one name.
    """
    found: dict[str, type[Collector]] = {}
    for file in pkgutil.iter_modules(signals.__path__):
        module = importlib.import_module(f"{signals.__name__}.{file.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Collector) and thing.__module__ == module.__name__:
                if "name" not in vars(thing):
                    continue
                if thing.name in found:
                    raise UsageError(f"Two collectors are called {thing.name!r}: in {found[thing.name].__module__} and "
                                     f"{thing.__module__}. Rename one.")
                found[thing.name] = thing
    return tuple(sorted(found.values(), key=lambda one: (one.turn, one.name)))


def default_cadences(collectors: tuple[type[Collector], ...]) -> dict[str, int]:
    """Steps between two rows, by the name under which users set them; 0 switches off."""
    return {name: every for one in collectors for name, every in {one.name: one.default_every, **one.also}.items()}
