"""The small part of YAML that is read, against PyYAML."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.importers._settings import flat, settings

WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Co", "Cn")), max_size=12)
SCALAR = WORD | st.booleans() | st.none() | st.integers(-(10**15), 10**15) | st.floats(-1e6, 1e6, width=32)
TREE = st.dictionaries(WORD.filter(bool), st.recursive(
    SCALAR, lambda inner: st.dictionaries(WORD.filter(bool), inner, min_size=1, max_size=3), max_leaves=6), max_size=5)


@given(TREE)
def test_what_pyyaml_writes_is_read(tree: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    written = yaml.safe_dump(tree, default_flow_style=False, allow_unicode=True, width=10_000)
    assume = "? " not in written and "!!" not in written  # keys that are no plain word
    if assume:
        assert settings(written) == tree, written


def test_lists_folds_and_what_is_left_as_it_is() -> None:
    text = """
artifact_uri: file:///a/b c
  and so on
lr: 3.0e-4
tags:
- a
- 2
model:
  layers: 12   # as planned
  bomb: &a [*a, *a]
  run: !!python/object/apply:os.system [ls]
"""
    found = settings(text)
    assert found["artifact_uri"] == "file:///a/b c and so on"
    assert found["lr"] == 3e-4 and found["tags"] == ["a", 2]
    assert flat(found["model"]) == {"layers": 12, "bomb": "&a [*a, *a]", "run": "!!python/object/apply:os.system [ls]"}
