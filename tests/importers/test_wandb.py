"""`.wandb` files against what was logged through wandb, and against damage."""


import math
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from collectors.importers._files.framed import records as framed_records
from collectors.importers.door import sessions
from collectors.importers.importer import Facts, Note, Resumed, Rows
from collectors.importers.wandb import Wandb
from tests.importers.reading import Points, bits, points, read, survives
from tests.importers.samples import wandb as sample
from tests.importers.writing import field, framed
from trainvitals.store import open_run

MAGIC = b":W&B\xe1\xbe\x00"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """wandb, which writes below the test's folder and asks nobody."""
    wandb = pytest.importorskip("wandb")
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True)
    return lambda **how: wandb.init(project="größe", mode="offline", dir=tmp_path, settings=settings, **how)


def logged(rows: list[tuple[int, dict[str, float]]]) -> Points:
    found: Points = {}
    for step, row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append((step, bits(float(value))))
    return found


def finished(run, exit_code: int = 0) -> None:
    """End a run; wandb's own process writes the rest of its file a moment later."""
    folder = Path(run.dir).parent
    run.finish(exit_code=exit_code)
    for _ in range(400):
        if any(isinstance(item, Note) and item.kind == "closed" for item in read(Wandb(), folder)):
            return
        time.sleep(0.05)


def numbers(folder: Path) -> Points:
    return {name: row for name, row in points(read(Wandb(), folder)).items() if not name.startswith("system/")}


def test_every_kind_of_number(tmp_path: Path, offline) -> None:
    run = offline(config={"lr": 1e-3, "nested": {"a": [1, 2], "b": None}}, name="näme", tags=["x"], notes="a note")
    run.define_metric("val/*", step_metric="tokens")
    rows = []
    for step in (0, 1, 2, 3, 4, 1000):
        row = {"loss/größe": 1 / (step + 3), "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "whole": 2**53 + step,
               "tiny": 5e-324, "huge": 1.7976931348623157e308, "yes": True, "tokens": step * 1_000_000, "-0": -0.0}
        rows.append((step, row))
        run.log(row, step=step)
    run.log({"a": {"b": {"c": 4.5}}, "text": "words", "list": [1, 2]}, step=1001)
    rows.append((1001, {"a.b.c": 4.5}))
    wandb = pytest.importorskip("wandb")
    run.log({"weights": wandb.Histogram([1.0, 2.0, 6.0], num_bins=5)}, step=1002)
    rows.append((1002, {"weights/count": 3, "weights/min": 1, "weights/max": 6}))
    run.alert(title="Look", text="the loss jumped")
    finished(run, exit_code=3)
    items = read(Wandb(), tmp_path / "wandb")
    assert numbers(tmp_path / "wandb") == logged(rows)
    facts = [item for item in items if isinstance(item, Facts)]
    config = {name: value for fact in facts for name, value in fact.config.items()}
    assert config == {"lr": 1e-3, "nested": {"a": [1, 2], "b": None}}
    card = {name: value for fact in facts for name, value in fact.card.items() if name != "notes"}
    assert card["name"] == "näme" and card["versions"] and card["created"] > 1.7e9
    notes = {item.kind: item.message for item in items if isinstance(item, Note)}
    assert notes["alert"] == "Look: the loss jumped" and "code 3" in notes["error"] and notes["closed"]
    assert "val/*" in notes["axis"] and "tokens" in notes["axis"]
    assert not any(spot.kind == "nonfinite" for fact in facts for spot in fact.blind)


def test_a_long_run(tmp_path: Path, offline) -> None:
    values = np.random.default_rng(0).normal(size=(2_000, 10))
    rows = [(step, {f"train/{i}": value for i, value in enumerate(row)}) for step, row in enumerate(values.tolist())]
    run = offline()
    for _, row in rows:
        run.log(row)
    finished(run)
    assert numbers(tmp_path / "wandb") == logged(rows)


def test_a_resumed_run_is_one_run(tmp_path: Path, offline) -> None:
    for start in (0, 20):
        run = offline(id="same", resume="allow")
        for step in range(start, start + 30):
            run.log({"loss": step + start}, step=step)
        finished(run)
        folder = next((tmp_path / "wandb").glob("offline-run-*-same"))
        folder.rename(folder.with_name(f"offline-run-20260101_0{start:05}-same"))
    items = read(Wandb(), tmp_path / "wandb")
    assert [item.step for item in items if isinstance(item, Resumed)] == [19]
    assert points(items, lines=True)["loss"] == [(step, bits(step + 20.0 * (step >= 20))) for step in range(50)]


def test_a_folder_of_runs(tmp_path: Path) -> None:
    source = sample.write(tmp_path / "log") / "run-abc.wandb"
    for name in ("a", "b"):
        folder = tmp_path / "log" / "wandb" / f"run-20260102_030409-{name}"
        folder.mkdir()
        (folder / f"run-{name}.wandb").write_bytes(source.read_bytes())
    assert [run.name for run in Wandb().runs(tmp_path / "log" / "wandb")] == ["abc", "a", "b"]


def test_a_job_that_was_killed_is_not_finished(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log") / "run-abc.wandb"
    path.write_bytes(path.read_bytes()[:-30])
    items = read(Wandb(), path)
    assert not any(isinstance(item, Note) and item.kind == "closed" for item in items)
    assert len(points(items)["train/loss"]) == 60


def test_a_growing_file_costs_what_is_new(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log") / "run-abc.wandb"
    data = path.read_bytes()
    whole: Points = {}
    state: dict = {}
    for end in [*range(0, len(data), 997), len(data), len(data)]:
        path.write_bytes(data[:end])
        if end:
            for name, row in points(Wandb().read(Wandb().runs(path)[0], state)
                                    ).items():
                whole.setdefault(name, []).extend(row)
    assert whole == points(read(Wandb(), path))


def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log") / "run-abc.wandb"
    survives(Wandb(), path, path.read_bytes(), 1_000)


def test_a_damaged_record_costs_itself(tmp_path: Path) -> None:
    found = sample.records()
    data = framed(MAGIC, found)
    path = tmp_path / "run-x.wandb"
    path.write_bytes(data)
    with path.open("rb") as file:
        ends = [end for _, end in framed_records(file, 7, len(data))]
    for record in range(2, len(found), 9):
        damaged = bytearray(data)
        damaged[ends[record] - 1] ^= 1
        path.write_bytes(damaged)
        with path.open("rb") as file:
            whole = [item for item, _ in framed_records(file, 7, len(data)) if isinstance(item, bytes)]
        assert whole == found[:record] + found[record + 1 :]


def test_framing_is_levels_dbs(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    found = [draw.bytes(int(size)) for size in draw.integers(0, 100_000, 40)] + [b"", b"x" * (32_768 - 14)]
    data = framed(MAGIC, found)
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb") as file:
        read_ = list(framed_records(file, 7, len(data)))
    assert [item for item, _ in read_] == found and read_[-1][1] == len(data)


def test_numbers_that_lie_about_lengths(tmp_path: Path) -> None:
    bad = [field(2, field(1, b"\x0a\xff\xff\xff\xff\x0f")), field(2, b"\xff" * 20), b"\x0a", field(2, b"\x0a" * 1_000),
           field(17, b"\x0b"), field(18, b"\x08"), field(7, b"\x1a\x02\x0a\x7f")]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(framed(MAGIC, bad))
    items = read(Wandb(), path)
    assert not points(items) and sum(isinstance(item, Note) and item.hides for item in items) >= 5


def test_values_nest_no_deeper_than_they_are_looked_through(tmp_path: Path) -> None:
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    record = field(2, field(1, field(1, "x") + field(16, deep)) + field(2, field(1, 1)))
    path = tmp_path / "run-x.wandb"
    path.write_bytes(framed(MAGIC, [record]))
    assert not points(read(Wandb(), path))


def test_checksums_are_over_type_and_payload() -> None:
    data = framed(MAGIC, [b"abc"])
    assert struct.unpack_from("<IHB", data, 7) == (zlib.crc32(b"\x01abc"), 3, 1)


def test_rows_come_in_batches(tmp_path: Path) -> None:
    rows = [field(2, field(1, field(1, "x") + field(16, "1")) + field(2, field(1, step))) for step in range(10_000)]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(framed(MAGIC, rows))
    items = read(Wandb(), path)
    assert [len(item.steps) for item in items if isinstance(item, Rows)] == [4096, 4096, 1808]


def test_a_job_that_has_logged_nothing_is_a_run_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(MAGIC)
    [session] = sessions(path, run=tmp_path / "run")
    assert session.look() and not session.look()
    session.close()
    assert open_run(session.folder).first_step is None
