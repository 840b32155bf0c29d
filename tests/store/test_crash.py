"""Writers die, disks fill up, files rot: the reader never raises, and loses no more than the flush interval."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.store.killing import Victim
from trainvitals.card import RunCard
from trainvitals.catalogue import custom_field
from trainvitals.store import RunWriter, open_run
from trainvitals.store.tail import Tail

FLUSH_SECONDS = 0.1
SLACK_SECONDS = 0.75
"""What a loaded machine may need for one write; a compaction that got in the way takes longer."""
COMPACT_SECONDS = 3.0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills_lose_no_row_that_is_older_than_promised(tmp_path: Path) -> None:
    """Also while history is made of ended segments, which here takes three seconds each."""
    rng = np.random.default_rng(7)
    victims = [Victim(tmp_path / str(n), FLUSH_SECONDS, COMPACT_SECONDS if n % 2 else 0.0) for n in range(16)]
    for victim in victims:
        kill = victim.kill(lambda: time.sleep(rng.uniform(0.0, 0.2)))
        assert kill.in_order
        assert kill.oldest_lost <= FLUSH_SECONDS + SLACK_SECONDS + kill.stall, "a row older than promised is gone"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_run_that_is_killed_and_resumed_again_and_again_has_one_main_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    resumed_at, run = 0, None
    for _ in range(25):
        Victim(tmp_path, FLUSH_SECONDS, start=resumed_at).kill(lambda: time.sleep(rng.uniform(0.0, 0.2)))
        if run is None:
            if not any(path.suffix == ".arrows" for path in tmp_path.rglob("*")):
                continue
            run = open_run(tmp_path)
        run.refresh()
        stored = run.array("x/step")
        assert (stored.values == stored.steps).all() and (np.diff(stored.steps) == 1).all(), "one gapless main line"
        resumed_at = max(0, int(stored.steps[-1]) - int(rng.integers(0, 20))) if len(stored) else 0
    assert run is not None and len(run.attempts) > 5 and not run.overlaps()
    fresh = open_run(tmp_path)
    np.testing.assert_array_equal(fresh.array("x/step").steps, run.array("x/step").steps)


def _segment(tmp_path: Path) -> tuple[bytes, list[int]]:
    writer = RunWriter(tmp_path, when_full="wait")
    frame, ends = writer.frame("x", [custom_field("a"), custom_field("b")]), []
    path = None
    for batch in range(20):
        for row in range(7):
            frame.append(batch * 7 + row + 1, {"a": batch * 7 + row + 1.0, "b": np.nan})
        writer.flush()
        path = next(tmp_path.glob("frames/x/live/*/*.arrows"))
        ends.append(path.stat().st_size)
    assert path is not None
    return path.read_bytes(), ends


def test_every_truncation_gives_exactly_the_whole_batches(tmp_path: Path) -> None:
    data, ends = _segment(tmp_path)
    for cut in range(len(data)):
        tail = Tail()
        tail.feed(data[:cut])
        assert tail.rows == 7 * sum(end <= cut for end in ends)
        first = tail.offset
        tail.feed(data[first:])  # the writer was only slow
        assert tail.rows == 140 and tail.torn_bytes == 0


def test_a_zero_filled_or_flipped_tail_never_gives_a_wrong_value(tmp_path: Path) -> None:
    data, _ = _segment(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(300):
        cut = int(rng.integers(len(data)))
        zeroed = data[:cut] + bytes(len(data) - cut)
        flipped = bytearray(data)
        flipped[cut] ^= 1 << int(rng.integers(8))
        for damaged in (zeroed, bytes(flipped)):
            tail = Tail()
            tail.feed(damaged)
            for batch in tail.batches:
                if batch.schema.names[:3] == ["step", "time", "a"]:
                    np.testing.assert_array_equal(batch["step"].to_numpy(), batch["a"].to_numpy())


def test_a_full_disk_costs_rows_not_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    writer = RunWriter(tmp_path, flush_seconds=0.02)
    frame = writer.frame("x", [custom_field("a")])
    frame.append(1, {"a": 1.0})
    writer.flush()
    real, full = os.write, True

    def write(descriptor: int, data: bytes) -> int:
        if not full:
            return real(descriptor, data)
        real(descriptor, data[: len(data) // 2])  # a full disk may take a part
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    frame.append(2, {"a": 2.0})
    time.sleep(0.2)
    frame.append(3, {"a": 3.0})
    time.sleep(0.1)
    full = False
    frame.append(4, {"a": 4.0})
    writer.close()
    assert sum("cannot write" in record.message for record in caplog.records) == 1, "said once, not at every flush"
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert any("no whole record" in problem for problem in run.problems())


def test_rows_that_no_disk_takes_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainvitals.store.disk.QUEUE_BYTES", 10_000)
    blocked = tmp_path / "file"
    blocked.write_text("a file where the run folder should be")
    writer = RunWriter(blocked / "run", flush_seconds=0.02)
    frame = writer.frame("x", [custom_field("a")])
    for step in range(5_000):
        frame.append(step, {"a": 0.0})
    assert writer.dropped_rows > 1_000
    blocked.unlink()
    writer.close()
    run = open_run(blocked / "run")
    assert any("rows dropped" in problem for problem in run.problems())
    assert len(run.array("a")) + writer.dropped_rows == 5_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_stops_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    writer = RunWriter(tmp_path / "run", flush_seconds=0.02)
    writer.frame("x", []).append(1, {"a": 1.0})
    writer.close()
    tmp_path.chmod(0o700)


def test_damaged_files_are_reported_not_raised(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    frame = writer.frame("x", [custom_field("a")])
    frame.append(1, {"a": 1.0})
    writer.event("note", step=1)
    writer.close()
    (tmp_path / "run.json").write_text("{ not json")
    history = next(tmp_path.glob("frames/x/history/*.parquet"))
    (history.parent / history.name.replace("-0-0.parquet", "-1-1.parquet")).write_bytes(b"PAR1 rot PAR1")
    (tmp_path / "events" / "other.jsonl").write_text('{"kind": "note"}\nnot json\n{"time": 1, "kin')
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == [1.0]
    text = "\n".join(run.problems())
    assert "run.json" in text and "1-1.parquet" in text and "other.jsonl" in text


@pytest.mark.parametrize("text", [
    "[]", "12", '{"domains": ["web"]}', '{"world_size": "two"}', '{"domains": {"a": "b"}}',
                                  '{"format": 99}', '{"peak_flops_per_device": true}', '{"lr_plan": 3}'])
def test_a_card_of_wrong_types_is_a_problem_and_not_a_card(tmp_path: Path, text: str) -> None:
    RunWriter(tmp_path).close()
    (tmp_path / "run.json").write_text(text)
    run = open_run(tmp_path)
    assert run.card == RunCard() and any("run.json" in problem for problem in run.problems())
