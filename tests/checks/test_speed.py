"""Speed against the run's own wander: a busy machine is no fault, a lasting drop is one; who cannot be told is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checks import Finding, run_checks
from tests.checks.synthetic import Synthetic
from trainvitals.store import RunWriter, open_run


def said(path: Path, check: str) -> tuple[Finding, ...]:
    return run_checks(open_run(path), [check]).findings


def write(path: Path, times: np.ndarray, waits: np.ndarray | None = None, spacing: int = 1) -> None:
    """times, waits: seconds [n] or [n, ranks]."""
    times = times.reshape(len(times), -1)
    waits = np.full(times.shape, 0.001) if waits is None else waits.reshape(times.shape)
    for rank in range(times.shape[1]):
        writer = RunWriter(path, rank=rank, world_size=times.shape[1], when_full="wait", flush_seconds=60)
        frame = writer.frame("throughput", ["throughput/step_time", "throughput/data_wait", "throughput/tokens"])
        for i in range(len(times)):
            frame.append((i + 1) * spacing, {"throughput/step_time": times[i, rank],
                                             "throughput/data_wait": waits[i, rank], "throughput/tokens": 1000})
        writer.close()


def busy(seed: int, n: int = 600) -> np.ndarray:
    """Step times on a machine that others use: stretches of 5 to 60 rows in which half of the steps take longer."""
    rng = np.random.default_rng(seed)
    times = 0.05 * np.exp(0.1 * rng.standard_normal(n))
    at = 0
    while at < n:
        length = int(rng.integers(5, 60))
        if rng.random() < 0.5:
            hit = rng.random(length) < 0.7
            part = times[at : at + length]
            part[hit[: len(part)]] *= rng.uniform(1.3, 4)
        at += length
    return times


def test_a_busy_machine_fails_no_run(tmp_path: Path) -> None:
    warned = 0
    for seed in range(12):
        write(tmp_path / str(seed), busy(seed), 0.15 * busy(seed))
        found = [f for f in run_checks(open_run(tmp_path / str(seed)), ["throughput"]).findings]
        assert all(f.level != "fail" for f in found), [f.summary for f in found]
        warned += sum(f.level == "warn" for f in found)
    assert warned <= 2


@pytest.mark.parametrize("spacing", [1, 100])
@pytest.mark.parametrize(("factor", "level"), [(1.5, "warn"), (2.3, "fail")])
def test_a_lasting_drop_is_found(tmp_path: Path, factor: float, level: str, spacing: int) -> None:
    rng = np.random.default_rng(1)
    times = 0.5 * np.exp(0.05 * rng.standard_normal(500))
    times[300:] *= factor
    write(tmp_path, times, spacing=spacing)
    (found,) = said(tmp_path, "throughput.drop")
    assert found.level == level and found.ongoing and found.steps == (301 * spacing, 500 * spacing)


def test_a_spell_of_a_hundred_rows_is_told_before_it_fails(tmp_path: Path) -> None:
    times = np.full(400, 0.5)
    times[300:360] *= 5
    write(tmp_path, times)
    (found,) = said(tmp_path, "throughput.drop")
    assert found.level == "warn" and not found.ongoing


def test_milliseconds_of_the_loops_own_work_are_no_loader(tmp_path: Path) -> None:
    write(tmp_path / "own", np.full(300, 0.03), np.full(300, 0.005))
    (found,) = said(tmp_path / "own", "throughput.data_wait")
    assert found.level == "pass" and "17 %" in found.summary and "own work" in found.summary
    grown = np.full(300, 0.002)
    grown[150:] = 0.012
    write(tmp_path / "grown", np.full(300, 0.03), grown)
    assert [f.level for f in said(tmp_path / "grown", "throughput.data_wait")] == ["fail"]
    write(tmp_path / "slow", np.full(300, 1.0), np.full(300, 0.2))
    assert [f.level for f in said(tmp_path / "slow", "throughput.data_wait")] == ["warn"]


def test_ranks_that_meet_hide_who_is_slow(tmp_path: Path) -> None:
    """Equal step times prove nothing of who computes slowly: unknown, in rows of any spread."""
    rng = np.random.default_rng(2)
    together = 0.1 * np.exp(0.2 * rng.standard_normal((300, 1))) * np.exp(0.001 * rng.standard_normal((300, 2)))
    write(tmp_path, together)
    (found,) = said(tmp_path, "throughput.straggler")
    assert found.level == "unknown" and "do not tell who is slow" in found.summary


def test_a_rank_that_lags_is_named(tmp_path: Path) -> None:
    s = Synthetic(n=300, ranks=3, seed=4)
    s.rank_slow[150:, 2] = 1.8
    s.write(tmp_path)
    (found,) = said(tmp_path, "throughput.straggler")
    assert found.level in ("warn", "fail") and "Rank 2 holds up the others since step 151" in found.summary
