"""Slices on the processes of this machine. One worker means this process; more share the index through memory maps.

A worker that dies (killed for memory, a crash in a library) costs nothing but time: its slice is tried again, alone. A
slice that kills its worker alone as well is named in the audit, which is then incomplete and says so.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from checks.contamination.corpus import CorpusOptions
from checks.contamination.detectors import Detectors, load_detectors
from checks.contamination.records import Slice
from checks.contamination.scan import scan_slice

Heard = Callable[[int], None]
"""Hears how many more bytes have been read."""


def scan_local(
    pieces: Sequence[Slice], work: Path, options: CorpusOptions, workers: int, heard: Heard
) -> dict[int, str]:
    """Scan slices and leave their partials in `work/partials`.

    Returns:
        The slices that could not be scanned, and why.
    """
    if workers == 1:
        return _in_this_process(pieces, work, options, heard)
    waiting, deaths, lost = deque(pieces), Counter[int](), dict[int, str]()
    while waiting:
        # After a death nobody knows which of the running slices it was: each of them goes on alone.
        alone = [piece for piece in waiting if deaths[piece.index]]
        batch = alone[:1] or list(waiting)
        for piece, error in _in_pool(batch, work, options, min(workers, len(batch)), heard):
            if error is None or deaths[piece.index]:
                waiting.remove(piece)
            if error is not None:
                deaths[piece.index] += 1
            if error is not None and deaths[piece.index] > 1:
                lost[piece.index] = error
    return lost


def _in_this_process(pieces: Sequence[Slice], work: Path, options: CorpusOptions, heard: Heard) -> dict[int, str]:
    detectors, lost = load_detectors(work), dict[int, str]()
    for piece in pieces:
        try:
            scan_slice(piece, detectors, options, heard).save(work / "partials")
        except OSError:
            raise
        # One slice that breaks a detector must not cost the others; the audit names it.
        except Exception as error:
            lost[piece.index] = f"{type(error).__name__}: {error}"
    return lost


def _in_pool(
    pieces: Sequence[Slice], work: Path, options: CorpusOptions, workers: int, heard: Heard
) -> Iterator[tuple[Slice, str | None]]:
    """Each slice that ended, with what went wrong or None; slices not yet begun when the pool broke are left out."""
    spawn = multiprocessing.get_context("spawn")
    read = spawn.Value("q", 0)
    queue, running = deque(pieces), dict[Future[None], Slice]()
    with (
        _heard_from(read, heard),
        ProcessPoolExecutor(workers, spawn, initializer=_start, initargs=(work, options, read)) as pool,
    ):
        while queue or running:
            while queue and len(running) < workers:
                piece = queue.popleft()
                running[pool.submit(_scan, piece)] = piece
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = any(isinstance(future.exception(), BrokenProcessPool) for future in done)
            for future in list(running) if broken else done:
                yield running.pop(future), _why(future)
            if broken:
                return


def _why(future: Future[None]) -> str | None:
    error = future.exception()
    if isinstance(error, OSError):
        raise error
    if isinstance(error, BrokenProcessPool):
        return "the worker process died: out of memory, or a crash in a library"
    return None if error is None else f"{type(error).__name__}: {error}"


@contextmanager
def _heard_from(read: Any, heard: Heard) -> Iterator[None]:
    """Pass on what the workers count, a few times a second."""
    stop = threading.Event()

    def listen() -> None:
        told = 0
        while not stop.wait(0.2):
            now = read.value
            heard(now - told)
            told = now
        heard(read.value - told)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _Worker:
    """What a worker process holds."""

    detectors: Detectors
    work: Path
    options: CorpusOptions
    heard: Heard


def _start(work: Path, options: CorpusOptions, read: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_cpu_count(1)
    _Worker.detectors, _Worker.work, _Worker.options = load_detectors(work), work, options
    _Worker.heard = partial(_add, read)


def _add(read: Any, more: int) -> None:
    with read.get_lock():
        read.value += more


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: the pool's pipe stays open in its siblings."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _scan(piece: Slice) -> None:
    scan_slice(piece, _Worker.detectors, _Worker.options, _Worker.heard).save(_Worker.work / "partials")
