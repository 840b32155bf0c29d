from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.server.launch import Door
from tests.dashboard.make_run import make_hostile_run, make_run

pytest.importorskip("streamlit")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a faulty run, a clean one and one whose every string is hostile."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "clean", steps=300, fault="none", seed=1, peak_flops=8e11)
    make_hostile_run(folder / "hostile")
    make_run(folder / "faulty", steps=600)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _end_the_judge() -> Iterator[None]:
    yield
    from dashboard.server.verdicts import judge

    judge().close()
    judge.clear()


@pytest.fixture(autouse=True)
def failures() -> Iterator[list[str]]:
    """Parts of a page that could not be drawn; a test that expects some empties the list."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")
    logger = logging.getLogger("dashboard")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    assert found == []


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, runs: Path):
    """Start an AppTest of the app over a folder of runs, with query parameters."""
    from streamlit.testing.v1 import AppTest

    import dashboard

    app = Path(dashboard.__file__).with_name("app.py")

    def start(folder: Path = runs, page: str = "", **query: str) -> AppTest:
        monkeypatch.setenv("TRAINVITALS_RUNS", os.fspath(folder))
        test = AppTest.from_file(app, default_timeout=60)
        for key, value in query.items():
            test.query_params[key] = value
        test.run()
        return test.switch_page(f"app_pages/{page}.py").run() if page else test

    return start


def admit(context: object, door: Door) -> None:
    """Give a browser context the board's cookie, as the address with the token would."""
    assert context.request.get(door.link, max_redirects=0).status == 303


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A headless browser; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, headless=True, args=flags)
        yield browser
        browser.close()
