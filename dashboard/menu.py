"""The board's menu, read off the files in `app_pages`: adding a page is adding a file.

The first line of a page's docstring is its title and its help, as in "Loss: training and validation, per domain.". Its
line `ICON, PLACE = ":material/show_chart:", 2` says how the menu shows it. Two more names may stand there: `RUN`, "if
any" for a page that has something to show without a run and "never" for one that offers a choice of its own; and
`SECTION`, the word under which the menu folds it away with others.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainvitals.errors import UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """One page as the menu shows it."""

    file: Path
    title: str
    help: str
    icon: str
    place: int
    """Rank in the menu, from the left."""
    run: str
    """Whether the page shows a run: "always", "if any" or "never"."""
    section: str = ""
    """Word under which the menu folds it away; "" for one that is always seen."""

    @property
    def name(self) -> str:
        """Last part of the page's address."""
        return self.file.stem


@cache
def found_pages(folder: Path) -> list[Entry]:
    """All pages of a folder in the order of the menu.

    Raises:
        UsageError: a file there is no page.
    """
    return sorted((_entry(file) for file in folder.glob("[!_]*.py")), key=lambda entry: (entry.place, entry.name))


def _entry(file: Path) -> Entry:
    # Read, not imported: a page brings libraries along that only its viewers should wait for.
    module = ast.parse(file.read_text(encoding="utf-8"))
    title, colon, words = (ast.get_docstring(module) or "").partition("\n")[0].partition(": ")
    said = _constants(module)
    if not colon or not {"ICON", "PLACE"} <= set(said):
        raise UsageError(f'{file} is no page: it needs a docstring that begins with "Title: help." and a line '
                         'ICON, PLACE = ":material/...:", 9.')
    return Entry(file, title, words[0].upper() + words[1:], said["ICON"], said["PLACE"], said.get("RUN", "always"),
                 said.get("SECTION", ""))


def _constants(module: ast.Module) -> dict[str, Any]:
    """Names and values of `A, B = 1, 2` at the top of a module."""
    found: dict[str, Any] = {}
    for line in module.body:
        match line:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found |= {name.id: value.value for name, value in zip(names, values, strict=False)
                          if isinstance(name, ast.Name) and isinstance(value, ast.Constant)}
    return found
