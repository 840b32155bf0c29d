"""Slices under datatrove's executors: Slurm, Ray or local, whatever the lab runs already.

    plan = prepare(request)                                        # here, once: the index and the list of slices
    SlurmPipelineExecutor(pipeline=[ScanStep(plan.work)], tasks=64, ...).run()
    run_audit(request, progress)                                   # merges what the tasks left, judges and reports

The work folder must be on a file system that all nodes share. A task that was killed is started again by datatrove and
goes on from the slices that are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from checks.contamination.detect.detectors import load_detectors
from checks.contamination.engines.slice import scan_slice
from checks.contamination.partial import saved
from checks.contamination.plan import planned


class ScanStep(PipelineStep):  # type: ignore[misc]
    """Every `world_size`-th slice of a prepared audit, beginning with the `rank`-th."""

    name = "TrainVitals contamination scan"
    type = "Decontamination"

    def __init__(self, work: Path | str) -> None:
        super().__init__()
        self.work = Path(work)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Scan this rank's slices that are not done yet. The documents are read here: pipeline input passes through."""
        if data:
            yield from data
        pieces, options = planned(self.work)
        done = saved(self.work / "partials")
        missing = [piece for piece in pieces[rank::world_size] if piece.index not in done]
        detectors = load_detectors(self.work) if missing else None
        for piece in missing:
            assert detectors is not None
            partial = scan_slice(piece, detectors, options)
            partial.save(self.work / "partials")
            self.stat_update("slices")
            self.stat_update("documents", value=partial.tally.documents)
