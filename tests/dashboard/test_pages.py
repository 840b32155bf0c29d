"""Every page through Streamlit's own test runner: no browser, no server."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest

from checks import Verdict
from dashboard.app_pages.health import quiet_words, verdict_words
from dashboard.server.runs import runs_below
from tests.dashboard.make_run import Maker, make_run

PAGES = ("health", "loss", "optimisation", "routing", "data", "throughput", "scaling")


def charts(test) -> int:
    return len(test.get("vega_lite_chart")) + len(test.get("echarts_chart"))


def words(test) -> str:
    parts = [*test.markdown, *test.caption, *test.subheader, *test.error]
    return " ".join(part.value for part in parts).replace("\\", "").replace("\u2060", "")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("run", ["faulty", "hostile"])
def test_every_page_draws_every_run(board, page, run):
    test = board(page=page, run=run)
    assert not test.exception
    assert charts(test) >= (1 if page == "health" else 4)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_overlays_two_runs_in_a_step_range(board, page):
    test = board(page=page, **{"run": "faulty", "compare": "clean", "from": "50", "to": "250", "log": "true"})
    assert not test.exception
    assert test.selectbox(key="compare").value == "clean"
    assert charts(test) >= 1


def test_findings_appear_and_open_from_the_url(board):
    test = board(run="faulty")
    deadline = time.monotonic() + 60
    while "Moved first" not in words(test) and time.monotonic() < deadline:
        time.sleep(0.3)
        test.run()
    assert "Moved first" in words(test)
    key = next(e.key for e in test.expander if e.key and e.key.startswith("open-lr.")).removeprefix("open-")
    test.query_params["finding"] = key
    test.run()
    assert not test.exception
    assert "What to do." in words(test)
    assert len(test.get("echarts_chart")) >= 2


def test_an_area_that_mostly_cannot_know_says_so():
    assert verdict_words("scaling", Verdict("pass", 5, 4, 0)) == "scaling: pass, 4 unknown"
    assert verdict_words("data", Verdict("pass", 4, 1, 0)) == "data: pass"
    assert verdict_words("routing", Verdict("fail", 3, 0, 2)) == "routing: fail, 2 now"
    assert verdict_words("scaling", Verdict("unknown", 4, 4, 0)) == "scaling: unknown"


def test_an_unknown_mfu_says_why(board):
    test = board(page="throughput", run="faulty")
    assert "unknown" in words(test) and "peak FLOP/s" in words(test)
    assert "unknown" not in words(board(page="throughput", run="clean"))


def test_a_missing_folder_and_an_empty_one_say_what_to_do(board, tmp_path):
    assert "does not exist yet" in words(board(tmp_path / "nowhere"))
    empty = words(board(tmp_path))
    assert "No runs here yet" in empty and str(tmp_path) in empty


def test_a_run_without_rows_waits_for_them(board, tmp_path):
    maker = Maker(tmp_path / "young")
    maker.writer.flush()
    assert "has no data yet" in words(board(tmp_path))
    maker.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_run_with_a_damaged_card_is_shown_with_a_note(board, tmp_path, runs, page):
    shutil.copytree(runs / "clean", tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text("{ not json")
    test = board(tmp_path, page=page)
    assert not test.exception
    assert "run.json" in words(test)


def test_a_collector_that_is_off_is_named(board, tmp_path, runs):
    shutil.copytree(runs / "clean", tmp_path / "dense")
    for frame in ("router", "router_domain", "tokens", "throughput"):
        shutil.rmtree(tmp_path / "dense" / "frames" / frame)
    said = words(board(tmp_path, page="routing"))
    assert "router/tokens" in said and "router collector" in said
    for page in PAGES:
        assert not board(tmp_path, page=page).exception


def test_of_many_domains_the_largest_are_drawn(board, tmp_path):
    shares = {f"domain {i}": 1 / (i + 1) for i in range(300)}
    total = sum(shares.values())
    maker = Maker(tmp_path / "many", total_steps=60, domains={name: s / total for name, s in shares.items()})
    maker.run_to(60)
    maker.close()
    test = board(tmp_path, page="data")
    assert not test.exception
    (chosen,) = test.multiselect
    assert len(chosen.value) == 9 and chosen.value[0] == "domain 0" and len(chosen.options) == 301
    assert "Drift is a distance between windows" in words(test)
    chosen.set_value(["domain 299"]).run()
    assert not test.exception and test.multiselect[0].value == ["domain 299"]


def test_a_rolled_back_attempt_can_be_shown(board, tmp_path):
    maker = Maker(tmp_path / "rolled", total_steps=200)
    maker.run_to(120)
    maker.writer.rewind(80)
    maker.step = 80
    maker.run_to(160)
    maker.close()
    for page in ("health", "loss"):
        assert not board(tmp_path, page=page, branches="true").exception


def test_a_path_in_the_url_is_not_opened(board, runs):
    test = board(run=str(runs / "faulty" / ".."))
    assert test.selectbox(key="run").value in {"clean", "faulty", "hostile"}


def test_one_run_folder_is_a_folder_of_one(board, tmp_path):
    path: Path = make_run(tmp_path / "one", steps=30)
    assert board(path).selectbox(key="run").value == "one"


def test_a_run_that_begins_late_fills_the_step_axis(board, tmp_path):
    """A run of the steps 500,001 to 500,500, and one of the first steps, which begins at 0."""
    late = Maker(tmp_path / "late", total_steps=600_000, fault="none")
    late.step = 500_000
    late.run_to(500_500)
    late.close()
    make_run(tmp_path / "early", steps=60)
    assert _axes(board(tmp_path, run="late")) == {(500_001, 500_500)}
    assert _axes(board(tmp_path, run="early")) == {(0, 60)}
    assert _axes(board(tmp_path, run="late", compare="early")) == {(0, 500_500)}
    assert _axes(board(tmp_path, run="late", **{"from": "500100", "to": "500200"})) == {(500_100, 500_200)}
    assert _axes(board(tmp_path, run="late", to="500200")) == {(500_001, 500_200)}
    for page in PAGES:
        assert not board(tmp_path, page=page, run="late").exception


def _axes(test) -> set[tuple[int, int]]:
    """Both ends of every step axis of the live chart."""
    (chart,) = test.get("echarts_chart")
    return {(axis["min"], axis["max"]) for axis in json.loads(chart.proto.spec)["xAxis"]}


def test_a_link_to_what_is_gone_says_so_until_the_viewer_chooses(board, runs):
    test = board(run="gone", compare="lost <b>")
    said = [warning.value.replace("\\", "").replace("\u2060", "") for warning in test.warning]
    assert said == [
        "The run **gone** is not in this folder. Shown instead: **faulty**.",
        "The run to compare with **lost <b>** is not in this folder. Shown instead: **this run alone**.",
    ]
    test.toggle(key="log").set_value(True).run()
    assert len(test.warning) == 2
    test.selectbox(key="run").set_value("clean").run()
    assert len(test.warning) == 1
    assert not board(run="clean").warning


def test_a_run_that_is_deleted_under_its_viewer_is_named(board, tmp_path, monkeypatch):
    from dashboard.server import runs

    make_run(tmp_path / "kept", steps=30)
    make_run(tmp_path / "lost", steps=30)
    test = board(tmp_path, run="lost")
    assert test.selectbox(key="run").value == "lost" and not test.warning
    shutil.rmtree(tmp_path / "lost")
    runs.near.clear()
    test.run()
    assert not test.exception and test.selectbox(key="run").value == "kept"
    assert "**lost** is not in this folder" in test.warning[0].value


def test_runs_are_found_in_folders_of_folders(tmp_path, runs):
    for place in ("team/exp/run", "run", "a/b/c/d", "a/b/c/d2/too/deep", ".hidden/run"):
        shutil.copytree(runs / "clean", tmp_path / place)
    (tmp_path / "team" / "round").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "again").symlink_to(tmp_path / "team")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_bytes(b"\0{{{")
    assert set(runs_below(str(tmp_path))) == {"run", "bad", "team/exp/run", "a/b/c/d"}
    assert runs_below(str(tmp_path / "run")) == {"run": str(tmp_path / "run")}
    assert runs_below(str(tmp_path / "team"))["exp/run"] == str(tmp_path / "team" / "exp" / "run")
    assert runs_below(str(tmp_path / "nowhere")) == {}


def test_a_run_two_folders_deep_is_shown_under_its_path(board, tmp_path, runs):
    shutil.copytree(runs / "clean", tmp_path / "team" / "exp" / "run")
    test = board(tmp_path, run="team/exp/run")
    assert test.selectbox(key="run").value == "team/exp/run" and not test.warning and not test.exception


def test_a_part_that_fails_fails_alone_and_in_words(board, monkeypatch, failures):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/path of the server")

    monkeypatch.setattr("dashboard.app_pages.data.plots.stacked", broken)
    test = board(page="data", run="clean")
    assert not test.exception and charts(test) >= 4
    (box,) = test.error
    assert "Mix over time could not be drawn" in box.value and "secret" not in words(test)
    assert failures == ["The part 'Mix over time' of the board could not be drawn: "
                        "RuntimeError('/secret/path of the server')"]
    failures.clear()


def test_a_page_that_fails_is_named(board, monkeypatch, failures):
    monkeypatch.setattr("dashboard.page.look", lambda choice: 1 / 0)
    test = board(page="loss", run="clean")
    assert not test.exception and "could not be drawn" in test.error[0].value
    failures.clear()


def test_an_odd_address_is_left_out_and_said(board):
    test = board(run="clean", to="1e999", **{"from": "9" * 400})
    assert not test.exception and test.number_input(key="to").value is None
    assert {toast.value.split("**")[1] for toast in test.toast} == {"to", "from"}


def test_an_odd_address_that_comes_back_by_the_history_ends_in_words(board, failures):
    test = board(run="clean", to="100")
    test.query_params["to"] = "1e999"
    test.run()
    assert not test.exception
    failures.clear()


def test_no_table_and_no_chart_hands_a_formula_to_a_spreadsheet(board, tmp_path):
    """Both can be saved as a CSV by Streamlit's own button, which writes their strings as they are."""
    domains = {"=1+1": 0.4, "@SUM(A1)": 0.3, "-2": 0.2, "a;=2": 0.1}
    maker = Maker(tmp_path / "=run", total_steps=60, domains=dict(domains), layer_names=("+a", "-b", "=c", "@d"))
    maker.run_to(60)
    maker.close()
    seen: set[str] = set()
    for page in ("data", "loss", "routing", "optimisation"):
        test = board(tmp_path, page=page)
        assert not test.exception
        tables = [frame.value for frame in test.dataframe]
        for chart in test.get("vega_lite_chart"):
            data = [chart.proto.data.data, *(named.data.data for named in chart.proto.datasets)]
            tables += [pa.ipc.open_stream(one).read_pandas() for one in data if one]
        texts = [str(cell) for table in tables for name in table for cell in table[name] if isinstance(cell, str)]
        texts += [str(name) for table in tables for name in table]
        assert [text for text in texts if text.lstrip().startswith(("=", "+", "-", "@"))] == []
        seen |= {text.removeprefix("\u2060") for text in texts}
    assert {"=1+1", "@SUM(A1)", "-2"} <= seen


def test_a_link_to_a_run_that_has_just_begun_shows_it(board, tmp_path):
    make_run(tmp_path / "old", steps=60, fault="none")
    assert board(tmp_path).selectbox(key="run").value == "old"
    make_run(tmp_path / "new", steps=60, fault="none")
    assert board(tmp_path, run="new").selectbox(key="run").value == "new"


def test_a_quiet_run_is_called_healthy_only_by_what_passed() -> None:
    assert "Nothing is known" in quiet_words(0) and "passed" not in quiet_words(0)
    assert "Nothing stands out" in quiet_words(1)
