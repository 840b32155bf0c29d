"""What a log states is stored bit by bit and read under the signal's name; a writer goes on where another ended."""

import math
from pathlib import Path

import numpy as np
import pytest

from trainvitals.catalogue import FIELDS, SIGNALS, own_name, stated_field
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING
from trainvitals.store import RunWriter, open_run

STEPS = np.arange(1, 10_001)
LOSS = np.random.default_rng(0).normal(3, 1, len(STEPS))
LOSS[5], LOSS[6], LOSS[7:9] = math.nan, math.inf, MISSING


def stated(path: Path) -> None:
    writer = RunWriter(path, when_full="wait")
    frame = writer.frame("stated_loss", [stated_field("loss/train")])
    frame.extend(STEPS, STEPS * 1.5 + 1e9, {"stated/loss/train": LOSS, "mine": np.where(STEPS % 7, MISSING, STEPS)})
    writer.close()


def test_a_stated_signal_is_read_as_the_signal(tmp_path: Path) -> None:
    stated(tmp_path)
    run = open_run(tmp_path)
    series = run.array("loss/train")
    assert series.signal.stated and series.signal.unit == "nats/token"
    assert run.reads("loss/train") == ("stated/loss/train",)
    assert series.values.tobytes() == LOSS.tobytes() and series.present is not None
    assert np.flatnonzero(~series.present).tolist() == [7, 8]
    assert run.has("loss/train") and not run.has("grad/norm") and run.last_time == pytest.approx(1e9 + 15_000, abs=1)
    assert run.series("mine")["value"].tolist() == STEPS[STEPS % 7 == 0].tolist()
    table = run.signals().set_index("name")
    assert table.loc["loss/train", "meaning"].endswith("as the log states it")
    assert "stated/loss/train" not in table.index
    decimated = run.series("loss/train", max_points=10)
    assert len(decimated) <= 10 and decimated["nonfinite"].sum() == 2


def test_what_was_counted_goes_before_what_is_stated(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    writer.frame("loss", ["loss/sum", "loss/tokens"]).append(1, {"loss/sum": 6.0, "loss/tokens": 2.0})
    writer.frame("stated_loss", [stated_field("loss/train")]).append(1, {"stated/loss/train": 9.0})
    writer.close()
    series = open_run(tmp_path).array("loss/train")
    assert series.values.tolist() == [3.0] and not series.signal.stated


def test_names_and_fields_of_what_is_stated() -> None:
    assert own_name("stated/loss/train") == "custom/stated/loss/train"
    assert stated_field("lr/used") is FIELDS["lr/used"]
    for name in SIGNALS:
        assert stated_field(name).merge == "same" and stated_field(name).unit == SIGNALS[name].unit


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    frame = writer.frame("lr", ["lr/used"], {"group": ["a", "b"]})
    with pytest.raises(UsageError, match="do not fit"):
        frame.extend(np.arange(3), np.zeros(3), {"lr/used": np.zeros((3, 5))})
    frame.extend(np.arange(3), np.zeros(3), {"lr/used": np.ones((3, 2))})
    writer.close()
    with pytest.raises(UsageError, match="closed"):
        frame.extend(np.arange(3), np.zeros(3), {})
    assert open_run(tmp_path).array("lr/used").values.tolist() == [[1.0, 1.0]] * 3


def test_a_writer_goes_on_where_another_ended(tmp_path: Path) -> None:
    known = None
    for first in range(0, 50, 10):
        writer = RunWriter(tmp_path, when_full="wait", goes_on=known)
        for step in range(first, first + 10):
            writer.frame("custom", []).append(step, {"a": float(step)})
        assert writer.flush()
        known = writer.continued
        writer.close(run_ended=first == 40)
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == list(range(50)) and len(run.attempts) == 1 and run.status == "finished"
    assert run.problems() == [] and len(list((tmp_path / "attempts").iterdir())) == 1


def test_a_torn_segment_is_not_hidden_by_the_history_around_it(tmp_path: Path) -> None:
    """Its whole rows stay readable, and it stays named."""
    known = None
    for first in (0, 10, 20):
        writer = RunWriter(tmp_path, when_full="wait", goes_on=known)
        writer.frame("custom", []).extend(np.arange(first, first + 10), np.zeros(10), {"a": np.ones(10)})
        assert writer.flush()
        known = writer.continued
        if first == 10:
            [segment] = (tmp_path / "frames" / "custom" / "live").rglob("*.arrows")
            with segment.open("ab") as file:
                file.write(b"\xff\xff\xff\xff torn")
        writer.close(run_ended=first == 20)
    run = open_run(tmp_path)
    assert run.array("a").steps.tolist() == list(range(30))
    assert any("no whole record" in problem for problem in run.problems())
