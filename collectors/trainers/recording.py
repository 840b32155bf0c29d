"""The run folder behind a trainer's logger: opened with the first number, so that ranks and taps are there by then."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trainvitals as tv

log = logging.getLogger("trainvitals")

MOST_SETTINGS = 1_000
"""Settings that are kept until the run is opened."""


class Recording:
    """What a trainer hands to its logger, in a run of ours; beside a tap of this process on the same folder, one run.

    Args:
        run: run folder.
        **arguments: any others of `tv.start`, such as name, config, tags, notes, group.

    What `tv.start` refuses (another job that writes there, say) is said in the log, and nothing is stored: by then the
    job trains.
    """

    def __init__(self, run: str | Path, **arguments: Any) -> None:
        self.run, self.arguments = run, arguments
        self._recorder: Any = None
        self._refused = False
        self._settings: dict[str, Any] = {}

    @property
    def recorder(self) -> Any:
        """The open run, a `tv.Recorder`. Raises UsageError for what `tv.start` refuses."""
        if self._recorder is None:
            self._recorder = tv.start(self.run, **self.arguments)
            if self._settings:
                self._recorder.describe(config=self._settings)
        return self._recorder

    def call(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of the run."""
        if self._refused:
            return
        try:
            recorder = self.recorder
        except Exception as error:  # do no harm: whatever telemetry raises must not reach the training loop
            self._refused = True
            log.warning("trainvitals: what the logger of %s is given is not stored: %s Training goes on.", self.run,
                        error)
            return
        getattr(recorder, method)(*args, **kwargs)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Settings of the job, for the run card. They open no run."""
        self._settings |= dict(list(values.items())[:MOST_SETTINGS])
        if self._recorder is not None:
            self.call("describe", config=self._settings)

    def close(self) -> None:
        """End the run; a tap beside it goes on. Calling it again does nothing."""
        if self._recorder is None and self._settings:
            self.call("describe")  # the settings alone are a record too
        recorder, self._recorder, self._settings = self._recorder, None, {}
        if recorder is not None:
            recorder.close()
