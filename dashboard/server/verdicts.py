"""The background judge: keeps the checks' report of every watched run up to date, for all viewers of a server.

A run is judged again when its store version has changed, by a process of its own (`dashboard.server.judging`) that is
busy at most a fifth of the time, so a board left open beside a training job costs it little. A run whose stored
findings belong to its present version is not judged again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from checks import Report
from dashboard.server.judging import report_of
from dashboard.server.launch import environment

REST_FACTOR = 4.0
"""Seconds of rest per second of judging: the judge is busy at most 20 % of the time."""

MOST_SECONDS = 900.0
"""A run whose checks take longer than this is given up."""

SHORTEST_REST_SECONDS, WATCH_SECONDS, MOST_RUNS = 2.0, 120.0, 16
"""Runs that nobody has looked at for `WATCH_SECONDS` are judged no more."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """The newest report of a run, or why there is none."""

    report: Report | None = None
    seconds: float = 0.0
    """How long the answer took."""
    error: str = ""
    progress: tuple[int, int] | None = None
    """Checks that have answered, and of how many, while a newer report is being made."""


class Judge:
    """Has watched runs judged, from a thread of its own."""

    def __init__(self) -> None:
        self._judged: OrderedDict[str, Judged] = OrderedDict()
        self._watched: dict[str, tuple[float, str]] = {}
        """When somebody last looked (monotonic seconds), and the version that they saw."""
        self._process: subprocess.Popen[str] | None = None
        self._wake = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="trainvitals-judge", daemon=True)
        self._thread.start()

    def report(self, path: str, version: str = "") -> Judged:
        """The newest report of a run, which is from now on watched; empty before the first one is ready.

        `version` is the store version that the caller sees: a run already judged at it is not asked for again.
        """
        with self._lock:
            fresh = path not in self._watched
            self._watched[path] = time.monotonic(), version
            found = self._judged.get(path, Judged())
        if fresh:
            self._wake.set()
        return found

    def known(self, path: str) -> Report | None:
        """The newest report of a run that somebody looks at already; asking does not make it watched."""
        with self._lock:
            return self._judged.get(path, Judged()).report

    def close(self) -> None:
        """End the thread and the process."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=30)
        self._end_process()

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            started = time.monotonic()
            for path, version in self._due():
                with self._lock:
                    known = self._judged.get(path, Judged())
                if known.report is None or known.report.version != version:
                    judged = self._judge(path, known.report.version if known.report else "")
                    if judged is not None:
                        self._keep(path, judged)
            self._wake.wait(max(REST_FACTOR * (time.monotonic() - started), SHORTEST_REST_SECONDS))

    def _due(self) -> list[tuple[str, str]]:
        """Watched paths and the versions seen, the latest looked at first."""
        with self._lock:
            horizon = time.monotonic() - WATCH_SECONDS
            self._watched = {path: seen for path, seen in self._watched.items() if seen[0] > horizon}
            latest = sorted(self._watched.items(), key=lambda item: item[1][0], reverse=True)[:MOST_RUNS]
        return [(path, version) for path, (_, version) in latest]

    def _keep(self, path: str, judged: Judged) -> None:
        with self._lock:
            self._judged[path] = judged
            self._judged.move_to_end(path)
            while len(self._judged) > MOST_RUNS:
                self._judged.popitem(last=False)

    def _judge(self, path: str, version: str) -> Judged | None:
        """A new report; None where the last one still holds."""
        started = time.monotonic()
        raw = self._ask({"path": path, "version": version})
        if raw.get("same"):
            self._said(path, {})
            return None
        if "error" in raw:
            return Judged(error=raw["error"])
        try:
            return Judged(report_of(raw), time.monotonic() - started)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # the thread serves all other runs too
            log.exception("The report on %s cannot be read", path)
            return Judged(error=f"The report of the checks cannot be read ({type(error).__name__}).")

    def _said(self, path: str, said: dict[str, Any]) -> None:
        """Keep what is known while checks run: an earlier report, and how many have answered."""
        with self._lock:
            known = self._judged.get(path, Judged())
        if "stored" in said:
            # Of a folder that anybody may have written: the checks that run now say what is wrong with it.
            with contextlib.suppress(TypeError, ValueError, LookupError, AttributeError):
                self._keep(path, replace(known, report=report_of(said["stored"])))
        else:
            progress = (said["done"], said["of"]) if "done" in said else None
            if known.progress != progress:
                self._keep(path, replace(known, progress=progress))

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dashboard.server.judging"],
                text=True,
                encoding="utf-8",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
        assert self._process.stdin and self._process.stdout
        # A file that is never answered for must not hold up the verdicts on every other run.
        watch = threading.Timer(MOST_SECONDS, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            while True:
                answer: dict[str, Any] = json.loads(self._process.stdout.readline())
                if not {"done", "stored"} & answer.keys():
                    return answer
                self._said(request["path"], answer)
        except (OSError, ValueError):
            return {
                "error": f"The judging process ended (code {self._end_process()}); the board starts another one. If "
                "it happens again, the machine has too little memory for this run, or a file of it does not answer."
            }
        finally:
            watch.cancel()

    def _end_process(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # both are pipes, as asked for
        return process.wait()


@st.cache_resource(show_spinner=False)
def judge() -> Judge:
    """The server's one judge."""
    return Judge()
