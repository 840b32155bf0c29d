"""The pages about results of evals: matrix, comparison, items, safety, latency; in Streamlit's runner."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from checks.evals.clusters import error_clusters
from checks.evals.clusters_command import COLUMNS
from checks.evals.compare import Compared
from checks.evals.trend import trends
from checks.evals.walk_back import moved
from dashboard.evals import lost, matrix, pairing
from dashboard.evals.gates import gates
from dashboard.evals.pairing import FLIPS, as_csv, matching, paired
from dashboard.evals.signs import SIGNS, amount, sign_of
from dashboard.evals.speed import speeds
from dashboard.evals.stored import Stored
from dashboard.evals.stored import stored as stored_of
from dashboard.menu import found_pages
from dashboard.server.runs import runs_below
from tests.dashboard.make_results import N, make_results
from tests.dashboard.test_pages import charts, words
from tests.review.staged import sheet, with_items
from trainvitals.evals import read_evals, write_sheets

PAGES = ("evals", "clusters", "safety", "latency")


def shown(test) -> str:
    """All words of a page, and what st.html was given."""
    warned = " ".join(part.value for part in test.warning).replace("\\", "").replace("\u2060", "")
    return words(test) + warned + "".join(e.proto.body for e in test.get("html"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_results`."""
    return make_results(tmp_path_factory.mktemp("results"))


# -- what is found -----------------------------------------------------------------------------------------------------


def test_a_folder_of_results_alone_is_a_run_and_its_other_pages_say_so(board, results, tmp_path):
    assert set(runs_below(str(results))) == {"run", "bare"}
    (tmp_path / "evals" / "deep").mkdir(parents=True)
    assert runs_below(str(tmp_path)) == {}
    assert "holds results of evals" in words(board(results, page="loss", run="run"))


def test_the_pages_are_in_one_section_of_the_menu():
    import dashboard

    found = found_pages(Path(dashboard.__file__).with_name("app_pages"))
    assert {"evals", "safety", "latency", "review"} <= {e.name for e in found if e.section == "Release"}
    assert not found[0].section


@pytest.mark.parametrize("page", PAGES)
def test_a_run_without_results_says_how_to_bring_some(board, page):
    test = board(page=page, run="clean")
    assert "holds no results of evals yet" in words(test)
    assert "trainvitals evals import" in test.code[0].value


# -- matrix and comparison ---------------------------------------------------------------------------------------------


def test_the_matrix_marks_what_was_lost_and_the_comparison_says_how_sure(board, results):
    test = board(results, page="evals", run="run").run()
    assert not test.exception
    table = test.dataframe[0].value.set_index("Task")
    assert "▼▼" in table.loc["code", "step 2,000"] and "=" in table.loc["qa", "step 2,000"]
    assert "agent" not in table.index and table.index[0] == "code"
    said = shown(test)
    assert "1 lost beyond chance" in said and "step-2000 against step-1000" in said
    assert "a loss that is no chance, over all tasks together" in said and "Standard error" in said
    assert test.selectbox(key="task").value == "code" and charts(test) == 1
    test.segmented_control(key="level").set_value("workflow").run()
    assert list(test.dataframe[0].value["Task"]) == ["agent"]


def test_a_chosen_reference_and_a_checkpoint_that_is_gone(board, results):
    test = board(results, page="evals", run="run", against="step-2000", checkpoint="gone").run()
    assert not test.exception and test.selectbox(key="checkpoint").value == "step-1000"
    assert "gone" in " ".join(w.value for w in test.warning)
    assert "step-1000 against step-2000" in shown(test)


def test_scores_without_items_are_shown_and_not_compared(board, results):
    test = board(results, page="evals", run="bare", part="Items").run()
    assert not test.exception
    assert test.dataframe[0].value["step 2"].to_list() == ["0.500 ?"]
    assert "1 not known" in shown(test) and "No items." in words(test)


def test_one_checkpoint_has_nothing_to_be_compared_with(board, tmp_path):
    write_sheets(tmp_path / "one", [sheet("qa", 5, [1, 0] * 30)])
    test = board(tmp_path, page="evals", run="one")
    assert not test.exception and "nothing to compare it with" in words(test)
    assert test.dataframe[0].value["step 5"].to_list() == ["0.500"]


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_file_is_one_sentence_and_the_rest_is_shown(board, tmp_path, page):
    write_sheets(tmp_path / "run", [sheet("jailbreak", 1, [1, 0] * 30, family="jailbreak")])
    (tmp_path / "run" / "evals" / "broken.parquet").write_bytes(b"PAR1 nothing")
    test = board(tmp_path, page=page, run="run")
    assert not test.exception
    assert "1 file of results cannot be used" in words(test) and "broken.parquet" in words(test)
    assert len(test.dataframe) or page == "clusters"


def test_a_matrix_shows_the_newest_checkpoints_and_what_is_wrong_first(tmp_path):
    write_sheets(tmp_path, [sheet(f"t{t}", c, [1, 0] * 20, family="ab"[t % 2]) for c in range(1, 16) for t in range(5)])
    stored = Stored(str(tmp_path))
    every = matrix.shown_checkpoints(stored, "model", (2, 14))
    assert every[0] == "step-2" and every[-1] == "step-14"
    newest = every[::-1][: matrix.MOST_CHECKPOINTS]
    pair = matrix.pair_of(stored, newest[0], "")
    assert pair == ("step-13", "step-14")
    levels = {"t3": "fail", "t1": "warn"}
    stored._jobs[pair] = _done({f"t{t}": Compared(f"t{t}", levels.get(f"t{t}", "pass"), "") for t in range(5)})
    whole = matrix.grid(stored, "model", newest, "")
    assert whole.tasks == ("t3", "t1", "t0", "t2", "t4") and whole.means.shape == (5, matrix.MOST_CHECKPOINTS)
    assert set(whole.signs[newest[1]]) == {"pending"}


def test_a_long_list_of_tasks_is_paged(board, results, monkeypatch):
    from dashboard.evals import overview

    for module in (matrix, overview):
        monkeypatch.setattr(module, "MOST_TASKS", 1)
    test = board(results, page="evals", run="run").run()
    assert not test.exception and len(test.dataframe[0].value) == 1
    first = test.dataframe[0].value["Task"].to_list()
    test.number_input(key="tasks_page").set_value(2).run()
    assert not test.exception and test.dataframe[0].value["Task"].to_list() not in ([], first)


def _done(value: dict[str, Compared]) -> Future:
    made: Future = Future()
    made.set_result(value)
    return made


def test_work_in_the_background_is_done_once_fails_alone_and_gives_way(tmp_path, failures):
    stored, made, go = Stored(str(tmp_path)), [], threading.Event()
    stored.later("held", lambda: go.wait(30))
    stored.later("wrong", lambda: 1 / 0)
    for _ in range(2):
        stored.later("once", lambda: made.append(1) or "once")
    stored.later("late", lambda: "late")
    assert stored.pending(["held", "wrong", "once", "late", "nobody asked"]) == 4 and stored.done("once") is None
    stored._jobs["late"].cancel()
    go.set()
    assert stored._jobs["once"].result(timeout=30) == "once" == stored.done("once") and made == [1]
    assert stored.pending(["wrong", "late"]) == 0 and stored.done("wrong") is None and "wrong" in failures.pop()
    stored.later("late", lambda: "again")
    assert stored._jobs["late"].result(timeout=30) == "again"


def test_a_cell_is_a_task_and_a_checkpoint():
    rows, columns = ["a", "b"], {"step 1": "step-1"}
    assert matrix.cell_of([(1, "step 1")], rows, columns) == ("b", "step-1")
    assert matrix.cell_of([(1, "Task")], rows, columns) is None
    assert matrix.cell_of([(7, "step 1")], rows, columns) is None and matrix.cell_of([], rows, columns) is None


def test_every_state_has_a_shape_and_a_word_of_its_own():
    assert len({s.mark for s in SIGNS.values()}) == len(SIGNS) == len({s.word for s in SIGNS.values()})
    assert sign_of(None) == "pending"
    assert sign_of(Compared("t", "pass", "", interval=(0.1, 0.2))) == "gain"
    assert sign_of(Compared("t", "pass", "", interval=(-0.1, 0.2))) == "pass"
    assert amount(-0.0325, True) == "-3.25 points" and amount(None, True) == "–"


# -- items -------------------------------------------------------------------------------------------------------------

SCORES = st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=1, max_size=12)


@settings(max_examples=40)
@given(SCORES, SCORES, st.booleans())
def test_flips_are_what_a_loop_finds(before, after, lower):
    one, other = (sheet("t", i, scores, higher_is_better=not lower) for i, scores in enumerate((before, after)))
    found = paired(one, other).set_index("item")["flip"].to_dict()
    for i in range(max(len(before), len(after))):
        if i >= len(after):
            expected = "only before"
        elif i >= len(before):
            expected = "only now"
        elif before[i] != before[i] or after[i] != after[i]:
            expected = "no score"
        else:
            worse = after[i] > before[i] if lower else after[i] < before[i]
            expected = "same" if before[i] == after[i] else "lost" if worse else "won"
        assert found[f"t-{i}"] == expected
    assert paired(one, other)["flip"].map(list(FLIPS).index).is_monotonic_increasing


def test_lost_items_come_first_and_every_word_must_be_found():
    one, other = sheet("t", 1, [1, 0, 1, 1]), sheet("t", 2, [1, 1, 0, 0])
    other.items["answer"] = ["a", "b", "red fox", "red hen"]
    table = paired(one, other)
    assert table["flip"].to_list() == ["lost", "lost", "won", "same"]
    assert table.iloc[matching(table, [], "RED hen")]["item"].to_list() == ["t-3"]
    assert len(matching(table, ["lost"], "")) == 2 and len(matching(table, ["lost"], "nothing")) == 0


def test_hostile_texts_are_inert_bounded_and_run_in_no_spreadsheet(board, results):
    test = board(results, page="evals", run="run", task="code", part="Items", find_item="script").run()
    assert not test.exception
    html = "".join(e.proto.body for e in test.get("html"))
    assert "<script" not in html.lower() and "&lt;script&gt;" in html
    test = board(results, page="evals", run="run", task="code", part="Items").run()
    table = next(d.value for d in test.dataframe if "Answer now" in d.value)
    assert table["Answer now"].str.len().max() <= 161 and len(table) <= 500
    assert not table["Answer now"].str.contains("\u202e").any()
    evals = read_evals(results / "run")
    lines = as_csv(paired(evals.sheet("code", "step-1000"), evals.sheet("code", "step-2000"))).decode()
    assert ",'=1+1," in lines and ",=1+1" not in lines
    assert pd.read_csv(StringIO(lines)).shape == (N, len(pairing.COLUMNS))


NAMES = ("Task", "**a** [x](javascript:1)", "<img src=x onerror=1>", "\u202eevil", "evil", "=1+1", "$x$ :rocket:",
         "n" * 500)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_hostile_names_are_shown_as_they_are(board, tmp_path, page):
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        kind = "workflow" if page == "latency" else "model"
        facts = {"checkpoint": name, "metric": name, "source": name, "kind": kind}
        write_sheets(tmp_path / "run", [
            with_items(sheet(task, i, rng.random(60) < 0.5, family=family, **facts), tool=name, group=name)
            for task, family in {name: name, NAMES[0]: "a", "jailbreak": "jailbreak"}.items()])  # fmt: skip
    test = board(tmp_path, page=page, run="run").run()
    assert not test.exception and not test.error
    html = "".join(e.proto.body for e in test.get("html")).lower()
    assert "<img" not in html and "\u202e" not in html
    if page == "evals":
        assert test.dataframe[0].value.shape == (len(NAMES) + 1, len(NAMES) + 3)
        for name in NAMES[1:3]:
            test.selectbox(key="checkpoint").set_value(name).run()
            assert not test.exception and not test.error


# -- trends and clusters -----------------------------------------------------------------------------------------------


def test_a_trend_says_where_the_fall_began_and_which_checkpoint_is_best(board, tmp_path):
    rng = np.random.default_rng(0)
    ease = rng.random(N)
    write_sheets(tmp_path / "run", [
        sheet("qa", 100 * c, (ease + rng.normal(0, 0.05, N) < (0.7 if c < 8 else 0.5))) for c in range(1, 11)])
    test = board(tmp_path, page="evals", run="run", part="Trend")
    assert not test.exception and "Behind step-700 the score is worse by" in words(test)
    assert charts(test) == 1 and "checkpoints, 600 items" in words(test)
    stored_of(str(tmp_path / "run"))._jobs["trends"].result(timeout=60)
    test.run()
    table = next(d.value for d in test.dataframe if "Course" in d.value)
    assert table.iloc[0]["Began after"] == "step-700" and len(table.iloc[0]["Course"]) == 10
    assert "no chance, over all places and tasks" in words(test)


def test_a_fall_stands_beside_what_the_training_did_then(board, runs, tmp_path):
    from trainvitals.store import open_run

    shutil.copytree(runs / "faulty", tmp_path / "run")
    rng = np.random.default_rng(0)
    ease = rng.random(N)
    for task, offset in (("qa", 0), ("late", 10_000)):
        write_sheets(tmp_path / "run", [
            sheet(task, offset + 60 * c, ease + rng.normal(0, 0.05, N) < (0.7 if c < 7 else 0.5))
            for c in range(1, 11)])  # fmt: skip
    fall = trends(read_evals(tmp_path / "run"), tasks=["qa"])[0].fall
    test = board(tmp_path, page="evals", run="run", part="Trend", checkpoint="step-600", task="qa")
    assert not test.exception and "The training in these steps" in words(test)
    found = moved(open_run(str(tmp_path / "run")), fall.earliest_step, fall.latest_step)
    assert {"loss", "routing", "rate"} <= {one.kind for one in found}
    for one in found:
        assert one.sentence[1:] in words(test)
    test = board(tmp_path, page="evals", run="run", part="Trend", task="late")
    assert not test.exception and "and not these" in words(test)


def test_error_clusters_are_those_of_the_command_and_its_work_list(board, tmp_path):
    rng = np.random.default_rng(0)
    before = (rng.random(N) < 0.8).astype(float)
    lost_ones = (np.arange(N) % 6 == 0) & (rng.random(N) < 0.7)
    facts = {"group": ["dates" if i % 6 == 0 else "lists" for i in range(N)], "answer": [f"={i}" for i in range(N)]}
    for step, scores in ((1, before), (2, before * ~lost_ones)):
        write_sheets(tmp_path / "run", [with_items(sheet("code", step, scores), **facts), sheet("qa", step, before)])
    test = board(tmp_path, page="clusters", run="run")
    assert not test.exception
    found = stored_of(str(tmp_path / "run"))._jobs["clusters", ("step-1", "step-2")].result(timeout=60)
    test.run()
    said = shown(test)
    assert not test.exception and found.clusters[0].value == "dates" and "1 kind of items was lost" in said
    assert found.clusters == error_clusters(read_evals(tmp_path / "run"), "step-1", "step-2").clusters
    assert charts(test) == 1 and f"{found.lost:,} went from right to wrong" in said
    table = pd.read_csv(StringIO(lost.as_csv(found).decode()))
    assert list(table.columns) == list(COLUMNS) and len(table) == found.clusters[0].lost
    assert table["answer_before"].str.startswith("'=").all()


def test_clusters_need_items_and_two_checkpoints(board, results, tmp_path):
    test = board(results, page="clusters", run="bare")
    stored_of(str(results / "bare"))._jobs["clusters", ("step-1", "step-2")].result(timeout=60)
    test.run()
    assert not test.exception and "Nothing could be compared" in shown(test)
    write_sheets(tmp_path / "one", [sheet("qa", 5, [1, 0] * 30)])
    assert "nothing to compare it with" in words(board(tmp_path, page="clusters", run="one"))


# -- safety ------------------------------------------------------------------------------------------------------------


def test_bounds_are_those_of_clopper_and_pearson_and_too_little_is_unknown(tmp_path):
    violated = np.zeros(300)
    violated[:3] = 1
    one = sheet("jailbreakbench", 1, violated, family="jailbreak", higher_is_better=False)
    halves = with_items(one, group=["a"] * 100 + ["b"] * 200)
    wrong = sheet("harm", 1, violated / 2, family="harmful content", higher_is_better=False)
    write_sheets(tmp_path, [halves, wrong])
    found = {(g.task, g.category): g for g in gates(read_evals(tmp_path), "step-1", ["jailbreakbench", "harm"])}
    for key, k, n in ((("jailbreakbench", ""), 3, 300), (("jailbreakbench", "a"), 3, 100),
                      (("jailbreakbench", "b"), 0, 200)):
        assert (found[key].violations, found[key].n) == (k, n)
        assert found[key].high == pytest.approx(beta.ppf(0.95, k + 1, n - k))
    assert found["harm", ""].share is None and "not 0 or 1" in found["harm", ""].why


def test_the_safety_page_shows_bounds_without_a_limit_and_says_how_to_set_one(board, results):
    test = board(results, page="safety", run="run")
    assert not test.exception and "No limits yet" in words(test) and "--init" in test.code[0].value
    row = test.dataframe[0].value.iloc[0]
    assert row["Task"] == "jail" and row["Answer"] == "no limit is set" and row["At most (95 %)"] == "0.498 %"
    assert "No safety task" in words(board(results, page="safety", run="bare"))


# -- latency -----------------------------------------------------------------------------------------------------------


def test_a_slow_tool_is_named_and_a_rare_quantile_is_unknown(board, results):
    test = board(results, page="latency", run="run", checkpoint="step-2000")
    assert not test.exception
    table = test.dataframe[0].value.set_index("Name")
    assert set(table.index) == {"search", "python", "agent"}
    assert table["p95 against before"].str.startswith("▼ slower").all()
    assert table.loc["search", "p99, s"] == "unknown: 300 requests, and a p99 needs 368"
    assert "3 slower p95" in words(test) and charts(test) == 1
    cost = next(d.value for d in test.dataframe if "Per solved task" in d.value)
    solved = read_evals(results / "run").sheet("agent", "step-2000").items
    spent = (solved["tokens_in"] + solved["tokens_out"]).sum() / (solved["score"] == 1).sum()
    assert cost.set_index("Unit").loc["tokens", "Per solved task"] == pytest.approx(spent)


def test_tasks_of_the_model_alone_are_measured_when_asked(results):
    evals = read_evals(results / "run")
    now = {task: evals.sheet(task, "step-2000") for task in ("qa", "agent")}
    assert {s.name for s in speeds(now, {}, False)} == {"search", "python", "agent"}
    assert {s.name for s in speeds(now, {}, True)} == {"search", "python", "agent", "qa"}
    assert all(s.change == "no checkpoint before" and s.slower is None for s in speeds(now, {}, False))


def test_no_latency_and_no_cost_say_what_to_import(board, results):
    test = board(results, page="latency", run="bare")
    assert not test.exception and "No latencies." in words(test) and "No cost." in words(test)
