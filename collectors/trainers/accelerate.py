"""Hugging Face Accelerate: a tracker, and the tap on a loop that Accelerate prepared.

    tracker = tv.AccelerateTracker("runs/mine")
    accelerator = Accelerator(log_with=tracker)
    accelerator.init_trackers("mine", config={"lr": 1e-3})
    model, optimizer = accelerator.prepare(model, optimizer)
    tap = tracker.attach(model, optimizer)

`accelerator.log` then writes into the run that the tap writes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from collectors.loop import Tap
from collectors.tap import attach
from collectors.trainers.recording import Recording


class AccelerateTracker(GeneralTracker):
    """What `accelerator.log` is given, in a run folder. Arguments as of `tv.start`."""

    name = "trainvitals"
    requires_logging_directory = False

    def __init__(self, run: str | Path, **arguments: Any) -> None:
        super().__init__()
        self._recording = Recording(run, **arguments)

    @property
    def tracker(self) -> Any:
        """The open run, a `tv.Recorder`."""
        return self._recording.recorder

    def attach(self, model: Any, optimizer: Any, **arguments: Any) -> Tap:
        """Tap the loop, on every process, into the tracker's run folder. Arguments as of `tv.attach`."""
        return attach(model, optimizer, self._recording.run, **arguments)

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self._recording.settings(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._recording.call("log", values, step)

    @on_main_process
    def finish(self) -> None:
        self._recording.close()
