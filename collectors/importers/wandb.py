"""W&B's own log of a run, `.wandb`: what `wandb.init(mode="offline")` leaves, and what an online run keeps beside.

It is read without wandb and without an account.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from collectors.importers._blind import of_one_process
from collectors.importers._files import wandb_records as records
from collectors.importers._files.framed_log import FramedImporter, FramedLog
from collectors.importers.importer import BlindSpot, Facts, Note

NUMPY_NAN_SINCE = (0, 28, 1)
"""Version 0.28.0 leaves numpy.float32("nan") and numpy.float16("nan") out of its file, where 0.31.0 keeps them; both
keep the NaN of a Python float, of numpy.float64 and of torch tensors (seen in files that each of them wrote)."""
_NUMPY_NAN = BlindSpot(
    "nonfinite", ("loss/", "grad/"),
    "wandb before 0.28.1 leaves a NaN out where it was logged as a NumPy number of 32 or 16 bits",
    "Log float(value), or upgrade wandb.")


class Wandb(FramedImporter):
    """`.wandb` files."""

    format = "wandb"
    title = "W&B's offline log"
    magic = b":W&B\xe1\xbe\x00"
    suffix = ".wandb"
    blind = of_one_process("W&B", "wandb")

    def log(self, path: Path, name: str, state: dict[str, Any], joins: bool) -> FramedLog:
        return _Log(name, state, joins)


class _Log(FramedLog):
    def record(self, data: bytes) -> None:
        kind, a, b = records.kind_of(data)
        if kind == records.HISTORY:
            self._history(records.history(data, a, b))
        elif kind == records.STATS:
            self.machine.update(records.stats(data, a, b))
        elif kind == records.CONFIG:
            self._configure(records.config(data, a, b))
        elif kind == records.RUN:
            self._begin(records.run(data, a, b))
        elif kind == records.ENVIRONMENT:
            self._run_on(records.environment(data, a, b))
        elif kind == records.HEADER:
            self._written_by(records.version(data, a, b))
        elif kind == records.ALERT:
            self.counted("alert", records.alert(data, a, b))
        elif kind == records.METRIC:
            name, over = records.metric(data, a, b)
            if over and over != "_step":
                self.counted("axis", f"W&B draws {name} over {over} (define_metric); here it is over the step")
        elif kind == records.PREEMPTING:
            self.counted("preempting", "the machine was about to be taken away")
        elif kind == records.EXIT:
            self._end(records.exit_code(data, a, b))

    def _history(self, row: records.Row) -> None:
        self.row(row.step, row.values, row.time)
        for name, kind in row.others.items():
            kept = "of which the count and the extremes are kept" if kind == "histogram" else "which is left out"
            self.once(kind, f"{name[:100]!r} and what is like it is no number but a {kind}, {kept}")

    def _begin(self, run: dict[str, Any]) -> None:
        names = ("id", "entity", "project", "group", "job_type", "sweep", "tags", "notes", "host")
        card: dict[str, Any] = {"notes": {name: run[name] for name in names if run.get(name)}}
        if run.get("name"):
            card["name"] = run["name"]
        if "start_time" in run and "created" not in self.state:
            card["created"] = self.state["created"] = run["start_time"]
        if run.get("commit"):
            card["git_commit"] = run["commit"]
        self.say(Facts(card))
        self._configure(run.get("config", {}))
        start, last = run.get("starting_step", 0), -1 if self.step is None else self.step
        if start > last + 1:
            self.once("start", f"{self.name} begins at step {start}: the run was resumed, and its rows before are in "
                      "other files or on the server", hides=True)
        if branch := run.get("branch"):
            self.once("branch", f"the run was forked or rewound from run {branch.get('run', '')} at step "
                      f"{branch.get('step', 0):g}: what it shares with that is not in this file", hides=True)

    def _configure(self, found: dict[str, Any]) -> None:
        found = {name: value for name, value in found.items() if name != "_wandb" and not name.startswith("_wandb.")}
        if found:
            self.say(Facts(config=found))

    def _run_on(self, found: dict[str, Any]) -> None:
        card: dict[str, Any] = {}
        names = ("os", "program", "args", "host", "gpu_count", "cuda")
        if notes := {name: found[name] for name in names if found.get(name)}:
            card["notes"] = notes
        if found.get("python"):
            card["versions"] = {"python": found["python"]}
        if found.get("gpu"):
            card["hardware"] = found["gpu"]
        if found.get("commit"):
            card["git_commit"] = found["commit"]
        if card:
            self.say(Facts(card))

    def _written_by(self, version: str) -> None:
        if version:
            parts = tuple(int(part) for part in re.findall(r"\d{1,9}", version)[:3])
            self.say(Facts({"versions": {"wandb": version}}, blind=(_NUMPY_NAN,) if parts < NUMPY_NAN_SINCE else ()))

    def _end(self, code: int) -> None:
        if code:
            self.counted("error", f"the process ended with exit code {code}")
        self.say(Note("closed", f"exit code {code}", self.step))
