"""Results of evals as the board reads them: kept while the files are unchanged, compared in the background.

One comparison of two checkpoints takes about 50 ms of CPU for each task. A page asks for all that it shows and draws
what is known by then; a thread works through the rest.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import pandas as pd
import streamlit as st

from checks.evals.compare import Compared, compare
from dashboard.server.results import Stamp, stamp
from trainvitals.evals import Evals, Sheet, Summary, read_evals

KEEP_SECONDS, MOST_STORES, MOST_KEPT, MOST_JOBS = 600.0, 4, 12, 128

Pair = tuple[str, str]
T = TypeVar("T")
log = logging.getLogger(__name__)


class Locked(Evals):
    """Results that several threads may read."""

    def __init__(self, evals: Evals) -> None:
        self.__dict__.update(vars(evals))
        self._lock = threading.RLock()
        self._summaries = evals.summaries

    @property
    def summaries(self) -> list[Summary]:
        """Of every task and checkpoint; must not be changed."""
        return self._summaries

    def sheet(self, task: str, checkpoint: str) -> Sheet | None:
        """One result with its items, as of `Evals`."""
        with self._lock:
            found = super().sheet(task, checkpoint)
            if found is None:
                # A damaged file is asked again and again, and is one problem.
                self.problems = list(dict.fromkeys(self.problems))
            return found


class Stored:
    """The results in one run's folder, for all viewers."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.evals = Locked(read_evals(path))
        self.summaries = pd.DataFrame(
            [(s.task, s.checkpoint, s.step, s.items, s.rows, s.missing, s.mean, s.family, s.kind, s.metric)
             for s in self.evals.summaries],
            columns=["task", "checkpoint", "step", "items", "rows", "missing", "mean", "family", "kind", "metric"],
        )  # fmt: skip
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, object] = OrderedDict()
        self._jobs: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def steps(self, checkpoint: str) -> int | None:
        """Training step of a checkpoint; None where nobody knows."""
        found = self.summaries.loc[self.summaries["checkpoint"] == checkpoint, "step"].dropna()
        return int(found.max()) if len(found) else None

    def read(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, kept under `key`. Readers share the value and must not change it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]  # type: ignore[return-value]  # a key always holds what its own `make` gave
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made

    def ask(self, pairs: Sequence[Pair]) -> None:
        """Have these compared in the background, in this order."""
        for pair in pairs:
            self.later(pair, partial(self._compare, pair))

    def later(self, key: Hashable, make: Callable[[], object]) -> None:
        """Have something worked out in the background, once; see `known`."""
        with self._lock:
            if key not in self._jobs or self._jobs[key].cancelled():
                self._jobs[key] = _worker().submit(make, f"{key} of {self.path}")
            self._jobs.move_to_end(key)
            while len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)[1].cancel()

    def give_up(self) -> None:
        """Nobody waits any more for what has not begun: the files have changed."""
        with self._lock:
            for future in self._jobs.values():
                future.cancel()

    def done(self, key: Hashable) -> Any:
        """What was worked out in the background; None where it is not yet, or could not be (see the server's log)."""
        with self._lock:
            future = self._jobs.get(key)
        done = future is not None and future.done() and not future.cancelled() and future.exception() is None
        return future.result() if done and future is not None else None

    def known(self, pair: Pair) -> dict[str, Compared] | None:
        """Task -> comparison; None where it is not made yet, or could not be."""
        found: dict[str, Compared] | None = self.done(pair)
        return found

    def pending(self, keys: Sequence[Hashable]) -> int:
        """How many of these are still to come."""
        with self._lock:
            return sum(key in self._jobs and not self._jobs[key].done() for key in keys)

    def wait(self, pair: Pair) -> dict[str, Compared]:
        """Task -> comparison, made now where it is not known; one that the thread is at is waited for."""
        with self._lock:
            future = self._jobs.get(pair)
            mine = future is None or future.cancel() or future.cancelled()
            if future is None or mine:
                future = self._jobs[pair] = Future()
        if mine:
            try:
                future.set_result(self._compare(pair))
            except Exception as error:
                future.set_exception(error)
        found: dict[str, Compared] = future.result()
        return found

    def _compare(self, pair: Pair) -> dict[str, Compared]:
        return {one.task: one for one in compare(self.evals, *pair)}


class Worker:
    """One thread for all viewers: comparing never takes more than one core. It dies with the server, done or not."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], object], str]] = SimpleQueue()
        threading.Thread(target=self._work, name="evals", daemon=True).start()

    def submit(self, make: Callable[[], object], what: str) -> Future[Any]:
        """Have something made when its turn comes; `what` names it in the log, should it fail."""
        future: Future[Any] = Future()
        self._queue.put((future, make, what))
        return future

    def _work(self) -> None:
        while True:
            future, make, what = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(make())
            except Exception as error:  # the page says that it failed; the others' work goes on
                log.exception("%s could not be worked out", what)
                future.set_exception(error)


@st.cache_resource(show_spinner=False)
def _newest() -> WeakValueDictionary[str, Stored]:
    """Path -> what was opened last."""
    return WeakValueDictionary()


@st.cache_resource(show_spinner=False)
def _worker() -> Worker:
    """The one of this server."""
    return Worker()


def stored(path: str) -> Stored:
    """The results of a run as they are now.

    Raises:
        OSError: the folder cannot be listed.
    """
    return _opened(path, stamp(path))


@st.cache_resource(ttl=KEEP_SECONDS, max_entries=MOST_STORES, show_spinner=False)
def _opened(path: str, found: Stamp) -> Stored:
    before = _newest().get(path)
    if before is not None:
        before.give_up()
    _newest()[path] = made = Stored(path)
    return made
