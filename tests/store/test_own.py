"""Numbers that a training script logs under names of its own come back under those names, or are refused once."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checks.telemetry.health import BAD_EVENTS, health
from trainvitals.catalogue import FIELDS, SIGNALS, own_name
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING
from trainvitals.store import RunWriter, open_run, own
from trainvitals.store.eventlog import OUR_KINDS
from trainvitals.store.own import OwnNumbers

NAMES = st.one_of(st.text(min_size=1, max_size=30).filter(str.strip), st.sampled_from([
    "step", "time", "loss/train", "loss/sum", "custom/step", "custom/custom/step", "a", "a.b", "a.b.c", "a#0", "#",
    "\nx\ny", "é" * 500, "crc32", "trainvitals", "frames/../../x", ".", "0", "true", "null", "\x1b[31m", "a'b", 'a"b',
    "*"]))


def names_back(path: Path, rows: list[dict[str, float]], *, close: bool) -> None:
    writer = RunWriter(path, flush_seconds=60)
    numbers = OwnNumbers(writer)
    for step, row in enumerate(rows):
        numbers.log(step, row)
    writer.close() if close else writer.flush()
    run = open_run(path)
    for name in {name for row in rows for name in row}:
        got = run.array(own_name(name))
        keep = np.ones(len(got), bool) if got.present is None else got.present
        wanted = [(step, row[name]) for step, row in enumerate(rows) if name in row]
        assert got.steps[keep].tolist() == [step for step, _ in wanted]
        np.testing.assert_array_equal(got.values[keep], [value for _, value in wanted])
        if name not in SIGNALS and name not in FIELDS and not name.startswith("custom/"):
            np.testing.assert_array_equal(run.array(name).values, got.values)
    assert "cannot be read" not in "".join(run.problems())
    assert len(run.signals()) == len({name for row in rows for name in row})
    writer.close()


@given(rows=st.lists(st.dictionaries(NAMES, st.floats(), min_size=1, max_size=5), min_size=1, max_size=5),
       close=st.booleans())
@example(rows=[{"a": 1.0, "a.b": 2.0}, {"a.b": 3.0}, {"step": np.nan, "time": np.inf}], close=True)
@settings(max_examples=20, deadline=None)
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]], close: bool
                             ) -> None:
    def text(name: str) -> bool:
        try:
            name.encode()
        except UnicodeEncodeError:
            return False
        return "\0" not in name

    rows = [kept for row in rows if (kept := {name: value for name, value in row.items() if text(name)})]
    if rows:
        names_back(tmp_path_factory.mktemp("run"), rows, close=close)


def test_catalogue_signals_keep_their_meaning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = RunWriter(tmp_path)
    loss = writer.frame("loss", ["loss/sum", "loss/tokens"])
    numbers = OwnNumbers(writer)
    for step in range(1, 6):
        numbers.log(step, {"loss/train": 100.0, "loss/sum": 200.0, "time": 300.0})
        loss.append(step, {"loss/sum": 6.0, "loss/tokens": 3})
    writer.close()
    run = open_run(tmp_path)
    assert run.array("loss/train").values.tolist() == [2.0] * 5
    assert run.array("custom/loss/train").values.tolist() == [100.0] * 5
    assert run.array("custom/loss/sum").values.tolist() == [200.0] * 5
    assert run.array("time").values.tolist() == [300.0] * 5 and run.last_time is not None and run.last_time > 1e9
    told = run.events().query("kind == 'name_taken'")["message"].tolist()
    assert len(told) == 3 and sum("is a name of TrainVitals" in record.message for record in caplog.records) == 3
    assert [finding.level for finding in health(run)] == ["warn"]


REFUSED: list[tuple[Any, Any, str]] = [
    ("", 1.0, "empty"), (" ", 1.0, "empty"), ("x" * 10_000, 1.0, "1,000 characters"), ("\ud800", 1.0, "no text"),
    ("a\0b", 1.0, "no text"), (5, 1.0, "must be a string"), (None, 1.0, "must be a string"),
    (("a", "b"), 1.0, "must be a string"), ("s", "3.5", "str"), ("s", b"3", "bytes"), ("s", {"a": 1}, "dict"),
    ("s", [1.0], "list"), ("s", np.zeros(3), "ndarray"), ("s", 10**400, "int"), ("s", 1j, "complex"),
    ("s", object(), "object")]


@pytest.mark.parametrize(("name", "value", "why"), REFUSED)
def test_what_is_no_number_or_name_is_refused_once(tmp_path: Path, name: Any, value: Any, why: str,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    writer = RunWriter(tmp_path)
    numbers = OwnNumbers(writer)
    for step in range(1000):
        numbers.log(step, {name: value, "fine": step})
    writer.close()
    run = open_run(tmp_path)
    assert run.array("fine").steps.tolist() == list(range(1000)), "the rest of the row stays"
    (message,) = run.events().query("kind == 'number_refused'")["message"]
    assert why in message and len(message) < 500
    assert len([record for record in caplog.records if "not stored" in record.message]) == 1


def test_what_counts_as_a_number(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    numbers = OwnNumbers(writer)
    given = [1, True, np.float32(0.5), np.array([2.0]), np.array(3), np.int64(4), None, float("nan"), float("inf")]
    for step, value in enumerate(given):
        numbers.log(step, {"a": value, "b": 0})
    writer.close()
    found = open_run(tmp_path).series("a")
    assert found["step"].tolist() == [0, 1, 2, 3, 4, 5, 7, 8], "None is no number, NaN is one"
    np.testing.assert_array_equal(found["value"], [1, 1, 0.5, 2, 3, 4, np.nan, np.inf])


@pytest.mark.parametrize("step", ["5", None, 1.5, float("nan"), 2**62, -(10**300), [1]])
def test_a_step_that_is_none_is_refused(tmp_path: Path, step: Any) -> None:
    writer = RunWriter(tmp_path)
    numbers = OwnNumbers(writer)
    numbers.log(1, {"a": 1.0})
    numbers.log(step, {"a": 2.0})
    writer.close()
    run = open_run(tmp_path)
    assert run.array("a").steps.tolist() == [1] and "number_refused" in run.events()["kind"].tolist()


@pytest.mark.parametrize("flushed", [False, True])
def test_calls_at_one_step_add_up(tmp_path: Path, flushed: bool) -> None:
    writer = RunWriter(tmp_path, flush_seconds=60)
    numbers = OwnNumbers(writer)
    for step in (1, 2):
        for row in ({"a": 1.0, "b": 5.0}, {"c": 3.0}, {"a": 2.0}):
            numbers.log(step, row)
            if flushed:
                writer.flush()
    numbers.log(1, {"b": float("nan")})  # later, at an earlier step: a NaN that was given is a value
    writer.close()
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == [2.0, 2.0] and run.array("c").values.tolist() == [3.0, 3.0]
    np.testing.assert_array_equal(run.array("b").values, [np.nan, 5.0])


def test_every_rank_may_log_and_the_lowest_is_shown(tmp_path: Path) -> None:
    for rank in (1, 0, 2):
        writer = RunWriter(tmp_path, rank=rank, world_size=3)
        numbers = OwnNumbers(writer)
        numbers.log(1, {"a": float(rank)})
        numbers.log(2, {"a": float(rank)} if rank else {"b": 1.0})
        writer.close()
    assert open_run(tmp_path).array("a").values.tolist() == [0.0, 1.0]


def test_a_name_per_step_is_refused_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(own, "MOST_NAMES", 20)
    monkeypatch.setattr(own, "MOST_SAID", 10)
    writer = RunWriter(tmp_path, flush_seconds=60)
    numbers = OwnNumbers(writer)
    for step in range(300):
        numbers.log(step, {f"loss_{step}": 1.0})
    writer.close()
    run = open_run(tmp_path)
    assert len(run.signals()) == 20
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 11


def test_frames_keep_step_and_time(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    from trainvitals.catalogue import custom_field

    for name in ("step", "time"):
        with pytest.raises(UsageError, match="every frame has already"):
            writer.frame("x", [custom_field(name)])
    frame = writer.frame("x", [])
    frame.append(1, {"step": 7.0, "a": 1.0})
    frame.append(2, {"step": 8.0})
    writer.close()
    run = open_run(tmp_path)
    assert run.array("custom/step").values.tolist() == [7.0, 8.0]
    assert run.array("a").present is not None and run.array("a").present.tolist() == [True, False]


def test_kinds_of_events_that_mean_something_are_ours() -> None:
    root = Path(own.__file__).parents[2]
    # What an importer notes has no meaning but that which the note itself says.
    code = "".join(path.read_text() for room in ("collectors", "trainvitals") for path in (root / room).rglob("*.py")
                   if "importers" not in path.parts)
    told = set(re.findall(r'\.(?:once|_once|tell|_event|_say)\(\s*"(\w+)"', code))
    assert len(told) > 20 and told | set(BAD_EVENTS) <= OUR_KINDS
    assert np.isnan(MISSING) and np.array([MISSING]).view(np.int64) != np.array([np.nan]).view(np.int64)


def test_a_frame_that_was_opened_anew_keeps_the_names_it_had(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    OwnNumbers(writer).log(1, {"a": 1.0})
    OwnNumbers(writer).log(2, {"b": 2.0})
    writer.close()
    run = open_run(tmp_path)
    assert run.signals()["name"].tolist() == ["a", "b"] and run.series("a")["value"].tolist() == [1.0]
