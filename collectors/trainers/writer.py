"""Recipes in plain PyTorch that hand their numbers to a writer object: torchtitan, Megatron, TensorBoard's users.

    processor.logger = tv.MetricsWriter("runs/mine")             # torchtitan: a BaseLogger, log(metrics, step)
    writer = wandb_writer = tv.MetricsWriter("runs/mine")        # Megatron: add_scalar(tag, value, step) and log(...)

One class has the methods of all three, because recipes ask for no base class. What they call and we do not store is
taken in silence only where it holds no number of the training: a graph, a profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collectors.loop import Tap
from collectors.tap import attach
from collectors.trainers.recording import Recording


class MetricsWriter:
    """A writer of metrics into a run folder. Arguments as of `tv.start`.

    As torchtitan's `BaseLogger` (components/metrics.py), `torch.utils.tensorboard.SummaryWriter`, and Megatron-LM's
    `wandb_writer`, as far as training loops call them.
    """

    def __init__(self, run: str | Path, **arguments: Any) -> None:
        self._recording = Recording(run, **arguments)

    def attach(self, model: Any, optimizer: Any, **arguments: Any) -> Tap:
        """Tap the loop into the same run folder. Arguments as of `tv.attach`."""
        return attach(model, optimizer, self._recording.run, **arguments)

    # ---- torchtitan, wandb -----------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Numbers by name; mappings inside are taken apart."""
        self._recording.call("log", metrics, step)

    def close(self) -> None:
        """End the run. Calling it again does nothing."""
        self._recording.close()

    finish = close

    # ---- TensorBoard -----------------------------------------------------------------------------------------

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, *args: Any, **kwargs: Any
                   ) -> None:
        self.log({tag: scalar_value}, global_step)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None,
                    *args: Any, **kwargs: Any) -> None:
        self.log({f"{main_tag}/{name}": value for name, value in tag_scalar_dict.items()}, global_step)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None, *args: Any, **kwargs: Any) -> None:
        self._recording.call("log_text", tag, str(text_string), step=global_step)

    def add_histogram(self, tag: str, values: Any, global_step: int | None = None, *args: Any, **kwargs: Any) -> None:
        self._recording.call("log_histogram", tag, values, step=global_step)

    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None, *args: Any, **kwargs: Any) -> None:
        self._recording.call("log_image", tag, img_tensor, step=global_step)

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], *args: Any, **kwargs: Any
                    ) -> None:
        self._recording.settings(hparam_dict)
        self.log(metric_dict)

    def flush(self) -> None:
        """Nothing: the run is on disk within seconds, and no loop is made to wait for it."""

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a graph is no number of the training."""
