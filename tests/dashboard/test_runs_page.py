"""The table of runs: what each row says, who comes first, what is searched; runs side by side."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from dashboard.runs.overlay import minus
from dashboard.runs.table import frame, matching, ordered
from dashboard.server.shelf import Row, Shelf, read_row
from trainvitals.store import open_run

ROWS = {
    "a": Row("/r/a", level="pass", loss=3.0, last_time=2.0, group="sweep"),
    "b": Row("/r/b", level="fail", loss=3.5, last_time=1.0, headline="loss climbed", tags=("moe",)),
    "c": Row("/r/c", level="warn", last_time=5.0, model="Olmoe"),
    "d": Row("/r/d", level="fail", loss=2.5, last_time=3.0),
}


def test_the_worst_come_first_and_of_those_the_newest():
    assert ordered(ROWS) == ["d", "b", "c", "a"]


@pytest.mark.parametrize(("words", "levels", "names"), [
    ("", [], "abcd"), ("", ["fail"], "bd"), ("climbed", [], "b"), ("MOE", [], "bc"), ("sweep", ["fail"], ""),
    ("moe loss", [], "b")])  # fmt: skip
def test_search_and_filter(words, levels, names):
    assert "".join(matching(ROWS, words, levels)) == names


def test_a_baseline_adds_its_difference_and_empty_columns_go():
    shown = frame(ROWS, ordered(ROWS), baseline="a")
    assert shown["to baseline"].round(6).tolist()[:2] == [-0.5, 0.5] and np.isnan(shown["to baseline"][2])
    assert "tokens/s" not in shown and "twins" not in shown and shown["level"][0] == "■ fail"
    assert "to baseline" not in frame(ROWS, ordered(ROWS))


def test_a_row_says_what_the_run_says(runs, tmp_path):
    path = shutil.copytree(runs / "clean", tmp_path / "clean", ignore=shutil.ignore_patterns("findings"))
    run, row = open_run(path), read_row(str(path))
    values = run.array("loss/train").values
    assert row.error == "" and row.step == run.last_step and row.status == run.status
    assert row.loss == pytest.approx(values[-len(values) // 30 :].mean(), rel=0.02)
    assert row.tokens == pytest.approx(np.nansum(run.array("throughput/tokens").values), rel=0.02)
    assert row.level == "unknown" and row.judged_step is None
    findings = [{"level": "pass", "check": "loss.divergence"}, {"level": "warn", "summary": "look", "check": "x"}]
    run.save_findings(findings)
    assert (read_row(str(path)).level, read_row(str(path)).headline) == ("warn", "look")
    run.save_findings(findings[:1])
    assert (read_row(str(path)).level, read_row(str(path)).judged_step) == ("pass", run.last_step)


def test_damage_is_a_row_of_its_own(tmp_path):
    (tmp_path / "broken" / "frames").mkdir(parents=True)
    (tmp_path / "broken" / "run.json").write_text("{")
    assert read_row(str(tmp_path / "broken")).level == "unknown"
    assert read_row(str(tmp_path / "gone")).error


def test_new_runs_are_read_first_and_within_the_budget(runs, tmp_path):
    for i in range(4):
        shutil.copytree(runs / "clean", tmp_path / f"r{i}")
    paths = {f"r{i}": str(tmp_path / f"r{i}") for i in range(4)}
    kept = Shelf()
    sizes = [len(kept.look(paths, budget=0.0)) for _ in range(5)]
    assert sizes == [1, 2, 3, 4, 4]


def test_a_viewer_does_not_wait_for_another_s_look(runs):
    kept = Shelf()
    kept._lock.acquire()
    assert kept.look({"clean": str(runs / "clean")}) == {}
    kept._lock.release()
    assert list(kept.look({"clean": str(runs / "clean")})) == ["clean"]


def test_the_page(board):
    app = board(page="runs")
    assert not app.exception
    table = app.dataframe[0].value
    assert {"clean", "faulty"} <= set(table["run"].str.replace("\u2060", "")) and len(table) == 3
    assert "3 runs" in app.caption[0].value
    app.text_input(key="find_run").set_value("fault").run()
    assert app.dataframe[0].value["run"].tolist() == ["faulty"] and not app.exception


def test_the_difference_of_two_runs_is_taken_at_the_same_steps():
    def curve(first, last, slope):
        steps = np.arange(first, last)
        return pd.DataFrame({"step": steps, "last_step": steps, "value": slope * steps, "lo": slope * steps,
                             "hi": slope * steps})  # fmt: skip

    less = minus(curve(0, 100, 3.0), curve(50, 200, 1.0))
    assert less["step"].tolist() == list(range(50, 100))
    np.testing.assert_allclose(less["value"], 2.0 * less["step"])
    assert not len(minus(curve(0, 10, 1.0), curve(0, 0, 1.0)))
