"""TrainVitals: the health board for training runs of large language models.

    import trainvitals as tv

    tap = tv.attach(model, optimizer, run="runs/mine")     # in the training job
    job = tv.start(run="runs/eval")                        # in one without a model
    run = tv.open_run("runs/mine")                         # anywhere else, any time

Names are loaded when they are first used, so reading a run imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainvitals.anything import open_run as open_run
    from trainvitals.card import RunCard as RunCard
    from trainvitals.schedules import Plan as Plan
    from trainvitals.store import Run as Run
    from trainvitals.store import RunWriter as RunWriter
    from trainvitals.store import list_runs as list_runs

__version__ = "0.1.0"

_HOME = {
    "AccelerateTracker": "collectors.trainers.accelerate",
    "LightningCallback": "collectors.trainers.lightning",
    "LightningLogger": "collectors.trainers.lightning",
    "MetricsWriter": "collectors.trainers.writer",
    "Plan": "trainvitals.schedules",
    "Recorder": "collectors.start",
    "Run": "trainvitals.store",
    "RunCard": "trainvitals.card",
    "RunWriter": "trainvitals.store",
    "Tap": "collectors.tap",
    "TrainerCallback": "collectors.trainers.hf",
    "attach": "collectors.tap",
    "list_runs": "trainvitals.store",
    "log": "collectors.current",
    "log_event": "collectors.current",
    "log_histogram": "collectors.current",
    "log_image": "collectors.current",
    "log_table": "collectors.current",
    "log_text": "collectors.current",
    "mirror_tensorboard": "collectors.mirrors.tensorboard",
    "mirror_wandb": "collectors.mirrors.wandb",
    "open_run": "trainvitals.anything",
    "start": "collectors.start",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the names are those of the table above


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainvitals' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
