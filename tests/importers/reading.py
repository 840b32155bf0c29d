"""What an importer yields, laid out so that a test can compare it."""

import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from collectors.importers.importer import Importer, Item, Resumed, Rows, RunOf
from trainvitals.errors import UsageError
from trainvitals.formulas import given

Points = dict[str, list[tuple[int, bytes]]]


def bits(value: float) -> bytes:
    """A number bit by bit; every NaN is one."""
    return b"nan" if value != value else struct.pack("<d", value)


def points(items: Iterable[Item], *, lines: bool = False) -> Points:
    """Name -> (step, value bit by bit), in the order of the log; with `lines`, of what a resume left behind none."""
    found: Points = {}
    for item in items:
        if isinstance(item, Rows):
            for name, values in item.columns.items():
                assert len(values) == len(item.steps) == len(item.times)
                there = given(values)
                found.setdefault(name, []).extend(
                    (step, bits(value)) for step, value in zip(item.steps[there].tolist(), values[there].tolist(),
                                                               strict=True))
        elif lines and isinstance(item, Resumed):
            found = {name: [point for point in row if point[0] <= item.step] for name, row in found.items()}
    return {name: row for name, row in found.items() if row}


def read(importer: Importer, path: Path) -> list[Item]:
    """Everything of the one run at a path."""
    [run] = importer.runs(path)
    return list(importer.read(run, {}))


def damages(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Copies of a file that were cut (the first byte that differs is the end) or have a bit flipped."""
    draw = random.Random(seed)
    for turn in range(count):
        at = draw.randrange(len(data))
        if turn % 2:
            yield at, data[:at]
        else:
            flipped = bytearray(data)
            flipped[at] ^= 1 << draw.randrange(8)
            yield at, bytes(flipped)


def survives(importer: Importer, path: Path, data: bytes, count: int) -> None:
    """Damaged copies of the file at `path` give some of its rows and no others, and say so where some are missing.

    What a file that was cut lacks is what a job that still writes lacks, so that a cut needs no word. What was measured
    of the machine has no step of its own, and goes to the next row that is left.
    """
    whole = {name: set(row) for name, row in points(read(importer, path)).items()}
    silent = []
    for at, copy in damages(data, count):
        path.write_bytes(copy)
        try:
            items = read(importer, path)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            continue
        found = points(items)
        for name, row in found.items():
            if name.startswith("system/"):
                continue
            assert set(row) <= whole.get(name, set()), (at, name)
        missing = sum(map(len, whole.values())) - sum(map(len, found.values()))
        if missing and len(copy) == len(data) and not any(getattr(item, "hides", False) for item in items):
            silent.append(at)
    assert not silent


def state_of(importer: Importer, run: RunOf, state: dict[str, Any]) -> list[Item]:
    """One look."""
    return list(importer.read(run, state))
