"""`tv.start`: a run without a model or optimizer, for evaluations, rewards and data jobs.

Example::
    with tv.start(run="runs/eval", config={"task": "mmlu"}) as run:
        run.log({"accuracy": 0.61}, step=1000)
        run.log_table("answers", columns=["question", "answer"], rows=[["2 + 2", "4"]])
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from collectors.logger import Logger, describe, open_loggers
from collectors.place import Resume, keep_said, look, process_rank, run_folder, writer_here
from trainvitals.card import RunCard
from trainvitals.errors import UsageError
from trainvitals.store import RunWriter
from trainvitals.store.writer import whole_step


class Recorder(Logger):
    """A run that is logged to by hand. Made by `start`.

    Where `log` is given no step, the run counts: 0, 1, 2, one a call, or on from the step that was given last. Where
    this process has a tap on the same run, the step is that of the tap.
    """

    def __init__(self, writer: RunWriter, card: RunCard, last_step: int | None, follows: Logger | None = None) -> None:
        """`last_step` is the newest of the run's earlier attempts, None in a fresh run; `follows` is the tap."""
        super().__init__(writer, card)
        self.follows = follows
        self.began_after = last_step
        self._step = -1 if last_step is None else last_step
        self._transfer: Any = None
        self._closed = False
        atexit.register(self.close)

    @property
    def step(self) -> int:
        """The step that was logged last; 0 before that."""
        return max(self._step, 0) if self.follows is None else self.follows.step

    def rewind(self, step: int) -> None:
        """Go back to an earlier step: what follows is a new attempt, and what was stored after it a branch."""
        self.guard(None, self._rewind, step)

    def close(self) -> None:
        """Write what is left and end. Calling it again does nothing."""
        if self._closed or os.getpid() != self.process:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._transfer is not None:
            self.guard(None, self._transfer.drain)
        self.leave()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.tell("exception", f"the script ended with {kind.__name__ if kind else ''}: {error}")
        self.close()

    def _row_step(self, step: Any) -> Any:
        if step is None and self.follows is not None:
            return self.follows._row_step(None)
        if step is None:
            self._step += 1
            return self._step
        at = super()._row_step(step)
        if isinstance(at, int):
            self._step = at
        return at

    def _rewind(self, step: int) -> None:
        if self._transfer is not None:
            self._transfer.drain()
        self.writer.rewind(step)
        self.began_after, self._step = (step if step > 0 else None), step

    def _hand(self, row: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None]) -> None:
        if self._transfer is None:
            from collectors.transfer import Transfer  # needs torch, and so did the tensor

            self._transfer = Transfer(self.guard)
        self._transfer.add(None, row, deliver)
        self._transfer.send()  # no step of an optimizer will


def start(run: str | Path | None = None, *, name: str | None = None, config: Any = None,
          tags: Iterable[str] | None = None, notes: str | None = None, group: str | None = None, id: str | None = None,
          resume: Resume = "auto", start_step: int | None = None) -> Recorder:
    """Begin a run, or go on with one, that has no training loop to tap.

    Args:
        run: run folder, a path or an fsspec URL; with `id`, the folder of runs that it lies in.
        name: shown in place of the folder's name.
        config: the job's settings: any mapping, Namespace, dataclass, model or object with attributes. Values that
            look like secrets are not stored.
        tags, notes, group: words that the run is found by, what a human says of it, and what it belongs to.
        id: name of the run's folder in `run`, or in `runs` where no `run` is given.
        resume: "auto" begins or goes on, "must" refuses to begin, "never" refuses to go on.
        start_step: the last step done before this job; later ones of earlier attempts become a branch. None: the last
            that is stored.

    Raises:
        UsageError: an argument that cannot be used, `resume` forbids it, or another job is writing the run. Nothing
            is raised after that.
    """
    if start_step is not None and whole_step(start_step) is None:
        raise UsageError(f"start_step must be a number of steps, not {start_step!r:.80}.")
    return begin(run_folder(run, id), *process_rank(), name=name, config=config, tags=tags, notes=notes, group=group,
                 resume=resume, start_step=start_step)


def begin(path: str, rank: int, world_size: int, *, name: str | None = None, config: Any = None,
          tags: Iterable[str] | None = None, notes: str | None = None, group: str | None = None,
          resume: Resume = "auto", start_step: int | None = None) -> Recorder:
    """`start` as a rank of a job that the caller tells. Arguments and errors as there."""
    card = RunCard(name=Path(path).name, created=time.time(), world_size=world_size)
    hidden = describe(card, name=name, config=config, tags=tags, notes=notes, group=group)
    shared = writer_here(path, rank)
    if shared is not None:
        return _beside(shared, card, name, hidden)
    before = look(path, resume, rank, world_size, rows=True)
    began = before.last_step if start_step is None else start_step
    if before.exists:
        card = _said_onto(before.card, card, name)
    recorder = Recorder(RunWriter(path, rank=rank, world_size=world_size, start_step=began or 0), card, began)
    if before.exists is None:
        recorder.tell("resume_unknown", f"{path} could not be looked at when the run began: steps are counted from 0")
    return _introduced(recorder, hidden)


def _beside(writer: RunWriter, card: RunCard, name: str | None, hidden: list[str]) -> Recorder:
    """A recorder of a folder that this process writes to already: one writer and one card for both."""
    others = [logger for logger in open_loggers() if logger.writer is writer]
    tap = next((logger for logger in others if logger.follows_training), None)
    recorder = Recorder(writer, _said_onto(others[0].card, card, name), others[0].began_after, tap)
    return _introduced(recorder, hidden)


def _said_onto(earlier: RunCard, card: RunCard, name: str | None) -> RunCard:
    """The card that there is, with what this job says of the run."""
    keep_said(card, earlier)
    earlier.config, earlier.tags, earlier.group, earlier.notes = card.config, card.tags, card.group, card.notes
    earlier.name = card.name if name or not earlier.name else earlier.name
    return earlier


def _introduced(recorder: Recorder, hidden: list[str]) -> Recorder:
    recorder._write_card()
    recorder.say_hidden(hidden)
    return recorder
