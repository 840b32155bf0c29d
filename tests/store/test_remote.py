"""A run on an object store, over HTTP: followed live from another host, through every trouble of the server."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pandas as pd
import pytest

from tests.store.object_store import Proxy, credentials, lab, make_bucket, other_host, row, s3_server, wait_for, write
from trainvitals.errors import RunNotFound, StoreUnreachable, UsageError
from trainvitals.store import list_runs, open_run
from trainvitals.store.compact import compact_run
from trainvitals.store.folder import open_folder
from trainvitals.store.writer import flush_interval

pytest.importorskip("s3fs", reason="needs the extra s3: pip install 'trainvitals[s3]'")
pytest.importorskip("moto", reason="needs moto[server], of the extra dev")

HERE = Path(__file__).parents[2]

@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with lab() as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[str]:
    yield f"s3://lab/runs/{request.node.name.translate(str.maketrans('[]', '--'))}"
    proxy.mode, proxy.delay = "pass", 0.0


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def same(left: str | Path, right: str | Path) -> None:
    """Two runs hold the same bytes in every series."""
    for ours, theirs in zip(columns(left), columns(right), strict=True):
        assert ours.to_numpy().tobytes() == theirs.to_numpy().tobytes()


def follow(url: str, last: int) -> list[int]:
    """The last steps that a reader saw, in order, until it saw the run finished at `last`."""
    seen: list[int] = []

    def look() -> bool:
        with suppress(RunNotFound):
            run = open_run(url)
            while not (run.status == "finished" and run.last_step == last):
                if run.last_step is not None and run.last_step not in seen[-1:]:
                    seen.append(run.last_step)
                time.sleep(0.05)
                run.refresh()
            return True
        return False

    until(look)
    return seen


def test_another_host_is_followed_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks on a host of their own; server and reader on this one."""
    from s3fs import S3FileSystem

    script = ("import sys; from tests.store.object_store import write; write(sys.argv[1], range(1, 301), [0, 1], "
              "world_size=2, pause=0.005, flush_seconds=0.2).close()")
    with ExitStack() as stack:
        command, address = stack.enter_context(other_host())
        port = stack.enter_context(s3_server(address))
        wait_for(address, port)
        make_bucket(f"http://{address}:{port}", "lab")
        for name, value in (credentials() | {"AWS_ENDPOINT_URL": f"http://{address}:{port}"}).items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        writers = stack.enter_context(subprocess.Popen([*command, sys.executable, "-c", script, "s3://lab/runs/x"],
                                                       cwd=HERE, env=os.environ | {"PYTHONPATH": str(HERE)}))
        seen = follow("s3://lab/runs/x", 300)
        assert writers.wait(timeout=30) == 0
        assert len(seen) > 3 and seen == sorted(seen), "rows came as they were written, not at the end"
        write(tmp_path, range(1, 301), [0, 1], world_size=2).close()
        same("s3://lab/runs/x", tmp_path)
    S3FileSystem.clear_instance_cache()


def columns(place: str | Path) -> list[pd.Series]:
    """Steps and values of every kind of series of a run."""
    run = open_run(place)
    tables = [run.series(name) for name in ("loss/train", "loss/domain")]
    assert all(len(table) for table in tables) and run.problems() == []
    return [table[name] for table in tables for name in ("step", "value")]


@pytest.mark.parametrize("trouble", ["503", "403", "gone", "hang", "lost", "slow"])
def test_trouble_costs_no_row_and_doubles_none(
    trouble: str, proxy: Proxy, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write(url, range(1, 101), flush_seconds=0.1)
    writer.flush()
    monkeypatch.setattr("trainvitals.store.remote.REQUEST_SECONDS", 1.0)
    frame = writer._frames["loss"]
    trouble_begins(proxy, trouble)
    for step in range(101, 401):  # none of these waits for the server, which does not come back before they are done
        frame.append(step, row(0, step))
        time.sleep(0.002)
    trouble_ends(proxy)
    run = open_run(url)
    until(lambda: run.refresh() and run.last_step == 400)
    writer.close()
    assert writer.dropped_rows == 0
    write(tmp_path, range(1, 401)).close()
    same(url, tmp_path)
    assert open_run(url).problems() == []


def trouble_begins(proxy: Proxy, trouble: str) -> None:
    if trouble == "gone":
        proxy.gone()
    elif trouble == "slow":
        proxy.delay = 0.3
    else:
        proxy.mode = trouble


def trouble_ends(proxy: Proxy) -> None:
    proxy.mode, proxy.delay = "pass", 0.0
    if proxy.away:
        proxy.back()


def test_what_does_not_fit_in_memory_is_dropped_and_named(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainvitals.store.disk.QUEUE_BYTES", 40_000)
    writer = write(url, range(1, 11), flush_seconds=0.1)
    writer.flush()
    proxy.mode = "503"
    for step in range(11, 3001):
        writer._frames["loss"].append(step, row(0, step))
    proxy.mode = "pass"
    writer.close()
    run = open_run(url)
    assert writer.dropped_rows > 0 and len(run.series("loss/train")) == 3000 - writer.dropped_rows
    assert any(f"{writer.dropped_rows} rows dropped" in problem for problem in run.problems())


def test_a_reader_takes_no_part_for_the_whole_and_is_right_again(proxy: Proxy, url: str) -> None:
    writer = write(url, range(1, 101))
    writer.flush()
    run = open_run(url)
    for step in range(101, 201):
        writer._frames["loss"].append(step, row(0, step))
    writer.flush()
    proxy.mode = "cut"
    try:
        run.refresh()
    except OSError:
        pass
    assert run.series("loss/train")["step"].tolist() == list(range(1, 101))
    proxy.mode = "pass"
    run.refresh()
    assert run.series("loss/train")["step"].tolist() == list(range(1, 201)) and run.problems() == []
    writer.close()


def test_an_idle_look_is_one_request_however_much_there_is(proxy: Proxy, url: str) -> None:
    for attempt in range(3):
        for rank in range(4):
            first = 10 * attempt
            write(url, range(first + 1, first + 11), [rank], world_size=4, start_step=first).close()
    run = open_run(url)
    before = proxy.requests.copy()
    assert not any([run.refresh() for _ in range(5)])
    assert proxy.requests - before == {"LIST": 5}
    write(url, range(31, 41), start_step=30).close()
    assert run.refresh() and run.last_step == 40


def test_what_is_put_grows_with_the_rows_and_not_with_their_square(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainvitals.store.levels.FLUSHES", 8)
    monkeypatch.setattr("trainvitals.store.levels.FAN", 3)
    writer = write(url, range(1, 2))
    writer.flush()
    sent, step = [], 1
    for flushes in (24, 24, 24):
        before = proxy.sent
        for _ in range(flushes):
            step += 1
            writer._frames["loss"].append(step, row(0, step))
            writer.flush()
        sent.append(proxy.sent - before)
    assert sent[2] < 1.5 * sent[0]
    writer.disk._compactor.wait(30)
    assert len(writer.folder.sizes("frames")) <= 8 + 2 * 3
    writer.close()
    assert len(writer.folder.sizes("frames")) == 1
    assert open_run(url).array("loss/tokens").steps.tolist() == list(range(1, step + 1))


def _child(url: str, steps: int) -> None:
    os._exit(0 if len(open_run(url).series("loss/train")) == steps else 1)


def test_a_forked_worker_has_a_connection_of_its_own(proxy: Proxy, url: str) -> None:
    writer = write(url, range(1, 51))
    writer.flush()
    worker = multiprocessing.get_context("fork").Process(target=_child, args=(url, 50))
    worker.start()
    worker.join(timeout=30)
    assert worker.exitcode == 0
    writer.close()
    assert open_run(url).status == "finished"


def test_a_job_of_many_ranks_flushes_a_bounded_number_of_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, disk = open_folder("s3://lab/runs/x"), open_folder(tmp_path)
    assert [flush_interval(bucket, ranks) for ranks in (1, 100, 1024)] == [2.0, 2.0, 20.48]
    assert flush_interval(disk, 1024) == 2.0
    monkeypatch.setenv("TRAINVITALS_FLUSH_SECONDS", "7.5")
    assert flush_interval(bucket, 1024) == flush_interval(disk, 1) == 7.5
    for wrong in ("often", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("TRAINVITALS_FLUSH_SECONDS", wrong)
        with pytest.raises(UsageError, match="TRAINVITALS_FLUSH_SECONDS"):
            flush_interval(bucket, 1)


def test_what_a_killed_writer_left_becomes_one_file(proxy: Proxy, url: str, tmp_path: Path) -> None:
    writer = write(url, range(1, 2))
    for step in range(2, 21):
        writer._frames["loss"].append(step, row(0, step))
        writer.flush()
    folder = open_folder(url)
    run, before = open_run(url), folder.sizes("frames")
    assert len(before) > 10
    assert compact_run(folder, quiet_for=3600) == 0, "it may be alive"
    assert compact_run(folder, quiet_for=-1) == len(before)
    assert len(folder.sizes("frames")) == 1
    write(tmp_path, range(1, 21)).close()
    assert run.refresh()
    pd.testing.assert_frame_equal(run.series("loss/train"), open_run(tmp_path).series("loss/train"))
    writer.close()


@pytest.mark.parametrize("trouble", ["403", "gone", "hang"])
def test_a_store_out_of_reach_is_one_sentence_and_no_empty_folder(
    trouble: str, proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainvitals.store.remote.REQUEST_SECONDS", 1.0)
    trouble_begins(proxy, trouble)
    try:
        for look in (open_run, list_runs):
            with pytest.raises(StoreUnreachable, match=f"^{url} (cannot be used|did not answer)"):
                look(url)
    finally:
        trouble_ends(proxy)
    with pytest.raises(RunNotFound):
        open_run(f"s3://lab/runs/{uuid.uuid4().hex}")
