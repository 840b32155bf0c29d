"""What a training script says of itself: numbers, texts, tables, histograms, images and events, from anywhere.

    tap.log({"reward": {"mean": 0.4, "max": 1.0}})          # stored as reward/mean and reward/max
    tv.log_text("answers", "Paris is in France.")           # to the one tap or run that this process has open

Nothing is raised at the script and nothing makes it wait; what is not stored is said once by name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from collectors.values import flatten, on_host
from trainvitals.card import RunCard
from trainvitals.config import joined, plain_config
from trainvitals.errors import UsageError
from trainvitals.store import RunWriter
from trainvitals.store.eventlog import OUR_KINDS, plain
from trainvitals.store.own import NAME_CHARACTERS, OwnNumbers
from trainvitals.store.samplekinds import Taken, take_histogram, take_image, take_table, take_text
from trainvitals.store.writer import whole_step

log = logging.getLogger("trainvitals")

TAGS = 100

_OPEN: list[Logger] = []
"""Of this process, oldest first."""
_OWN_LOCK = threading.Lock()


def open_loggers() -> list[Logger]:
    """Taps and runs that this process has open; a forked child has none of its parent's."""
    return [logger for logger in _OPEN if logger.process == os.getpid()]


class Logger:
    """What `tv.attach` and `tv.start` give: the place that a script logs to."""

    follows_training = False
    """Whether the step is that of a training loop which this process is in."""

    def __init__(self, writer: RunWriter, card: RunCard) -> None:
        self.writer, self.card = writer, card
        self.process = os.getpid()
        self._said: set[str] = set()
        self._hidden: set[str] = set()
        self._own: OwnNumbers | None = None
        self._waiting_at: int | None = None
        self.began_after: int | None = None
        """Last step of what the run held before; a row at such a step would hide it from the main line."""
        _OPEN.append(self)

    # ---- what users call -------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The step that is logged at where none is given."""
        raise NotImplementedError

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Store numbers of your own, under names of your own, at this step (the last one done).

        Several calls at one step add up to one row. Mappings inside are taken apart: `{"loss": {"kl": 1.0}}` is
        `loss/kl`. A name that is one of ours is kept as `custom/<name>`; what is no number is refused. Both are said
        once by name, in the log and as an event, and nothing is raised.
        """
        self.guard(None, self._log, metrics, step)

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        """Store a text of up to 100,000 characters."""
        self.guard(None, self._sample, "text", name, step, take_text, text)

    def log_table(self, name: str, table: Any = None, *, columns: Iterable[str] | None = None,
                  rows: Iterable[Any] | None = None, step: int | None = None) -> None:
        """Store a table: a DataFrame, or `columns=` and `rows=`, or rows that are mappings. The first 1,000 rows."""
        self.guard(None, self._sample, "table", name, step, take_table, table, columns, rows)

    def log_histogram(self, name: str, values: Any, bins: int = 64, step: int | None = None) -> None:
        """Store a histogram of an array's values, or a pair (counts, edges) with one more edge than counts.

        An array of more than a million values is read at a million evenly spaced places, and the record says so.
        """
        self.guard(None, self._sample, "histogram", name, step, take_histogram, values, bins)

    def log_image(self, name: str, image: Any, caption: str = "", step: int | None = None) -> None:
        """Store an image: an array [height, width(, channels)] or [channels, height, width], a PIL image, a figure.

        Floating point values are brightness from 0 to 1. Above a megapixel, rows and columns are left out.
        """
        self.guard(None, self._sample, "image", name, step, take_image, image, caption)

    def event(self, kind: str, message: str, *, step: int | None = None, **data: Any) -> None:
        """Mark something on the time axis: a checkpoint, a new data stage, a note.

        A kind that TrainVitals gives a meaning of its own, such as `closed`, is stored as `custom/closed`.
        """
        own = f"custom/{kind}" if str(kind) in OUR_KINDS else kind
        self.guard(None, self._event, own, message, self.step if step is None else step, data)

    def describe(self, *, name: str | None = None, config: Any = None, tags: Iterable[str] | None = None,
                 notes: str | None = None, group: str | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Add to the run card, which rank 0 writes, while the run goes on. None changes nothing.

        Settings of the same name are replaced; `summary` are final numbers, such as the best score.
        """
        self.guard(None, self._describe, name, config, tags, notes, group, summary)

    # ---- what loggers have in common --------------------------------------------------------------------------

    def guard(self, collector: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call; what it raises is said once, and None returned."""
        try:
            return call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - do no harm: nothing of ours reaches the script
            name = getattr(call, "__name__", str(call)).strip("_")
            self._warn(f"{name} {type(error).__name__}", f"{name} failed ({error!r:.500})")
            return None

    def tell(self, kind: str, message: str, *, step: int | None = None, **data: Any) -> None:
        """An event of ours: what readers and checks must know about the record."""
        self.guard(None, self._event, kind, message, self.step if step is None else step, data)

    def once(self, kind: str, message: str) -> None:
        """An event and a line of the log, at their first occurrence only."""
        if kind not in self._said:
            self._warn(kind, message.rstrip("."))
            self.tell(kind, message)

    def leave(self) -> None:
        """This logger is closed; ends the writer, or flushes it where another logger of this process has it, too."""
        with contextlib.suppress(ValueError):
            _OPEN.remove(self)
        shared = any(other.writer is self.writer for other in open_loggers())
        self.guard(None, self.writer.flush if shared else self.writer.close)

    def _warn(self, key: str, message: str) -> None:
        """Say something in the log, once by key: a loop has a million steps."""
        if key not in self._said:
            self._said.add(key)
            log.warning("trainvitals: %s. Training goes on.", message)

    def _hand(self, row: Mapping[str, Any], deliver: Callable[[dict[str, Any]], None]) -> None:
        """Call `deliver` with the row once its tensors are on the host."""
        raise NotImplementedError

    def _row_step(self, step: Any) -> Any:
        """The step of a row of numbers; None where it must not be stored."""
        at = whole_step(self.step if step is None else step)
        if at is None:
            return step  # refused by name where it is stored
        if self.began_after is not None and at <= self.began_after:
            self.once("step_behind", f"Step {at:,} is not after {self.began_after:,}, where the run goes on, and what "
                      "is logged at such steps is not stored: it would hide what was recorded from there on. Call "
                      "rewind(step), or give start_step, if the job went back")
            return None
        return at

    def _usable(self, what: str) -> bool:
        if self.writer.closed:
            self._warn(f"{what}_after_close", f"{what} came after the run was closed, and is not stored")
        elif self.process != os.getpid():
            self._warn(f"{what}_in_child", f"{what} came from a child process, and is not stored: the run belongs to "
                       "its parent")
        else:
            return True
        return False

    def _log(self, metrics: Any, step: Any) -> None:
        if not self._usable("a number"):
            return
        own = self._own or self._open_own()
        if not isinstance(metrics, Mapping):
            own.refuse("?", f"log takes a mapping of names to numbers, not {type(metrics).__name__}")
            return
        at = self._row_step(step)
        if at is None:
            return
        row: dict[str, Any] = {}
        later = flatten(metrics, row, own.refuse)
        if later or self._waiting_at == at:
            self._waiting_at = at  # of one name, the value that was given last must come last
            self._hand(row, lambda host: own.log(at, host))
        else:
            own.log(at, row)

    def _open_own(self) -> OwnNumbers:
        with _OWN_LOCK:
            if self.writer.own is None:
                self.writer.own = OwnNumbers(self.writer)
            self._own = own = self.writer.own
            return own

    def _sample(self, kind: str, name: Any, step: Any, take: Callable[..., Taken], value: Any, *args: Any) -> None:
        if not self._usable(f"a {kind}") or not self.writer.disk.samples.room():
            return
        own = self._own or self._open_own()
        if not isinstance(name, str) or not name.strip() or len(name) > NAME_CHARACTERS:
            own.refuse(str(name)[:80] if isinstance(name, str) else "?", f"the name of a {kind} must be a string of 1 "
                       f"to {NAME_CHARACTERS:,} characters")
            return
        at = whole_step(self.step if step is None else step)
        if at is None:
            own.refuse(name, "its step is no whole number below 2**62")
            return

        def keep(host: Mapping[str, Any]) -> None:
            try:
                self.writer.sample(kind, name, take(host["value"], *args), step=at)
            except UsageError as error:
                own.refuse(name, str(error))

        value, device, take = on_host(value, take)
        if device:
            self._hand({"value": value}, keep)
        else:
            keep({"value": value})

    def _event(self, kind: str, message: str, step: int, data: dict[str, Any]) -> None:
        if self._usable("an event"):
            self.writer.event(kind, step=step, message=message, **data)

    def _describe(self, name: str | None, config: Any, tags: Iterable[str] | None, notes: str | None,
                  group: str | None, summary: Mapping[str, Any] | None) -> None:
        hidden = describe(self.card, name=name, config=config, tags=tags, notes=notes, group=group)
        if summary is not None:
            self.card.notes["summary"] = plain_config(summary)[0]
        self._write_card()
        self.say_hidden(hidden)

    def _write_card(self) -> None:
        if self.writer.rank == 0:
            self.guard(None, self.writer.write_card, self.card)

    def say_hidden(self, hidden: list[str]) -> None:
        """An event that names the settings that are not on the card, each once."""
        fresh = [name for name in hidden if name not in self._hidden]
        if fresh and len(self._hidden) < TAGS:
            self._hidden.update(fresh)
            self.tell("config_hidden", f"Settings that look like secrets are not stored: {', '.join(fresh[:20])}",
                      settings=len(fresh))


def describe(card: RunCard, *, name: str | None = None, config: Any = None, tags: Iterable[str] | None = None,
             notes: str | None = None, group: str | None = None) -> list[str]:
    """Write what a user says of a run onto its card; the paths of settings that were hidden.

    Raises:
        UsageError: config, tags, notes, group or name cannot be used.
    """
    settings, hidden = plain_config(config)
    for what, text in (("name", name), ("notes", notes), ("group", group)):
        if text is not None and not isinstance(text, str):
            raise UsageError(f"{what} must be a string, not {type(text).__name__}.")
    if tags is not None and (isinstance(tags, str) or not isinstance(tags, Iterable)):
        raise UsageError(f"tags must be a list of strings, not {tags!r:.80}.")
    words = list(islice(tags or (), TAGS))
    if not all(isinstance(tag, str) for tag in words):
        raise UsageError(f"tags must be a list of strings, not {words!r:.80}.")
    card.config = joined(card.config, settings)
    card.tags = list(dict.fromkeys([*card.tags, *map(plain, words)]))[:TAGS]
    card.name = plain(name) if name else card.name
    card.group = plain(group) if group else card.group
    if notes:
        card.notes["notes"] = notes[:20_000]
    return hidden
