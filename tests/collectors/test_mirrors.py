"""Scripts that log with wandb or TensorBoard, with our line at the top: the rows are those of the tracker's files."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import trainvitals as tv
from collectors.mirrors.importing import when_imported
from collectors.mirrors.wandb import Rows

ROOT = Path(__file__).parents[2]
START = """
import json, os, random, sys
import logging
logging.basicConfig()
import numpy as np
import trainvitals as tv
"""
WANDB = START + """
tv.mirror_wandb()
assert "wandb" not in sys.modules
import wandb
settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
"""


def script(text: str, cwd: Path, *arguments: str) -> tuple[list[Any], str]:
    """The JSON lines that a script prints, and what it says besides. Its exit status must be 0."""
    done = subprocess.run([sys.executable, "-c", text, *arguments], capture_output=True, text=True, check=False,
                          cwd=cwd,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))], done.stderr


def wandb_rows(file: Path) -> dict[tuple[str, int], float]:
    """Name and step -> value, of the history in a .wandb file: a LevelDB log of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    found: dict[tuple[str, int], float] = {}
    for data in _level_db_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name, value = item.key or "/".join(item.nested_key), json.loads(item.value_json)
                if not name.startswith("_") and isinstance(value, int | float):
                    found[name, record.history.step.num] = value
    return found


def _level_db_records(data: bytes) -> Iterator[bytes]:
    at, parts = 7, []
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at:at + 7])
        parts.append(data[at + 7:at + 7 + size])
        at += 7 + size
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def our_rows(run: Path) -> dict[tuple[str, int], float]:
    found = tv.open_run(run)
    return {(name.removeprefix("custom/"), int(row.step)): row.value for name in found.signals()["name"]
            for row in found.series(name).itertuples()}


RANDOM_CALLS = WANDB + """
for seed in range(3):
    rng = random.Random(seed)
    run = wandb.init(project="p", settings=settings, config={"seed": seed, "api_key": "x"}, name=f"n{seed}")
    log = run.log if seed else wandb.log
    for _ in range(60):
        data = {rng.choice(["a", "b", "loss/train", "step"]): rng.random() for _ in range(rng.randint(0, 2))}
        if rng.random() < 0.3:
            data["f"] = {rng.choice("gh"): rng.random()}
        step = None if rng.random() < 0.5 else max(0, run.step + rng.randint(-2, 4))
        log(data, step=step, commit=rng.choice([None, None, True, False]))
    if seed == 0:
        run.config.update({"late": 1})
        run.summary["best"] = 0.5
        wandb.alert("title", "text")
    print(json.dumps([run.id, os.path.dirname(run.dir)]))
    run.finish() if seed < 2 else None  # the last one is left to the end of the process
"""


def test_rows_are_those_that_wandb_stored(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    runs, said = script(RANDOM_CALLS, tmp_path)
    for seed, (key, folder) in enumerate(runs):
        (file,) = Path(folder).glob("*.wandb")
        wanted = wandb_rows(file)
        assert len(wanted) > 30 and our_rows(tmp_path / "runs" / key) == wanted
        run = tv.open_run(tmp_path / "runs" / key)
        assert run.status == "finished" and run.card.name == f"n{seed}" and not run.problems()
        assert run.card.config["seed"] == seed and run.card.config["api_key"] == "<hidden>"
    first = tv.open_run(tmp_path / "runs" / runs[0][0])
    assert first.card.config["late"] == 1 and first.card.notes["summary"]["best"] == 0.5
    assert "title: text" in first.events()["message"].tolist()
    assert said.count("goes on") <= 6  # names of ours


def test_rules_of_rows() -> None:
    rows = Rows(0)
    stored: list[tuple[int, bool, dict[str, Any]]] = []
    calls: list[tuple[dict[str, float], int | None, bool]] = [
        ({"a": 1}, None, True), ({"a": 2}, None, False), ({"b": 3}, None, True), ({"a": 4}, 5, False),
        ({"b": 5}, 5, False), ({"a": 6}, 3, False), ({"a": 7}, 8, True), ({"a": 8}, 8, False),
        ({}, None, True), ({"e": 1}, None, True)]
    for values, step, commit in calls:
        counts, ended = rows.moves_to(step)
        stored += ended + (rows.add(values, commit) if counts else [])
    assert [(step, row) for step, _, row in stored] == [
        (0, {"a": 1}), (1, {"a": 2, "b": 3}), (5, {"a": 4, "b": 5}), (8, {"a": 7}), (10, {"e": 1})]
    assert [given for _, given, _ in stored] == [False, False, True, True, False]


OBJECTS = WANDB + """
import torch
mode = sys.argv[1]
run = wandb.init(project="p", settings=settings, mode=mode, tags=["t"], notes="n", group="g")
model = torch.nn.Linear(2, 2)
tap = tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), "mine") if sys.argv[2] == "tap" else None
pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
for step in range(3):
    if tap:
        model(torch.ones(1, 2)).sum().backward()
        tap.optimizers[0].step()
    wandb.log({"v": torch.tensor(float(step))}, commit=False)
    wandb.log({"w": 1, "word": "same", "odd": [1, 2]})
wandb.log({"image": wandb.Image(pixels, caption="c"), "images": [wandb.Image(pixels)] * 2, "array": np.arange(50.0),
           "histogram": wandb.Histogram([1.0, 2.0]), "table": wandb.Table(columns=["a", "b"], data=[[1, "x"]]),
           "html": wandb.Html("<b>x</b>"), "last": 1.0}, step=70)
try:
    wandb.log({5: 1})
except TypeError:
    assert mode == "offline"
print(json.dumps([run.id]))
wandb.finish()
run = wandb.init(project="p", settings=settings, mode=mode)
run.log({"second": 1.0})
print(json.dumps([run.id]))
if tap:
    tap.close()
    assert len(tv.open_run("mine").series("grad/norm")) == 3  # though wandb's run goes on
    run.log({"after": 1.0})
"""


@pytest.mark.parametrize(("mode", "where"), [("offline", "tap"), ("disabled", "alone")])
def test_objects_and_the_tap(tmp_path: Path, mode: str, where: str) -> None:
    pytest.importorskip("wandb")
    ((key,), (second,)), said = script(OBJECTS, tmp_path, mode, where)
    run = tv.open_run(tmp_path / ("mine" if where == "tap" else f"runs/{key}"))
    found = {sample.name: sample for sample in run.samples()}
    at = {"tap": [1, 2, 3], "alone": [0, 1, 2]}[where]
    rows = our_rows(tmp_path / ("mine" if where == "tap" else f"runs/{key}"))
    assert [rows["v", step] for step in at] == [0, 1, 2]
    assert {step for name, step in rows if name == "w"} == set(at) and rows["last", 70] == 1.0
    assert found["word"].step == at[0] and found["image"].step == 70
    assert found["table"].read().to_dict("list") == {"a": [1], "b": ["x"]} and found["image"].data["caption"] == "c"
    assert found["histogram"].read()[0].sum() == 2 and found["array"].read()[0].sum() == 50
    assert "<b>x</b>" in found["html"].read() and len(run.samples("images")) == 2
    assert run.card.tags == ["t"] and run.card.group == "g" and run.card.notes["notes"] == "n"
    assert said.count("'odd'") == 1 and not run.overlaps()
    if where == "tap":
        assert [path.name for path in tmp_path.iterdir() if path.name in ("mine", "runs")] == ["mine"]
        assert rows["second", 3] == rows["after", 3] == 1.0
    else:
        assert tv.open_run(tmp_path / "runs" / second).array("second").values.tolist() == [1.0]


BROKEN = WANDB + """
import collectors.mirrors.destination as destination
from collectors.mirrors import wandb as mirror
def fail(*args, **kwargs):
    raise RuntimeError("broken")
for owner, name in ((destination, "begin"), (tv.Recorder, "log"), (mirror, "flatten"), (tv.Recorder, "close"),
                    (mirror, "settings_of"), (mirror, "Destination"), (destination.Mirror, "of")):
    whole = getattr(owner, name)
    setattr(owner, name, fail)
    with wandb.init(project="p", settings=settings, mode="disabled") as run:
        for step in range(20):
            run.log({"a": step})
        assert run.summary["a"] == 19
    setattr(owner, name, whole)
    print(json.dumps([name]))
with wandb.init(project="p", settings=settings, mode="disabled") as run:
    run.log({"a": 1.0})
print(json.dumps([run.id]))
"""


def test_a_mirror_that_fails_is_not_noticed_by_the_script(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    printed, said = script(BROKEN, tmp_path)
    assert len(printed) == 8 and 1 <= said.count("The script goes on") + said.count("Training goes on") <= 4
    assert our_rows(tmp_path / "runs" / printed[-1][0]) == {("a", 0): 1.0}, "the next run is mirrored"


LATE = """
import wandb
run = wandb.init(project="p", mode="disabled")
""" + START + """
tv.mirror_wandb("mine")
try:
    tv.mirror_wandb("other")
except tv_errors.UsageError if (tv_errors := sys.modules["trainvitals.errors"]) else None:
    wandb.log({"a": 1.0})
wandb.finish()
"""


def test_a_run_that_began_before_the_mirror_is_mirrored_from_there_on(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script(LATE, tmp_path)
    assert our_rows(tmp_path / "mine") == {("a", 0): 1.0}


TENSORBOARD = START + """
tv.mirror_tensorboard()
import torch
from {module} import SummaryWriter
rng = np.random.default_rng(0)
writer = SummaryWriter("logs/first")
for step in range(0, 50, 5):
    writer.add_scalar("loss/train", rng.random(), step)
    writer.add_scalar("b", torch.tensor(rng.random()), global_step=step)
    writer.add_scalars("many", {{"x": rng.random(), "y": 1}}, step)
writer.add_histogram("h", torch.arange(100.0), 45)
writer.add_image("i", torch.linspace(0, 1, 60).reshape(3, 4, 5), 45)
writer.add_images("is", np.zeros((2, 4, 5, 3)), 45, dataformats="NHWC")
writer.add_text("t", "words", 45)
writer.add_hparams({{"lr": 0.1}}, {{"hparam/accuracy": 0.5}})
writer.flush()
second = SummaryWriter("logs/second")
second.add_scalar("c", 1.0, 3)
writer.close()
"""


@pytest.mark.parametrize("module", ["torch.utils.tensorboard", "tensorboardX"])
def test_scalars_are_those_that_tensorboard_stored(tmp_path: Path, module: str) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip(module.partition(".")[0])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, said = script(TENSORBOARD.format(module=module), tmp_path)
    run = tv.open_run(tmp_path / "logs/first-trainvitals")
    theirs = EventAccumulator(str(tmp_path / "logs/first"))
    theirs.Reload()
    for tag, name in (("loss/train", "custom/loss/train"), ("b", "b")):
        assert [(event.step, np.float32(event.value)) for event in theirs.Scalars(tag)] == [
            (row.step, np.float32(row.value)) for row in run.series(name).itertuples()]
    assert len(run.series("many/x")) == 10 and run.array("many/y").values.tolist() == [1.0] * 10
    assert run.array("b").steps.tolist() == list(range(0, 50, 5)), "one row a step, not one a call"
    rows = our_rows(tmp_path / "logs/first-trainvitals")
    found = {sample.name: sample for sample in run.samples()}
    assert found["h"].read()[0].sum() == 100 and found["t"].read() == "words" and len(run.samples("is")) == 2
    assert (found["i"].data["height"], found["i"].data["width"]) == (4, 5) and found["i"].step == 45
    assert run.card.config == {"lr": 0.1} and rows["hparam/accuracy", 0] == 0.5
    second = tv.open_run(tmp_path / "logs/second-trainvitals")
    assert second.array("c").steps.tolist() == [3] and second.status == "finished" and "fail" not in said


def test_a_module_is_met_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "later_on.py").write_text("value = 1\n")
    (tmp_path / "fails_on.py").write_text("raise ImportError('no')\n")
    seen: list[ModuleType] = []
    for name in ("later_on", "fails_on", "never_there"):
        when_imported(name, seen.append)
    when_imported("later_on", lambda module: 1 / 0)
    assert not seen and "later_on" not in sys.modules
    import later_on

    assert seen == [later_on] and "cannot be mirrored" in caplog.text
    for name in ("fails_on", "never_there"):
        with pytest.raises(ImportError):
            __import__(name)
    when_imported("later_on", seen.append)
    assert seen == [later_on, later_on]
    (tmp_path / "never_there.py").write_text("")
    __import__("never_there")
    assert len(seen) == 3, "it was not there when it was looked for first"
