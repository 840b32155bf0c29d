"""Every format: a clean log comes in bit by bit, and a damaged one costs no crash and no wrong row without a word."""

import importlib
import pkgutil
import struct
from pathlib import Path
from types import ModuleType

import pytest

from collectors.importers.door import sessions
from tests.importers import samples
from trainvitals.store import Run
from trainvitals.store.reader import open_run

SAMPLES = {
    module.FORMAT: module
    for name in sorted(file.name for file in pkgutil.iter_modules(samples.__path__))
    for module in [importlib.import_module(f"{samples.__name__}.{name}")]
}
every_format = pytest.mark.parametrize("sample", list(SAMPLES.values()), ids=list(SAMPLES))


def imported(path: Path, run: Path, **how: object) -> Run:
    [session] = sessions(path, run=run, **how)  # type: ignore[arg-type]
    session.look()
    session.close()
    return open_run(session.folder)


def rows(run: Run, name: str) -> dict[int, float]:
    series = run.array(name)
    values = series.values.reshape(len(series), -1)[:, 0]
    keep = [True] * len(series) if series.present is None else series.present.reshape(len(series), -1)[:, 0]
    return {int(step): float(value) for step, value, has in zip(series.steps, values, keep, strict=True) if has}


def bits(found: dict[int, float]) -> dict[int, bytes]:
    return {step: b"nan" if value != value else struct.pack("<d", value) for step, value in found.items()}


@every_format
def test_rows_are_the_logs_bit_by_bit(sample: ModuleType, tmp_path: Path) -> None:
    run = imported(sample.write(tmp_path / "log"), tmp_path / "run")
    assert run.imported is not None and run.imported.format == sample.FORMAT
    for name, expected in sample.ROWS.items():
        assert bits(rows(run, name)) == bits(expected), name
    assert {spot.kind for spot in run.imported.blind} >= sample.BLIND


@every_format
def test_a_second_look_changes_nothing(sample: ModuleType, tmp_path: Path) -> None:
    path = sample.write(tmp_path / "log")
    before = imported(path, tmp_path / "run").version
    run = imported(path, tmp_path / "run")
    assert run.version == before and len(run.attempts) == len({a.start_step for a in run.attempts})
