"""`tv.log` and its kin: from anywhere in a process to the one tap or run that it has open.

Where there is none, or there are several, nothing is stored, and that is said once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from collectors.logger import Logger, open_loggers

_said: set[str] = set()


def _current() -> Logger | None:
    found = open_loggers()
    if len(found) == 1 or (found and all(logger.writer is found[0].writer for logger in found)):
        return next((logger for logger in found if logger.follows_training), found[0])
    why = ("this process has no run open: call tv.attach or tv.start first (a process that was forked, such as a data "
           "loader's worker, has none)" if not found else
           f"this process has {len(found)} runs open, and tv.log cannot know which is meant: call log of the one")
    if why not in _said:
        _said.add(why)
        logging.getLogger("trainvitals").warning("trainvitals: what tv.log was given is not stored: %s.", why)
    return None


def log(metrics: Mapping[str, Any], step: int | None = None) -> None:
    """`Tap.log` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.log(metrics, step)


def log_text(name: str, text: str, step: int | None = None) -> None:
    """`Tap.log_text` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.log_text(name, text, step)


def log_table(name: str, table: Any = None, *, columns: Iterable[str] | None = None, rows: Iterable[Any] | None = None,
              step: int | None = None) -> None:
    """`Tap.log_table` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.log_table(name, table, columns=columns, rows=rows, step=step)


def log_histogram(name: str, values: Any, bins: int = 64, step: int | None = None) -> None:
    """`Tap.log_histogram` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.log_histogram(name, values, bins, step)


def log_image(name: str, image: Any, caption: str = "", step: int | None = None) -> None:
    """`Tap.log_image` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.log_image(name, image, caption, step)


def log_event(kind: str, message: str, *, step: int | None = None, **data: Any) -> None:
    """`Tap.event` of the one run that this process has open."""
    if (logger := _current()) is not None:
        logger.event(kind, message, step=step, **data)
