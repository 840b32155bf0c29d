"""Slices on the processes of this machine. One worker means this process; more share the index through memory maps.

A worker that dies (killed for memory, a crash in a library) costs nothing but time: its slice is tried again, alone. A
slice that kills its worker alone as well is named in the audit, which is then incomplete and says so.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from checks.contamination.detect.detectors import Detectors, load_detectors
from checks.contamination.engines.slice import scan_slice
from checks.contamination.readers.corpus import CorpusOptions
from checks.contamination.records import Slice

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
    once = _in_workers(pieces, work, options, workers, heard)
    twice: dict[int, str] = {}
    for piece in pieces:
        if piece.index in once:
            # By itself: a worker that was killed for memory has all of it now.
            twice |= _in_workers([piece], work, options, 1, heard)
    return twice


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


def _in_workers(
    pieces: Sequence[Slice], work: Path, options: CorpusOptions, workers: int, heard: Heard
) -> dict[int, str]:
    """Scan slices in `workers` processes; the slices that failed or lost their worker, and why.

    A pool for each worker: a death then names its slice and leaves the others at work. (In one pool it would also race
    with the start of the next worker, which the dying pool waits for without end.)
    """
    spawn = multiprocessing.get_context("spawn")
    read = spawn.RawArray("q", workers)
    queue, lost = deque(pieces), dict[int, str]()
    with ExitStack() as stack:
        stack.enter_context(_heard_from(read, heard))

        def begin(number: int) -> ProcessPoolExecutor:
            start = (work, options, read, number)
            return stack.enter_context(ProcessPoolExecutor(1, spawn, initializer=_start, initargs=start))

        pools = [begin(number) for number in range(workers)]
        running: dict[Future[None], tuple[Slice, int]] = {}
        free = list(range(workers))
        while queue or running:
            while queue and free:
                piece, number = queue.popleft(), free.pop()
                try:
                    future = pools[number].submit(_scan, piece)
                except BrokenProcessPool:
                    # Its worker died: over the slice before, which is in `lost`, or while it waited.
                    pools[number] = begin(number)
                    future = pools[number].submit(_scan, piece)
                running[future] = (piece, number)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                piece, number = running.pop(future)
                free.append(number)
                if (why := _why(future)) is not None:
                    lost[piece.index] = why
    return lost


def _why(future: Future[None]) -> str | None:
    error = future.exception()
    if isinstance(error, OSError):
        raise error
    if isinstance(error, BrokenProcessPool):
        return "the worker process died: out of memory, or a crash in a library"
    return None if error is None else f"{type(error).__name__}: {error}"


@contextmanager
def _heard_from(read: Sequence[int], heard: Heard) -> Iterator[None]:
    """Pass on what the workers count, a few times a second."""
    stop = threading.Event()

    def listen() -> None:
        told = 0
        ended = False
        while not ended:
            ended = stop.wait(0.2)
            now = sum(read)
            heard(now - told)
            told = now

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


def _start(work: Path, options: CorpusOptions, read: Any, number: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_cpu_count(1)
    _Worker.detectors, _Worker.work, _Worker.options = load_detectors(work), work, options
    _Worker.heard = partial(_add, read, number)


def _add(read: Any, number: int, more: int) -> None:
    # Each worker has a place of its own, without a lock: one killed with the lock in hand would stop all the others.
    read[number] += more


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: the pool's pipe stays open in its siblings."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _scan(piece: Slice) -> None:
    scan_slice(piece, _Worker.detectors, _Worker.options, _Worker.heard).save(_Worker.work / "partials")
