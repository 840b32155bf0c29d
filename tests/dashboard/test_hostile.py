"""Hostile values in every place where the board reads a number or JSON: an address, a card, findings, fits, audits.

Nothing may end in a traceback, in a part that could not be drawn where a plain sentence serves, or in a path of the
server. Values and places are drawn at random with a fixed seed; FACTOR makes the same a long search.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dashboard
from dashboard.server import judging, verdicts
from dashboard.server.verdicts import Judged
from tests.contamination.make_audit import make_audit
from tests.dashboard.make_run import make_run
from tests.dashboard.test_pages import words
from tests.dashboard.test_scaling import write_ladder

FACTOR = int(os.environ.get("TRAINVITALS_FUZZ", "1"))
DEEP = 100_000
TOKENS = ("1e999", "-1e999", "NaN", "Infinity", "9" * 400, "-" + "9" * 400, "9" * 5000, "1e308", "-1e308", "1e-320",
          "0", "-1", "1e19", "9223372036854775807", "0.5", "true", "null", '""', '"text"', '"\\ud800"', '"NaN"', "[]",
          "{}", "[1]", "[[]]", "[null]", '{"a": NaN}', "[" * DEEP + "]" * DEEP, '{"a":' * 900 + "1" + "}" * 900)
"""JSON, and what some parsers take for it."""
TEXTS = ("1e999", "-1e999", "nan", "inf", "9" * 400, "-1", "0", "1e308", "", "true", "../../etc", "/etc/passwd", "%00",
         "\u202e", "x" * 3000, "<script>", "1e22", "'", "\ud800".encode("utf-8", "replace").decode(), "0x10", "1_0")
NUMBERS = ("from", "to", "gpus", "days", "mfu", "peak", "price", "unique", "drop", "outliers")
OTHERS = ("run", "compare", "log", "branches", "flops", "budget", "fit_loss", "ladder", "look", "models", "columns",
          "moved", "layer", "same_scale", "audit", "item", "part", "search", "with", "finding", "embed", "zzz")
PAGES = ("health", "loss", "optimisation", "routing", "data", "throughput", "scaling", "contamination")
SERVER = str(Path(dashboard.__file__).parent)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield from places(member, (*path, key))


def spoilt(document: Any, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Where and with what, and the JSON text of a document with one value of it replaced."""
    random_ = random.Random(seed)
    known = list(places(document))
    # One place of each kind as often as that of a long list: digits in the path do not count.
    kinds: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in known:
        kinds.setdefault(tuple("#" if isinstance(key, int) else key for key in path), []).append(path)
    for _ in range(count * FACTOR):
        path = random_.choice(kinds[random_.choice(list(kinds))])
        token = random_.choice(TOKENS)
        text = json.dumps(_with(document, path, "\u0001"))
        yield f"{path} = {token[:20]}", text.replace('"\\u0001"', token)


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    whole = copy.deepcopy(document)
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return whole


def look(test: Any, case: str) -> None:
    """What holds for every page whatever was read."""
    said = words(test) + " ".join(str(element.value) for element in [*test.warning, *test.info])
    assert not test.exception, case
    assert "Traceback" not in said and SERVER not in said and "site-packages" not in said, case


@pytest.fixture
def judged_at_once(monkeypatch):
    """Verdicts as the judging process gives them, without waiting for it."""

    class AtOnce:
        def report(self, path: str, version: str = "") -> Judged:
            raw = json.loads(json.dumps(judging.answer({}, path, "")))
            return Judged(error=raw["error"]) if "error" in raw else Judged(judging.report_of(raw), 0.1)

    monkeypatch.setattr(verdicts, "judge", AtOnce)
    for page in ("health", "scaling"):
        monkeypatch.setattr(f"dashboard.app_pages.{page}.judge", AtOnce, raising=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Runs of few steps, a fit and an audit beside them."""
    root = tmp_path_factory.mktemp("small")
    make_run(root / "run", steps=120)
    make_audit(root / "audit", 60, seed=3)
    from checks.scaling.fit import fit_ladder
    from checks.scaling.table import read_ladder

    table = write_ladder(root / "table.csv")
    (root / "ladder.json").write_text(json.dumps(fit_ladder(read_ladder(table), resamples=20).to_json()))
    table.unlink()
    judging.answer({}, str(root / "run"), "")
    return root


@pytest.fixture
def moving(small: Path, tmp_path: Path) -> Callable[[str, str, str], Path]:
    """A folder with a copy of something, one file of it written anew, under a path that nothing was kept for."""
    folder = tmp_path / "0"

    def moved(what: str, file: str, text: str) -> Path:
        nonlocal folder
        if not folder.exists():
            shutil.copytree(small / what, folder / what)
        folder = folder.rename(tmp_path / f"{int(folder.name) + 1}")
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
        return folder

    return moved


@pytest.mark.parametrize("page", PAGES)
def test_an_address(board, small, page):
    random_ = random.Random(page)
    for _ in range(2 * FACTOR):
        query = {name: random_.choice(TEXTS) for name in random_.sample(NUMBERS, 3) + random_.sample(OTHERS, 4)}
        if random_.random() < 0.5:
            query["budget"] = "machines"
        if page == "contamination" and random_.random() < 0.8:
            query["audit"] = "audit"
        look(board(small, page, **query), f"{page} {query}")


@pytest.mark.parametrize("value", TEXTS)
def test_each_number_of_an_address(board, small, value):
    look(board(small, "scaling", budget="machines", **dict.fromkeys(NUMBERS, value)), value)


def test_a_card(board, small, moving):
    card = json.loads((small / "run" / "run.json").read_text())
    for i, (case, text) in enumerate(spoilt(card, 10, 1)):
        folder = moving("run", "run/run.json", text)
        look(board(folder, PAGES[i % 7]), case)


def test_findings_in_the_folder(board, small, moving, judged_at_once):
    stored = json.loads((small / "run" / "findings" / "latest.json").read_text())
    for i, (case, text) in enumerate(spoilt(stored, 6, 2)):
        test = board(moving("run", "run/findings/latest.json", text), ("health", "scaling")[i % 2])
        look(test, case)
        assert "checks failed" not in words(test), case


def test_forecasts_in_the_folder(board, moving, judged_at_once):
    kept = {"level": "pass", "final_loss": 2.5, "interval": [2.4, 2.6], "coverage": 0.9, "law": "x", "last_step": 60,
            "total_steps": 120, "trained_share": 0.5, "time": 1.7e9}
    for case, text in spoilt(kept, 4, 3):
        look(board(moving("run", "run/forecasts/step-000000060.json", text), "scaling"), case)


def test_a_fit(board, small, moving):
    fit = json.loads((small / "ladder.json").read_text())
    for i, (case, text) in enumerate(spoilt(fit, 5, 4)):
        look(board(moving("run", "ladder.json", text), "scaling", look=("Loss", "Fit", "IsoFLOP", "Runs")[i % 4]), case)


@pytest.mark.parametrize(("name", "count"), [("audit.json", 10), ("provenance.json", 4)])
def test_an_audit(board, small, moving, name, count):
    made = {"began": "2026-01-01T00:00:00", "command": "x", "machine": {"cpus": 2}, "files": [{"path": "a"}]}
    summary = json.loads((small / "audit" / name).read_text()) if name == "audit.json" else made
    parts = ("Items", "Scores", "Threshold", "Recall", "What was searched")
    for i, (case, text) in enumerate(spoilt(summary, count, 5)):
        folder = moving("audit", f"audit/{name}", text)
        look(board(folder, "contamination", part=parts[i % 5], audit="audit"), f"{parts[i % 5]} {case}")
