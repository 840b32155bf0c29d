"""Every page through Streamlit's own test runner: no browser, no server."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from checks import Verdict
from dashboard.app_pages.health import verdict_words
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
