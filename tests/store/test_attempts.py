"""Attempts are ordered by numbers claimed in the folder, and life is told by growth: clocks decide nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.judge import run_checks
from checks.telemetry.health import health
from trainvitals.store import RunWriter, attempts, liveness, open_run
from trainvitals.store.attempts import Writer
from trainvitals.store.claims import Claim, all_claims, claim, launch_of, number
from trainvitals.store.folder import LocalFolder, on_network

REAL_TIME = time.time
HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The offset of this process's wall clock in seconds, as one element that may be set."""
    offset = [0.0]
    monkeypatch.setattr(time, "time", lambda: REAL_TIME() + offset[0])
    yield offset


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    name = ["here"]
    monkeypatch.setattr(socket, "gethostname", lambda: name[0])
    return name


def write(path: Path, steps: range, *, start: int = 0, rank: int = 0, world: int = 1, close: bool = True,
          value: float = 1.0) -> RunWriter:
    writer = RunWriter(path, rank=rank, world_size=world, start_step=start, flush_seconds=60)
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step in steps:
        frame.append(step, {"loss/sum": value, "loss/tokens": 1})
    assert writer.flush()
    if close:
        writer.close()
    return writer


def levels(path: Path) -> dict[str, str]:
    return {finding.summary: finding.level for finding in run_checks(open_run(path), ["telemetry"]).findings
            if finding.level in ("warn", "fail")}


@pytest.mark.parametrize("skew", [-HOUR, HOUR, 0.0])
def test_a_resume_comes_after_whatever_its_clock_says(tmp_path: Path, clock: list[float], host: list[str],
                                                      skew: float) -> None:
    write(tmp_path, range(1, 101), close=False)
    clock[0], host[0] = skew, "there"
    write(tmp_path, range(51, 81), start=50, value=2.0)
    clock[0] = 0.0
    run = open_run(tmp_path)
    assert run.array("loss/train").values.tolist() == [1.0] * 50 + [2.0] * 30
    assert run.branches()[["from_step", "to_step"]].to_numpy().tolist() == [[51, 100]]
    notes = [note for note in run.clock_notes() if "there" in note]
    assert bool(notes) == bool(skew) and all("3,6" in note or "3,59" in note for note in notes)
    assert not run.overlaps(), "another host's clock is no proof that two jobs wrote at once"
    assert ("warn" in levels(tmp_path).values()) == bool(skew)


@pytest.mark.parametrize("skew", [-120.0, 120.0])
def test_ranks_whose_clocks_differ_are_one_attempt(tmp_path: Path, clock: list[float], host: list[str], skew: float
                                                   ) -> None:
    write(tmp_path, range(1, 51), rank=0, world=2)
    clock[0], host[0] = skew, "there"
    write(tmp_path, range(1, 51), rank=1, world=2)
    clock[0] = 0.0
    run = open_run(tmp_path)
    assert [attempt.ranks for attempt in run.attempts] == [(0, 1)]
    assert run.array("loss/sum").values.tolist() == [2.0] * 50
    assert any("apart" in note and "there" in note for note in run.clock_notes())
    assert not any("written nothing" in problem for problem in run.problems())


def test_ranks_that_start_at_different_steps_are_one_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    write(tmp_path, range(1, 101), rank=0, world=2)
    write(tmp_path, range(1, 101), rank=1, world=2)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    write(tmp_path, range(51, 71), start=50, rank=0, world=2)
    write(tmp_path, range(52, 71), start=51, rank=1, world=2)
    run = open_run(tmp_path)
    assert [(attempt.ranks, attempt.start_step) for attempt in run.attempts] == [((0, 1), 0), ((0, 1), 50)]


RUNS = st.lists(st.tuples(st.integers(1, 4), st.permutations(range(4)), st.booleans()), min_size=1, max_size=6)


@given(RUNS, st.booleans())
def test_every_launch_gets_one_number_and_later_ones_larger(runs: list[tuple[int, list[int], bool]], named: bool
                                                            ) -> None:
    """Ranks look in any order; a launch may have an id that the next one repeats, or none and another start step."""
    claims: list[Claim] = []
    last = 0
    for index, (world, order, repeats) in enumerate(runs):
        launch = ("same" if repeats else f"job{index}") if named else ""
        team = []
        for rank in [rank for rank in order if rank < world]:
            mine = Claim(0, launch, world, 10 * index, f"host-{rank}-{index}-{rank}")
            mine = Claim(number(mine, claims), launch, world, mine.start_step, mine.writer)
            team.append(mine.attempt)
            claims.append(mine)
        assert len(set(team)) == 1 and team[0] > last
        last = team[0]


def test_ranks_that_look_before_others_have_claimed_agree(tmp_path: Path) -> None:
    seen = [Claim(3, "old", 4, 0, f"host-{rank}-1-1") for rank in range(4)]
    assert {number(Claim(0, "new", 4, 50, f"host-{rank}-2-2"), seen) for rank in range(4)} == {4}
    assert {number(Claim(0, "", 4, 50, f"host-{rank}-2-2"), seen) for rank in range(4)} == {4}


def test_two_processes_of_one_rank_never_share_a_number(tmp_path: Path) -> None:
    folder, got = LocalFolder(tmp_path), list[int]()

    def start(n: int) -> None:
        got.append(claim(folder, Claim(0, "", 1, 0, f"h-0-{n}-{n}")).attempt)

    threads = [threading.Thread(target=start, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(set(got)) == 8 and sorted(c.attempt for c in all_claims(folder)) == sorted(got)


@pytest.mark.parametrize(("environment", "launch"), [
    ({}, ""),
    ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ""),
    ({"TORCHELASTIC_RUN_ID": "id", "TORCHELASTIC_RESTART_COUNT": "2"}, "torchrun-id-2"),
    ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1", "SLURM_STEP_ID": "3"}, "slurm-7-1-3"),
    ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"},
     "slurm-7-1"),
    ({"RAY_JOB_ID": "01/../x.y"}, "ray-01_x_y"),
])
def test_the_identity_of_a_launch(environment: dict[str, str], launch: str) -> None:
    assert launch_of(environment) == launch
    mine = Claim(12, launch, 8, -1, "host.domain-3-44-55")
    assert Claim.parse(mine.path) == mine and mine.rank == 3 and "host.domain, process 44" in mine.who


@pytest.mark.parametrize("path", ["attempts/x", "attempts/1.2.3.4", "attempts/000001.-.1.0.host", "run.json",
                                  "attempts/000001.-.1.0.host-x-1", "attempts/" + "9" * 5000 + ".-.1.0.h-0-1"])
def test_other_names_are_no_claims(path: str) -> None:
    assert Claim.parse(path) is None


def test_writers_without_numbers_keep_the_order_of_time_and_come_first() -> None:
    old = [Writer("a", 0, 2, 0, 10.0), Writer("b", 1, 2, 0, 11.0), Writer("c", 0, 2, 0, 50.0),
           Writer("d", 0, 2, 5, 40.0)]
    new = [Writer("f", 0, 1, 5, 1.0, attempt=2), Writer("e", 0, 1, 5, 2.0, attempt=1, rewind=1),
           Writer("g", 0, 1, 5, 3.0, attempt=1)]
    teams = [[w.name for w in attempt.writers] for attempt in attempts.group([*new, *old], {})]
    assert teams == [["a", "b"], ["d"], ["c"], ["g"], ["e"], ["f"]]


def test_a_rollback_keeps_its_place_when_the_clock_steps_back(tmp_path: Path, clock: list[float]) -> None:
    writer = write(tmp_path, range(1, 101), close=False)
    clock[0] = -HOUR
    writer.rewind(60)
    writer._frames["loss"].append(61, {"loss/sum": 7.0, "loss/tokens": 1})
    writer.close()
    clock[0] = 0.0
    assert open_run(tmp_path).array("loss/train").values.tolist() == [1.0] * 60 + [7.0]


# -- two jobs at once ------------------------------------------------------------------------------------------------


def test_two_jobs_of_one_rank_are_named_and_neither_is_hidden(tmp_path: Path) -> None:
    one = write(tmp_path, range(1, 11), close=False)
    two = write(tmp_path, range(1, 11), close=False, value=2.0)
    one._frames["loss"].append(11, {"loss/sum": 1.0, "loss/tokens": 1})
    one.flush()
    for state in ("live", "finished"):
        run = open_run(tmp_path)
        (sentence,) = run.overlaps()
        assert all(word in sentence for word in ("rank 0", "attempt 1", "attempt 2", str(os.getpid())))
        assert sentence in run.problems() and levels(tmp_path)[sentence.rstrip(".") + "."] == "fail"
        assert run.array("loss/train", branch=0).values.tolist() == [1.0] * 11
        assert run.status == state
        one.close(), two.close()


def test_a_job_that_sees_a_newer_one_of_its_rank_says_so(tmp_path: Path, host: list[str], clock: list[float]) -> None:
    one = write(tmp_path, range(1, 11), close=False)
    host[0], clock[0] = "there", HOUR  # by its clock it began after the other's last row
    two = write(tmp_path, range(1, 11), close=False)
    clock[0] = 0.0
    assert one.flush()  # it looks around
    one._frames["loss"].append(11, {"loss/sum": 1.0, "loss/tokens": 1})
    one.close(), two.close()
    (sentence,) = open_run(tmp_path).overlaps()
    assert "here" in sentence and "there" in sentence


def test_ranks_of_one_job_and_a_clean_resume_are_no_overlap(tmp_path: Path) -> None:
    for start in (0, 10):
        writers = [write(tmp_path, range(start + 1, start + 11), start=start, rank=rank, world=2, close=False)
                   for rank in range(2)]
        [writer.close() for writer in writers]
    assert open_run(tmp_path).overlaps() == [] and not levels(tmp_path)


GROWING = """
import sys, time
from trainvitals.store import RunWriter
writer = RunWriter(sys.argv[1], flush_seconds=0.2)
frame = writer.frame("x", [])
step = 0
while True:
    step += 1
    frame.append(step, {"a": 1.0})
    if step == 20:
        writer.flush()
        print("running", flush=True)
    time.sleep(0.01)
"""


def test_a_live_job_is_seen_and_a_killed_one_is_not(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", GROWING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        rival = liveness.live_rival(LocalFolder(tmp_path), 0, "", seconds=30)
        assert rival is not None and rival.process == str(child.pid) and rival.attempt == 1
        assert liveness.live_rival(LocalFolder(tmp_path), 1, "", seconds=30) is None, "another rank"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert liveness.live_rival(LocalFolder(tmp_path), 0, "", seconds=0.5) is None


def test_the_look_before_training_has_an_end() -> None:
    go_on = threading.Event()
    assert liveness.within(0.05, lambda: go_on.wait(60)) is None
    go_on.set()
    assert liveness.within(0.05, lambda: 1 / 0) is None and liveness.within(20, lambda: 5) == 5


# -- liveness --------------------------------------------------------------------------------------------------------


def age(path: Path, seconds: float) -> None:
    """As if everything had last been written so long ago, by the clock of the file system."""
    for file in path.rglob("*"):
        at = file.stat().st_mtime - seconds
        os.utime(file, (at, at))


@pytest.mark.parametrize("skew", [-HOUR, 0.0, HOUR])
def test_a_live_run_is_live_whatever_its_writers_clock_says(tmp_path: Path, clock: list[float], skew: float) -> None:
    clock[0] = skew
    write(tmp_path, range(1, 11), close=False)
    clock[0] = 0.0
    run = open_run(tmp_path)
    assert run.status == "live" and abs(REAL_TIME() - (run.last_time or 0)) < 60


@pytest.mark.parametrize("skew", [-HOUR, 0.0, HOUR])
def test_a_dead_run_is_not_live_whatever_its_writers_clock_says(tmp_path: Path, clock: list[float], skew: float
                                                                ) -> None:
    clock[0] = skew - 600
    write(tmp_path, range(1, 11), close=False)
    age(tmp_path, 600)
    # What the writer would have measured ten minutes ago.
    for file in tmp_path.glob("events/*"):
        file.unlink()
    clock[0] = 0.0
    status = open_run(tmp_path).status
    assert status == ("silent" if skew <= 0 else "unknown"), "rows of the future: clocks disagree"


def test_a_copy_made_just_now_is_unknown_until_it_was_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, range(1, 11), close=False)
    now = REAL_TIME()
    monkeypatch.setattr(LocalFolder, "times", lambda self, prefix="": {"events/x": now})
    monkeypatch.setattr(LocalFolder, "now", lambda self: now + 86_400)
    run = open_run(tmp_path)
    assert run.status == "silent", "by one clock, and the rows say the same"
    monkeypatch.setattr(LocalFolder, "times", lambda self, prefix="": {"events/x": now + 86_400})
    run = open_run(tmp_path)
    assert run.status == "unknown" and "clocks" in run.liveness.reason
    assert [finding.level for finding in health(run)] == ["unknown"]
    monkeypatch.setattr(LocalFolder, "now", lambda self: None)
    assert open_run(tmp_path).status == "unknown"


def test_growth_decides_once_it_was_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [1000.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: seconds[0])
    watch = liveness.Watch()

    def look(at: float, size: int) -> str:
        seconds[0] = at
        watch.look({"events/a.jsonl": size, "findings/latest.json": int(at), "frames/x/history/b.parquet": int(at)})
        return watch.judge(lambda: ()).status

    assert [look(0, 1), look(30, 1), look(61, 1)] == ["unknown", "unknown", "silent"]
    assert [look(70, 2), look(120, 2), look(131, 2)] == ["live", "live", "silent"]
    assert look(500, 3) == "unknown", "it grew since, but it may have been long ago"
    assert [look(510, 3), look(520, 4), look(581, 4)] == ["unknown", "live", "silent"]


def test_which_file_systems_have_a_clock_of_their_own(tmp_path: Path) -> None:
    assert not on_network(tmp_path) and on_network(tmp_path / "missing")
