"""`.swanlab` files against what was logged through swanlab and its own reader, and against damage."""

import json
import math
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from collectors.importers.importer import Facts, Note, Resumed
from collectors.importers.swanlab import SwanLab
from tests.importers.reading import Points, bits, points, read, survives
from tests.importers.samples import swanlab as sample

LOG = """
import json, math, os, sys
import swanlab
for start, end, again in json.loads(sys.argv[2]):
    run = swanlab.init(project="project", experiment_name="größe", description="words", tags=["a"], logdir=sys.argv[1],
                       mode="offline", config={"lr": 0.001, "nested": {"layers": 2}},
                       **({"id": "same1", "resume": "allow"} if again else {}))
    for step in range(start, end):
        swanlab.log({"loss/größe": 1 / (step + 3), "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": 0,
                     "whole": 2**53 + step, "tiny": 5e-324, "yes": True, "nested": {"x": step + start}}, step=step)
    swanlab.finish()
"""
READ = """
import json, sys
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.sdk.internal.core_python.store import DataStoreReader
reader = DataStoreReader()
reader.open(sys.argv[1])
records = map(Record.FromString, reader)
print(json.dumps([[r.scalar.key, r.scalar.step, r.scalar.value.number] for r in records if r.HasField("scalar")]))
"""


def run(script: str, *args: str, **env: str) -> str:
    """Another process does it: swanlab warns of what it imports."""
    try:
        if int(version("swanlab").split(".")[1]) < 8:
            pytest.skip("swanlab before 0.8 has another format")
    except PackageNotFoundError:
        pytest.skip("swanlab is not installed")
    return subprocess.run([sys.executable, "-c", script, *args], check=True, capture_output=True, text=True).stdout


def written(folder: Path, *jobs: tuple[int, int, bool]) -> list[Path]:
    run(LOG, str(folder), json.dumps(jobs))
    return sorted(folder.glob("run-*/run-*.swanlab"))


def expected(steps: range, start: int = 0) -> Points:
    rows = {"loss/größe": lambda s: 1 / (s + 3), "nan": lambda s: math.nan, "inf": lambda s: math.inf,
            "-inf": lambda s: -math.inf, "zero": lambda s: 0.0, "whole": lambda s: float(2**53 + s),
            "tiny": lambda s: 5e-324, "yes": lambda s: 1.0, "nested/x": lambda s: float(s + start)}
    return {name: [(step, bits(value(step))) for step in steps] for name, value in rows.items()}


def test_every_kind_of_number(tmp_path: Path) -> None:
    [path] = written(tmp_path, (0, 400, False))
    items = read(SwanLab(), tmp_path)
    found = {name: row for name, row in points(items).items() if not name.startswith("system/")}
    assert found == expected(range(400))
    official: Points = {}
    for name, step, value in json.loads(run(READ, str(path))):
        official.setdefault(name, []).append((step, bits(value)))
    assert found == official
    facts = [item for item in items if isinstance(item, Facts)]
    config = {name: value for fact in facts for name, value in fact.config.items()}
    assert config == {"lr": 0.001, "nested": {"layers": 2}}
    card = next(fact.card for fact in facts if fact.card)
    assert card["name"] == "größe" and card["notes"]["tags"] == ["a"]
    assert [item.message for item in items if isinstance(item, Note) and item.kind == "closed"] == ["finished"]


def test_a_resumed_run_is_one_run(tmp_path: Path) -> None:
    first, *_ = written(tmp_path, (0, 30, True))
    first.parent.rename(tmp_path / "run-20260101_000000-same1")
    written(tmp_path, (20, 50, True))
    items = read(SwanLab(), tmp_path)
    assert [item.step for item in items if isinstance(item, Resumed)] == [19]
    assert points(items, lines=True)["nested/x"] == [(step, bits(step + 20.0 * (step >= 20))) for step in range(50)]


def test_a_growing_file_costs_what_is_new(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log") / "run-abc.swanlab"
    data = path.read_bytes()
    whole: dict[str, dict[int, bytes]] = {}
    state: dict = {}
    for end in [*range(1, len(data), 101), len(data), len(data)]:
        path.write_bytes(data[:end])
        for name, row in points(SwanLab().read(SwanLab().runs(path)[0], state)).items():
            assert not whole.get(name, {}).keys() & dict(row).keys()
            whole.setdefault(name, {}).update(row)
    at_once = points(read(SwanLab(), path))
    assert {name: whole[name] for name in sample.NAMES.values()} == {name: dict(at_once[name])
                                                                     for name in sample.NAMES.values()}


def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log") / "run-abc.swanlab"
    survives(SwanLab(), path, path.read_bytes(), 1_000)
