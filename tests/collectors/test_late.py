"""Rows and sums that wait for company on the host are those that were worked out at once, and those of a device."""

from __future__ import annotations

import contextlib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainvitals as tv
from collectors import transfer
from tests.collectors import tiny

EVERYTHING = dict.fromkeys(("loss", "grad", "lr", "update", "router", "router_domain", "data", "tokens"), 1)
STEPS = 8


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rows did not wait: it is shorter than `transfer.FIRST_STEPS`."""
    run = tmp_path_factory.mktemp("late") / "run"
    tiny.train(tiny.olmoe(), tiny.batches(2 * STEPS), run, accumulate=2, collectors=EVERYTHING)
    return run


def same(one: Path, other: Path) -> None:
    first, second = tv.open_run(one), tv.open_run(other)
    names = [name for name in first.signals()["name"] if not name.startswith(("throughput/", "system/"))]
    assert set(names) == {n for n in second.signals()["name"] if not n.startswith(("throughput/", "system/"))}
    for name in names:
        a, b = first.array(name), second.array(name)
        assert a.steps.tolist() == b.steps.tolist(), name
        # Sums over the same numbers, in other groups.
        np.testing.assert_allclose(a.values, b.values, rtol=1e-12, err_msg=name)


def test_rows_that_wait(at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_STEPS", 0)
    monkeypatch.setattr(transfer, "PATIENCE_SECONDS", 3600.0)
    waiting = []
    tiny.train(tiny.olmoe(), tiny.batches(2 * STEPS), tmp_path, accumulate=2, collectors=EVERYTHING,
               each=lambda tap: waiting.append(len(tap.transfer._waiting)))
    assert waiting[-1] > 5 * (STEPS - 2), "they did wait"
    same(at_once, tmp_path)


class Landed:
    """The event of a copy that is there at once."""

    def record(self, stream: Any) -> None: ...

    def query(self) -> bool:
        return True


def test_a_device(at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU's values, with host memory in its place."""
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    module = types.SimpleNamespace(Stream=lambda device: stream, Event=Landed, current_stream=lambda device: None,
                                   stream=lambda side: contextlib.nullcontext())
    monkeypatch.setattr(transfer, "ASYNCHRONOUS", ("cpu",))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **more: empty(*shape, **more))
    tiny.train(tiny.olmoe(), tiny.batches(2 * STEPS), tmp_path, accumulate=2, collectors=EVERYTHING)
    assert "collector_disabled" not in tiny.event_kinds(tmp_path)
    same(at_once, tmp_path)


def test_what_a_collector_measured_before_it_failed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_STEPS", 0)

    def sabotage(tap: Any) -> None:
        if tap.step == 5:
            tap.collectors["loss"].trained = None  # called at the end of step 6

    tiny.train(tiny.llama(), tiny.batches(STEPS), tmp_path, each=sabotage)
    assert tv.open_run(tmp_path).array("loss/train").steps.tolist() == [1, 2, 3, 4, 5]
    assert tiny.event_kinds(tmp_path).count("collector_disabled") == 1
    assert tv.open_run(tmp_path).last_step == STEPS


def test_rows_that_fail_late_disable_their_collector_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_STEPS", 0)

    def sabotage(tap: Any) -> None:
        if tap.step == 0:
            tap.collectors["lr"]._fields = None

    tiny.train(tiny.llama(), tiny.batches(STEPS), tmp_path, each=sabotage)
    run = tv.open_run(tmp_path)
    assert not run.has("lr/used") and run.array("loss/train").steps.tolist() == list(range(1, STEPS + 1))
    assert tiny.event_kinds(tmp_path).count("collector_disabled") == 1


def test_how_long_rows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_STEPS", 0)
    delivered: list[float] = []
    rows = transfer.Transfer(lambda owner, call, *args: call(*args))
    monkeypatch.setattr(transfer.time, "monotonic", lambda: clock[0])
    clock = [100.0]
    rows.add(object(), {"a": 1}, lambda host: delivered.append(host["a"]))
    rows.send()
    clock[0] += transfer.PATIENCE_SECONDS / 2
    rows.add(object(), {"a": 2}, lambda host: delivered.append(host["a"]))
    rows.send()
    assert delivered == []
    clock[0] += transfer.PATIENCE_SECONDS / 2
    rows.send()
    assert delivered == [1, 2], "no longer than that after the first of them"
    rows.add(None, {"a": 3}, lambda host: delivered.append(host["a"]))
    assert delivered == [1, 2, 3], "a user's own numbers do not wait"
