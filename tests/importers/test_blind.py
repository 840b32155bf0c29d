"""What a log hides turns a pass into unknown, is named once with its remedy, and never hides an alarm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checks import run_checks
from collectors.importers import door
from collectors.importers.csv_table import CsvTable
from collectors.importers.importer import BlindSpot
from collectors.importers.registry import all_importers
from trainvitals.blind import BLINDNESS, Blindness
from trainvitals.store import Run, open_run

NEEDS = {
    "loss.nonfinite": {"nonfinite", "sampled", "last", "rank"},
    "loss.spike": {"nonfinite", "sampled", "last", "averaged", "rounded"},
    "loss.divergence": {"nonfinite"},
    "grad.explosion": {"nonfinite", "sampled", "last", "averaged", "scaled"},
    "grad.vanishing": {"rounded", "scaled"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    rng = np.random.default_rng(0)
    loss = 2 + 3 / np.sqrt(np.arange(1, 801)) + rng.normal(0, 0.01, 800)
    norm = 1 + 0.1 * rng.random(800)

    def write(nan_at: int = 0, every: int = 1) -> Path:
        path = tmp_path_factory.mktemp("log") / "log.csv"
        rows = [f"{i + 1},{'nan' if i + 1 == nan_at else repr(float(loss[i]))},{float(norm[i])!r}"
                for i in range(0, 800, every)]
        path.write_text("step,loss,gn\n" + "\n".join(rows) + "\n")
        return path

    return write


def blinded(log: Path, run: Path, monkeypatch: pytest.MonkeyPatch, *kinds: Blindness) -> Run:
    spots = tuple(BlindSpot(kind, ("loss/", "grad/"), f"It hides what is {kind}", f"Mend {kind}") for kind in kinds)
    monkeypatch.setattr(CsvTable, "blind", spots)
    [session] = door.sessions(log, run=run, maps=["grad/norm=gn"])
    session.look()
    session.close()
    return open_run(run)


def levels(run: Run) -> dict[str, str]:
    return {finding.check: finding.level for finding in run_checks(run).findings}


@pytest.mark.parametrize("kind", ["", *BLINDNESS])
def test_a_pass_that_needs_what_is_hidden_is_unknown(kind: Blindness, log: Callable[..., Path], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    run = blinded(log(), tmp_path / "run", monkeypatch, *([kind] if kind else []))
    found = levels(run)
    assert {check: found[check] for check in NEEDS} == {
        check: "unknown" if kind in needs else "pass" for check, needs in NEEDS.items()}
    [told] = [f for f in run_checks(run, only=["telemetry.blind_spots"]).findings]
    assert told.level == "unknown" and (not kind or (f"what is {kind}" in told.summary and kind in told.what_to_do))


def test_an_alarm_stays_an_alarm(log: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = blinded(log(nan_at=500), tmp_path / "run", monkeypatch, "nonfinite", "sampled")
    assert levels(run)["loss.nonfinite"] == "fail"


def test_rows_sparser_than_steps_are_a_blind_spot_of_any_log(log: Callable[..., Path], tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    run = blinded(log(every=4), tmp_path / "run", monkeypatch)
    assert levels(run)["loss.spike"] == "unknown"
    assert "fewer rows of loss/train than steps" in run_checks(run).findings[0].what_it_means or any(
        "fewer rows of loss/train" in f.what_it_means for f in run_checks(run).findings)


def test_a_norm_that_is_not_known_to_be_unclipped_is_said(log: Callable[..., Path], tmp_path: Path) -> None:
    path = log()
    path.write_text(path.read_text().replace("gn", "grad_norm"))
    [session] = door.sessions(path, run=tmp_path / "run")
    session.look()
    session.close()
    assert {spot.kind for spot in session.about.blind} >= {"scaled"}
    assert levels(open_run(tmp_path / "run"))["grad.explosion"] == "unknown"


def test_a_run_of_our_own_hides_nothing_behind_a_format(tmp_path: Path) -> None:
    from tests.checks.synthetic import Synthetic

    run = Synthetic(n=120).write(tmp_path / "run")
    [told] = run_checks(run, only=["telemetry.blind_spots"]).findings
    assert run.imported is None and told.level == "pass"


def test_every_importer_says_what_it_hides_and_how_to_see_it() -> None:
    for importer in all_importers():
        assert importer.title and importer.blind, importer.format
        for spot in importer.blind:
            assert spot.kind in BLINDNESS and spot.signals and spot.says and spot.remedy, importer.format
