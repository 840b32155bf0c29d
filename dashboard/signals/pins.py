"""Views that a team keeps: a small file beside the runs, `pins.json`, read and written by every viewer's board.

    {"pins": [{"name": "gap", "signals": ["{loss/val} - {loss/train}"], "one": false}]}

A board that may not write there says so; the view's address can always be shared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.store.folder import open_folder
from trainvitals.untrusted import parse_json

FILE = "pins.json"
MOST_PINS, MOST_SIGNALS, MOST_NAME, MOST_BYTES = 200, 50, 80, 1 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """A view by name: what it shows, and whether in one chart."""

    name: str
    signals: tuple[str, ...]
    one: bool = False


def read_pins(folder: str) -> list[Pin]:
    """The pins beside the runs; none where the file does not exist.

    Raises:
        UsageError: the file is damaged, or no file of pins.
    """
    try:
        data = open_folder(folder).read(FILE, 0, MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except (OSError, TrainVitalsError) as error:
        raise UsageError(f"{FILE} beside the runs cannot be read: {error}.") from error
    try:
        return [_pin(entry) for entry in parse_json(data, MOST_BYTES)["pins"]][:MOST_PINS]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{FILE} beside the runs holds no pins. Move it away or restore it.") from error


def _pin(entry: dict[str, object]) -> Pin:
    name, signals, one = entry["name"], entry["signals"], entry.get("one", False)
    if not isinstance(name, str) or not isinstance(signals, list) or not all(isinstance(s, str) for s in signals):
        raise ValueError("a pin has a name and signals")
    return Pin(name[:MOST_NAME], tuple(signals[:MOST_SIGNALS]), bool(one))


def keep(folder: str, pin: Pin) -> None:
    """Add a pin, or replace the one of its name.

    Raises:
        UsageError: it has no name or no signal, there are too many, or the folder cannot be written.
    """
    if not pin.name.strip() or not pin.signals:
        raise UsageError("A pinned view needs a name and at least one signal.")
    others = [p for p in read_pins(folder) if p.name != pin.name]
    if len(others) >= MOST_PINS:
        raise UsageError(f"There are {len(others)} pinned views already; remove one first.")
    _write(folder, [*others, pin])


def remove(folder: str, name: str) -> None:
    """Take a pin away; one that is gone already is no error.

    Raises:
        UsageError: the folder cannot be written.
    """
    _write(folder, [p for p in read_pins(folder) if p.name != name])


def _write(folder: str, pins: Sequence[Pin]) -> None:
    # Read again and replaced whole: of two viewers who pin in the same instant one may have to do it again.
    try:
        open_folder(folder).replace(FILE, json.dumps({"pins": [asdict(p) for p in pins]}, indent=1).encode())
    except (OSError, TrainVitalsError) as error:
        raise UsageError(f"{FILE} cannot be written beside the runs: {error}. The view's address can be shared "
                         "instead.") from error
