"""The pages about a release in a real browser: a click in the matrix, hostile texts, a phone, bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.server import launch
from tests.dashboard.conftest import admit, free_port
from tests.dashboard.make_results import make_results
from tests.dashboard.test_browser import DONE, Watched
from tests.review.staged import POLICY, command

MOST_BYTES = 600_000
"""Of the first view of the matrix, scripts and styles not counted."""
MADE = """[...document.querySelectorAll('[data-testid=stHtml]')]
    .flatMap(e => [...e.querySelectorAll('script, img, svg, a, iframe, [onerror], [onload]')]).map(e => e.outerHTML)"""
"""What st.html would have made of a hostile text."""


@pytest.fixture
def watched(chromium, tmp_path: Path):
    """A phone and a wide screen on one board, and how many bytes the wide one got."""
    folder = make_results(tmp_path / "runs")
    run = folder / "run"
    (run / "release.toml").write_text(POLICY)
    assert command(run, "--out", run / "reviews" / "first").exit_code == 2
    door = launch.Door(free_port())
    process = launch.serve(folder, door)
    contexts = [chromium.new_context(viewport={"width": width, "height": 844}) for width in (1280, 390)]
    received = [0]
    pages = []
    for context in contexts:
        admit(context, door)
        pages.append(Watched(context.new_page(), door.url))
    pages[0].page.on("websocket", lambda socket: socket.on(
        "framereceived", lambda data: received.__setitem__(0, received[0] + len(data))))
    yield *pages, received
    for context in contexts:
        context.close()
    process.terminate()
    process.wait(timeout=20)


def test_a_release_on_a_screen_and_on_a_phone(watched):
    wide, phone, received = watched
    page = wide.page
    wide.open("evals", run="run")
    page.get_by_text("lost beyond chance").first.wait_for(timeout=60_000)
    assert received[0] < MOST_BYTES
    page.wait_for_function(DONE, timeout=60_000)  # a table that still moves is missed by the click
    box = page.locator("[data-testid=stDataFrame]").first.bounding_box()
    page.mouse.click(box["x"] + 160 + 40, box["y"] + 36 + 28 * 1 + 10)
    page.wait_for_function("location.search.includes('task=')", timeout=20_000)
    shared = page.url
    page.get_by_role("tab", name="Items").click()
    page.get_by_text("Select a row to read it whole").wait_for(timeout=20_000)
    wide.open("evals", run="run", task="code", part="Items", find_item="script")
    page.locator("[data-testid=stHtml] pre").filter(has_text="<script>").first.wait_for(timeout=20_000)
    assert page.evaluate(MADE) == []
    wide.check()
    page.goto(shared)
    page.wait_for_function(DONE, timeout=60_000)
    wide.check()
    for name, said in (("review", "NO-GO"), ("evals", "against step-1000"), ("clusters", "lost"),
                       ("safety", "Safety: "), ("latency", "slower p95")):  # fmt: skip
        phone.page.goto(f"{phone.base}/{name}?run=run")
        phone.page.get_by_text(said).first.wait_for(timeout=60_000)
        main = "document.querySelector('[data-testid=stMain]')"
        assert phone.page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth"), name
        phone.check()
