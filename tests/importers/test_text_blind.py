"""Planted blind spots: what a text log hides is named, and no check passes on it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from checks.judge import run_checks
from collectors.importers.door import sessions
from tests.importers.printing import PRINTERS
from tests.importers.test_text_quirks import without
from trainvitals.store import Run
from trainvitals.store.reader import open_run

PLANTED = [
    ("levanter", 10, "sampled", "loss.spike"), ("megatron", 10, "averaged", "loss.spike"),
    ("megatron", 10, "last", "grad.explosion"), ("hf-output", 1, "nonfinite", "loss.nonfinite"),
    ("hf-output", 5, "averaged", "loss.spike"), ("llama-factory", 1, "nonfinite", "loss.nonfinite"),
    ("llama-factory", 1, "absent", "grad.explosion"), ("nanogpt", 1, "rank", "loss.nonfinite"),
    ("nanogpt", 10, "sampled", "loss.spike"), ("nanogpt", 1, "absent", "grad.explosion"),
    ("modded-nanogpt", 1, "rank", "loss.nonfinite"), ("nanochat", 1, "averaged", "loss.spike"),
    ("torchtitan", 10, "sampled", "loss.spike"), ("torchtitan", 1, "absent", "throughput.drop"),
    ("nemo", 1, "rounded", "loss.spike"), ("nemo", 1, "absent", "grad.explosion"),
    ("deepspeed", 1, "absent", "loss.nonfinite"), ("composer", 1, "rank", "loss.nonfinite"),
    ("printed", 1, "scaled", "grad.explosion"), ("olmo-core", 10, "sampled", "loss.spike"),
]


def imported(name: str, every: int, folder: Path, rows: int = 150) -> Run:
    """A healthy log with a row every so many steps, in a run folder."""
    draw, path = random.Random(7), folder / "job.out"
    with path.open("w", newline="") as file:
        for i in range(1, rows + 1):
            loss, norm = 2.5 + 2 / i + draw.gauss(0, 0.02), 1 + draw.gauss(0, 0.05)
            file.write(PRINTERS[name](i * every, loss, norm, 1e-4)[0] + "\n")
    [session] = sessions(path, run=folder / "run")
    session.look()
    session.close()
    return open_run(folder / "run")


def levels(run: Run, check: str) -> set[str]:
    return {finding.level for finding in run_checks(run, only=(check,)).findings}


@pytest.mark.parametrize(("name", "every", "kind", "check"), PLANTED)
def test_what_is_hidden_is_named_and_nothing_passes_on_it(name: str, every: int, kind: str, check: str,
                                                          tmp_path: Path) -> None:
    run = imported(name, every, tmp_path)
    assert run.imported is not None and kind in {spot.kind for spot in run.imported.blind}
    assert "pass" not in levels(run, check)


def test_a_log_that_hides_nothing_of_it_can_pass(tmp_path: Path) -> None:
    run = imported("llmc", 1, tmp_path)
    assert levels(run, "loss.spike") == levels(run, "loss.nonfinite") == {"pass"}


def test_the_nan_that_megatron_leaves_out_fails(tmp_path: Path) -> None:
    path = tmp_path / "job.out"
    text = [PRINTERS["megatron"](i, 2.5, 1.0, 1e-4)[0] for i in range(1, 60)]
    path.write_text("\n".join([*text[:40], *(without(line, "lm loss") for line in text[40:])]) + "\n")
    [session] = sessions(path, run=tmp_path / "run")
    session.look()
    session.close()
    assert levels(open_run(tmp_path / "run"), "loss.nonfinite") == {"fail"}
