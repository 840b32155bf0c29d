"""The board in a real browser: one server, every page, light and dark, hostile strings, a live run."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dashboard.server import launch
from tests.dashboard.conftest import admit, free_port
from tests.dashboard.make_run import HOSTILE, Maker

PAGES = ("", "loss", "optimisation", "routing", "data", "throughput", "scaling", "signals")
DONE = "document.querySelector('[data-testid=stApp]')?.getAttribute('data-test-script-state') === 'notRunning'"
DRAWN = "document.querySelectorAll('canvas, [data-testid=stVegaLiteChart] svg').length > 0"
PARSED = """[...document.querySelectorAll('[data-testid=stMarkdownContainer]')]
    .flatMap(e => [...e.querySelectorAll('img, script, a[href], .katex, h1')])
    .map(e => e.outerHTML).filter(html => !html.includes('https://arxiv.org') && !html.includes('https://github.com'))"""
"""What markdown would have made of a hostile string; the sources of thresholds are links of our own."""

COUNTED = """texts => {
    const shown = document.querySelector('[data-testid=stMain]').innerText.replaceAll('\\u2060', '')
    return texts.map(text => shown.split(text).length - 1)
}"""
"""How often each text is shown, invisible joiners left out."""


@dataclass
class Watched:
    """A page that remembers everything that must not happen."""

    page: object
    base: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def _note(self, url: str) -> None:
        if not url.startswith((self.base, self.base.replace("http", "ws", 1), "data:", "blob:")):
            self.outside.append(url)

    def open(self, path: str, **query: str) -> None:
        self.page.goto(f"{self.base}/{path}?" + "&".join(f"{key}={value}" for key, value in query.items()))
        self.page.wait_for_function(DONE, timeout=60_000)
        self.page.wait_for_function(DRAWN, timeout=30_000)
        self.page.wait_for_timeout(300)

    def check(self) -> None:
        assert self.page.locator("[data-testid=stException]").count() == 0
        assert self.errors == []
        assert self.outside == []
        assert self.dialogs == []
        assert self.page.evaluate("window.__xss") is None


@pytest.fixture(scope="module")
def folder(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the runs that a live run can be added to."""
    return shutil.copytree(runs, tmp_path_factory.mktemp("browser") / "runs")


@pytest.fixture(scope="module")
def server(folder: Path, chromium: object) -> Iterator[launch.Door]:
    door = launch.Door(free_port())
    process = launch.serve(folder, door)
    yield door
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def watched(server: launch.Door, chromium, request: pytest.FixtureRequest) -> Iterator[Watched]:
    scheme = getattr(request, "param", "light")
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    admit(context, server)
    yield Watched(context.new_page(), server.url)
    context.close()


@pytest.mark.parametrize("watched", ["light", "dark"], indirect=True)
def test_every_page_loads(watched: Watched):
    for page in PAGES:
        watched.open(page, run="faulty")
        watched.check()


def test_health_fits_one_screen(watched: Watched):
    watched.open("", run="faulty")
    watched.page.get_by_text(re.compile("Moved first")).first.wait_for(timeout=60_000)
    assert watched.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight") <= 900


def test_a_click_on_a_finding_opens_its_evidence(watched: Watched):
    watched.open("", run="faulty")
    summary = watched.page.locator("[data-testid=stExpander] summary").filter(has_text="learning rate")
    summary.first.click(timeout=60_000)
    watched.page.get_by_text("What to do.").wait_for(timeout=20_000)
    watched.page.wait_for_function("document.querySelectorAll('canvas').length >= 2")
    assert "finding=lr." in watched.page.url

    shared = watched.page.url
    watched.page.goto("about:blank")
    watched.page.goto(shared)
    watched.page.get_by_text("What to do.").wait_for(timeout=20_000)
    watched.check()


def test_a_live_chart_gains_points(watched: Watched, folder: Path):
    live = Maker(folder / "live", total_steps=5000, fault="none", flush_seconds=0.2)
    live.run_to(200)
    live.writer.flush()
    stop = threading.Event()

    def train() -> None:
        while not stop.wait(0.05):
            live.run_to(live.step + 2)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        watched.open("", run="live")
        progress = watched.page.locator("[data-testid=stProgress]")
        chart = watched.page.locator("canvas").first

        before, picture = shown_step(progress.inner_text()), chart.screenshot()
        watched.page.wait_for_function(
            "before => Number(document.querySelector('[data-testid=stProgress]').innerText"
            ".match(/step ([0-9,]+)/)[1].replaceAll(',', '')) > before + 20",
            arg=before,
            timeout=30_000,
        )
        watched.page.wait_for_timeout(500)
        assert chart.screenshot() != picture
        assert watched.page.get_by_text("live", exact=False).count() > 0
    finally:
        stop.set()
        thread.join()
        live.close()
    watched.check()


def shown_step(text: str) -> int:
    return int(re.search(r"step ([\d,]+)", text)[1].replace(",", ""))


def test_hostile_strings_show_literally_and_do_nothing(watched: Watched):
    for page in PAGES:
        watched.open(page, run="hostile")
        if page == "":
            watched.page.wait_for_timeout(4000)
        watched.page.mouse.move(600, 400)
        watched.check()
        assert watched.page.evaluate(PARSED) == []


def test_escaping_is_literal_in_the_browser(watched: Watched, tmp_path: Path, chromium: object):
    """Every hostile string, through every markdown command that the board uses, comes out as it went in."""
    from dashboard.charts.text import plain

    script = tmp_path / "app.py"
    script.write_text(
        "import streamlit as st\nfrom dashboard.charts.text import md\nfrom tests.dashboard.make_run import HOSTILE\n"
        "for text in HOSTILE:\n"
        "    st.markdown(md(text)); st.caption(md(text)); st.markdown(f'**{md(text)}** :gray[:small[{md(text)}]]')\n"
        "    st.expander(md(text)); st.metric(md(text), md(text))\n"
        "    st.progress(0.5, md(text)); st.error(md(text))\n"
    )
    door = launch.Door(free_port())
    line = [part if part != str(launch.APP) else str(script) for part in launch.command(door)]
    process = launch.start(line, {}, door)
    try:
        admit(watched.page.context, door)
        watched.base = door.url
        watched.page.goto(watched.base)
        texts, wanted = [plain(text) for text in HOSTILE], [9] * len(HOSTILE)
        watched.page.wait_for_selector("[data-testid=stAlert]", timeout=60_000)
        deadline = time.monotonic() + 20
        while watched.page.evaluate(COUNTED, texts) != wanted and time.monotonic() < deadline:
            watched.page.wait_for_timeout(200)
        assert watched.page.evaluate(COUNTED, texts) == wanted
        assert watched.page.evaluate(PARSED) == []
        watched.check()
    finally:
        process.terminate()
        process.wait(timeout=20)
