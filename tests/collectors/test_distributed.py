"""Two ranks, each writing its share and never talking about it, read back as the run of a single process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals as tv
from checks.judge import run_checks
from tests.collectors import tiny, two_ranks
from tests.collectors.test_loss import brute_force
from tests.collectors.two_ranks import WAYS

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
                                reason="this torch has no gloo")

COUNTS = ("loss/tokens", "loss/domain_tokens", "router/tokens", "router/domain_tokens", "data/domain_tokens",
          "data/sequences", "data/batch_hash", "tokens/counts")
NUMBERS = ("loss/train", "loss/domain", "grad/norm", "grad/norm_by_layer", "grad/norm_clipped", "lr/used",
           "weight/norm_by_layer", "update/ratio_by_layer", "update/ratio")
TOGETHER = [name for name, way in WAYS.items() if way.wrapper and name not in ("join", "scaler", "flipped")]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained in all ways."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    both = [subprocess.Popen([sys.executable, "-m", "tests.collectors.two_ranks", str(rank), str(folder)],
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in range(2)]
    try:
        said = [rank.communicate(timeout=300)[0] for rank in both]
    finally:
        for rank in both:
            rank.kill()
    assert [rank.returncode for rank in both] == [0, 0], "\n".join(said)
    return folder


@pytest.mark.parametrize("way", TOGETHER)
def test_two_ranks_equal_one_process(ranks: Path, tmp_path: Path, way: str) -> None:
    known: list[tuple[float, int, float]] = []

    def note(batches: list[two_ranks.Batch], model: nn.Module) -> None:
        with torch.no_grad():
            parts = [brute_force(model, {k: v for k, v in batch.items()}) for batch in batches]
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        known.append((sum(p[0].sum() for p in parts), sum(p[1].sum() for p in parts), norm))

    two_ranks.alone(WAYS[way], tmp_path / "single", note)
    single, merged = tv.open_run(tmp_path / "single"), tv.open_run(ranks / way)
    assert merged.card.world_size == 2 and merged.card.params_total == single.card.params_total
    assert "collector_disabled" not in set(merged.events()["kind"])
    for name in COUNTS:
        assert np.array_equal(merged.array(name).values, single.array(name).values), name
    for name in NUMBERS:
        ours, theirs = merged.array(name), single.array(name)
        assert ours.labels == theirs.labels and ours.steps.tolist() == theirs.steps.tolist(), name
        np.testing.assert_allclose(ours.values, theirs.values, rtol=2e-4, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(merged.array("loss/tokens").values, [n for _, n, _ in known])
    np.testing.assert_allclose(merged.array("loss/train").values, [s / n for s, n, _ in known], rtol=2e-4)
    np.testing.assert_allclose(merged.array("grad/norm").values, [norm for *_, norm in known], rtol=2e-4)
    assert merged.array("throughput/step_time_by_rank").values.shape[1] == 2


def test_a_rank_that_ends_before_the_others_is_not_made_up(ranks: Path) -> None:
    run = tv.open_run(ranks / "join")
    loss, norm = run.array("loss/train"), run.array("grad/norm")
    assert loss.steps.tolist() == [1, 2, 3, 4, 5]
    assert loss.partial is not None and loss.partial.tolist() == [False] * 3 + [True] * 2
    assert np.isfinite(norm.values).tolist() == [True] * 3 + [False] * 2
    np.testing.assert_array_equal(run.array("throughput/step_time_by_rank").present[2:], [[False, True]] * 2)


def test_a_step_that_all_ranks_skip(ranks: Path) -> None:
    run = tv.open_run(ranks / "scaler")
    assert run.array("loss/train").steps.tolist() == [1, 2]
    assert run.array("skipped/gradients_by_rank").values.tolist() == [[1, 1]]
    bad = WAYS["scaler"].data()[1][1][0]
    targets = int((bad["labels"][:, 1:] != -100).sum())
    assert run.array("unused/nonfinite_by_rank").values.tolist() == [[0, targets]], "the rank that it came from"
    report = run_checks(run, only=["telemetry.health", "telemetry.ranks", "loss.nonfinite"])
    assert [(f.check, f.level) for f in report.findings] == [
        ("loss.nonfinite", "warn"), ("telemetry.health", "pass"), ("telemetry.ranks", "pass")]


def test_a_step_that_one_rank_skips(ranks: Path) -> None:
    run = tv.open_run(ranks / "alone")
    skips = run.array("skipped/gradients_by_rank")
    assert skips.steps.tolist() == [2]
    np.testing.assert_array_equal(skips.values, [[np.nan, 1]])
    said = run.events().query("kind == 'step_skipped'")
    assert said["rank"].tolist() == [1] and said["step"].tolist() == [1] and "Rank 1" in said["message"].iloc[0]
    findings = run_checks(run, only=["telemetry.ranks"]).findings
    assert {f.level for f in findings} == {"warn"}
    assert any(f.summary.startswith("Rank 1 skipped 1 ") for f in findings)


def test_a_micro_batch_that_one_rank_leaves_out(ranks: Path) -> None:
    run, way = tv.open_run(ranks / "micro-batch left out"), WAYS["micro-batch left out"]
    bad = way.data()[1][1][0]
    targets = int((bad["labels"][:, 1:] != -100).sum())
    assert run.array("unused/tokens").steps.tolist() == [2]
    np.testing.assert_array_equal(run.array("unused/nonfinite_by_rank").values, [[np.nan, targets]])
    assert not run.has("skipped/gradients")


def test_replicas_that_should_be_equal_are_compared_bit_by_bit(ranks: Path) -> None:
    """One bit of one weight, where a norm shows nothing; whoever holds shards makes no claim."""
    for way in ("ddp", "ddp uneven", "ddp accumulated"):
        assert tiny.values(ranks / way, "weight/replicas_differ").shape == (3, 5), way
        assert not tiny.values(ranks / way, "weight/replicas_differ").any(), way
    run = tv.open_run(ranks / "flipped")
    differ, by_rank = run.array("weight/replicas_differ"), run.array("weight/checksum_by_rank").values
    layers = differ.labels[0]
    assert differ.steps.tolist() == [1, 2, 3]
    assert [{layer for layer, n in zip(layers, row, strict=True) if n} for row in differ.values[:2]] == [set(), {"1"}]
    assert by_rank[0, 0] == by_rank[0, 1] and by_rank[1, 0] != by_rank[1, 1]
    assert not tv.open_run(ranks / "fsdp2").has("weight/checksum")
    assert "replicas_unknown" in tiny.event_kinds(ranks / "fsdp2")
    assert "replicas_unknown" not in tiny.event_kinds(ranks / "ddp")
