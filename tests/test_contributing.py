"""The examples of CONTRIBUTING.md are put where they say, and work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = dict(re.findall(r"^`(\S+)`:\n\n```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))

TRAIN = """
import sys
import collectors.signals
collectors.signals.__path__.append(sys.argv[1])
import torch
import trainvitals as tv
from tests.collectors import tiny
model, data = tiny.olmoe(), tiny.batches(3)
largest = []
model.register_forward_hook(lambda module, args, output: largest.append(float(output.logits.max())))
tiny.train(model, data, sys.argv[2], collectors={"logit": 1})
stored = tv.open_run(sys.argv[2]).series("output/max_logit")
assert list(stored["value"]) == largest, (list(stored["value"]), largest)
assert tv.open_run(sys.argv[2]).card.collectors["logit"] == 1
"""


CHECK = """
import sys
import checks.loss
import tests.checks.cases
checks.loss.__path__.append(sys.argv[1])
tests.checks.cases.__path__.append(sys.argv[2])
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/checks/test_cases.py", "tests/checks/test_form.py",
                      "-k", "loss.frozen"]))
"""


def put(path: str, folder: Path) -> Path:
    """Write one example into a folder of its own."""
    file = folder / Path(path).name
    file.write_text(EXAMPLES[path])
    return file


def test_a_check_is_one_file_and_its_cases(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "cases").mkdir()
    put("checks/loss/frozen.py", tmp_path / "loss")
    put("tests/checks/cases/loss_frozen.py", tmp_path / "cases")
    done = subprocess.run([sys.executable, "-c", CHECK, str(tmp_path / "loss"), str(tmp_path / "cases")],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_collector_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "signals").mkdir()
    put("collectors/signals/logit.py", tmp_path / "signals")
    done = subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path / "signals"), str(tmp_path / "run")],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_page_is_one_file(tmp_path: Path) -> None:
    testing = pytest.importorskip("streamlit.testing.v1")
    from dashboard.menu import found_pages
    from dashboard.sidebar import Choice
    from tests.dashboard.make_run import make_run

    make_run(tmp_path / "run", steps=60, fault="none")
    file = put("dashboard/app_pages/memory.py", tmp_path)
    (entry,) = found_pages(tmp_path)
    assert (entry.title, entry.icon, entry.place, entry.run) == ("Memory", ":material/memory:", 9, "always")
    page = testing.AppTest.from_file(str(file), default_timeout=60)
    page.session_state["_choice"] = Choice(str(tmp_path / "run"), "run")
    page.run()
    assert not page.exception
    assert len(page.get("vega_lite_chart")) >= 1


def test_a_file_that_is_no_page_is_named(tmp_path: Path) -> None:
    from dashboard.menu import found_pages
    from trainvitals.errors import UsageError

    (tmp_path / "notes.py").write_text('"""Just notes."""\n')
    with pytest.raises(UsageError, match=r"notes\.py is no page: it needs a docstring"):
        found_pages(tmp_path)


def test_examples_are_short() -> None:
    assert len(EXAMPLES) >= 4
    for path, text in EXAMPLES.items():
        code = re.sub(r'^""".*?"""$', "", text, flags=re.M | re.S).split("\n")
        assert len([line for line in code if line.strip()]) <= 20, path
