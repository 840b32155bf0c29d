"""Slices on a Ray cluster: the same scan, the same partials. The index is put into the object store once per node.

Plain tasks rather than a Ray Data pipeline: a slice is already the unit of work, of retry and of resumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checks.contamination.detect.detectors import Detectors, load_detectors
from checks.contamination.engines.local import Heard
from checks.contamination.engines.slice import scan_slice
from checks.contamination.partial import Partial
from checks.contamination.readers.corpus import CorpusOptions
from checks.contamination.records import Slice
from trainvitals.errors import UsageError

RETRIES = 2
"""Times that a slice is tried again after its worker or node died."""


def scan_ray(pieces: Sequence[Slice], work: Path, options: CorpusOptions, workers: int, heard: Heard) -> dict[int, str]:
    """Scan slices on Ray and leave their partials in `work/partials` of this machine.

    Joins the cluster that `RAY_ADDRESS` names, or starts a local one with `workers` CPUs.

    Returns:
        The slices that could not be scanned, and why.

    Raises:
        UsageError: ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("The engine ray needs Ray. Install `trainvitals[ray]`, or use --engine local.") from error
    ours = not ray.is_initialized()
    if ours:
        _join(ray, workers)
    try:
        return _scan_all(ray, pieces, work, options, workers, heard)
    finally:
        if ours:
            ray.shutdown()


def _join(ray: Any, workers: int) -> None:
    import os

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")


def _scan_all(
    ray: Any, pieces: Sequence[Slice], work: Path, options: CorpusOptions, workers: int, heard: Heard
) -> dict[int, str]:
    index = ray.put(load_detectors(work))
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_scan)
    queue, running, lost = list(reversed(pieces)), dict[Any, Slice](), dict[int, str]()
    while queue or running:
        # A few in hand per worker keep the cluster busy without holding every partial in memory at once.
        while queue and len(running) < 2 * workers:
            piece = queue.pop()
            running[task.remote(piece, index, options)] = piece
        done, _ = ray.wait(list(running))
        for reference in done:
            piece = running.pop(reference)
            try:
                partial: Partial = ray.get(reference)
            except ray.exceptions.RayError as error:
                lost[piece.index] = f"{type(error).__name__} after {RETRIES} retries: {str(error).splitlines()[-1]}"
            else:
                partial.save(work / "partials")
                heard(partial.tally.bytes_read)
    return lost


def _scan(piece: Slice, detectors: Detectors, options: CorpusOptions) -> Partial:
    return scan_slice(piece, detectors, options)
