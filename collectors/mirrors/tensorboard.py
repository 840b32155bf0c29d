"""`tv.mirror_tensorboard()`: what a script hands to SummaryWriters goes into a run of ours too.

One line at the top, for the writers of `torch.utils.tensorboard` and of tensorboardX; their files are what they were.
Scalars come one tag a call; those of one step are stored together, when the next step begins or the writer is flushed.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from collectors.logger import Logger
from collectors.mirrors.destination import Destination, Mirror, MirroredRun, after, before, quietly, say
from collectors.mirrors.importing import when_imported
from collectors.place import run_folder
from collectors.values import flatten
from trainvitals.errors import UsageError

MODULES = ("torch.utils.tensorboard.writer", "tensorboardX.writer")
SUFFIX = "-trainvitals"
IMAGES = 32
"""Of a batch of them under one tag."""


def mirror_tensorboard(run: str | os.PathLike[str] | None = None) -> None:
    """Store what this process hands to TensorBoard's SummaryWriters, from now on, in a run of ours too.

    Args:
        run: run folder of the first writer; further ones of this process get `-<name of their log_dir>` appended.
            None: the tap (or run of `tv.start`) that is open when a writer gets its first value, else
            `<log_dir>-trainvitals`.

    Raises:
        UsageError: `run` is no folder's name, or another one than in an earlier call.
    """
    folder = None if run is None else run_folder(os.fspath(run), None)
    if not _MIRROR.chosen:
        _MIRROR.folder, _MIRROR.chosen = folder, True
        for module in MODULES:
            when_imported(module, _MIRROR.install)
    elif _MIRROR.folder != folder:
        raise UsageError(f"TensorBoard is mirrored to {_MIRROR.folder or 'folders beside its own'} already. Call "
                         "mirror_tensorboard once.")


class Writer(MirroredRun):
    """One SummaryWriter."""

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination)
        self._step: int | None = None
        self._row: dict[str, Any] = {}

    def at(self, step: Any) -> int:
        """The step to log at; TensorBoard takes 0 where none is given, and a tap knows better."""
        logger = self.destination.logger
        return int(step) if step is not None else logger.step if self.destination.in_tap and logger else 0

    def scalars(self, values: Mapping[str, Any], step: Any) -> None:
        at = self.at(step)
        row: dict[str, Any] = {}
        flatten(values, row, lambda name, why: say(f"{name!r:.100}, given to TensorBoard, is not mirrored: {why}"))
        if at != self._step or self._row.keys() & row.keys():
            self.store()
        self._step = at
        self._row |= row

    def store(self) -> None:
        row, self._row = self._row, {}
        if row and (logger := self.destination.logger) is not None:
            logger.log(row, self._step)

    def finish(self, *args: Any) -> None:
        self.store()


class TensorBoardMirror(Mirror[Writer]):
    """The mirrored SummaryWriters of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: str | None = None
        self.chosen = False
        self._named = False
        self._inside = threading.local()

    def install(self, module: ModuleType) -> None:
        """Put our calls around those of a module's SummaryWriter."""
        kind = module.SummaryWriter
        for name in ("add_scalar", "add_scalars", "add_histogram", "add_histogram_raw", "add_image", "add_images",
                     "add_text"):
            after(kind, name, functools.partial(self._call, getattr(self, name)))
        after(kind, "flush", self.flush)
        before(kind, "close", self.end)
        self._around_hparams(kind)

    def _call(self, method: Any, writer: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(self._inside, "hparams", False):
            return  # a writer that add_hparams makes for itself
        mirrored = self.of(writer, lambda: self._make(writer))
        if mirrored is not None and mirrored.destination.logger is not None:
            with mirrored.lock:
                method(mirrored, mirrored.destination.logger, *args, **kwargs)

    def _make(self, writer: Any) -> Writer:
        place = str(getattr(writer, "log_dir", None) or getattr(writer, "logdir", None) or "tensorboard").rstrip("/")
        given = f"{self.folder}-{place.rpartition('/')[2]}" if self.folder is not None and self._named else self.folder
        self._named = True
        return Writer(Destination(given, place + SUFFIX, dict))

    def _around_hparams(self, kind: type) -> None:
        original = kind.__dict__.get("add_hparams")
        if original is None or hasattr(original, "_trainvitals"):
            return

        @functools.wraps(original)
        def call(writer: Any, *args: Any, **kwargs: Any) -> Any:
            self._inside.hparams = True
            try:
                result = original(writer, *args, **kwargs)
            finally:
                self._inside.hparams = False
            quietly(self._call, self.add_hparams, writer, *args, **kwargs)
            return result

        call._trainvitals = True  # type: ignore[attr-defined]
        kind.add_hparams = call  # type: ignore[attr-defined]

    # ---- the calls of a SummaryWriter, with its arguments' names --------------------------------------------------

    def add_scalar(self, mirrored: Writer, logger: Logger, tag: str, scalar_value: Any = None, global_step: Any = None,
                   *args: Any, **kwargs: Any) -> None:
        mirrored.scalars({tag: scalar_value}, global_step)

    def add_scalars(self, mirrored: Writer, logger: Logger, main_tag: str, tag_scalar_dict: Mapping[str, Any],
                    global_step: Any = None, *args: Any, **kwargs: Any) -> None:
        mirrored.scalars({main_tag: tag_scalar_dict}, global_step)

    def add_histogram(self, mirrored: Writer, logger: Logger, tag: str, values: Any, global_step: Any = None,
                      *args: Any, **kwargs: Any) -> None:
        logger.log_histogram(tag, values, step=mirrored.at(global_step))

    def add_histogram_raw(self, mirrored: Writer, logger: Logger, tag: str, min: Any, max: Any, num: Any, sum: Any,
                          sum_squares: Any, bucket_limits: Any, bucket_counts: Any, global_step: Any = None,
                          *args: Any, **kwargs: Any) -> None:
        edges = np.asarray([min, *bucket_limits], np.float64)
        logger.log_histogram(tag, (np.asarray(bucket_counts), edges), step=mirrored.at(global_step))

    def add_image(self, mirrored: Writer, logger: Logger, tag: str, img_tensor: Any, global_step: Any = None,
                  walltime: Any = None, dataformats: str = "CHW", **kwargs: Any) -> None:
        logger.log_image(tag, _with_channels_last(img_tensor, dataformats), step=mirrored.at(global_step))

    def add_images(self, mirrored: Writer, logger: Logger, tag: str, img_tensor: Any, global_step: Any = None,
                   walltime: Any = None, dataformats: str = "NCHW", **kwargs: Any) -> None:
        array = _as_array(img_tensor)
        first = dataformats.upper().index("N")
        for image in np.moveaxis(array, first, 0)[:IMAGES]:
            logger.log_image(tag, _with_channels_last(image, dataformats.upper().replace("N", "")),
                             step=mirrored.at(global_step))

    def add_text(self, mirrored: Writer, logger: Logger, tag: str, text_string: Any, global_step: Any = None,
                 *args: Any, **kwargs: Any) -> None:
        logger.log_text(tag, str(text_string), mirrored.at(global_step))

    def add_hparams(self, mirrored: Writer, logger: Logger, hparam_dict: Mapping[str, Any],
                    metric_dict: Mapping[str, Any], hparam_domain_discrete: Any = None, run_name: Any = None,
                    global_step: Any = None, *args: Any) -> None:
        logger.describe(config=hparam_dict)
        mirrored.scalars(metric_dict, global_step)

    def flush(self, writer: Any, *args: Any, **kwargs: Any) -> None:
        mirrored = self.of(writer, lambda: None)
        if mirrored is not None:
            with mirrored.lock:
                mirrored.store()


def _with_channels_last(image: Any, formats: str) -> Any:
    """An image of TensorBoard's as [height, width(, channels)]."""
    array = _as_array(image)
    axes = formats.upper()
    return np.transpose(array, [axes.index(axis) for axis in "HWC" if axis in axes])


def _as_array(image: Any) -> Any:
    """What the writer was given, on the host: it has waited for it itself."""
    return image.detach().cpu().float().numpy() if hasattr(image, "detach") and image.is_floating_point() else \
        image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)


_MIRROR = TensorBoardMirror()
