"""Every snippet of docs/migrate.md runs as it stands, where the packages that it imports are installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trainvitals as tv

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "migrate.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


def packages(snippet: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(snippet)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    extra = {"tensorboard"} if "torch.utils.tensorboard" in names else set()
    return {name.partition(".")[0] for name in names} | extra


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"snippet{i}" for i in range(len(SNIPPETS))])
def test_a_snippet_runs(snippet: str, tmp_path: Path) -> None:
    missing = sorted(name for name in packages(snippet) if importlib.util.find_spec(name) is None)
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False, cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_the_table_names_calls_that_exist() -> None:
    assert len(SNIPPETS) >= 6
    rows = [line.split("|")[-2] for line in TEXT.splitlines() if line.startswith("|")]
    calls = re.findall(r"\b(tv|tap|run)\.(\w+)\(", " ".join(rows))
    assert len(calls) > 12
    owners = {"tv": tv, "tap": tv.Tap, "run": tv.Recorder}
    assert [call for call in calls if not hasattr(owners[call[0]], call[1])] == []
    widths = {line.count("|") for line in TEXT.splitlines() if line.startswith("|")}
    assert widths == {8}, "every row has a cell for every tracker"
