"""Leave the live page open while a run grows, and watch the memory of browser and server.

    python -m benchmarks.soak --minutes 10 [--page loss] [--json]

A writer appends rows so that data changes about every two seconds; headless Chromium keeps the page open. Every half
minute the browser's garbage is collected (CDP `HeapProfiler.collectGarbage`) before `JSHeapUsedSize` is read. The first
minute is warm-up: growth is a straight line fitted to what comes after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import CDPSession, Page, sync_playwright

from dashboard.server import launch
from tests.dashboard.make_run import Maker

EVERY_SECONDS, WARM_UP_SECONDS = 30.0, 60.0
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip


def soak(minutes: float, page_name: str, progress: bool = True) -> list[dict[str, float]]:
    """Samples of: minute, heap_mb (browser, after collection), nodes (DOM), rss_mb (server), step (as shown)."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind((launch.HOST, 0))
        port = probe.getsockname()[1]
        probe.close()
        maker = Maker(Path(folder) / "soak", total_steps=100_000, fault="none", flush_seconds=2.0)
        maker.run_to(20_000)
        maker.writer.flush()
        stop = threading.Event()
        writer = threading.Thread(target=_grow, args=(maker, stop))
        server = launch.serve(folder, door := launch.Door(port))
        writer.start()
        try:
            return _watch(door.link.replace("/?", f"/{page_name}?"), server.pid, minutes, progress)
        finally:
            stop.set()
            writer.join()
            server.terminate()
            server.wait(timeout=20)
            maker.close()


def _grow(maker: Maker, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        maker.run_to(maker.step + 2)


def _watch(url: str, server: int, minutes: float, progress: bool) -> list[dict[str, float]]:
    samples: list[dict[str, float]] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=FLAGS)
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("canvas, svg", timeout=60_000)
        session = context.new_cdp_session(page)
        session.send("Performance.enable")
        session.send("HeapProfiler.enable")
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60 + 1:
            samples.append(_sample(page, session, server, (time.monotonic() - began) / 60))
            if progress:
                print(
                    "  ".join(f"{key} {value:,.1f}" for key, value in samples[-1].items()), file=sys.stderr, flush=True
                )
            page.wait_for_timeout(EVERY_SECONDS * 1000)
        browser.close()
    return samples


def _sample(page: Page, session: CDPSession, server: int, minute: float) -> dict[str, float]:
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    found = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    shown = page.evaluate(
        "document.querySelector('[data-testid=stProgress]')?.innerText.match(/step ([0-9,]+)/)?.[1] ?? '0'"
    )
    return {
        "minute": minute,
        "heap_mb": found["JSHeapUsedSize"] / 1e6,
        "nodes": found["Nodes"],
        "rss_mb": _resident_mb(server),
        "step": float(shown.replace(",", "")),
    }


def _resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def settled(samples: list[dict[str, float]]) -> dict[str, float]:
    """The first sample after the warm-up."""
    return next((s for s in samples if s["minute"] * 60 >= WARM_UP_SECONDS), samples[-1])


def growth(samples: list[dict[str, float]], key: str) -> float:
    """Slope of a straight line through the samples after the warm-up, per minute; NaN with fewer than two."""
    late = [sample for sample in samples if sample["minute"] * 60 >= WARM_UP_SECONDS]
    if len(late) < 2:
        return float("nan")
    return float(np.polyfit([s["minute"] for s in late], [s[key] for s in late], 1)[0])


def main() -> None:
    """Run the soak and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--page", default="", help="url of the page; empty for Health")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    samples = soak(args.minutes, args.page, progress=not args.json)
    result: dict[str, object] = {"minutes": args.minutes, "page": args.page or "health"}
    for key in ("heap_mb", "rss_mb"):
        result[f"{key}_per_minute"] = growth(samples, key)
    for key in ("heap_mb", "nodes", "rss_mb", "step"):
        result[key] = [sample[key] for sample in (samples[0], settled(samples), samples[-1])]
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:20}", " -> ".join(f"{v:,.1f}" for v in value) if isinstance(value, list) else value)


if __name__ == "__main__":
    main()
