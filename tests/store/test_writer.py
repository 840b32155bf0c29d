"""Training never meets the disk: what hangs, fills up, vanishes or refuses costs rows that are named, not the job."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.telemetry.health import health
from trainvitals.card import RunCard
from trainvitals.catalogue import custom_field
from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.store import RunWriter, disk, eventlog, open_run, sink
from trainvitals.store.compact import compact_run
from trainvitals.store.folder import LocalFolder, open_folder

MUTATORS = ("append", "replace", "remove")
LOOKS = ("sizes", "read", "open", "times", "stamp", "now", "child_names")


class Troubled(LocalFolder):
    """A folder whose operations first ask `before`, which may raise or block."""

    def __init__(self, root: Path, before: Callable[[str, str], None]) -> None:
        super().__init__(root)
        self.before = before


def _wrapped(name: str) -> Any:
    def call(self: Troubled, *args: Any, **kwargs: Any) -> Any:
        self.before(name, str(args[0]) if args else "")
        return getattr(LocalFolder, name)(self, *args, **kwargs)

    return call


for _name in (*MUTATORS, *LOOKS):
    setattr(Troubled, _name, _wrapped(_name))


def rows(writer: RunWriter, steps: range) -> None:
    frame = writer._frames.get("x") or writer.frame("x", [custom_field("a")])
    for step in steps:
        frame.append(step, {"a": float(step)})


def stored(path: Path) -> list[int]:
    return open_run(path).array("a").steps.tolist()


def kinds(path: Path) -> list[str]:
    return open_run(path).events()["kind"].tolist()


def test_no_call_of_the_training_thread_touches_the_folder(tmp_path: Path) -> None:
    touched: list[str] = []
    me = threading.get_ident()

    def before(name: str, path: str) -> None:
        if threading.get_ident() == me:
            touched.append(name)

    writer = RunWriter(Troubled(tmp_path, before), flush_seconds=0.02)
    rows(writer, range(1, 1001))
    writer.event("note", step=1, message="hello")
    writer.write_card(RunCard(name="x"))
    writer.rewind(500)
    rows(writer, range(501, 1001))
    assert writer.flush()
    writer.close()
    assert touched == [] and stored(tmp_path) == list(range(1, 1001)) and open_run(tmp_path).card.name == "x"


HANGING = """
import sys, threading
from trainvitals.store import RunWriter, disk
from trainvitals.store.folder import LocalFolder

class Dead(LocalFolder):
    def append(self, path, data):
        threading.Event().wait()  # for ever: a mount whose server is gone

disk.CLOSE_SECONDS = 0.5
writer = RunWriter(Dead(sys.argv[1]), flush_seconds=0.02)
frame = writer.frame("x", [])
for step in range(1000):
    frame.append(step, {"a": 1.0})
print("flushed", writer.flush(), flush=True)
writer.close()
print("closed", flush=True)
"""


def test_a_disk_that_hangs_keeps_no_process_from_its_end(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0 and ended.stdout.splitlines() == ["flushed False", "closed"]
    assert "did not take 1,000 rows" in ended.stderr


@pytest.mark.parametrize("where", ["append", "replace", "sizes", "stamp", "read"])
def test_closing_ends_wherever_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str,
                                              caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(disk, "CLOSE_SECONDS", 0.2)
    go_on = threading.Event()

    def before(name: str, path: str) -> None:
        if name == where:
            go_on.wait(60)

    writer = RunWriter(Troubled(tmp_path, before), flush_seconds=0.02)
    rows(writer, range(1, 11))
    writer.write_card(RunCard())
    assert not writer.flush()
    writer.close()
    assert not writer.disk._ended.is_set()
    assert ("did not take 10 rows" in caplog.text) == (where != "read"), "the card is read, rows do not wait for it"
    go_on.set()


def test_importers_wait_for_a_slow_disk_but_not_for_a_dead_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "QUEUE_BYTES", 10_000)
    monkeypatch.setattr(disk, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(disk, "CLOSE_SECONDS", 0.3)
    dead = threading.Event()

    def before(name: str, path: str) -> None:
        if name == "append" and "frames" in path:
            dead.wait() if dead_now else time.sleep(0.02)

    dead_now = False
    writer = RunWriter(Troubled(tmp_path, before), when_full="wait", flush_seconds=60)
    rows(writer, range(1, 10_001))
    dead_now = True
    with pytest.raises(TrainVitalsError, match="took no data"):
        rows(writer, range(10_001, 30_001))
    writer.close()
    dead.set()


def test_a_pipe_where_a_file_should_be_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        LocalFolder(tmp_path).append("pipe", b"x")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="no regular file"):
        LocalFolder(tmp_path).append("pipe", b"x")
    os.close(reader)
    os.mkfifo(tmp_path / "run.json")
    writer = RunWriter(tmp_path, flush_seconds=0.02)
    writer.write_card(RunCard(name="card"))
    rows(writer, range(1, 4))
    assert not writer.flush()  # the card waits; the rows need not wait for it
    assert stored(tmp_path) == [1, 2, 3]
    writer.close()


def test_a_pipe_in_place_of_a_segment_costs_no_row(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, flush_seconds=60)
    place = tmp_path / "frames/x/live" / writer.writer
    place.mkdir(parents=True)
    os.mkfifo(place / "000000.arrows")
    rows(writer, range(1, 11))
    assert not writer.flush(), "it could not be written there"
    assert writer.flush()
    writer.close()
    assert stored(tmp_path) == list(range(1, 11))


def test_rows_do_not_wait_for_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, real = threading.Event(), threading.Event(), sink.compact

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(sink, "compact", slow)
    monkeypatch.setattr(sink, "SEGMENT_BATCHES", 2)
    writer = RunWriter(tmp_path, flush_seconds=60)
    for n in range(4):
        rows(writer, range(2 * n, 2 * n + 2))
        assert writer.flush()
    assert begun.wait(20) and stored(tmp_path) == list(range(8)), "history is not made, rows are there"
    go_on.set()
    writer.close()
    assert not list(tmp_path.glob("frames/x/live/*/*")) and stored(tmp_path) == list(range(8))


@pytest.mark.parametrize("gone", ["deleted", "moved"])
def test_a_folder_that_vanishes_is_a_loss_that_is_named_and_is_made_anew(
        tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "run"
    writer = RunWriter(place, flush_seconds=60)
    writer.write_card(RunCard(name="kept"))
    rows(writer, range(1, 301))
    assert writer.flush()
    place.rename(tmp_path / "elsewhere")  # at once: a writer at work makes anew what is deleted file by file
    if gone == "deleted":
        shutil.rmtree(tmp_path / "elsewhere")
    rows(writer, range(301, 401))
    writer.flush()
    rows(writer, range(401, 501))
    writer.close()
    run = open_run(place)
    found = run.array("a").steps.tolist()
    (lost,) = run.events().query("kind == 'folder_lost'")["data"]
    assert found[-200:] == list(range(301, 501)) and lost["rows"] + len(found) == 500
    assert run.card.name == "kept" and run.status == "finished" and run.attempts[0].writers[0].attempt == 1
    assert any("made anew" in record.message for record in caplog.records)
    assert "folder_lost" in {finding.details.get("kind") for finding in health(run)}
    if gone == "moved":
        assert stored(tmp_path / "elsewhere") == list(range(1, 301))


def test_claims_that_somebody_deletes_are_no_loss(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, flush_seconds=60)
    rows(writer, range(1, 11))
    assert writer.flush()
    shutil.rmtree(tmp_path / "attempts")
    rows(writer, range(11, 21))
    writer.close()
    assert len(list((tmp_path / "attempts").iterdir())) == 1
    assert stored(tmp_path) == list(range(1, 21)) and kinds(tmp_path) == ["started", "closed"]


def test_a_segment_that_somebody_deletes_is_counted_and_one_that_is_compacted_is_not(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, flush_seconds=60)
    rows(writer, range(1, 11))
    assert writer.flush()
    assert compact_run(open_folder(tmp_path), quiet_for=-1) == 1
    rows(writer, range(11, 21))
    assert writer.flush() and "rows_gone" not in kinds(tmp_path)
    assert stored(tmp_path) == list(range(1, 21)), "history and a new segment"
    for path in tmp_path.glob("frames/x/live/*/*"):
        path.unlink()
    rows(writer, range(21, 31))
    writer.close()
    (told,) = open_run(tmp_path).events().query("kind == 'rows_gone'")["data"]
    assert told == {"rows": 10} and stored(tmp_path) == [*range(1, 11), *range(21, 31)]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_disk_that_refuses_for_a_while_costs_nothing(tmp_path: Path, code: int) -> None:
    refusing = True

    def before(name: str, path: str) -> None:
        if refusing and name in MUTATORS:
            raise OSError(code, os.strerror(code))

    writer = RunWriter(Troubled(tmp_path, before), flush_seconds=0.02)
    for turn in range(4):
        refusing = turn % 2 == 0
        writer.event("note", message=str(turn))
        rows(writer, range(100 * turn, 100 * turn + 100))
        assert writer.flush() is not refusing
    writer.close()
    run = open_run(tmp_path)
    assert run.array("a").steps.tolist() == list(range(400)) and run.problems() == []
    assert run.events().query("kind == 'note'")["message"].tolist() == ["0", "1", "2", "3"]


def test_an_event_after_a_torn_one_is_not_glued_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.write, False

    def write(descriptor: int, data: bytes) -> int:
        if not full:
            return real(descriptor, data)
        real(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = RunWriter(tmp_path, flush_seconds=60)
    assert writer.flush()
    monkeypatch.setattr(os, "write", write)
    for n in range(3):
        full = True
        writer.event("note", message=f"first {n}")
        assert not writer.flush()
        full = False
        writer.event("note", message=f"second {n}")
        assert writer.flush()
    writer.close()
    run = open_run(tmp_path)
    notes = run.events().query("kind == 'note'")["message"].tolist()
    assert sorted(set(notes)) == sorted(f"{word} {n}" for word in ("first", "second") for n in range(3))
    assert len(notes) == 6, "none twice"


def test_events_in_memory_are_bounded_and_what_is_dropped_is_counted(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "WAITING_EVENTS", 50)
    full = True

    def before(name: str, path: str) -> None:
        if full and name in MUTATORS:
            raise OSError(errno.ENOSPC, "No space left on device")

    writer = RunWriter(Troubled(tmp_path, before), flush_seconds=60)
    for n in range(500):
        writer.event("note", step=n)
    assert len(writer.disk.events) == 50
    full = False
    writer.close()
    run = open_run(tmp_path)
    events = run.events()
    (told,) = events.query("kind == 'events_dropped'")["data"]
    assert (events["kind"] == "note").sum() + told["events"] == 500
    assert any("events dropped" in problem for problem in run.problems())
    assert events["kind"].iloc[-1] == "closed" and run.status == "finished"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_what_an_event_carries_is_cut_with_a_mark(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    loop: dict[str, Any] = {}
    loop["self"] = loop
    data = {"text": "x" * 10_000_000, "list": list(range(100_000)), "deep": deep, "loop": loop, "nan": float("nan"),
            "huge": 10**10_000, "array": np.zeros((3, 4)), "odd": Unprintable(), "keys": {(1, 2): 3, 4: 5},
            "ok": [1, "a"], "bytes": b"abc", "error": ValueError("bad"), "path": Path("a/b"), "number": np.float32(1.5)}
    writer = RunWriter(tmp_path, flush_seconds=60)
    writer.event("note", message="m" * 1_000_000, step=float("inf"), **data)  # type: ignore[arg-type]
    assert writer.flush()
    (path,) = tmp_path.glob("events/*.jsonl")
    assert path.stat().st_size < 50_000
    event = open_run(tmp_path).events().query("kind == 'note'").iloc[0]
    assert "cut from 1,000,000" in event["message"] and "cut from 10,000,000" in event["data"]["text"]
    assert event["data"]["ok"] == [1, "a"] and event["data"]["number"] == 1.5 and event["data"]["step"] == "inf"
    writer.close()


def test_a_closed_writer_leaves_no_thread_and_says_so(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    writer = RunWriter(tmp_path)
    frame = writer.frame("x", [])
    frame.append(1, {"a": 1.0})
    writer.close()
    with pytest.raises(UsageError, match="Append before close"):
        frame.append(2, {"a": 1.0})
    writer.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    assert set(threading.enumerate()) <= before


def test_rows_that_were_late_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LATE_SECONDS", 0.05)
    waiting, go_on = threading.Event(), threading.Event()

    def before(name: str, path: str) -> None:
        if name == "append" and "frames" in path and not go_on.is_set():
            waiting.set()
            go_on.wait(60)

    writer = RunWriter(Troubled(tmp_path, before), flush_seconds=0.02)
    rows(writer, range(1, 3))
    assert waiting.wait(20)
    time.sleep(0.1)
    go_on.set()
    writer.close()
    assert "rows_late" in kinds(tmp_path)
