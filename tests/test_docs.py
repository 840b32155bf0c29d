"""The generated pages are those of this code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_signals_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_signals", DOCS / "make_signals.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "signals.md").read_text() == module.render(), "run: python docs/make_signals.py"
