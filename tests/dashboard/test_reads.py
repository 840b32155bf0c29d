from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.server import reads
from tests.dashboard.make_run import Maker, make_run


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(make_run(tmp_path / "run", steps=200, fault="none"))


def test_the_newest_and_the_first_rows_of_a_rare_signal_are_found(path):
    assert reads.newest_steps(path, "loss/train", 50) == (151, 200)
    assert reads.newest_steps(path, "router/tokens", 3) == (180, 200)
    assert reads.newest_steps(path, "router/tokens", 3, until=95) == (70, 90)
    assert reads.oldest_steps(path, "tokens/counts", 2) == (50, 100)
    assert reads.newest_steps(path, "no/such", 3) is None
    assert reads.cadence(path, "router/load") == 10


def test_a_signal_that_is_not_there_is_an_empty_table(path):
    assert reads.series(path, "no/such").empty
    assert reads.series(path, "router/load", (1, 5)).empty
    assert not reads.has(path, "no/such")


def test_an_unchanged_run_is_read_once(path, monkeypatch):
    first = reads.series(path, "loss/train")
    monkeypatch.setattr(reads, "_table", None)
    assert reads.series(path, "loss/train") is first


def test_reads_are_bounded(path, monkeypatch):
    monkeypatch.setattr(reads, "MOST_READS", 5)
    for points in range(10, 30):
        reads.series(path, "loss/train", None, points)
    assert len(reads.shared(path)._kept) == 5


def test_a_long_live_run_reads_its_past_once_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(reads, "LONG_STEPS", 100)
    monkeypatch.setattr(reads, "REFRESH_SECONDS", 0.0)
    maker = Maker(tmp_path / "long", total_steps=2000, fault="none")
    maker.run_to(1000)
    maker.writer.flush()
    path = str(tmp_path / "long")
    whole = reads.series(path, "loss/train", max_points=64)
    assert (whole["step"].iloc[0], whole["last_step"].iloc[-1]) == (1, 1000)
    assert (whole["step"].to_numpy()[1:] == whole["last_step"].to_numpy()[:-1] + 1).all()

    asked = []
    read = reads._table
    monkeypatch.setattr(
        reads, "_table", lambda run, signal, steps, *rest: (asked.append(steps), read(run, signal, steps, *rest))[1]
    )
    maker.run_to(1004)
    maker.writer.flush()
    reads.poll(path)
    longer = reads.series(path, "loss/train", max_points=64)
    assert longer["last_step"].iloc[-1] == 1004
    assert all(first > 900 for first, _ in asked)
    maker.close()
