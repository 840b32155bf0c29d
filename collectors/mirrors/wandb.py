"""`tv.mirror_wandb()`: what a script logs with wandb goes into a run of ours too.

One line at the top; wandb may be online, offline or disabled, and does what it did. The rows are those of wandb: calls
without a commit are joined, and a step that is behind is passed over as wandb passes it over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from collectors.logger import Logger
from collectors.mirrors.destination import Destination, Mirror, MirroredRun, after, around, before, quietly, say
from collectors.mirrors.importing import when_imported
from collectors.place import ID, RUNS, run_folder
from collectors.values import flatten
from trainvitals.errors import UsageError

IMAGES = 32
"""Of a list of them under one name."""
TEXTS = 1_000
"""Names whose texts are compared with the last one."""


def mirror_wandb(run: str | os.PathLike[str] | None = None) -> None:
    """Store what this process logs with wandb, from now on, in a run of ours too.

    Args:
        run: run folder of the first wandb run; further ones of this process get `-<wandb id>` appended. None: the tap
            (or run of `tv.start`) that is open when a wandb run logs its first row, else `runs/<wandb id>`.

    Raises:
        UsageError: `run` is no folder's name, or another one than in an earlier call.
    """
    folder = None if run is None else run_folder(os.fspath(run), None)
    if not _MIRROR.chosen:
        _MIRROR.folder, _MIRROR.chosen = folder, True
        when_imported("wandb", _MIRROR.install)
    elif _MIRROR.folder != folder:
        raise UsageError(f"wandb is mirrored to {_MIRROR.folder or RUNS} already, and not to {folder or RUNS}. Call "
                         "mirror_wandb once.")


class Rows:
    """How wandb makes rows of the calls of `log`: `_step` of each and what is in it."""

    def __init__(self, step: int) -> None:
        self.step = step
        """Of the row that is being filled."""
        self._row: dict[str, Any] = {}
        self._given = False

    def moves_to(self, step: int | None) -> tuple[bool, list[tuple[int, bool, dict[str, Any]]]]:
        """Whether a call with this step counts, and the row that it ends: step, whether that was given, values."""
        if step is None or step == self.step:
            self._given |= step is not None
            return True, []
        if step < self.step:
            return False, []
        ended = self.end()
        self.step, self._given = step, True
        return True, ended

    def add(self, values: Mapping[str, Any], commit: bool) -> list[tuple[int, bool, dict[str, Any]]]:
        """Put values into the row; the row, if the call commits it."""
        self._row.update(values)
        if not commit:
            return []
        ended = self.end()
        self.step += 1
        return ended

    def end(self) -> list[tuple[int, bool, dict[str, Any]]]:
        """The row so far, if there is anything in it."""
        ended = [(self.step, self._given, self._row)] if self._row else []
        self._row, self._given = {}, False
        return ended


class WandbRun(MirroredRun):
    """One wandb run."""

    def __init__(self, run: Any, destination: Destination) -> None:
        super().__init__(destination)
        self.run = run
        step = getattr(run, "step", 0)
        self._rows = Rows(step if isinstance(step, int) else 0)
        self._texts: dict[str, int] = {}
        self._calls = 0

    def log(self, data: Any, step: Any, commit: Any) -> None:
        logger = self.destination.logger
        if logger is None or not isinstance(data, Mapping):
            return
        counts, ended = self._rows.moves_to(None if step is None else int(step))
        self._store(logger, ended)
        if counts:
            row: dict[str, Any] = {}
            flatten({name: value for name, value in data.items() if name not in OWN_KEYS}, row,
                    lambda name, why: say(f"{name!r:.100}, logged with wandb, is not mirrored: {why}"))
            numbers = {name: value for name, value in row.items() if not self._object(logger, name, value)}
            self._store(logger, self._rows.add(numbers, bool(commit) or (step is None and commit is None)))
        self._calls += 1
        if self._calls & (self._calls - 1) == 0:  # settings may be added at any time: looked at after 1, 2, 4, 8 calls
            logger.describe(config=settings_of(self.run))

    def _store(self, logger: Logger, rows: list[tuple[int, bool, dict[str, Any]]]) -> None:
        for step, given, row in rows:
            logger.log(row, None if self.destination.in_tap and not given else step)

    def _object(self, logger: Logger, name: str, value: Any) -> bool:
        """Store what is no number; False for what is one."""
        if isinstance(value, str):
            if self._texts.get(name) != hash(value):  # a word in every row is stored when it changes
                if len(self._texts) < TEXTS:
                    self._texts[name] = hash(value)
                logger.log_text(name, value, self._at())
            return True
        if isinstance(value, list | tuple) and value and all(_kind(item) == "Image" for item in value):
            for item in value[:IMAGES]:
                self._object(logger, name, item)
            return True
        kind = _kind(value)
        if kind == "Histogram":
            logger.log_histogram(name, (value.histogram, value.bins), step=self._at())
        elif kind == "Table":
            logger.log_table(name, columns=value.columns, rows=value.data, step=self._at())
        elif kind == "Image":
            logger.log_image(name, value.image, str(getattr(value, "_caption", None) or ""), self._at())
        elif kind == "Html":
            logger.log_text(name, value.html, self._at())
        elif kind == "CustomChart":
            self._object(logger, name, getattr(value, "table", None))
        elif kind:
            say(f"{name!r:.100}, logged with wandb, is not mirrored: it is a wandb.{kind}")
        elif isinstance(value, np.ndarray) and value.size > 1:
            logger.log_histogram(name, value, step=self._at())
        elif hasattr(value, "canvas") or (hasattr(value, "mode") and hasattr(value, "convert")):
            logger.log_image(name, value, step=self._at())
        else:
            return False
        return True

    def _at(self) -> int | None:
        return None if self.destination.in_tap and not self._rows._given else self._rows.step

    def finish(self, exit_code: Any = None) -> None:
        logger = self.destination.logger
        if logger is not None:
            self._store(logger, self._rows.end())
            logger.describe(config=settings_of(self.run), summary=quietly(summary_of, self.run))
            if isinstance(exit_code, int) and exit_code:
                logger.event("failed", f"wandb's run was finished with exit code {exit_code}")


OWN_KEYS = frozenset({"_step", "_timestamp", "_runtime", "_wandb"})
"""What wandb puts into a row itself."""


class WandbMirror(Mirror[WandbRun]):
    """The mirrored wandb runs of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: str | None = None
        self.chosen = False
        self._named: set[str] = set()

    def install(self, wandb: ModuleType) -> None:
        """Put our calls around those of wandb's runs."""
        for kind in _run_classes(wandb):
            around(kind, "log", self.meet, self.log)  # met before the call, which moves wandb's step on
            after(kind, "alert", self.alert)
            before(kind, "finish", self.finish)
            before(kind, "_finish", self.finish)
        for name in ("log", "alert"):
            bound = getattr(wandb, name, None)
            if getattr(wandb, "run", None) is not None and getattr(bound, "__self__", None) is wandb.run:
                setattr(wandb, name, getattr(wandb.run, name))  # bound by an init that came before us

    def meet(self, run: Any, *args: Any, **kwargs: Any) -> WandbRun | None:
        """The mirrored run of a wandb run; None where it is another process's, or over."""
        if getattr(run, "_is_attached", False) or getattr(run, "_init_pid", os.getpid()) != os.getpid():
            say("a wandb run is logged to from another process than began it, and that part is not mirrored")
            return None
        return self.of(run, lambda: None if "_trainvitals" in run.__dict__ else self._make(run))

    def log(self, run: Any, data: Any = None, step: Any = None, commit: Any = None, *args: Any, **kwargs: Any) -> None:
        mirrored = self.meet(run)
        if mirrored is not None:
            with mirrored.lock:
                mirrored.log(data, step, commit)

    def alert(self, run: Any, title: Any = "", text: Any = "", level: Any = None, *args: Any, **kwargs: Any) -> None:
        mirrored = self.meet(run)
        if mirrored is not None and (logger := mirrored.destination.logger) is not None:
            logger.event("alert", f"{title}: {text}", level=str(getattr(level, "value", level or "INFO")))

    def finish(self, run: Any, exit_code: Any = None, *args: Any, **kwargs: Any) -> None:
        self.meet(run)
        self.end(run, exit_code)

    def _make(self, run: Any) -> WandbRun:
        run.__dict__["_trainvitals"] = True
        key = str(getattr(run, "id", "") or "")
        key = key if ID.fullmatch(key) else f"wandb-{os.getpid()}-{len(self._named)}"
        given = f"{self.folder}-{key}" if self.folder is not None and self._named else self.folder
        self._named.add(key)
        return WandbRun(run, Destination(given, run_folder(RUNS, key), lambda: _said(run)))


def _run_classes(wandb: ModuleType) -> list[type]:
    """The class of runs, and the one that stands in for it where wandb is disabled."""
    kinds = [wandb.Run] if isinstance(getattr(wandb, "Run", None), type) else []
    try:
        from wandb.sdk.lib.noop_run import NoopRun  # type: ignore[import-not-found,unused-ignore]

        kinds.append(NoopRun)
    except ImportError:
        pass  # versions before 0.25 have none
    if not kinds:
        raise UsageError(f"wandb {getattr(wandb, '__version__', '')} has no class Run. Use wandb 0.17 or later")
    return kinds


def _said(run: Any) -> dict[str, Any]:
    def text(name: str) -> str | None:
        value = quietly(getattr, run, name, None)
        return value if isinstance(value, str) and value else None

    return {"name": text("name"), "notes": text("notes"), "group": text("group"), "config": settings_of(run),
            "tags": [tag for tag in quietly(getattr, run, "tags", ()) or () if isinstance(tag, str)]}


def settings_of(run: Any) -> dict[str, Any]:
    """The config of a wandb run."""
    found = quietly(lambda: dict(run.config))
    return {name: value for name, value in (found or {}).items() if name != "_wandb"}


def summary_of(run: Any) -> dict[str, Any]:
    """The summary of a wandb run, but for its files: the last value of each name, or what the script set."""
    found = {name: run.summary[name] for name in run.summary.keys() if not str(name).startswith("_")}  # noqa: SIM118
    plain = {name: value._as_dict() if hasattr(type(value), "_as_dict") else value for name, value in found.items()}
    return {name: value for name, value in plain.items() if not (isinstance(value, Mapping) and "_type" in value)
            and not any(_kind(item) for item in (value if isinstance(value, list) else [value]))}


def _kind(value: Any) -> str:
    """Which of wandb's own types a value is; empty for anything else."""
    kind = type(value)
    return kind.__name__ if kind.__module__.partition(".")[0] == "wandb" else ""


_MIRROR = WandbMirror()
