"""The scaling page: every source of a law, every state of a run, and sliders that change the numbers."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from checks.scaling.fit import fit_ladder
from checks.scaling.levenberg import objective, predict_log
from checks.scaling.table import read_ladder
from dashboard.scaling import ladders as scaling
from dashboard.scaling.ladders import PUBLISHED, RUNS, Refit, Source
from dashboard.server import judging, launch
from tests.dashboard.conftest import admit, free_port
from tests.dashboard.make_run import HOSTILE, Maker
from tests.dashboard.test_browser import DONE, PARSED, Watched
from tests.dashboard.test_pages import charts, words
from tests.scaling.ladders import DATA, simulated
from trainvitals.errors import UsageError
from trainvitals.store import open_run

THREE = "N,D,loss\n1e8,2e9,3.5\n3e8,6e9,3.1\n1e9,2e10,2.8\n"


def write_ladder(path: Path, *, names: bool = False, **options: object) -> Path:
    """A table of 42 runs on the published law."""
    made = simulated(np.random.default_rng(0), **options)  # type: ignore[arg-type]
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["N", "D", "loss", "name"])
        for i, (n, d, loss) in enumerate(zip(made.n, made.d, made.loss, strict=True)):
            out.writerow([repr(float(n)), repr(float(d)), repr(float(loss)), HOSTILE[i % 5] if names else f"run {i}"])
    return path


@pytest.fixture(scope="module")
def folder(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with a ladder beside them, a live one with forecasts, tables that cannot be fitted."""
    place = tmp_path_factory.mktemp("scaling") / "runs"
    shutil.copytree(runs, place)
    write_ladder(place / "ladder.csv")
    write_ladder(place / "hostile <b>.csv", names=True)
    (place / "three.csv").write_text(THREE)
    (place / "steps.csv").write_text("size,steps\n1,2\n3,4\n")
    write_ladder(place / "one ratio.csv", multipliers=(20,))
    live = Maker(place / "live", total_steps=1000, fault="none")
    for step in (500, 700):
        live.run_to(step)
        live.writer.flush()
        judging.answer({}, str(place / "live"), "")
    return place


def metrics(test) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def test_a_ladder_beside_the_runs_is_fitted_and_a_slider_refits_it(board, folder):
    test = board(folder, page="scaling", run="clean")
    assert not test.exception
    assert test.selectbox(key="ladder").value == "ladder.csv"
    assert "42 runs of 7 sizes" in words(test) and charts(test) >= 5
    before = metrics(test)
    test.slider(key="drop").set_value(40).run()
    assert not test.exception
    assert re.search(r"26 runs of \d sizes, 16 dropped", words(test))
    assert metrics(test)["Parameters"] != before["Parameters"]
    test.slider(key="outliers").set_value(3).run()
    assert "19 dropped" in words(test)


def test_another_budget_replans(board, folder):
    test = board(folder, page="scaling", run="faulty", flops="1e22")
    law = scaling.choose(Source("x", "table", str(folder / "ladder.csv")), "", Refit(), None).law
    assert metrics(test)["Nats/token"] == f"{float(law.optimum(1e22).loss):.3f}"
    test.select_slider(key="flops").set_value("1e23").run()
    assert metrics(test)["Nats/token"] == f"{float(law.optimum(1e23).loss):.3f}"
    assert "times the ladder's largest run" in words(test) or "90 %" in words(test)
    test.segmented_control(key="budget").set_value("machines").run()
    assert not test.exception
    flops = 256 * 10 * 86400 * 989e12 * 0.4
    assert f"{flops:.3g} FLOPs" in words(test) and "61.4k GPU hours" in words(test)
    test.number_input(key="unique").set_value(20.0).run()
    assert "passes" in words(test)


@pytest.mark.parametrize("part", ["Loss", "Fit", "IsoFLOP", "Runs"])
def test_every_part_draws_a_ladder_and_a_published_law(board, folder, part):
    for source in ("hostile <b>.csv", "Hoffmann et al. 2022, approach 3"):
        test = board(folder, page="scaling", ladder=source, look=part)
        assert not test.exception and not test.error
        assert charts(test) >= 3


def test_the_fit_part_shows_intervals_consensus_and_profiles(board, folder):
    test = board(folder, page="scaling", look="Fit")
    (table,) = (frame.value for frame in test.dataframe)
    assert list(table["Constant"])[:3] == ["E, nats/token", "A", "B"] and " to " in table["95 % bootstrap"][0]
    assert "36 starting points" in words(test) and "4,000 resamples" in words(test)


def test_tables_that_cannot_be_fitted_say_why_in_one_sentence(board, folder):
    three = board(folder, page="scaling", ladder="three.csv")
    assert not three.exception and "three.csv has 3 runs, too few" in words(three)
    steps = board(folder, page="scaling", ladder="steps.csv")
    assert not steps.exception and "steps.csv has no column for N, loss" in words(steps)
    assert str(folder) not in " ".join(error.value for error in steps.error)
    ratio = board(folder, page="scaling", ladder="one ratio.csv")
    assert not ratio.exception and "not identifiable" in words(ratio)


def test_columns_can_be_named(board, tmp_path):
    content = write_ladder(tmp_path / "ladder.csv").read_text().replace("N,D,loss", "size,seen,end")
    (tmp_path / "ladder.csv").write_text(content)
    named = {"ladder": "ladder.csv", "columns": "N=size,D=seen,loss=end"}
    assert "42 runs of 7 sizes" in words(board(tmp_path, page="scaling", **named))
    wrong = board(tmp_path, page="scaling", ladder="ladder.csv", columns="N=<b>x</b>")
    assert not wrong.exception and "no column '<b>x</b>'" in words(wrong)


def test_without_a_ladder_the_page_says_what_to_do(board, tmp_path):
    test = board(tmp_path, page="scaling")
    assert not test.exception
    assert test.selectbox(key="ladder").value == next(iter(PUBLISHED))
    assert "put a CSV file of finished runs" in words(test) and "No run to hold" in " ".join(i.value for i in test.info)


def test_a_live_run_shows_its_forecasts_and_where_it_stands(board, folder):
    kept = scaling.past_forecasts(str(folder / "live"), "x")
    assert [told.made_at_step for told in kept] == [500, 700]
    test = board(folder, page="scaling", run="live")
    assert not test.exception
    assert "2 forecasts kept so far" in words(test) and "70 % of its schedule" in words(test)


def test_a_stored_fit_is_used_as_it_is(board, tmp_path):
    found = fit_ladder(read_ladder(write_ladder(tmp_path / "ladder.csv")), "l1", resamples=0)
    (tmp_path / "ladder.json").write_text(json.dumps(found.to_json()))
    stored = scaling.choose(Source("ladder.json", "fit", str(tmp_path / "ladder.json")), "", Refit("l1"), None)
    assert stored.law == found.law
    assert board(tmp_path, page="scaling").selectbox(key="ladder").value == "ladder.json"
    (tmp_path / "ladder.json").write_text("[]")
    broken = scaling.choose(Source("ladder.json", "fit", str(tmp_path / "ladder.json"), (2,)), "", Refit(), None)
    assert "write it again" in broken.error and broken.reference is not None


def test_an_upload_is_read_like_a_file(tmp_path):
    content = write_ladder(tmp_path / "table.csv").read_bytes()
    source = Source("uploaded table", "upload", "", (1,))
    assert scaling.choose(source, "", Refit(), content).fit is not None
    assert "is not a CSV file" in scaling.choose(Source("u", "upload", "", (2,)), "", Refit(), b"\x00\xff\xfe\n").error
    assert "at most 5" in scaling.choose(Source("u", "upload", "", (3,)), "", Refit(), b"1" * 6_000_000).error


def test_what_is_dropped_is_the_least_compute_and_the_furthest(tmp_path):
    """The twin: sort by compute, cut, fit, sort by the size of the residual, cut, fit again."""
    whole = read_ladder(write_ladder(tmp_path / "table.csv", noise=0.01))
    left = scaling.kept(whole, Refit(drop_smallest=0.25))
    assert len(left) == 32 and left.flops.min() >= np.sort(whole.flops)[10]
    source = Source("table.csv", "table", str(tmp_path / "table.csv"))
    fit = scaling.choose(source, "", Refit(drop_furthest=4), None).fit
    first = fit_ladder(whole, resamples=0)
    gone = set(whole.names) - set(fit.ladder.names)
    assert gone == {whole.names[i] for i in np.argsort(-np.abs(first.residual))[:4]}
    points = fit.ladder.points()
    away = predict_log(first.best.theta, points.log_n, points.log_d) - points.log_loss
    assert fit.best.objective <= objective(away, points.weight, "huber") + 1e-12
    with pytest.raises(UsageError, match="too few"):
        scaling.kept(whole, Refit(drop_smallest=0.9))


def test_finished_runs_are_a_ladder_without_the_one_looked_at(tmp_path):
    for i in range(7):
        maker = Maker(tmp_path / f"run{i}", total_steps=40 + 20 * i, fault="none", seed=i)
        maker.run_to(40 + 20 * i)
        maker.close()
    options = scaling.sources(str(tmp_path), str(tmp_path / "run0"), None)
    assert RUNS in options and str(tmp_path / "run0") not in options[RUNS].runs and len(options[RUNS].runs) == 6
    assert "one model size" in scaling.choose(options[RUNS], "", Refit(), None).error


def test_the_chinchilla_runs_are_fitted_as_published(board, tmp_path):
    if not (DATA / "epoch_chinchilla_points.csv").exists():
        pytest.skip("epoch_chinchilla_points.csv is not in shared/data/scaling")
    shutil.copy(DATA / "epoch_chinchilla_points.csv", tmp_path / "ladder.csv")
    test = board(tmp_path, page="scaling", look="IsoFLOP", outliers="5", drop="5")
    assert not test.exception and "even without noise" in words(test)


def test_the_judge_keeps_forecasts_once(folder):
    path = folder / "live"
    judging.answer({}, str(path), "")
    assert len(list((path / "forecasts").glob("*.json"))) == 2
    assert open_run(path).status == "live"


def test_the_page_in_a_browser(chromium, folder):
    """A hostile table; then a slider moves, and the numbers and the frontier with it."""
    door = launch.Door(free_port())
    process = launch.serve(folder, door)
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    try:
        admit(context, door)
        watched = Watched(context.new_page(), door.url)
        watched.open("scaling", run="hostile", ladder="hostile%20%3Cb%3E.csv", look="Runs")
        watched.check()
        assert watched.page.evaluate(PARSED) == []
        slider = watched.page.get_by_role("slider", name="Smallest budgets dropped")
        slider.focus()
        before = watched.page.locator("[data-testid=stMetricValue]").first.inner_text()
        for _ in range(6):
            watched.page.keyboard.press("ArrowRight")
        watched.page.get_by_text(re.compile("12 dropped")).wait_for(timeout=30_000)
        watched.page.wait_for_function(DONE)
        assert watched.page.locator("[data-testid=stMetricValue]").first.inner_text() != before
        assert "drop=30" in watched.page.url
        width = watched.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        assert width <= 1440
        watched.check()
    finally:
        context.close()
        process.terminate()
        process.wait(timeout=20)
