"""Formats that need no client: the Trainer's checkpoints, Lightning's folder, tables and JSON in their other shapes."""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.importers.csv_table import CsvTable
from collectors.importers.door import recognise, sessions
from collectors.importers.follow import Follower
from collectors.importers.importer import Item, RunOf
from tests.importers.test_formats import imported, rows
from trainvitals.blind import BLINDNESS
from trainvitals.errors import UsageError
from trainvitals.store import open_run

TOTAL = 400


def checkpoint(folder: Path, step: int, *, shift: float = 0.0, since: int = 0, every: int = 1) -> Path:
    """A checkpoint at a step; losses after `since` are shifted."""
    history = [{"loss": 3 - s / 128 + (shift if s > since else 0), "grad_norm": 1.0, "learning_rate": 1e-3, "step": s}
               for s in range(every, step + 1, every)]
    if step >= TOTAL:
        history.append({"train_runtime": 9.5, "train_loss": 2.0, "total_flos": 1e18, "step": step})
    path = folder / f"checkpoint-{step}" / "trainer_state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"log_history": history, "max_steps": TOTAL, "global_step": step}))
    return path


# ---- trainer_state.json ----------------------------------------------------------------------------------


def test_the_newest_checkpoint_counts_and_a_resume_is_a_branch(tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoint(out, 9)
    checkpoint(out, 10)
    imported(out, tmp_path / "run")
    checkpoint(out, 30)
    run = imported(out, tmp_path / "run")
    assert len(rows(run, "loss/train")) == 30 and len(run.attempts) == 1
    checkpoint(out, 40, shift=0.5, since=10)  # killed, and resumed from checkpoint 10
    run = imported(out, tmp_path / "run")
    found = rows(run, "loss/train")
    assert len(found) == 40 and found[10] == 3 - 10 / 128 and found[11] == 3.5 - 11 / 128
    assert run.branches()[["from_step", "to_step"]].to_numpy().tolist() == [[11, 30]]
    assert run.card.total_steps == 400 and run.status == "live"


def test_a_finished_training_is_finished_and_its_summary_is_no_row(tmp_path: Path) -> None:
    run = imported(checkpoint(tmp_path, 400), tmp_path / "run")
    assert run.status == "finished" and not run.has("train_loss") and len(rows(run, "loss/train")) == 400


def test_another_training_in_the_same_folder_is_imported_afresh(tmp_path: Path) -> None:
    imported(checkpoint(tmp_path / "out", 10), tmp_path / "run")
    checkpoint(tmp_path / "out", 10, shift=1.0, since=-1)
    [session] = sessions(tmp_path / "out" / "checkpoint-10" / "trainer_state.json", run=tmp_path / "run")
    session.look()
    session.close()
    assert "holds another run" in session.afresh
    assert rows(open_run(tmp_path / "run"), "loss/train")[1] == 4 - 1 / 128


def test_losses_of_several_steps_are_told_as_means(tmp_path: Path) -> None:
    run = imported(checkpoint(tmp_path, 100, every=10), tmp_path / "run")
    assert run.imported is not None
    kinds = {spot.kind for spot in run.imported.blind}
    assert kinds >= {"averaged", "last", "nonfinite"} and "sampled" not in kinds


@pytest.mark.parametrize("text", ['{"log_history": 3}', '{"log_history": [',
                                  '{"log_history": [1, null, {"loss": "x"}]}'])
def test_a_state_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    [session] = sessions(tmp_path / "trainer_state.json", run=tmp_path / "run")
    if "null" in text:
        assert not session.look() or not session.about.taken
    else:
        with pytest.raises(UsageError):
            session.look()


def test_the_state_in_the_output_folder_counts_while_no_checkpoint_is_further(tmp_path: Path) -> None:
    checkpoint(tmp_path / "out", 20).rename(tmp_path / "out" / "trainer_state.json")
    checkpoint(tmp_path / "out", 10)
    assert len(rows(imported(tmp_path / "out", tmp_path / "run"), "loss/train")) == 20
    checkpoint(tmp_path / "out", 30)
    assert len(rows(imported(tmp_path / "out", tmp_path / "run"), "loss/train")) == 30


# ---- tables ----------------------------------------------------------------------------------------------


def test_lightnings_folder_and_its_new_header(tmp_path: Path) -> None:
    folder = tmp_path / "version_0"
    folder.mkdir()
    (folder / "hparams.yaml").write_text("{}\n")
    (folder / "metrics.csv").write_text("epoch,step,train_loss\n0,0,2.0\n0,1,1.5\n")
    assert recognise(folder)[0].importer.format == "lightning"
    imported(folder, tmp_path / "run")
    (folder / "metrics.csv").write_text("epoch,step,train_loss,val_loss\n0,0,2.0,\n0,1,1.5,\n0,1,,1.75\n")
    run = imported(folder, tmp_path / "run")
    assert rows(run, "loss/train") == {0: 2.0, 1: 1.5} and rows(run, "loss/val") == {1: 1.75}


def test_a_json_list_and_nested_names(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    log.write_text(json.dumps([{"iter": i, "metrics": {"loss": i / 4, "text": "x"}} for i in range(1, 5)]))
    assert rows(imported(log, tmp_path / "run"), "loss/train") == {i: i / 4 for i in range(1, 5)}
    log.write_text(json.dumps([{"iter": i, "metrics": {"loss": i / 4}} for i in range(1, 7)]))
    assert len(rows(imported(log, tmp_path / "run"), "loss/train")) == 6


def test_objects_before_the_first_step_do_not_decide(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"config": {"lr": 0.001}}\n')
    imported(log, tmp_path / "run", format="jsonl")
    with log.open("a") as file:
        file.writelines(f'{{"step": {10 * i}, "loss": {i}.5}}\n' for i in range(1, 5))
    assert rows(imported(log, tmp_path / "run"), "loss/train") == {10: 1.5, 20: 2.5, 30: 3.5, 40: 4.5}


def test_numbers_alone_are_no_table(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("1,2.0\n2,1.5\n3,1.25\n")
    with pytest.raises(UsageError, match="no format that is known"):
        sessions(log)
    with pytest.raises(UsageError, match="names in its first line"):
        sessions(log, run=tmp_path / "run", format="csv")


def test_numbers_that_strict_json_spells_as_text(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": "NaN"}\n{"step": 2, "loss": "Infinity"}\n{"step": 3, "loss": 1}\nnoise\n'
                   '{"step": 4, "loss": true}\n{"step": 5, "loss": "low"}\n{"step": 6, "loss": null}\n')
    run = imported(log, tmp_path / "run")
    found = rows(run, "loss/train")
    assert math.isnan(found[1]) and found[2] == math.inf and found[3] == 1.0 and set(found) == {1, 2, 3}
    assert "1 lines that are no JSON object are left out" in " ".join(run.events()["message"])
    assert "nonfinite" in {spot.kind for spot in run.imported.blind}  # type: ignore[union-attr]


@pytest.mark.parametrize(("first", "at"), [("1.7e9", 1.7e9), ("1700000000000", 1.7e9),
                                           ("2023-11-14T22:13:20+00:00", 1.7e9), ("2023-11-14 22:13:20", 1.7e9)])
def test_times(first: str, at: float, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"step,timestamp,loss\n1,{first},2.0\n2,,1.0\n")
    run = imported(log, tmp_path / "run")
    assert run.last_time == at


def test_a_duration_is_no_time_of_day(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,time,loss\n1,0.5,2.0\n2,0.6,1.0\n")
    run = imported(log, tmp_path / "run")
    assert run.last_time is None and rows(run, "custom/time") == {1: 0.5, 2: 0.6}


@pytest.mark.parametrize(("header", "steps", "says"), [
    ("consumed samples,loss", [256, 512, 768], "samples"), ("tokens,loss", [256, 512, 768], "tokens"),
    ("epoch,loss", [1, 2, 3], "epochs"), ("loss,x", [1, 2, 3], "numbered")])
def test_what_counts_the_rows(header: str, steps: list[int], says: str, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    scale = 0.25 if "epoch" in header else 256
    log.write_text(f"{header}\n" + "".join(f"{scale * i:g},{i}\n" for i in range(1, 4)))
    run = imported(log, tmp_path / "run")
    assert list(rows(run, "loss/train")) == steps
    [spot] = [spot for spot in run.imported.blind if spot.kind == "steps"]  # type: ignore[union-attr]
    assert says in spot.says


def test_a_step_that_is_no_whole_number_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n1,2.0\n1.5,2.0\n,2.0\n1e3,2.0\n1e300,2.0\n")
    run = imported(log, tmp_path / "run")
    assert set(rows(run, "loss/train")) == {1, 1000}
    assert "3 rows without a whole step" in " ".join(run.events()["message"])


def test_parquet_nulls_decimals_and_times(tmp_path: Path) -> None:
    table = pa.table({"step": pa.array([1, 2, 3], pa.int32()), "loss": pa.array([1.5, None, math.nan], pa.float32()),
                      "date": pa.array([1_700_000_000_000] * 3, pa.timestamp("ms")),
                      "cost": pa.array([1, 2, 3]).cast(pa.decimal128(28, 6)), "who": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "t.parquet")
    run = imported(tmp_path / "t.parquet", tmp_path / "run")
    found = rows(run, "loss/train")
    assert set(found) == {1, 3} and math.isnan(found[3]) and run.last_time == 1.7e9
    assert rows(run, "cost") == {1: 1.0, 2: 2.0, 3: 3.0} and not run.has("who")


# ---- live ------------------------------------------------------------------------------------------------


def test_a_board_follows_a_log_that_another_process_writes(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n1,2.0\n")
    follower = Follower(sessions(log, run=tmp_path / "run"))
    follower.start()
    run = open_run(follower.folder)
    with log.open("a") as file:
        for step in range(2, 6):
            file.write(f"{step},1.0\n")
            file.flush()
    deadline = time.monotonic() + 30
    while len(run.array("loss/train")) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
        run.refresh()
    assert len(run.array("loss/train")) == 5 and run.status == "live"
    follower.stop()
    os.utime(log, (1e9, 1e9))
    imported(log, tmp_path / "run")
    told = open_run(tmp_path / "run").liveness
    assert told.status == "unknown" and "does not tell of an end" in told.reason


def test_an_importer_that_breaks_costs_one_sentence_and_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                       ) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n1,2.0\n")
    [session] = sessions(log, run=tmp_path / "run")
    read = type(session.importer).read

    def broken(self: CsvTable, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        yield from read(self, run, state)
        raise KeyError("surprise")

    monkeypatch.setattr(type(session.importer), "read", broken)
    for _ in range(2):
        with pytest.raises(UsageError, match="cannot be read on as CSV.*KeyError"):
            session.look()
    told = open_run(tmp_path / "run").imported
    assert told is not None and "cannot be read on" in told.notes[-1] and {s.kind for s in told.blind} == set(BLINDNESS)
    monkeypatch.undo()
    run = imported(log, tmp_path / "run")
    assert rows(run, "loss/train") == {1: 2.0} and run.rows_by_frame()[0] == {"stated_loss": 1}
    assert run.imported is not None and {s.kind for s in run.imported.blind} == {"absent"}
