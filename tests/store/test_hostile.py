"""Run folders that nobody in their right mind wrote: one bad byte costs one piece, never a run or its neighbours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainvitals.card import RunCard
from trainvitals.catalogue import custom_field
from trainvitals.errors import RunNotFound
from trainvitals.sealed import seal
from trainvitals.store import RunWriter, list_runs, open_run
from trainvitals.store.block import Block
from trainvitals.store.segment import METADATA_KEY, Header, encode
from trainvitals.untrusted import parse_json, whole

WRITER = "host-0-1-1"
HEADER = Header("custom", WRITER, 0, 1, 0, 1.0, 0, (custom_field("a"),))
ROWS = 5


@pytest.fixture(autouse=True)
def an_end() -> Iterator[None]:
    """No test here may hang."""
    def stop(*_: object) -> None:
        raise AssertionError("hung")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Nothing is allocated by a number that a file claims."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def segment(path: Path, change: dict[str, Any] | None = None, writer: str = WRITER, sequence: int = 0,
            steps: list[int] | None = None) -> None:
    """A segment whose checksums match, whose header says whatever `change` says."""
    raw = asdict(HEADER) | {"writer": writer, "sequence": sequence} | (change or {})
    schema = HEADER.schema().with_metadata({METADATA_KEY: json.dumps(raw).encode()})
    block = Block(HEADER)
    for step in steps or range(1, ROWS + 1):
        block.put(step, float(abs(step) % 1000), {"a": float(step)})
    file = path / f"frames/custom/live/{writer}/{sequence:06d}.arrows"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(schema, pa.RecordBatch.from_arrays(block.batch(HEADER.schema()).columns, schema=schema),
                            with_schema=True))


def read_all(path: Path) -> Any:
    """Ask for everything that a board and the checks ask for."""
    run = open_run(path)
    shown = run.array("a") if run.has("a") else None
    run.series("a", max_points=10) if run.has("a") else None
    run.signals(), run.events(), run.branches(), run.findings(), run.stored_findings()
    assert all(p.isprintable() for p in run.problems())
    return run, (list(shown.values) if shown is not None else []), run.problems(), run.status, run.last_step


GOOD = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("change", [
    {"color": "red", "schema": {"new": [1]}}, {"fields": [asdict(HEADER.fields[0]) | {"precision": 7, "axes": []}]}],
    ids=["header", "field"])
def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path, change: dict[str, Any]) -> None:
    segment(tmp_path, change)
    _, values, problems, *_ = read_all(tmp_path)
    assert values == GOOD and problems == []


BAD_HEADERS: list[dict[str, Any]] = [
    {"rank": float("inf")}, {"rank": -1}, {"rank": "0"}, {"rank": 1.5}, {"rank": None}, {"rank": 10**30},
    {"world_size": 0}, {"world_size": float("nan")}, {"world_size": []}, {"start_step": float("inf")},
    {"start_step": 2**80}, {"started": float("nan")}, {"started": "now"}, {"sequence": -1}, {"sequence": 3},
    {"writer": ""}, {"writer": 5}, {"writer": "another-0-1-1"}, {"frame": "loss"}, {"frame": None}, {"fields": {}},
    {"fields": [1]}, {"fields": [{"name": "a"}]}, {"fields": None}, {"labels": [1]}, {"labels": {"x": "abc"}},
    {"fields": [asdict(HEADER.fields[0]) | {"merge": "median"}]},
    {"fields": [asdict(HEADER.fields[0]) | {"dtype": "object", "axes": ["x"]}], "labels": {"x": ["l"]}},
    {"fields": [asdict(HEADER.fields[0]) | {"axes": ["nowhere"]}]},
    {"fields": [asdict(HEADER.fields[0]) | {"axes": ["x", "x", "x"]}], "labels": {"x": [*map(str, range(999))]}},
    {"fields": [asdict(HEADER.fields[0]) | {"name": "b"}]}]


@pytest.mark.parametrize("change", BAD_HEADERS, ids=lambda change: str(change)[:60])
def test_a_header_of_wrong_values_costs_its_segment(tmp_path: Path, change: dict[str, Any]) -> None:
    segment(tmp_path)
    segment(tmp_path, change, "host-0-2-2")
    _, values, problems, *_ = read_all(tmp_path)
    assert values == GOOD and any("host-0-2-2" in p for p in problems)


def test_a_billion_ranks_are_counted_not_listed(tmp_path: Path) -> None:
    segment(tmp_path, {"world_size": 10**9})
    with little_memory():
        _, values, problems, *_ = read_all(tmp_path)
    assert values == GOOD and any("999,999,989 more of 1,000,000,000" in p for p in problems)


@pytest.mark.parametrize("name", [
    "steps-1-5-host-0-1-1-0-999999999999.parquet", "steps-1-5-host-0-1-1-0-" + "9" * 400 + ".parquet",
    "steps-1-" + "9" * 200 + "-host-0-1-1-0-0.parquet", "steps---.parquet", "steps-m-m-x-0-0.parquet",
    "steps-1-5-host-0-1-1-5-0.parquet", "steps-1-5-host-0-1-1--1-0.parquet"])
def test_a_file_name_that_claims_a_range_hides_nothing(tmp_path: Path, name: str) -> None:
    segment(tmp_path)
    other = tmp_path / "other"
    writer = RunWriter(other, when_full="wait")
    writer.frame("custom", [custom_field("a")]).append(1, {"a": 77.0})
    writer.close()
    for data in (next(other.glob("frames/custom/history/*")).read_bytes(), b"", b"PAR1"):
        target = tmp_path / "run" / "frames" / "custom" / "history" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        segment(tmp_path / "run")
        try:
            target.write_bytes(data)
        except OSError:
            pytest.skip("no such name on this file system")
        _, values, *_ = read_all(tmp_path / "run")
        assert values == GOOD


BAD_EVENTS = [
    '{"time": 1, "kind": "note", "step": Infinity}', '{"time": 1, "kind": "note", "rank": 1e999}',
    '{"time": 1, "kind": "note", "step": 1e400}', '{"time": NaN, "kind": "note"}', '{"time": 1, "kind": 7}',
    '{"time": 1, "kind": "started", "writer": "w", "world_size": -1}', '{"time": 1, "kind": "note", "step": "x"}',
    '{"time": 1, "kind": "note", "step": ' + "9" * 5000 + "}", '{"time": 1, "kind": "note", "data": [1]}',
    '{"time": 1, "kind": "note", "data": ' + "[" * 100_000 + "]" * 100_000 + "}", "[]", "null", "\xff\xfe", "{",
    '{"time": 1, "kind": "note", "data": {"a": ' + '{"a": ' * 70 + "1" + "}" * 72, '{"time": 1}' + "\x0b" * 9,
    '{"x": "' + "y" * (2 << 20) + '"}']


@pytest.mark.parametrize("line", BAD_EVENTS, ids=range(len(BAD_EVENTS)))
def test_an_event_of_wrong_values_costs_its_line(tmp_path: Path, line: str) -> None:
    good = [json.dumps(seal({"time": 1.0, "kind": "note", "message": str(i), "writer": "w"})) for i in range(3)]
    segment(tmp_path)
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "w.jsonl").write_text("\n".join([*good[:2], line, good[2]]) + "\n", "latin-1")
    run, values, problems, *_ = read_all(tmp_path)
    assert run.events()["message"].tolist() == ["0", "1", "2"] and values == GOOD
    assert any("w.jsonl" in p for p in problems)


BAD_CARDS = [
    "[" * 200_000, '{"notes": ' + '{"a": ' * 500 + "1" + "}" * 501, '{"world_size": 1e999}', "null", "", "\xff\xfe\x00",
    '{"layers": ' + "1" * 10_000 + "}", '{"created": NaN, "total_steps": 1e400}', '{"a": 1} {}',
    '{"world_size": 1000000000, "total_steps": 9223372036854775808}', '{"domains": {"a": Infinity}}',
    '{"notes": [' + "0," * 4_200_000 + "0]}"]


@pytest.mark.parametrize("text", BAD_CARDS, ids=range(len(BAD_CARDS)))
@pytest.mark.parametrize("place", ["run.json", "findings/latest.json", "forecasts/step-000000001.json",
                                   "cards/before-x.json"])
def test_json_of_any_kind_raises_nothing(tmp_path: Path, text: str, place: str) -> None:
    from checks.scaling.forecast_log import past

    segment(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text, "latin-1")
    run, values, problems, *_ = read_all(tmp_path)
    assert values == GOOD and any(place in p for p in problems) and past(run) == []


def odd_things(path: Path) -> Iterator[str]:
    """Puts one odd thing after the other at a path."""
    os.mkfifo(path)
    yield "FIFO"
    path.unlink()
    os.symlink("/dev/zero", path)
    yield "device"
    path.unlink()
    os.symlink(path.name, path)
    yield "link to itself"
    path.unlink()
    os.symlink("nowhere", path)
    yield "link to nothing"
    path.unlink()
    path.mkdir()
    yield "folder"
    path.rmdir()
    os.symlink(path.parent, path)
    yield "link to a folder"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's own path may have 107 characters
        os.close(here)
        yield "socket"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    yield "a terabyte of nothing"
    path.unlink()


@pytest.mark.parametrize("place", [
    "run.json", "cards/before-x.json", "findings/latest.json", "forecasts/step-000000001.json", "events/w.jsonl",
    "frames/custom/live/host-0-2-2/000000.arrows", "frames/custom/live/host-0-1-1/000001.arrows",
    "frames/custom/history/steps-1-5-host-0-1-1-0-0.parquet", "frames/custom/live/host-0-3-3", "frames/x"])
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path, place: str) -> None:
    from checks.scaling.forecast_log import past

    segment(tmp_path)
    target = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    for thing in odd_things(target):
        with little_memory():
            run, values, problems, *_ = read_all(tmp_path)
        assert values == GOOD and past(run) == [], thing
        assert list_runs(tmp_path) == [str(tmp_path)]
        if thing != "folder" and (target.suffix or "link" not in thing):
            assert any(place in p for p in problems) or (thing == "a terabyte of nothing" and not target.suffix), thing


def test_a_bad_neighbour_leaves_the_others_in_the_list(tmp_path: Path) -> None:
    for name in ("a", "b"):
        segment(tmp_path / name)
    os.symlink("loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "no-run").mkdir()
    os.mkfifo(tmp_path / "no-run" / "run.json.tmp")
    bad = tmp_path / "bad"
    segment(bad)
    (bad / "run.json").mkdir()
    os.symlink("frames", bad / "frames" / "frames")
    os.symlink("x", bad / "events")
    found = list_runs(tmp_path)
    assert found == [str(tmp_path / name) for name in ("a", "b", "bad")]
    for path in found:
        assert read_all(Path(path))[1] == GOOD


def test_what_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment(tmp_path)
    (tmp_path / "events").mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("events"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    _, values, problems, *_ = read_all(tmp_path)
    assert values == GOOD and any("events" in p and "Permission denied" in p for p in problems)
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(RunNotFound, match="Permission denied"):
        open_run(tmp_path)
    assert list_runs(tmp_path) == []


def test_a_file_that_vanishes_takes_no_neighbour_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are compacted or deleted between the listing of a folder, the look at an entry, and the reading."""
    for i in range(5):
        segment(tmp_path, None, f"host-0-1-{i + 1}", steps=[10 * i + s for s in range(1, 6)])
    from trainvitals.store.folder import LocalFolder

    real = LocalFolder.read

    def read(self: LocalFolder, path: str, start: int = 0, stop: int | None = None) -> bytes:
        if "host-0-1-3" in path:
            (tmp_path / path).unlink(missing_ok=True)
        return real(self, path, start, stop)

    monkeypatch.setattr(LocalFolder, "read", read)
    run = open_run(tmp_path)
    assert {int(v) for v in run.array("a").values} >= {41, 42, 43, 44, 45}
    assert len(run.attempts) == 4


def test_history_that_vanishes_between_look_and_read_is_unknown_and_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    writer.frame("custom", [custom_field("a")]).append(1, {"a": 1.0})
    writer.close()
    run = open_run(tmp_path)
    path = next(tmp_path.glob("frames/custom/history/*"))
    data = path.read_bytes()
    path.unlink()
    assert len(run.array("a").values) == 0 and any(path.name in p for p in run.problems())
    path.write_bytes(data)
    assert open_run(tmp_path).array("a").values.tolist() == [1.0]


def test_a_disk_that_is_away_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainvitals.store.folder import LocalFolder

    segment(tmp_path)
    run = open_run(tmp_path)
    segment(tmp_path, None, sequence=1, steps=[6, 7])
    real, version = LocalFolder.read, run.version

    def away(self: LocalFolder, path: str, start: int = 0, stop: int | None = None) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LocalFolder, "read", away)
    run.refresh()
    assert run.array("a").values.tolist() == GOOD and any("Input/output" in p for p in run.problems())
    seen = run.version
    monkeypatch.setattr(LocalFolder, "read", real)
    assert run.refresh() and run.version not in (version, seen)
    assert run.array("a").values.tolist() == [*GOOD, 6.0, 7.0] and run.problems() == []


NAMES = st.text("ab\x00\n\u20ac", max_size=4)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | NAMES,
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
                    max_leaves=9),
       st.sampled_from([*asdict(HEADER), *asdict(RunCard())]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_in_any_place_raises_nothing(tmp_path: Path, value: Any, key: str) -> None:
    segment(tmp_path, {key: value}, "host-0-9-9")
    (tmp_path / "run.json").write_text(json.dumps({key: value}))
    (tmp_path / "events").mkdir(exist_ok=True)
    event = {"time": 1, "kind": "started", "writer": "w", "rank": 0, "started": 1, "step": 1, key: value}
    (tmp_path / "events" / "w.jsonl").write_text(json.dumps(seal(event)) + "\n" + json.dumps(value) + "\n")
    read_all(tmp_path)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_json_give_a_value_or_a_value_error(data: bytes) -> None:
    try:
        parse_json(data, finite=False)
    except ValueError:
        pass


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), 1.5, 11, -1, [], 10**400])
def test_whole_numbers_are_whole(value: Any) -> None:
    with pytest.raises(ValueError, match="n is"):
        whole(value, "n", 0, 10)
    assert whole(3.0, "n", 0, 10) == 3


def test_ten_thousand_attempts_are_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work that a read does over all parts does not grow with the number of attempts."""
    from trainvitals.store.reader import Run

    calls: list[str] = []
    real = Run._frame_parts
    monkeypatch.setattr(Run, "_frame_parts", lambda self, frame: (calls.append(frame), real(self, frame))[1])
    seen = []
    for n in (5, 50):
        for i in range(n):
            segment(tmp_path / str(n), {"start_step": 5 * i, "started": float(i)}, f"host-0-{i}-{i}",
                    steps=[5 * i + s for s in range(1, 6)])
        calls.clear()
        run = open_run(tmp_path / str(n))
        np.testing.assert_array_equal(run.array("a").values, np.arange(1, 5 * n + 1))
        run.signals(), run.has("a"), run.problems()
        seen.append(len(calls))
    assert seen[0] == seen[1]
