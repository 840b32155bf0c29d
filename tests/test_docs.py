"""The generated pages are those of this code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def made_by(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["make_signals", "make_import"])
def test_a_generated_page_is_current(name: str) -> None:
    module = made_by(name)
    assert module.PAGE.read_text() == module.render(), f"run: python docs/{name}.py"
