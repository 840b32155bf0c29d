"""Every format: a clean log comes in bit by bit, and a damaged one costs no crash and no wrong row without a word."""

import importlib
import os
import pkgutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from collectors.importers.door import formats, sessions
from tests.importers import samples
from tests.test_cli import call
from trainvitals.errors import TrainVitalsError
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


def test_every_format_has_a_sample() -> None:
    assert set(SAMPLES) == set(formats())


@every_format
def test_check_judges_it_and_says_what_it_is(sample: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "check", str(sample.write(tmp_path / "log")))
    assert code in (0, 1, 2, 3) and formats()[sample.FORMAT].title in err and "telemetry.blind_spots" in out


FLIPS, CUTS = 100, 25


def damaged(sample: ModuleType, folder: Path) -> Iterator[tuple[str, Path]]:
    """The sample with its largest file cut or with one bit flipped, case by case in one place."""
    path = sample.write(folder)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    file = max(files, key=lambda file: file.stat().st_size)
    whole, random = file.read_bytes(), np.random.default_rng(0)
    for cut in np.linspace(0, len(whole) - 1, CUTS).astype(int):
        file.write_bytes(whole[:cut])
        yield f"cut at {cut}", path
    for at, bit in zip(random.integers(0, len(whole), FLIPS), random.integers(0, 8, FLIPS), strict=True):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        yield f"bit {bit} of byte {at}", path


@every_format
def test_damage_costs_one_sentence_and_no_wrong_row_without_a_word(sample: ModuleType, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """A text or a Parquet file has no checksum, so that a flipped digit is a number like any other: there a cut must
    show nothing that was not in the log, and a flip must cost no crash. `CHECKED` formats show no wrong row at all.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of run folders, none of which outlives the test
    wrong = []
    for i, (case, path) in enumerate(damaged(sample, tmp_path / "log")):
        try:
            runs = all_imported(path, tmp_path / f"run-{i}", sample.FORMAT)
        except TrainVitalsError as error:
            assert "\n" not in str(error) and len(str(error)) < 2_000, case
            continue
        if case.startswith("bit") and not getattr(sample, "CHECKED", False):
            continue
        wrong += [(case, name) for run in runs if not told(run) for name, expected in sample.ROWS.items()
                  if run.has(name) and not bits(rows(run, name)).items() <= bits(expected).items()]
    assert not wrong


def all_imported(path: Path, folder: Path, format: str) -> list[Run]:
    """The runs of a damaged log: one whose name was hit is another run."""
    found = sessions(path, run=folder, format=format)
    for session in found:
        session.look()
        session.close()
    return [open_run(session.folder) for session in found]


def told(run: Run) -> list[str]:
    """What a run says of its import."""
    said = [*run.problems(), *run.events()["message"], *(run.imported.notes if run.imported else ())]
    return [text for text in said if not text.startswith("rank 0 of 1")]
