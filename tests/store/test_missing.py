"""A sum with a missing part is no sum: what is shown of several ranks is of all of them, or says so."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainvitals.catalogue import Field, custom_field
from trainvitals.store import RunWriter, open_run
from trainvitals.store.reader import Run

STEPS = range(1, 41)
FIELDS = ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"]
OWN = [Field("t/sum", "t", "1", "sum", ""), Field("t/max", "t", "1", "max", ""), Field("t/same", "t", "1", "same", "")]


@pytest.fixture(autouse=True)
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run here is taken for a live one."""
    monkeypatch.setattr("trainvitals.store.reader.ages", lambda *_: (1e5, 1e5))


def rank(path: Path, number: int, steps: range = STEPS, world: int = 2, close: bool = False, flush: int = 10
         ) -> RunWriter:
    """One rank's rows: loss 2 per token on rank 0, 4 on rank 1."""
    writer = RunWriter(path, rank=number, world_size=world, when_full="wait", flush_seconds=60)
    loss, own = writer.frame("loss", FIELDS, {"domain": ["web", "code"]}), writer.frame("t", OWN)
    data = writer.frame("data", ["data/domain_tokens"], {"domain": ["web", "unattributed"]})
    for step in steps:
        value = 2.0 * (number + 1)
        loss.append(step, {"loss/sum": 10 * value, "loss/tokens": 10, "loss/domain_sum": [10 * value, 0],
                           "loss/domain_tokens": [10, 0]})
        own.append(step, {"t/sum": 1.0, "t/max": float(number), "t/same": float(step)})
        data.append(step, {"data/domain_tokens": [5, 0]})
        if step % flush == 0:
            writer.flush()
    writer.close() if close else writer.flush()
    return writer


def shown(run: Run, name: str) -> dict[int, float]:
    """Step -> value of what is present."""
    series = run.array(name)
    there = np.ones(len(series), bool) if series.present is None else series.present
    assert np.isnan(series.values[~there]).all(), "no part of a sum lies about where nobody looks at the mask"
    return dict(zip(series.steps[there].tolist(), series.values[there].tolist(), strict=True))


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("frame", ["loss", "t"])
def test_damage_in_one_ranks_segment_takes_the_sum_not_the_mean(tmp_path: Path, frame: str) -> None:
    keep = [rank(tmp_path, 0), rank(tmp_path, 1)]
    (segment,) = tmp_path.glob(f"frames/{frame}/live/*-1-*/*.arrows")
    flip(segment, 0.75)
    run = open_run(tmp_path)
    name = {"loss": "loss/sum", "t": "t/sum"}[frame]
    values = shown(run, name)
    lost = sorted(set(STEPS) - set(values))
    assert len(lost) == 10 and lost[0] % 10 == 1, "one record of ten rows"
    assert set(values.values()) == ({60.0} if frame == "loss" else {2.0}), "never the other rank's part alone"
    problems = "\n".join(run.problems())
    assert f"rank 1 has no row at 10 of the steps {lost[0]} to {lost[-1]}" in problems and segment.name in problems
    if frame == "loss":
        mean = run.array("loss/train")
        assert mean.values.tolist() == [2.0 if step in lost else 3.0 for step in STEPS]
        assert mean.partial is not None and mean.steps[mean.partial].tolist() == lost
    else:
        assert sorted(set(STEPS) - set(shown(run, "t/max"))) == lost
        assert shown(run, "t/same") == {step: float(step) for step in STEPS}
    del keep


def test_damage_in_history_is_unknown_also_to_means(tmp_path: Path) -> None:
    """A numerator of two ranks over a denominator of one would be a wrong mean, not a partial one."""
    rank(tmp_path, 0, close=True), rank(tmp_path, 1, close=True)
    import pyarrow.parquet as pq

    (path,) = [p for p in tmp_path.glob("frames/loss/history/*.parquet") if p.name.split("-")[4] == "1"]
    metadata = pq.read_metadata(path)
    column = metadata.schema.to_arrow_schema().names.index("loss/tokens")
    data = bytearray(path.read_bytes())
    data[metadata.row_group(0).column(column).data_page_offset + 30] ^= 1
    path.write_bytes(data)
    run = open_run(tmp_path)
    assert shown(run, "loss/tokens") == {} and shown(run, "loss/train") == {}
    assert set(shown(run, "loss/sum").values()) == {60.0}, "another column of the same rows is whole"
    assert any("loss/tokens in 40 rows" in p for p in run.problems())


def test_the_value_that_is_the_same_everywhere_is_taken_from_a_rank_that_has_it(tmp_path: Path) -> None:
    rank(tmp_path, 0, close=True), rank(tmp_path, 1, close=True)
    flip(next(tmp_path.glob("frames/t/history/steps-1-40-*-0-*-0-0.parquet")), 0.2)
    run = open_run(tmp_path)
    assert shown(run, "t/same") == {step: float(step) for step in STEPS}


@pytest.mark.parametrize("how", ["killed", "file gone", "file cut to nothing", "header damaged"])
def test_a_rank_without_rows_is_missed(tmp_path: Path, how: str) -> None:
    keep = [rank(tmp_path, 0), rank(tmp_path, 1, range(1, 31) if how == "killed" else STEPS)]
    (segment,) = tmp_path.glob("frames/loss/live/*-1-*/*.arrows")
    if how == "file gone":
        segment.rename(segment.with_name("000000.arrows.lost"))
    elif how == "file cut to nothing":
        segment.write_bytes(b"")
    elif how == "header damaged":
        flip(segment, 0.01)
    run = open_run(tmp_path)
    values, problems = shown(run, "loss/sum"), "\n".join(run.problems())
    if how == "killed":
        assert list(values) == list(range(1, 31)) and "rank 1 has no row at 10 of the steps 31 to 40" in problems
        total = run.series("data/tokens_seen")
        assert total["step"].tolist() == list(range(1, 31)), "a running total is unknown behind a step that is"
    elif how != "file gone":
        assert values == {} and "rank 1 has no row at 40 of the steps 1 to 40" in problems
    del keep


def test_a_rank_that_wrote_nothing_at_all_marks_every_step(tmp_path: Path) -> None:
    keep = rank(tmp_path, 0, world=3)
    run = open_run(tmp_path)
    series = run.array("loss/sum")
    assert series.partial is not None and series.partial.all() and len(series) == 40
    assert run.array("t/same").partial is None, "of this there is no part"
    assert any("Ranks 1, 2 of 3" in p for p in run.problems())
    del keep


def test_frames_of_one_rank_and_frames_with_a_cadence_are_whole(tmp_path: Path) -> None:
    writers = [RunWriter(tmp_path, rank=r, world_size=2, when_full="wait") for r in range(2)]
    evaluation = writers[0].frame("eval", ["loss/val_sum", "loss/val_tokens"])
    tokens = [w.frame("tokens", ["tokens/counts"], {"domain": ["web"], "token": list("ab")}) for w in writers]
    own = [w.frame("custom", [custom_field(f"mine{r}")]) for r, w in enumerate(writers)]
    for step in range(10, 110, 10):
        evaluation.append(step, {"loss/val_sum": 4.0, "loss/val_tokens": 2})
        for r in range(2):
            tokens[r].append(step, {"tokens/counts": [[1, 1]]})
            own[r].append(step + r, {f"mine{r}": 1.0})
    for writer in writers:
        writer.close()
    run = open_run(tmp_path)
    assert len(run.series("loss/val")) == 10 and run.array("loss/val_sum").partial is None
    assert len(run.array("tokens/counts")) == 10 and len(run.series("tokens/js")) == 10
    assert len(shown(run, "mine0")) and len(shown(run, "mine1"))
    assert [p for p in run.problems() if "no row" in p and "custom" not in p] == []


def test_ranks_apart_show_who_has_no_row(tmp_path: Path) -> None:
    writers = [RunWriter(tmp_path, rank=r, world_size=2, when_full="wait") for r in range(2)]
    for r, writer in enumerate(writers):
        frame = writer.frame("throughput", ["throughput/step_time"])
        for step in range(1, 6 if r else 9):
            frame.append(step, {"throughput/step_time": float(r + 1)})
        writer.flush()
    table = open_run(tmp_path).series("throughput/step_time_by_rank")
    assert table.groupby("label", observed=True)["value"].count().to_dict() == {"0": 8, "1": 5}
    assert not table["value"].isna().any()


@given(st.lists(st.sets(st.integers(1, 12), min_size=1), min_size=2, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_holes_of_any_ranks(tmp_path_factory: pytest.TempPathFactory, had: list[set[int]]) -> None:
    """Brute force: a sum exists where all have a row; a mean where any has one, marked where not all do."""
    path = tmp_path_factory.mktemp("run")
    for number, steps in enumerate(had):
        writer = RunWriter(path, rank=number, world_size=len(had), when_full="wait", flush_seconds=60)
        frame = writer.frame("loss", FIELDS[:2])
        for step in sorted(steps):
            frame.append(step, {"loss/sum": 2.0**number, "loss/tokens": 1})
        writer.close()
    run = open_run(path)
    everywhere, anywhere = sorted(set.intersection(*had)), sorted(set.union(*had))
    assert shown(run, "loss/sum") == dict.fromkeys(everywhere, 2.0 ** len(had) - 1)
    mean = run.array("loss/train")
    assert mean.steps.tolist() == anywhere
    expected = [np.mean([2.0**r for r, steps in enumerate(had) if step in steps]) for step in anywhere]
    np.testing.assert_allclose(mean.values, expected, rtol=1e-15)
    marked = [] if mean.partial is None else mean.steps[mean.partial].tolist()
    assert marked == sorted(set(anywhere) - set(everywhere))
    named = {r for r in range(len(had)) if any(f"rank {r} has no row" in p for p in run.problems())}
    assert named == {r for r, steps in enumerate(had) if steps != set(anywhere)}


@pytest.mark.parametrize("clock", [0.0, 3600.0, -120.0], ids=["", "an hour ahead", "two minutes behind"])
@pytest.mark.parametrize("behind", [5, 50])
def test_a_live_run_waits_for_a_rank_that_is_behind_and_misses_one_that_is_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int, clock: float
) -> None:
    """One step takes a second; whatever rank 1's clock says, rank 0's alone tells how late rank 1 is."""
    monkeypatch.setattr("trainvitals.store.reader.ages", lambda *_: (1.0, 1.0))
    began = 1.7e9
    for number, last in ((0, 100), (1, 100 - behind)):
        writer = RunWriter(tmp_path, rank=number, world_size=2, when_full="wait", flush_seconds=600)
        frame = writer.frame("loss", FIELDS[:2])
        for step in range(1, last + 1):
            monkeypatch.setattr(time, "time", lambda now=began + step + number * clock: now)
            frame.append(step, {"loss/sum": 1.0, "loss/tokens": 1})
        monkeypatch.undo()
        monkeypatch.setattr("trainvitals.store.reader.ages", lambda *_: (1.0, 1.0))
        writer.flush()
    run = open_run(tmp_path)
    assert run.status == "live" and shown(run, "loss/sum") == dict.fromkeys(range(1, 101 - behind), 2.0)
    named = [p for p in run.problems() if "rank 1 has no row at" in p]
    if behind == 5:
        assert run.array("loss/train").steps[-1] == 95 and not named
    else:
        mean = run.array("loss/train")
        assert mean.steps[-1] == 100 and mean.partial is not None and mean.partial.sum() == 50 and len(named) == 1
