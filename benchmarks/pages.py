"""A run of a million steps in a real browser: how long Health takes, and how long a chart takes to redraw.

    python -m benchmarks.pages

The server and the browser's cache are warm: a run of a hundred steps is opened first. A page counts as there when its
header and its chart are; a redraw, when the chart's pixels have changed after a new step range was entered.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.board import write
from benchmarks.report import Table
from dashboard.server import launch

PORT = 8571
READY = "document.querySelector('[data-testid=stProgress]') && document.querySelectorAll('canvas').length"
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def measure(steps: int) -> Table:
    """Write the runs, serve them, and time five page loads and five redraws."""
    from playwright.sync_api import sync_playwright

    loads, redraws = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        write(Path(folder) / "small", 100)
        write(Path(folder) / "million", steps)
        server = launch.serve(folder, door := launch.Door(PORT))
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        try:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(door.link)
            page.wait_for_function(READY, timeout=60_000)
            for name in ["small", "small", *["million"] * 5]:
                began = time.perf_counter()
                page.goto(f"{door.url}/?run={name}")
                page.wait_for_function(READY, timeout=60_000)
                loads.append(time.perf_counter() - began)
                page.wait_for_timeout(3000)
            for first in range(1, 6):
                chart = page.locator("canvas").first
                before = chart.evaluate("canvas => canvas.toDataURL()")
                box = page.get_by_label("From step")
                box.fill(str(first * steps // 10))
                began = time.perf_counter()
                box.press("Enter")
                page.wait_for_function("old => document.querySelector('canvas')?.toDataURL() !== old", arg=before)
                redraws.append(time.perf_counter() - began)
                page.wait_for_timeout(3000)
        finally:
            browser.close()
            server.terminate()
    rows = [["Health, first load of the run", f"{loads[2]:.2f} s", "2 s"],
            ["Health, median of later loads", f"{np.median(loads[3:]):.2f} s", "2 s"],
            ["chart redraw, median", f"{np.median(redraws):.2f} s", "0.5 s"],
            ["chart redraw, slowest", f"{max(redraws):.2f} s", "0.5 s"]]
    return Table(f"{steps:,} steps x 100 series in Chromium", ["what", "measured", "limit"], rows)


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000).markdown())
