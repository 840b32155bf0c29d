"""Lightning: a callback that taps `Trainer.fit`, and a logger for it and for Fabric.

    trainer = L.Trainer(callbacks=[tv.LightningCallback("runs/mine")], logger=tv.LightningLogger("runs/mine"))

With automatic optimisation `training_step` is the forward that is followed, whatever it calls inside; with manual
optimisation, where it holds backwards and updates as well, it is the module that the step calls.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from collectors.loop import Tap
from collectors.tap import attach
from collectors.trainers.arguments import check_arguments
from collectors.trainers.recording import Recording

SPLIT = "lightning.pytorch" not in sys.modules and (
    "pytorch_lightning" in sys.modules or find_spec("lightning") is None)
"""Whether the job uses the packages `pytorch_lightning` and `lightning_fabric`, which are not those in `lightning`."""

if TYPE_CHECKING or not SPLIT:
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers.logger import Logger
else:
    from lightning_fabric.utilities.rank_zero import rank_zero_only
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers.logger import Logger

STEPS = ("training_step", "validation_step")


class LightningCallback(Callback):
    """Attaches the tap when `fit` begins to train and closes it when it ends.

    Args:
        run: run folder.
        module: with manual optimisation, the name of the submodule that the step calls; None takes the LightningModule
            where it has a forward of its own, else its largest submodule.
        **arguments: any others of `tv.attach`. Optimizers, scheduler, total_steps and start_step are the Trainer's
            where they are not given.

    Raises:
        UsageError: for an argument that `tv.attach` does not have; at the start of training, for values that it
            refuses.
    """

    def __init__(self, run: str | Path, *, module: str | None = None, **arguments: Any) -> None:
        check_arguments(arguments)
        self.run, self.module, self.arguments = run, module, arguments
        self.tap: Tap | None = None
        self._steps: _Steps | None = None
        self._set = ExitStack()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._close()
        if pl_module.automatic_optimization:
            self._steps = named_as(pl_module)(pl_module)
            model: nn.Module = self._steps
        else:
            model = _called(pl_module, self.module)
        optimizers = list(trainer.optimizers)
        own = {"scheduler": _scheduler(trainer), "total_steps": _total_steps(trainer),
               "start_step": trainer.global_step if len(optimizers) == 1 else None}
        given = {name: value for name, value in self.arguments.items() if value is not None or name not in own}
        self.tap = attach(model, optimizers, self.run, **own | given)
        if self._steps is not None:
            self._steps.place()

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int,
                                  dataloader_idx: int = 0) -> None:
        if self.tap is not None and batch_idx == 0 and len(trainer.num_val_batches) > 1:
            self._set.close()
            self._set.enter_context(self.tap.evaluation(_set_of(trainer, dataloader_idx)))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._set.close()
        if self.tap is not None:
            self.tap.evaluated()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.tap is not None:
            self.tap.event("checkpoint", f"saved a checkpoint at step {self.tap.step}")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.tap is not None:
            self.tap.tell("exception", f"training ended with {type(exception).__name__}: {exception}")
        self._close()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._set.close()
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.remove()
        tap, self.tap = self.tap, None
        if tap is not None:
            tap.close()


class _Steps(nn.Module):
    """Stands around a LightningModule so that each call of one of its steps is a forward that the tap can follow."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self._call: Callable[[], Any] = lambda: None
        self._own: dict[str, Any] = {}

    @property
    def training(self) -> bool:
        """The mode of the module inside."""
        inside = self._modules.get("module")
        return True if inside is None else inside.training

    @training.setter
    def training(self, mode: bool) -> None:
        """It is the module's own."""

    def forward(self, *batch: Any) -> Any:
        """The step under way. The tap sees its batch and what it returns."""
        return self._call()

    def place(self) -> None:
        """Have the steps pass through here."""
        for name in STEPS:
            self._own[name] = vars(self.module).get(name)
            setattr(self.module, name, self._passing(getattr(self.module, name)))

    def remove(self) -> None:
        """Put the module's own steps back."""
        for name, own in self._own.items():
            if own is not None:
                setattr(self.module, name, own)
            else:
                vars(self.module).pop(name, None)

    def _passing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            self._call = functools.partial(original, *args, **kwargs)
            batch = args[0] if args else kwargs.get("batch")
            return self(*batch) if isinstance(batch, tuple | list) else self(batch)

        return step


def named_as(module: nn.Module) -> type[_Steps]:
    """`_Steps` under the name of the module, which the run card shows."""
    return type(type(module).__name__, (_Steps,), {})


def _called(pl_module: nn.Module, name: str | None) -> nn.Module:
    """The module whose call is a forward, where steps are the user's own."""
    if name is not None:
        return pl_module.get_submodule(name)
    own = [c for c in type(pl_module).__mro__ if not c.__module__.startswith(("lightning.", "pytorch_lightning.",
                                                                              "torch."))]
    if any("forward" in vars(c) for c in own):
        return pl_module
    return max(pl_module.children(), key=lambda child: sum(p.numel() for p in child.parameters()), default=pl_module)


def _set_of(trainer: Any, number: int) -> str:
    """Name of one of several validation loaders."""
    loaders = trainer.val_dataloaders
    names = list(loaders) if isinstance(loaders, Mapping) else []
    return str(names[number]) if number < len(names) else f"dataloader_idx_{number}"


def _scheduler(trainer: Any) -> Any:
    found = [config.scheduler for config in trainer.lr_scheduler_configs if config.interval == "step"]
    return found[0] if len(found) == 1 and len(trainer.optimizers) == 1 else None


def _total_steps(trainer: Any) -> int | None:
    try:
        total = trainer.estimated_stepping_batches
    except Exception:  # it asks the user's data loader and strategy
        return None
    return total if isinstance(total, int) and total > 0 else None


class LightningLogger(Logger):
    """A Lightning logger, for the Trainer and for Fabric, into a run folder. Arguments as of `tv.start`.

    With a `LightningCallback` on the same folder, both are one run.
    """

    def __init__(self, run: str | Path, **arguments: Any) -> None:
        super().__init__()
        self._recording = Recording(run, **arguments)

    @property
    def name(self) -> str:
        return Path(str(self._recording.run)).name

    @property
    def version(self) -> str:
        return ""

    @property
    def experiment(self) -> Any:
        """The open run, a `tv.Recorder`: `logger.experiment.log_table(...)`."""
        return self._recording.recorder

    def attach(self, model: Any, optimizer: Any, **arguments: Any) -> Tap:
        """Tap a Fabric loop into the logger's run folder. Arguments as of `tv.attach`."""
        return attach(model, optimizer, self._recording.run, **arguments)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._recording.call("log", metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._recording.settings(dict(params) if isinstance(params, Mapping) else vars(params or object()))

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        path = str(getattr(checkpoint_callback, "best_model_path", ""))
        self._recording.call("event", "checkpoint", f"saved a checkpoint; the best is {path}" if path else "saved")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._recording.close()
