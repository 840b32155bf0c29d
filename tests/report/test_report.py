"""The report: what the checks said and nothing else, in one file that loads nothing and runs nothing."""

from __future__ import annotations

import math
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.judge import Report, incidents, run_checks
from checks.report import charts, command
from checks.report.figures import short
from checks.report.page import report_page
from checks.report.verdict import decide
from tests.dashboard.make_run import HOSTILE, make_hostile_run, make_run
from tests.importers.samples import mlflow_sqlite
from trainvitals.anything import open_run
from trainvitals.store import Run, RunWriter

NOW = 1_800_000_000.0
TAGS = set("html head meta title style body header nav section article div p b h1 h2 h3 h4 a ul ol li span small time "
           "data dl dt dd table thead tbody tr th td figure figcaption svg path line rect polygon polyline text "
           "circle".split())


class Page(HTMLParser):
    """Elements, what is in `data` and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._in_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self) -> list[float]:
        """Numbers in full, as machines may read them."""
        return [float(attrs["value"] or "nan") for tag, attrs in self.tags if tag == "data"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Report, str]]:
    """Runs with their judgement and their page."""
    folder = tmp_path_factory.mktemp("report")
    make_run(folder / "faulty", steps=600)
    make_hostile_run(folder / "hostile")
    _spiky(folder / "spiky")
    found = {}
    for name in ("faulty", "hostile", "spiky"):
        run = open_run(folder / name)
        report = run_checks(run)
        found[name] = run, report, report_page(run, report, NOW)
    return found


def _spiky(path: Path, n: int = 200_000) -> None:
    writer = RunWriter(path, flush_seconds=5, when_full="wait")
    loss = 2 + np.random.default_rng(0).normal(0, 0.01, n)
    loss[123_457] = 77.125
    loss[50_000:50_100] = math.nan
    steps = np.r_[np.arange(1, 100_001), np.arange(150_001, 250_001)]
    writer.frame("loss", ["loss/sum", "loss/tokens"]).extend(
        steps, steps * 0.1, {"loss/sum": loss * 1000, "loss/tokens": np.full(n, 1000.0)})
    writer.close()


def test_every_alarm_has_its_numbers_and_its_chart(runs: dict[str, tuple[Run, Report, str]]) -> None:
    run, report, page = runs["faulty"]
    alarms = [f for f in report.findings if f.level in ("fail", "warn")]
    assert len(alarms) >= 5
    sections = re.split(r'<section class="finding ', page)[1:]
    assert len(sections) == len(alarms)
    for i, finding in enumerate(report.findings):
        if finding.level in ("fail", "warn"):
            [section] = [part for part in sections if f'id="finding-{i}"' in part]
            part = Page(section.partition("</article>")[0])
            assert " ".join(finding.summary.split()) in part.text
            said = finding.to_json()
            wanted = [said["statistic"]["value"], said["threshold"]["warn"], said["threshold"]["fail"]]
            assert part.values() == [float(value) for value in wanted if value is not None]
            assert f"{finding.n:,} point" in part.text and finding.what_to_do[:200] in part.text
            assert any(tag == "svg" for tag, _ in part.tags)


def test_what_passed_and_what_is_unknown_is_all_there(runs: dict[str, tuple[Run, Report, str]]) -> None:
    for run, report, page in runs.values():
        shown = Page(page)
        passes = {float(f.statistic.value) for f in report.findings if f.level == "pass" and f.statistic}
        assert passes <= set(shown.values())
        for finding in report.findings:
            assert finding.check in shown.text
            if finding.level == "unknown":
                assert " ".join(finding.what_to_do[:120].split()) in shown.text, finding.check
        assert run.version in page


def test_the_first_screen_answers(runs: dict[str, tuple[Run, Report, str]]) -> None:
    _, report, page = runs["faulty"]
    top = Page(page.partition("<nav")[0])
    decision = decide(report)
    assert top.text.index(decision.headline) < top.text.index("loss/train")
    assert decision.sentence in top.text and all(area in top.text for area in report.verdicts)
    unknown = sum(f.level == "unknown" for f in report.findings)
    assert f"{len(report.findings) - unknown} of {len(report.findings)} answers" in decision.sentence


def _report(*findings: Finding) -> Report:
    from checks.judge import _verdicts
    from checks.registry import all_checks

    return Report(findings, incidents(findings, 20), _verdicts(findings, all_checks()), "v", 100)


def _finding(level: str, area: str = "loss", **more: object) -> Finding:
    return Finding(check=f"{area}.x", area=area, level=level, summary="s", **more)  # type: ignore[arg-type]


def test_unknown_is_never_called_healthy() -> None:
    fail = _finding("fail", steps=(3, 9))
    for level, findings in (
        ("unknown", ()),
        ("unknown", (_finding("unknown"),)),
        ("unknown", (_finding("unknown"), _finding("pass", "data"))),
        ("pass", (_finding("pass"), _finding("unknown", "data"))),
        ("unknown", (_finding("pass"), _finding("unknown"), _finding("unknown"))),
        ("warn", (_finding("pass"), fail)),
        ("fail", (_finding("pass"), replace(fail, ongoing=True))),
        ("warn", (replace(fail, level="warn", ongoing=True),)),
    ):
        decision = decide(_report(*findings))
        assert decision.level == level, findings
        assert (decision.headline == "Healthy") is False
    assert decide(_report(_finding("pass"))).headline == "Healthy"


def test_a_spike_a_gap_and_nan_survive(runs: dict[str, tuple[Run, Report, str]]) -> None:
    run, _, page = runs["spiky"]
    shown = charts.curve(run, "loss/train")
    assert shown is not None and len(shown.first) <= charts.BUCKETS and shown.rows == 200_000
    assert np.nanmax(shown.high) == pytest.approx(77.125, abs=1e-9) and shown.nonfinite.sum() == 100
    drawn = Page(str(charts.chart(shown)))
    bands = [attrs["points"] for tag, attrs in drawn.tags if tag == "polygon"]
    assert len(bands) == 2, "no line where there are no rows"
    heights = [float(pair.split(",")[1]) for points in bands for pair in (points or "").split()]
    assert min(heights) < charts.TOP + 20 < 100 < max(heights)
    assert sum(attrs.get("class") == "nonfinite" for _, attrs in drawn.tags) in (1, 2)
    assert "to 77.12 nats/token in 200,000 rows" in page


@pytest.mark.parametrize("losses", [[], [2.0], [math.nan] * 30, [1e308, -1e308] * 15, [5e-324] * 30])
def test_odd_runs_have_a_page(losses: list[float], tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "odd", flush_seconds=5, when_full="wait")
    n = len(losses)
    if n:
        writer.frame("loss", ["loss/sum", "loss/tokens"]).extend(
            np.arange(n) + 2**61, np.arange(float(n)), {"loss/sum": np.array(losses), "loss/tokens": np.ones(n)})
    writer.event("note", message="begun")
    writer.close()
    run = open_run(tmp_path / "odd")
    with np.errstate(all="ignore"):
        report = run_checks(run)
    page = Page(report_page(run, report, NOW))
    assert "How to read this" in page.text and (n > 1 or decide(report).level == "unknown")


def test_hostile_strings_are_text(runs: dict[str, tuple[Run, Report, str]]) -> None:
    for _, _, page in runs.values():
        shown = Page(page)
        assert {tag for tag, _ in shown.tags} <= TAGS
        for _, attrs in shown.tags:
            assert not any(name.startswith("on") or name in ("src", "srcset", "action", "style") for name in attrs)
            assert (attrs.get("href") or "#").startswith(("#", "https://"))
    assert HOSTILE[0] in Page(runs["hostile"][2]).text


def test_nothing_is_fetched(runs: dict[str, tuple[Run, Report, str]]) -> None:
    page = runs["faulty"][2]
    assert "default-src 'none'" in page and "<script" not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|https?:|expression", style)
    assert "prefers-color-scheme: dark" in style and "@media print" in style and "max-width: 640px" in style


def test_hundreds_of_alarms_fit_into_two_megabytes(runs: dict[str, tuple[Run, Report, str]]) -> None:
    run, _, _ = runs["spiky"]
    evidence = (Evidence("loss/train", (1, 250_000)), Evidence("loss/train", (1, 90_000)))
    many = [_finding("fail", steps=(i * 1000, i * 1000 + 9), statistic=Statistic("x" * 500, 1 / 3, "u"), n=3,
                     threshold=Threshold(1, 2, "u", "convention"), evidence=evidence, what_to_do="w " * 2000)
            for i in range(240)]
    page = report_page(run, _report(*many), NOW)
    assert len(page.encode()) < 2 << 20 and "left out" in page


@given(st.lists(st.floats(width=64), min_size=1, max_size=40), st.integers(-(2**50), 2**50), st.integers(1, 2**40))
def test_any_numbers_can_be_drawn(values: list[float], first: int, every: int) -> None:
    n = len(values)
    steps = first + every * np.arange(n)
    raw = np.array(values)
    finite = np.where(np.isfinite(raw), raw, np.nan)
    shown = charts.Curve("x", "1", steps, steps, finite, finite, finite, (~np.isfinite(raw)).astype(np.int64), n)
    page = Page(str(charts.figure(shown, "", [charts.Band(first, first + every, "fail", "f")], [(first, "e")])))
    for tag, attrs in page.tags:
        for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy"):
            assert -5 <= float(attrs.get(name) or 0) <= charts.WIDTH, (tag, attrs)
        for pair in (attrs.get("points") or "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= charts.WIDTH and 0 <= y <= 150


@pytest.mark.parametrize(("value", "said"), [
    (0.0, "0"), (3.0, "3"), (1234.5, "1234"), (12345.6, "12,346"), (2.5e6, "2.5 M"), (1.5e-5, "1.5e-05"),
    (math.nan, "NaN"), (-math.inf, "-∞"), (0.123456, "0.1235"), (999999, "999,999"), (None, "–")])  # fmt: skip
def test_numbers_in_words(value: float | None, said: str) -> None:
    assert short(value) == said


def test_the_command_takes_any_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = mlflow_sqlite.write(tmp_path / "log")
    done = CliRunner().invoke(command.report, [str(log), "--out", "health.html"])
    assert done.exit_code == 2 and "health.html" in done.output, done.output
    page = Page((tmp_path / "health.html").read_text())
    assert "MLflow does not keep which rank logged a value" in page.text and "Reduce over ranks" in page.text
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".health")] == []
    for wrong in (tmp_path, tmp_path / "none" / "x.html"):
        done = CliRunner().invoke(command.report, [str(log), "--out", str(wrong)])
        assert done.exception is not None and "--out" in str(done.exception)


def test_in_a_browser_without_a_network(runs: dict[str, tuple[Run, Report, str]], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    # In a thread of its own: other tests of the session hold a browser open, and with it this thread's event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_look, playwright, program, runs, tmp_path).result()


def _look(playwright: Any, program: str, runs: dict[str, tuple[Run, Report, str]], folder: Path) -> None:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, width, scheme in (("faulty", 1200, "light"), ("hostile", 1200, "dark"), ("hostile", 390, "light")):
            file = folder / f"{name}.html"
            file.write_text(runs[name][2])
            context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
            tab, seen = context.new_page(), list[str]()
            tab.on("request", lambda request, seen=seen: seen.append(request.url))
            tab.on("pageerror", lambda error, seen=seen: seen.append(str(error)))
            tab.on("console", lambda message, seen=seen: seen.append(message.text))
            tab.goto(file.as_uri())
            assert seen == [file.as_uri()]
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
            assert tab.locator(".decision h1").bounding_box()["y"] < 200
            assert tab.evaluate("window.__xss") is None and tab.locator("svg.chart").count() >= 1
            if name == "faulty":
                assert all(tab.pdf(format=size).startswith(b"%PDF") for size in ("A4", "Letter"))
            context.close()
        browser.close()
