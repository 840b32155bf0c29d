"""What a script logs by itself, from a tap, a run without a model, or anywhere in the process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainvitals as tv
from collectors import current
from collectors.logger import open_loggers
from collectors.place import run_folder
from collectors.values import NESTED
from tests.store.test_attempts import GROWING
from trainvitals.errors import UsageError
from trainvitals.store import disk
from trainvitals.store.folder import LocalFolder


@pytest.fixture(autouse=True)
def _nothing_else_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.logger._OPEN", [])


def attach(run: Path | None = None, **arguments: Any) -> tv.Tap:
    model = torch.nn.Linear(2, 2)
    return tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), run, **arguments)


def train(tap: tv.Tap, steps: int) -> None:
    for _ in range(steps):
        tap.model(torch.ones(1, 2)).sum().backward()
        tap.optimizers[0].step()
        tap.optimizers[0].zero_grad()


def pairs(run: Path, name: str) -> list[tuple[int, float]]:
    table = tv.open_run(run).series(name)
    return list(zip(table["step"].tolist(), table["value"].tolist(), strict=True))


def kinds(run: Path) -> list[str]:
    return tv.open_run(run).events()["kind"].tolist()


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_mappings_are_taken_apart_and_cycles_refused_once(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"x": 1.0}
    endless["again"] = {"inner": endless}
    deep: Any = 1.0
    for _ in range(NESTED + 1):
        deep = {"d": deep}
    with tv.start(tmp_path) as run:
        for _ in range(3):
            run.log({"loss": {"kl": np.float32(0.5), "ce": torch.tensor([2.0]), "layer": {0: 1.0, 1: 2.0}},
                     "user": UserDict(a=True), "flat/name": 3, "bf16": torch.tensor(0.5, dtype=torch.bfloat16)})
            run.log({"e": endless, "fine": 1.0, "deep": deep, "bad": {("a", 1): 2.0}, "empty": {},
                     "grad": torch.tensor(3.0, requires_grad=True), "meta": torch.zeros((), device="meta")})
    found = tv.open_run(tmp_path)
    assert set(found.signals()["name"]) == {"loss/kl", "loss/ce", "loss/layer/0", "loss/layer/1", "user/a", "flat/name",
                                            "bf16", "e/x", "fine", "grad"}
    assert pairs(tmp_path, "loss/kl") == [(0, 0.5), (2, 0.5), (4, 0.5)] and pairs(tmp_path, "grad")[0] == (1, 3.0)
    told = found.events().query("kind == 'number_refused'")["message"].tolist()
    assert len(told) == 4 and any("holds itself" in message for message in told)
    assert any("nested more than" in message for message in told)


def test_a_value_that_changes_after_log_is_stored_as_it_was(tmp_path: Path) -> None:
    total, image, values = torch.tensor(5.0), np.ones((2, 2), np.uint8), torch.ones(10)
    with tv.start(tmp_path) as run:
        run.log({"total": total})
        run.log_image("image", image)
        run.log_histogram("values", values)
        total.zero_()
        image[:] = 0
        values.zero_()
    assert pairs(tmp_path, "total") == [(0, 5.0)]
    counts, edges = tv.open_run(tmp_path).samples("values")[0].read()
    assert counts.sum() == 10 and edges[0] <= 1 <= edges[-1] and edges[0] > 0


def test_everything_odd_is_said_and_nothing_is_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tv.start(tmp_path)
    for _ in range(50):
        for call in (
            lambda: run.log(None), lambda: run.log({"a": object()}), lambda: run.log({"a": 1}, step="x"),
            lambda: run.log_text("t", 5), lambda: run.log_text(5, "t"), lambda: run.log_text("", "t"),
            lambda: run.log_table("table", "no"), lambda: run.log_image("image", "a.png"),
            lambda: run.log_image("image", object()), lambda: run.log_histogram("h", ["a"]),
            lambda: run.log_histogram("h", None), lambda: run.log_histogram("h", [1.0], bins=10**9),
            lambda: run.event("k", object()), lambda: run.describe(config=5), lambda: run.describe(tags="x"),
            lambda: run.rewind("x"), lambda: run.log_text("t", "x", step="y"),
            lambda: run.log_text("n" * 5000, "t"), lambda: run.log_image("i", torch.zeros(5))):
            call()
    run.log({"fine": 1.0}, step=9)
    run.close()
    assert pairs(tmp_path, "fine") == [(9, 1.0)] and len(tv.open_run(tmp_path).attempts) == 1
    for call in (lambda: run.log({"a": 1}), lambda: run.log_text("t", "x"), lambda: run.event("k", "m"), run.close):
        call()
    assert tv.open_run(tmp_path).samples() == [] and len(caplog.records) < 30


# ---- samples -------------------------------------------------------------------------------------------------------


def test_samples_of_a_tap_lie_at_its_step(tmp_path: Path) -> None:
    tap = attach(tmp_path)
    train(tap, 3)
    tap.log_text("words", "three")
    tap.log_histogram("weights", tap.model.weight)
    tap.log_table("t", columns=["a"], rows=[[torch.tensor(2)]])
    tap.log_image("chw", torch.rand(3, 4, 3), caption="c")
    tap.log_image("mask", torch.ones(2, 2, dtype=torch.bool), step=1)
    tap.close()
    found = {sample.name: sample for sample in tv.open_run(tmp_path).samples()}
    assert {name: sample.step for name, sample in found.items()} == {
        "words": 3, "weights": 3, "t": 3, "chw": 3, "mask": 1}
    assert found["t"].read()["a"].tolist() == [2] and found["weights"].read()[0].sum() == 4
    assert (found["chw"].data["height"], found["chw"].data["width"]) == (4, 3)


def test_a_large_tensor_is_thinned_out_and_says_so(tmp_path: Path) -> None:
    with tv.start(tmp_path) as run:
        run.log_histogram("half", torch.ones(3_000_000, dtype=torch.float16))
    (sample,) = tv.open_run(tmp_path).samples()
    assert sample.data["values"] == 3_000_000 and sample.data["read_every"] == 3 and sample.data["counted"] == 1e6


# ---- runs without a model ------------------------------------------------------------------------------------------


def test_a_run_counts_its_calls_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with tv.start(tmp_path, config={"a": 1, "b": 1}, tags=["x"], notes="why", group="g", name="shown") as run:
        run.log({"v": 0.0})
        run.log({"v": 1.0})
        run.log({"v": 7.0}, step=7)
        run.log({"v": 8.0})
        assert run.step == 8
    with tv.start(tmp_path, resume="must", config={"b": 2}, tags=["y"]) as run:
        assert run.step == 8
        run.log({"v": -1.0}, step=3)  # would hide what was stored after it
        run.log({"v": 9.0})
    assert pairs(tmp_path, "v") == [(0, 0), (1, 1), (7, 7), (8, 8), (9, 9)]
    assert kinds(tmp_path).count("step_behind") == 1
    card = tv.open_run(tmp_path).card
    assert (card.config, card.tags, card.notes, card.group, card.name) == (
        {"a": 1, "b": 2}, ["x", "y"], {"notes": "why"}, "g", "shown")
    with tv.start(tmp_path, start_step=7) as run:
        run.log({"v": 80.0})
        run.rewind(2)
        run.log({"v": 30.0})
    assert pairs(tmp_path, "v") == [(0, 0), (1, 1), (3, 30)] and len(tv.open_run(tmp_path).branches()) == 3


def test_what_resume_forbids(tmp_path: Path) -> None:
    for begin in (lambda **k: tv.start(tmp_path / "run", **k), lambda **k: attach(tmp_path / "run", **k)):
        with pytest.raises(UsageError, match="There is no run"):
            begin(resume="must")
        with pytest.raises(UsageError, match='"auto", "must" or "never"'):
            begin(resume="allow")
    assert not (tmp_path / "run").exists()
    tv.start(tmp_path / "run", resume="never").close()
    for begin in (lambda **k: tv.start(tmp_path / "run", **k), lambda **k: attach(tmp_path / "run", **k)):
        with pytest.raises(UsageError, match="There is a run in"):
            begin(resume="never")
        begin(resume="must").close()
    assert len(tv.open_run(tmp_path / "run").attempts) == 3 and open_loggers() == []


def test_only_the_first_rank_judges_whether_a_run_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        run = tv.start(tmp_path, resume="never")
        run.log({"a": float(rank)})  # at step 0, though rank 0 has rows by now
        run.log({"a": float(rank)})
        run.close()
    found = tv.open_run(tmp_path)
    assert len(found.attempts) == 1 and found.attempts[0].ranks == (0, 1) and found.array("a").steps.tolist() == [0, 1]


def test_names_of_run_folders() -> None:
    assert [run_folder("a/b", None), run_folder(None, "x"), run_folder("sweep/", "x"), run_folder(Path("a"), None)] == [
        "a/b", "runs/x", "sweep/x", "a"]
    assert run_folder("s3://bucket/runs", "x") == "s3://bucket/runs/x"
    for run, name in ((None, None), ("", None), (5, None), ("a", ""), ("a", "../b"), ("a", "."), ("a", "b/c"),
                      (" ", "a"), ("a", "x" * 200), ("a", 5)):
        with pytest.raises(UsageError):
            run_folder(run, name)


def test_wrong_words_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"config": 5}, {"tags": "abc"}, {"tags": [1]}, {"notes": 5}, {"group": 5},
                                   {"name": 1}, {"id": "a/b"}, {"resume": None}]
    for arguments in wrong:
        for begin in (lambda **k: tv.start(tmp_path / "run", **k), lambda **k: attach(tmp_path / "run", **k)):
            with pytest.raises(UsageError):
                begin(**arguments)
    with pytest.raises(UsageError, match="start_step"):
        tv.start(tmp_path / "run", start_step="a")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists() and open_loggers() == []


def test_a_second_job_of_a_live_run_is_refused(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", GROWING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        with pytest.raises(UsageError, match=f"process {child.pid} .*Stop that job"):
            tv.start(tmp_path)
    finally:
        child.kill()
        child.communicate()


def test_a_dead_disk_stops_only_those_that_need_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    for name in ("sizes", "append", "replace", "read", "stamp", "entries"):
        monkeypatch.setattr(LocalFolder, name, lambda *args: go_on.wait(60))
    monkeypatch.setattr("collectors.place.GUARD_SECONDS", 0.05)
    monkeypatch.setattr(disk, "CLOSE_SECONDS", 0.05)
    with pytest.raises(UsageError, match="could not be looked at"):
        tv.start(tmp_path, resume="never")
    run = tv.start(tmp_path)
    run.log({"a": 1.0})
    run.close()
    go_on.set()


def test_settings_and_secrets_of_a_tap(tmp_path: Path) -> None:
    tap = attach(tmp_path, config={"lr": 0.1, "hf_token": "a-secret"}, tags=("a",), name="n")
    for _ in range(3):
        tap.describe(config={"late": 1, "password": "p"}, tags=(tag for tag in "b"), notes="seen",
                     summary={"best": 2.0})
    tap.close()
    found = tv.open_run(tmp_path)
    assert found.card.config == {
        "lr": 0.1, "hf_token": "<hidden>", "late": 1, "password": "<hidden>"} and found.card.tags == ["a", "b"]
    assert found.card.notes == {"notes": "seen", "summary": {"best": 2.0}} and found.card.params_total == 6
    told = found.events().query("kind == 'config_hidden'")["message"].tolist()
    assert [message.rpartition(" ")[2] for message in told] == ["hf_token", "password"]
    assert "a-secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
    attach(tmp_path, config={"lr": 0.2}).close()
    assert tv.open_run(tmp_path).card.config ["late"] == 1
    assert tv.open_run(tmp_path).card.config["lr"] == 0.2
    (kept,) = (tmp_path / "cards").iterdir()
    assert json.loads(kept.read_text())["config"]["lr"] == 0.1


# ---- several loggers in one process --------------------------------------------------------------------------------


@pytest.mark.parametrize("tap_first", [True, False])
def test_a_tap_and_a_run_in_one_folder_share_a_writer(tmp_path: Path, tap_first: bool) -> None:
    if tap_first:
        tap = attach(tmp_path, config={"a": 1})
        run = tv.start(tmp_path / ".." / tmp_path.name, config={"b": 2})
    else:
        run = tv.start(tmp_path, config={"b": 2})
        tap = attach(tmp_path, config={"a": 1})
    train(tap, 2)
    run.log({"mine": 1.0})
    tap.log({"its": 2.0})
    tv.log({"both": 3.0})
    run.log_text("t", "x")
    (tap if tap_first else run).close()
    (run if tap_first else tap).log({"late": 4.0}, step=9)
    (run if tap_first else tap).close()
    found = tv.open_run(tmp_path)
    assert len(found.attempts) == 1 and found.overlaps() == [] and found.status == "finished" and not found.problems()
    assert pairs(tmp_path, "its") == [(2, 2.0)] and pairs(tmp_path, "late") == [(9, 4.0)]
    assert pairs(tmp_path, "mine") == [(2 if tap_first else 0, 1.0)] and pairs(tmp_path, "both") == [(2, 3.0)]
    assert found.card.config == {"a": 1, "b": 2} and found.card.params_total == 6 and len(found.samples()) == 1


def test_a_second_tap_on_a_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    tap = attach(tmp_path)
    with pytest.raises(UsageError, match="has a tap of this process already"):
        attach(f"file://{tmp_path}")  # type: ignore[arg-type]
    train(tap, 2)
    tap.close()
    assert tv.open_run(tmp_path).array("grad/norm").steps.tolist() == [1, 2] and open_loggers() == []


def test_a_tap_that_starts_before_what_its_run_held_goes_back(tmp_path: Path) -> None:
    with tv.start(tmp_path) as run:
        for step in range(1, 11):
            run.log({"v": 1.0}, step=step)
    run = tv.start(tmp_path)
    tap = attach(tmp_path, start_step=5)  # the checkpoint is older than the record
    tap.log({"v": 2.0}, step=6)
    tap.close()
    run.close()
    assert pairs(tmp_path, "v") == [*[(step, 1.0) for step in range(1, 6)], (6, 2.0)]


def test_a_row_that_would_hide_the_record_is_refused(tmp_path: Path) -> None:
    tap = attach(tmp_path)
    train(tap, 6)
    tap.log({"epoch/loss": 1.0}, step=1)  # epochs as steps, in a fresh run
    tap.close()
    tap = attach(tmp_path, start_step=4)
    tap.log({"epoch/loss": 2.0}, step=2)
    tap.log({"val": 1.0})
    train(tap, 3)
    tap.rewind(5)
    tap.log({"epoch/loss": 2.0}, step=3)
    train(tap, 1)
    tap.close()
    found = tv.open_run(tmp_path)
    assert found.array("grad/norm").steps.tolist() == [1, 2, 3, 5, 6] and pairs(tmp_path, "epoch/loss") == [(1, 1.0)]
    assert pairs(tmp_path, "val") == [(4, 1.0)] and kinds(tmp_path).count("step_behind") == 1
    fresh = attach(tmp_path / "fresh", start_step=1000)  # from a checkpoint of elsewhere: nothing to hide
    fresh.log({"epoch/loss": 2.0}, step=2)
    fresh.close()
    assert pairs(tmp_path / "fresh", "epoch/loss") == [(2, 2.0)]


def test_anywhere_in_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_said", set())
    for _ in range(3):
        tv.log({"lost": 1.0})
    assert len(caplog.records) == 1 and "no run open" in caplog.text
    with tv.start(tmp_path / "a") as a:
        tv.log({"v": 1.0})
        tv.log_text("t", "x")
        tv.log_table("table", columns=["c"], rows=[[1]])
        tv.log_image("i", np.zeros((2, 2)))
        tv.log_histogram("h", [1.0, 2.0])
        tv.log_event("note", "hello")
        threads = [threading.Thread(target=lambda n=n: [tv.log({f"thread{n}": 1.0}, step=i) for i in range(100)])
                   for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with tv.start(tmp_path / "b"):
            for _ in range(3):
                tv.log({"lost": 1.0})
        assert a.step == 99
    assert len([record for record in caplog.records if "2 runs open" in record.message]) == 1
    found = tv.open_run(tmp_path / "a")
    assert {sample.kind for sample in found.samples()} == {"text", "table", "image", "histogram"}
    assert all(len(found.series(f"thread{n}")) == 100 for n in range(4)) and "note" in kinds(tmp_path / "a")
    assert "lost" not in found.signals()["name"].tolist()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_run(tmp_path: Path) -> None:
    run = tv.start(tmp_path)
    child = os.fork()
    if not child:
        try:
            run.log({"child": 1.0})
            run.log_text("t", "child")
            run.event("k", "child")
            tv.log({"child": 1.0})
            run.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run.log({"parent": 1.0})
    run.close()
    found = tv.open_run(tmp_path)
    assert found.signals()["name"].tolist() == ["parent"] and not found.samples() and "k" not in kinds(tmp_path)


NO_TORCH = """
import sys
import trainvitals as tv
tv.mirror_wandb()
tv.mirror_tensorboard()
with tv.start(sys.argv[1], config={"a": 1}) as run:
    tv.log({"a": {"b": 1.0}})
    tv.log_text("t", "x")
    tv.log_image("i", [[0.5]])
assert not {"torch", "wandb", "tensorboard", "pandas"} & set(sys.modules), sorted(sys.modules)
"""


def test_a_run_without_a_model_loads_no_torch_and_no_tracker(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", NO_TORCH, str(tmp_path)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(tv.open_run(tmp_path).samples()) == 2


DIES = """
import sys
import trainvitals as tv
run = tv.start(sys.argv[1])
run.log({"a": 1.0})
raise SystemExit if sys.argv[2] == "exit" else ValueError
"""


@pytest.mark.parametrize("how", ["exit", "error"])
def test_a_script_that_ends_without_closing_loses_nothing(tmp_path: Path, how: str) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path), how], capture_output=True, check=False)
    assert pairs(tmp_path, "a") == [(0, 1.0)] and tv.open_run(tmp_path).status == "finished"


def test_a_card_stays_readable_however_much_is_said(tmp_path: Path) -> None:
    with tv.start(tmp_path) as run:
        for i in range(40):
            run.describe(config={f"k{i}.{n}": "\U0001f600" * 1000 for n in range(100)}, notes="n" * 10**6,
                         tags=[f"t{i}.{n}" for n in range(9)], summary={f"s{n}": "é" * 1000 for n in range(1000)})
    found = tv.open_run(tmp_path)
    assert "k0.0" in found.card.config and "…" in found.card.config and len(found.card.tags) == 100
    assert found.problems() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_on_a_device_are_those_of_the_moment_they_were_logged(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8, device="cuda")
    total = torch.zeros((), device="cuda")
    with tv.start(tmp_path) as run:
        for step in range(1, 6):
            total += step
            run.log({"total": total, "nested": {"half": total.half()}}, step=step)
            run.log({"total": total * 2} if step == 3 else {"total": -1.0} if step == 4 else {"other": 1.0}, step=step)
            total.zero_()
        run.log_histogram("h", torch.ones(3_000_000, device="cuda", dtype=torch.bfloat16))
        run.log_image("i", image)
        run.log_image("mask", torch.ones(2, 2, dtype=torch.bool, device="cuda"))
    assert pairs(tmp_path, "total") == [(1, 1), (2, 2), (3, 6), (4, -1), (5, 5)]
    found = {sample.name: sample for sample in tv.open_run(tmp_path).samples()}
    assert found["h"].data["values"] == 3_000_000 and found["h"].read()[0].sum() == 1e6
    decode = pytest.importorskip("PIL.Image").open
    pixels = np.asarray(decode(io.BytesIO(found["i"].read())))
    np.testing.assert_array_equal(pixels, image.permute(1, 2, 0).cpu().numpy())
    assert np.asarray(decode(io.BytesIO(found["mask"].read()))).tolist() == [[255, 255], [255, 255]]
