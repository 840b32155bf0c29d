"""A check finds each fault of its cases file at the step it was planted at, and passes its controls."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from checks import Finding, all_checks, run_checks
from tests.checks import cases
from tests.checks.synthetic import Synthetic

AT = 226
Plant = Callable[[Synthetic, int], None]


def _files() -> Iterator[tuple[ModuleType, str]]:
    """Each cases file with the name of its check; a file is called after the module of the check."""
    by_module = {c.function.__module__: c.name for c in all_checks()}
    for file in pkgutil.iter_modules(cases.__path__):
        module = f"checks.{file.name.replace('_', '.', 1)}"
        assert module in by_module, f"tests/checks/cases/{file.name}.py belongs to no check: {module} registers none."
        yield importlib.import_module(f"{cases.__name__}.{file.name}"), by_module[module]


def _planted(kind: str) -> list[object]:
    """(cases file, check, plant) for each function of a kind."""
    found: list[object] = []
    for file, check in _files():
        plants = {name: f for name, f in vars(file).items() if name.startswith(kind)}
        assert plants, f"{file.__name__} has no {kind}... function: a check needs a fault and a control."
        found += [pytest.param(file, check, f, id=f"{check}-{name}") for name, f in plants.items()]
    return found


def _judged(file: ModuleType, check: str, plant: Plant, path: Path) -> tuple[Finding, ...]:
    s = Synthetic(**{"n": 400, "seed": 5} | getattr(file, "RUN", {}))
    plant(s, AT)
    return run_checks(s.write(path), only=[check]).findings


@pytest.mark.parametrize(("file", "check", "plant"), _planted("fault_"))
def test_fault(file: ModuleType, check: str, plant: Plant, tmp_path: Path) -> None:
    first = min(_judged(file, check, plant, tmp_path), key=lambda f: f.steps or (0, 0))
    assert first.level in ("warn", "fail") and first.steps is not None, first.summary
    assert abs(first.steps[0] - AT) <= getattr(file, "ONSET_ERROR_STEPS", 0), first.summary


@pytest.mark.parametrize(("file", "check", "plant"), _planted("control_"))
def test_control(file: ModuleType, check: str, plant: Plant, tmp_path: Path) -> None:
    found = _judged(file, check, plant, tmp_path)
    assert {f.level for f in found} == {"pass"}, [f.summary for f in found]
