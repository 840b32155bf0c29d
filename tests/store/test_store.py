"""What goes into a run folder comes out: values, labels, ranks, attempts; on disk and behind a URL."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainvitals.catalogue import Field
from trainvitals.errors import RunNotFound, UnknownSignal, UsageError
from trainvitals.formulas import token_drift
from trainvitals.store import RunWriter, list_runs, open_run
from trainvitals.store.compact import compact_run
from trainvitals.store.decimate import decimate
from trainvitals.store.folder import open_folder

DOMAINS = {"domain": ["web", "code", "unattributed"]}
LOSS = ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"]


def write(path: str | Path, rows: range, *, close: bool = True, **options: object) -> RunWriter:
    """A run whose loss at step s is s/2 overall, s for web and absent for the other domains."""
    writer = RunWriter(path, when_full="wait", **options)  # type: ignore[arg-type]
    frame = writer.frame("loss", LOSS, DOMAINS)
    for step in rows:
        frame.append(step, {"loss/sum": float(step), "loss/tokens": 2, "loss/domain_sum": [step, 0, 0],
                            "loss/domain_tokens": [1, 0, 0]})
    writer.close() if close else writer.flush()
    return writer


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}/run"


@pytest.mark.parametrize("close", [True, False], ids=["finished", "live"])
def test_rows_come_back_whole(place: str, close: bool) -> None:
    write(place, range(1, 1001), close=close)
    run = open_run(place)
    assert run.status == ("finished" if close else "live")
    table = run.series("loss/train")
    assert table["step"].tolist() == list(range(1, 1001))
    np.testing.assert_array_equal(table["value"], np.arange(1, 1001) / 2)
    domains = run.series("loss/domain")
    assert set(domains["label"]) == {"web"}, "a domain without tokens has no loss, not a loss of zero or NaN"
    assert run.problems() == []
    assert run.last_step == 1000


def test_a_live_run_grows_and_a_still_one_keeps_its_version(place: str) -> None:
    writer = write(place, range(1, 11), close=False)
    run = open_run(place)
    version = run.version
    assert not run.refresh() and run.version == version
    frame = writer.frame("loss", LOSS, DOMAINS)
    del frame  # a second frame object of one name replaces the first; rows so far stay
    writer.event("note", step=3, message="hello")
    writer.flush()
    assert run.refresh() and run.version != version
    assert "note" in run.events()["kind"].tolist()
    writer.close()


@given(st.lists(st.tuples(st.integers(-5, 2**40), st.floats(), st.floats(width=32), st.floats(width=32)), min_size=1,
                max_size=40, unique_by=lambda row: row[0]))
@settings(max_examples=25, deadline=None)
def test_any_float_survives(rows: list[tuple[int, float, float, float]]) -> None:
    url = f"memory://{uuid.uuid4().hex}/run"
    writer = RunWriter(url, when_full="wait", start_step=-6)
    vector = Field("v", "x", "1", "same", "a float32 vector", ("axis",), "float32")
    frame = writer.frame("x", [vector], {"axis": ["a", "b"]})
    for step, scalar, left, right in rows:
        frame.append(step, {"mine": scalar, "v": [left, right]})
    writer.close()
    run, rows = open_run(url), sorted(rows)
    np.testing.assert_array_equal(run.array("mine").values, [row[1] for row in rows])
    np.testing.assert_array_equal(run.array("v").values, [[row[2], row[3]] for row in rows])


def test_ranks_add_up_like_a_group_by(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for rank in range(3):
        writer = RunWriter(tmp_path, rank=rank, world_size=3, when_full="wait")
        frame = writer.frame("x", [Field("a/sum", "x", "1", "sum", ""), Field("a/max", "x", "1", "max", ""),
                                   Field("a/v", "x", "1", "sum", "", ("axis",), "int64")], {"axis": ["l", "r"]})
        for step in range(1, 301):
            row = {"step": step, "a/sum": rng.normal(), "a/max": rng.normal(), "l": rng.integers(9), "r": step}
            rows.append(row)
            frame.append(step, {"a/sum": row["a/sum"], "a/max": row["a/max"], "a/v": [row["l"], row["r"]]})
        writer.close()
    expected = pd.DataFrame(rows).groupby("step")
    run = open_run(tmp_path)
    np.testing.assert_allclose(run.array("a/sum").values, expected["a/sum"].sum(), rtol=1e-14)
    np.testing.assert_array_equal(run.array("a/max").values, expected["a/max"].max())
    np.testing.assert_array_equal(run.array("a/v").values, expected[["l", "r"]].sum().to_numpy())
    assert run.problems() == [] and run.attempts[0].ranks == (0, 1, 2)


def test_a_live_step_waits_for_all_ranks(tmp_path: Path) -> None:
    fast = write(tmp_path, range(1, 21), close=False, rank=0, world_size=2)
    slow = write(tmp_path, range(1, 11), close=False, rank=1, world_size=2)
    run = open_run(tmp_path)
    assert run.array("loss/sum").steps[-1] == 10, "step 11 has one of two ranks: half a sum is not a sum"
    fast.close(), slow.close()


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5), rank=0, world_size=2)
    assert any("Ranks 1 of 2" in problem for problem in open_run(tmp_path).problems())


def test_resume_and_rollback_leave_one_main_line_and_a_branch(place: str) -> None:
    writer = write(place, range(1, 101), close=False)
    writer.rewind(60)
    writer._frames["loss"].append(61, {"loss/sum": 1000.0, "loss/tokens": 1})
    writer.close()
    write(place, range(51, 121), start_step=50)  # another process resumes from an older checkpoint
    run = open_run(place)
    main = run.series("loss/train")
    assert main["step"].tolist() == list(range(1, 121))
    np.testing.assert_array_equal(main["value"], np.arange(1, 121) / 2)
    branches = run.branches()
    assert branches[["from_step", "to_step"]].to_numpy().tolist() == [[51, 100], [61, 61]]
    assert run.series("loss/train", branch=1)["value"].tolist() == [1000.0]
    assert run.series("loss/train", branch=0)["step"].tolist() == list(range(51, 101))


def test_an_attempt_without_rows_cuts_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(1, 101))
    write(tmp_path, range(0), start_step=50)
    assert open_run(tmp_path).last_step == 100


def test_compaction_changes_nothing_and_may_run_twice(tmp_path: Path) -> None:
    writer = write(tmp_path, range(1, 1001), close=False)
    run = open_run(tmp_path)
    before = run.series("loss/domain")
    segments = list(tmp_path.glob("frames/*/live/*/*.arrows"))
    copies = [(path, path.read_bytes()) for path in segments]
    folder = open_folder(tmp_path)
    assert compact_run(folder, quiet_for=-1) == len(segments)
    for path, data in copies:
        path.write_bytes(data)  # as if the compactor had died between writing and deleting
    run.refresh()
    pd.testing.assert_frame_equal(run.series("loss/domain"), before)
    assert compact_run(folder, quiet_for=-1) == len(segments)
    pd.testing.assert_frame_equal(open_run(tmp_path).series("loss/domain"), before)
    writer.close()


def test_small_segments_grow_into_one_history_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainvitals.store.sink.SEGMENT_BATCHES", 2)
    writer = RunWriter(tmp_path, when_full="wait")
    frame = writer.frame("loss", LOSS, DOMAINS)
    for step in range(1, 31):
        frame.append(step, {"loss/sum": step, "loss/tokens": 1})
        writer.flush()
    writer.close()
    assert len(list(tmp_path.glob("frames/loss/history/*.parquet"))) == 1
    assert not list(tmp_path.glob("frames/loss/live/*/*.arrows"))
    assert open_run(tmp_path).array("loss/sum").values.tolist() == list(range(1, 31))


@given(st.lists(st.one_of(st.floats(-1e3, 1e3), st.sampled_from([np.nan, np.inf, -np.inf])), min_size=1, max_size=200),
       st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_decimation_keeps_every_extreme(values: list[float], max_points: int) -> None:
    array = np.array(values)
    buckets = decimate(np.arange(len(array)), array, None, max_points)
    assert len(buckets.lo) <= max_points and buckets.count.sum() == len(array)
    for first, last, lo, hi, bad, mean in zip(buckets.first_step, buckets.last_step, buckets.lo, buckets.hi,
                                              buckets.nonfinite, buckets.mean, strict=True):
        inside = array[first:last + 1]
        finite = inside[np.isfinite(inside)]
        assert bad == len(inside) - len(finite)
        if len(finite):
            assert lo == finite.min() and hi == finite.max() and mean == pytest.approx(finite.mean(), abs=1e-9)
        else:
            assert np.isnan([lo, hi, mean]).all()


def test_a_step_range_reads_what_a_full_read_holds(tmp_path: Path) -> None:
    write(tmp_path, range(1, 1001))
    run = open_run(tmp_path)
    zoom = run.series("loss/train", steps=(400, 420))
    whole = run.series("loss/train")
    pd.testing.assert_frame_equal(zoom, whole[whole["step"].between(400, 420)].reset_index(drop=True))
    seen = open_run(tmp_path).array("loss/sum", steps=(5000, 6000))
    assert len(seen) == 0


def test_wrong_values_and_names_are_refused_with_a_sentence(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    frame = writer.frame("loss", LOSS, DOMAINS)
    with pytest.raises(UsageError, match="Step 1 of frame 'loss'"):
        frame.append(1, {"loss/domain_sum": [1.0, 2.0]})
    with pytest.raises(UsageError, match="does not fit"):
        frame.append(1, {"loss/sum": "high"})
    with pytest.raises(UsageError, match="labels for the axes"):
        writer.frame("grad", ["grad/sumsq_by_layer"])
    writer.close()
    with pytest.raises(UnknownSignal, match="no signal 'loss/tarin'"):
        open_run(tmp_path).series("loss/tarin")
    with pytest.raises(RunNotFound, match="holds no run"):
        open_run(tmp_path / "elsewhere")


def test_a_failed_row_leaves_no_trace(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    frame = writer.frame("loss", LOSS, DOMAINS)
    frame.append(1, {"loss/sum": 1.0})
    with pytest.raises(UsageError):
        frame.append(2, {"loss/sum": 2.0, "loss/domain_sum": [1.0]})
    frame.append(3, {"loss/sum": 3.0})
    writer.close()
    assert open_run(tmp_path).array("loss/sum").steps.tolist() == [1, 3]


def test_runs_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "a", range(1, 3))
    write(tmp_path / "b", range(1, 3))
    os.mkdir(tmp_path / "not-a-run")
    assert [Path(path).name for path in list_runs(tmp_path)] == ["a", "b"]
    assert list_runs(tmp_path / "a") == [str(tmp_path / "a")]
    assert list_runs(tmp_path / "nowhere") == []


def test_wide_counts_are_summed_into_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainvitals.store.sink.SEGMENT_BATCHES", 3)
    rng, rows = np.random.default_rng(0), []
    for rank in range(2):
        writer = RunWriter(tmp_path, rank=rank, world_size=2, when_full="wait")
        frame = writer.frame("tokens", ["tokens/counts"], {"domain": ["web"], "token": list("abcd")})
        for step in range(10, 6010, 10):
            counts = rng.multinomial(1000, [0.4, 0.3, 0.2, 0.1] if step <= 3000 else [0.1, 0.2, 0.3, 0.4])
            rows.append((step, *counts))
            frame.append(step, {"tokens/counts": counts[None]})
            if step % 200 == 0:
                writer.flush()
        writer.close()
    drift = open_run(tmp_path).array("tokens/js")
    assert len(drift) == 256 and drift.steps[-1] == 6000
    table = pd.DataFrame(rows).groupby(0).sum()
    edges = np.searchsorted(table.index, drift.steps, side="right")
    windows = np.add.reduceat(table.to_numpy(), np.append(0, edges[:-1]), axis=0)
    np.testing.assert_allclose(drift.values, token_drift(windows[:, None, :].astype(float)).values)
