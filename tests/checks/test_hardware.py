"""Faults of one rank or of the number format: found with their rank, layer and step, and not cried of healthy runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checks import Finding, run_checks
from checks.optimisation.replicas import odd_ones
from checks.optimisation.skipped import _clusters, needed
from trainvitals.card import RunCard
from trainvitals.store import Run, RunWriter, open_run

Fill = Callable[[int, int, dict[str, dict[str, object]]], None]
LAYERS = ["embed", "layers.0", "layers.1", "head"]


def write(path: Path, n: int, ranks: int, fill: Fill, precision: str = "bf16") -> Run:
    """`fill(rank, step, frames)` changes the rows of a step: frame -> values."""
    for rank in range(ranks):
        writer = RunWriter(path, rank=rank, world_size=ranks, when_full="wait", flush_seconds=60)
        if rank == 0:
            writer.write_card(RunCard(name="hardware", precision=precision, world_size=ranks))
        frames = {
            "loss": writer.frame("loss", ["loss/sum", "loss/tokens", "loss/nonfinite_tokens"]),
            "grad": writer.frame("grad", ["grad/sumsq", "grad/nonfinite"]),
            "skipped": writer.frame("skipped", ["skipped/gradients", "skipped/nonfinite"]),
            "scaler": writer.frame("scaler", ["grad/loss_scale"]),
            "replicas": writer.frame(
                "replicas", ["weight/checksum", "weight/checksum_min", "weight/checksum_max"], labels={"layer": LAYERS}
            ),
        }
        for step in range(1, n + 1):
            rows: dict[str, dict[str, object]] = {
                "loss": {"loss/sum": 20.0 + 0.1 * (step % 7), "loss/tokens": 10, "loss/nonfinite_tokens": 0},
                "grad": {"grad/sumsq": 1.0 + 0.1 * (step % 5), "grad/nonfinite": 0},
            }
            fill(rank, step, rows)
            for name, values in rows.items():
                frames[name].append(step, values)
        writer.close()
    return open_run(path)


def said(run: Run, check: str) -> Finding:
    (finding,) = run_checks(run, [check]).findings
    return finding


def sums(step: int, wrong: dict[int, int]) -> dict[str, object]:
    """Checksums of all layers at a step; `wrong`: layer -> what is added."""
    layers = np.array([(1000 * step + 7 * i + wrong.get(i, 0)) % 2**32 for i in range(len(LAYERS))], float)
    whole = float(layers.sum() % 2**32)
    return {"weight/checksum": whole, "weight/checksum_min": layers, "weight/checksum_max": layers}


def checked(odd: int | None, at: int, ranks: int, layer: int = 1) -> Fill:
    def fill(rank: int, step: int, rows: dict[str, dict[str, object]]) -> None:
        if step == 1 or step % 50 == 0:
            rows["replicas"] = sums(step, {layer: 1} if rank == odd and step >= at else {})

    return fill


@pytest.mark.parametrize("odd", [0, 2, 3])
def test_of_several_replicas_the_odd_one_is_named(tmp_path: Path, odd: int) -> None:
    found = said(write(tmp_path, 400, 4, checked(odd, 160, 4)), "weights.replicas")
    assert found.level == "fail" and found.steps == (200, 400) and found.ongoing and found.onset == (151, 200)
    assert f"rank {odd} differs from the 3 others, first in layers.0" in found.summary
    assert {e.label for e in found.evidence} == {"layers.0", str(odd)}


def test_of_two_replicas_either_may_be_wrong(tmp_path: Path) -> None:
    found = said(write(tmp_path, 200, 2, checked(1, 100, 2, layer=3)), "weights.replicas")
    assert found.level == "fail" and "either may be the wrong one" in found.summary and "head" in found.summary
    assert found.steps is not None and found.steps[0] == 100


def test_replicas_that_keep_together_pass_and_shards_are_unknown(tmp_path: Path) -> None:
    found = said(write(tmp_path / "same", 200, 3, checked(None, 0, 3)), "weights.replicas")
    assert found.level == "pass" and "at each of 5 comparisons, steps 1 to 200" in found.summary
    run = write(tmp_path / "shards", 50, 2, lambda *_: None)
    assert said(run, "weights.replicas").level == "unknown"


def test_the_odd_one_out_needs_a_majority() -> None:
    nan = float("nan")
    assert odd_ones(np.array([5.0, 5, 6, 5])) == [2] and odd_ones(np.array([5.0, 6])) == []
    assert odd_ones(np.array([5.0, 5, 6, 6])) == [] and odd_ones(np.array([5.0, 5, 6, nan, 7])) == []
    assert odd_ones(np.array([5.0, 5, 5, 6, 7])) == [3, 4]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_nan_of_one_rank_is_that_ranks(tmp_path: Path, rank: int) -> None:
    def fill(r: int, step: int, rows: dict[str, dict[str, object]]) -> None:
        if step >= 120 and (r == rank or step > 130):
            rows["loss"]["loss/nonfinite_tokens"] = 3
        if step >= 120:  # averaged over the ranks
            rows["grad"] = {"grad/sumsq": np.nan, "grad/nonfinite": 4}

    found = said(write(tmp_path, 200, 3, fill), "loss.nonfinite")
    assert found.level == "fail" and found.steps is not None and found.steps[0] == 120
    assert f"It began on rank {rank} alone, on others from step 131 on" in found.summary
    assert found.details["rank"] == str(rank)


def test_a_nan_of_all_ranks_at_once_names_none(tmp_path: Path) -> None:
    def fill(r: int, step: int, rows: dict[str, dict[str, object]]) -> None:
        if step >= 120:
            rows["grad"] = {"grad/sumsq": np.nan, "grad/nonfinite": 4}

    assert "cannot be told" in said(write(tmp_path, 200, 2, fill), "loss.nonfinite").summary


def skips(at: dict[int, int], of: tuple[int, ...] = (0, 1)) -> Fill:
    def fill(rank: int, step: int, rows: dict[str, dict[str, object]]) -> None:
        if step in at and rank in of:
            rows["skipped"] = {"skipped/gradients": at[step], "skipped/nonfinite": 2}

    return fill


@pytest.mark.parametrize(
    ("at", "level", "steps"),
    [
        ({300: 1, 310: 1, 320: 1}, "warn", (300, 320)),
        ({400: 12}, "fail", (400, 400)),
        ({s: 2 for s in range(200, 220)}, "fail", (200, 219)),
        ({}, "pass", None),
        ({100: 1, 180: 1, 260: 1, 340: 1}, "pass", None),  # one in 80: told, and below three in 50
        ({1: 14}, "pass", None),  # the scaler's search
    ],
)
def test_skipped_steps(tmp_path: Path, at: dict[int, int], level: str, steps: tuple[int, int] | None) -> None:
    found = said(write(tmp_path, 450, 2, skips(at)), "grad.skipped")
    assert (found.level, found.steps) == (level, steps), found.summary


def test_skips_of_one_rank_are_that_ranks(tmp_path: Path) -> None:
    found = said(write(tmp_path, 300, 2, skips({100: 1, 101: 1, 102: 1}, of=(1,))), "grad.skipped")
    assert found.level == "warn" and "on rank 1 alone" in found.summary


@pytest.mark.parametrize("window", [50, 51, 100, 200, 1000, 20_000, 99_000])
def test_a_longer_window_needs_as_rare_a_count(window: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    n, rare = needed(window, 3, 50), stats.poisson.sf(2, 0.05)
    assert stats.poisson.sf(n - 1, window / 1000) <= rare < stats.poisson.sf(n - 2, window / 1000)


def test_healthy_scalers_rarely_warn(tmp_path: Path) -> None:
    """At one skip in 2,000 steps, as a scaler at its best scale makes: at most one of 40 runs of 20,000 steps warns."""
    warned = 0
    for seed in range(40):
        at = np.flatnonzero(np.random.default_rng(seed).random(20_000) < 1 / 2000)
        warned += bool(list(_clusters(at, np.ones(len(at)), 3, 50)))
    assert warned <= 1


def scaled(scale: Callable[[int], float]) -> Fill:
    def fill(rank: int, step: int, rows: dict[str, dict[str, object]]) -> None:
        rows["scaler"] = {"grad/loss_scale": scale(step)}

    return fill


def test_a_loss_scale_that_collapses(tmp_path: Path) -> None:
    fall = scaled(lambda step: 2.0 ** max(-2, 16 - max(0, step - 200) // 3))
    found = said(write(tmp_path / "fall", 300, 1, fall, "fp16"), "grad.loss_scale")
    assert found.level == "fail" and found.ongoing and found.steps == (203, 300)
    dip = scaled(lambda step: 2.0 ** (16 - (6 if 200 <= step < 210 else 0)))
    found = said(write(tmp_path / "dip", 300, 1, dip, "fp16"), "grad.loss_scale")
    assert found.level == "warn" and found.steps == (200, 209)


def test_a_loss_scale_in_its_sawtooth(tmp_path: Path) -> None:
    found = said(write(tmp_path, 300, 1, scaled(lambda s: 2.0 ** (10 + s % 3 if s > 8 else 17 - s)), "fp16"),
                 "grad.loss_scale")
    assert found.level == "pass" and "between 1024 and 4096" in found.summary
