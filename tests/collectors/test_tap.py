"""What a training script may do to its tap: odd numbers, names and events, a second job, a device that hangs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import trainvitals as tv
from collectors import transfer
from collectors.transfer import Transfer, _Flight, _Row
from tests.store.test_attempts import GROWING
from trainvitals.errors import UsageError
from trainvitals.store import disk
from trainvitals.store.folder import LocalFolder


def attach(run: Path) -> tv.Tap:
    model = torch.nn.Linear(2, 2)
    return tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), run)


def test_whatever_is_logged_nothing_is_raised_and_the_good_part_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture
                                                                     ) -> None:
    tap = attach(tmp_path)
    odd: list[Any] = [
        {"step": 1}, {"time": torch.tensor(2)}, {"loss/train": 3.0}, {"": 1}, {"a": {"b": 1}}, {"a": torch.zeros(3)},
        {"a": torch.zeros(0)}, {"a": torch.tensor([[4.0]])}, {"a": "text"}, {"b": None}, {7: 1.0}, None, 5, [("a", 1)],
        {"a": torch.tensor(1 + 2j)}]
    for step in range(20):
        for metrics in odd:
            tap.log(metrics, step=step)
    tap.log({"late": 1.0}, step="now")  # type: ignore[arg-type]
    tap.close()
    run = tv.open_run(tmp_path)
    assert run.array("a").values.tolist() == [4.0] * 20 and run.array("step").values.tolist() == [1.0] * 20
    assert run.array("time").values.tolist() == [2.0] * 20
    assert run.array("custom/loss/train").values.tolist() == [3.0] * 20
    assert run.last_step == 19 and "late" not in run.signals()["name"].tolist()
    assert len(caplog.records) < 20, "said once, not at every step"


def test_kinds_of_events_that_mean_something_stay_ours(tmp_path: Path) -> None:
    tap = attach(tmp_path)
    for kind in ("closed", "started", "rows_dropped", "overlap", "stage"):
        tap.event(kind, "by the script", step=3)
    assert tap.writer.flush()
    run = tv.open_run(tmp_path)
    assert run.status == "live" and run.problems() == [] and len(run.attempts) == 1
    assert {"custom/closed", "custom/started", "stage"} <= set(run.events()["kind"])
    tap.close()
    tap.event("stage", "too late")
    tap.log({"a": 1.0})
    assert tv.open_run(tmp_path).status == "finished"


def test_a_second_job_of_a_live_run_is_refused_before_training(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", GROWING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        with pytest.raises(UsageError, match=f"process {child.pid} .*Stop that job"):
            attach(tmp_path)
    finally:
        child.kill()
        child.communicate()
    attach(tmp_path).close()  # killed seconds ago: a resume is welcome
    assert tv.open_run(tmp_path).overlaps() == []


def test_attaching_does_not_wait_for_a_dead_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    for name in ("sizes", "append", "replace", "read", "stamp"):
        monkeypatch.setattr(LocalFolder, name, lambda *args: go_on.wait(60))
    monkeypatch.setattr("collectors.place.GUARD_SECONDS", 0.05)
    monkeypatch.setattr(disk, "CLOSE_SECONDS", 0.05)
    tap = attach(tmp_path)
    tap.log({"a": 1.0})
    tap.close()
    go_on.set()


class Hung:
    """The event of a copy that never completes."""

    def query(self) -> bool:
        return False


def test_a_device_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered: list[Any] = []
    rows = Transfer(lambda owner, call, *args: call(*args))
    rows._flights.append(_Flight([_Row(None, delivered.append)], [(Hung(), torch.zeros(1))]))
    monkeypatch.setattr(rows, "_start", lambda rows: pytest.fail("no new work for a device that hangs"))
    rows._rows.append(_Row(None, delivered.append, device={"a": torch.zeros(1)}))
    assert rows.drain(0.02) is False and delivered == [] and "2 rows" in caplog.text
    assert rows.drain(0.02) is True, "nothing is left to wait for"
    assert transfer.DRAIN_SECONDS < 60
