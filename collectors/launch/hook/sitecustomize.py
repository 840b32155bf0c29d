"""Listens inside the Python processes of a command that `trainvitals run` started.

Python imports a module of this name when it starts, wherever PYTHONPATH has its folder; children inherit it, through
torchrun, accelerate launch and multiprocessing. What is here needs the standard library alone and any Python from 3.8
on. It wraps `wandb.log`, `SummaryWriter.add_scalar` and `Trainer.log` once their modules are imported: after the
original has done its work and before its result is handed on, the numbers go as one JSON line to a file. Whatever
fails in here is forgotten, and the first failed write is the last one tried: the job must not notice.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

FOLDER_VARIABLE = "TRAINVITALS_HEARD"
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JAX_PROCESS_ID")
MOST_NAMES, MOST_TEXT = 2000, 10000

_here = os.path.dirname(os.path.abspath(__file__))


class Speaker:
    """Appends lines to this process's own file in the folder of the launch; a forked child opens one of its own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process = 0
        self._file = -1
        self._broken = False

    def say(self, source: str, step: Any, values: Any, **more: Any) -> None:
        """Write a row: what of `values` is a number. Never raises."""
        try:
            if self._broken or _rank() > 0:
                return
            numbers = _numbers(values)
            if numbers or more:
                record = {"s": source, "n": None if step is None else int(step), "t": time.time(), "v": numbers}
                record.update(more)
                self._write((json.dumps(record) + "\n").encode("utf-8", "replace"))
        except Exception:  # the job that is listened to must not see a fault of the listener's
            self._broken = True

    def _write(self, line: bytes) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            name = os.path.join(self._folder, f"hook-{self._process}.jsonl")
            self._file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.write(self._file, line) != len(line):
            self._broken = True


def _rank() -> int:
    for name in RANK_VARIABLES:
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return 0


def _numbers(values: Any, prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    if not isinstance(values, dict):
        return found
    for name, value in list(values.items())[:MOST_NAMES]:
        if isinstance(value, dict):
            found.update(_numbers(value, prefix + str(name) + "/"))
            continue
        if isinstance(value, (bool, str, bytes)) or value is None:
            continue
        if not isinstance(value, (int, float)):
            # Scalars of numpy, torch and jax. A device's tensor is fetched: so do the loggers that get it.
            numel, item = getattr(value, "numel", None), getattr(value, "item", None)
            if item is None or (numel() if callable(numel) else getattr(value, "size", 0)) != 1:
                continue
            value = item()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[prefix + str(name)] = float(value)
    return found


# ---- what is wrapped ------------------------------------------------------------------------------------------------


def _wrap(owner: Any, name: str, listen: Callable[..., None]) -> None:
    original = getattr(owner, name)
    if getattr(original, "_trainvitals", False):
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        before = _step_before(args)
        result = original(*args, **kwargs)
        try:
            listen(before, *args, **kwargs)
        except Exception:  # the logger's own call has done its work, and the job must not see ours fail
            pass
        return result

    wrapper._trainvitals = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)


def _step_before(args: Sequence[Any]) -> Any:
    try:
        return args[0].step if type(args[0]).__module__.startswith("wandb.") else None
    except Exception:  # somebody's object: whatever it raises, its step is then unknown
        return None


def _wandb(module: Any, speaker: Speaker) -> None:
    told: list[int] = []

    def listen(before: Any, run: Any, data: Any, step: Any = None, commit: Any = None, *_: Any, **__: Any) -> None:
        if id(run) not in told:
            told.append(id(run))
            speaker.say("wandb", None, {}, config=_config(dict(run.config)), name=str(run.name or ""))
        speaker.say("wandb", before if step is None else step, data)

    _wrap(module.Run, "log", listen)


def _tensorboard(module: Any, speaker: Speaker) -> None:
    def listen(_: Any, writer: Any, tag: Any, value: Any, global_step: Any = None, *__: Any, **___: Any) -> None:
        speaker.say("tensorboard", global_step, {str(tag): value})

    _wrap(module.SummaryWriter, "add_scalar", listen)


def _trainer(module: Any, speaker: Speaker) -> None:
    told: list[int] = []

    def listen(_: Any, trainer: Any, logs: Any, *__: Any, **___: Any) -> None:
        if id(trainer) not in told:
            told.append(id(trainer))
            speaker.say("trainer", None, {}, config=_config(trainer.args.to_dict()), total=int(trainer.state.max_steps))
        if trainer.state.is_world_process_zero:
            speaker.say("trainer", trainer.state.global_step, logs)

    _wrap(module.Trainer, "log", listen)


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """The plain part of a configuration, without secrets."""
    plain = {}
    for name, value in config.items():
        secret = any(word in str(name).lower() for word in ("token", "secret", "password", "api_key"))
        if not secret and (value is None or isinstance(value, (bool, int, float, str))) and len(str(value)) < MOST_TEXT:
            plain[str(name)] = value
    return plain


WRAPPED: dict[str, Callable[[Any, Speaker], None]] = {
    "wandb.sdk.wandb_run": _wandb,
    "torch.utils.tensorboard.writer": _tensorboard,
    "tensorboardX.writer": _tensorboard,
    "transformers.trainer": _trainer,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Has the modules of `WRAPPED` found as they always are, and wraps their classes when they have run."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._busy: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any | None:
        if fullname not in WRAPPED or fullname in self._busy:
            return None
        self._busy.append(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
            if spec is not None and spec.loader is not None:
                self._listen(spec.loader, fullname)
            return spec
        except Exception:  # the import goes on with the finders behind this one
            return None
        finally:
            self._busy.remove(fullname)

    def _listen(self, loader: Any, name: str) -> None:
        run = loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            try:
                WRAPPED[name](module, self._speaker)
            except Exception:  # a version that looks otherwise: the module is imported all the same, unheard
                pass

        loader.exec_module = exec_module


def _start() -> None:
    try:
        folder = os.environ.get(FOLDER_VARIABLE, "")
        if folder:
            sys.meta_path.insert(0, _Finder(Speaker(folder)))
    except Exception:  # Python is starting: the job must start, heard or not
        pass


def _next_sitecustomize() -> None:
    """Run the module of this name that Python would have run without us; what it raises is the job's own."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_start()
_next_sitecustomize()
