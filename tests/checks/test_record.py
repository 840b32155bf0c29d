"""What is said of the record itself: holes, repeats, ranks, damage; found where they are, and not cried of nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import Finding, run_checks
from checks.telemetry.holes import _holes
from trainvitals.store import Run, RunWriter, open_run


def write(path: Path, *stretches: Iterable[int], rank: int = 0, world: int = 1, start: int = 0, norm: float = 1.0
          ) -> Run:
    """One writer's rows of a loss and a gradient, all its stretches of steps one behind the other."""
    writer = RunWriter(path, rank=rank, world_size=world, start_step=start, when_full="wait", flush_seconds=60)
    loss = writer.frame("loss", ["loss/sum", "loss/tokens"])
    grad = writer.frame("grad", ["grad/sumsq", "grad/nonfinite"])
    for stretch in stretches:
        for step in stretch:
            loss.append(step, {"loss/sum": 20.0 + step % 7 / 100, "loss/tokens": 10})
            grad.append(step, {"grad/sumsq": norm**2, "grad/nonfinite": 0})
        writer.flush()  # each stretch is a segment's own rows, or a later part of them
    writer.close()
    return open_run(path)


def said(run: Run, check: str) -> Finding:
    (finding,) = run_checks(run, [f"telemetry.{check}"]).findings
    return finding


@pytest.mark.parametrize("spacing", [1, 7, 100])
def test_rows_that_one_rank_writes_twice_count_once(tmp_path: Path, spacing: int) -> None:
    """A loop that starts again at an earlier step without a word: in one segment, and over several."""
    once = np.arange(1, 61) * spacing
    run = write(tmp_path, once[:50], once[39:], norm=2.0)
    norms = run.array("grad/norm")
    assert norms.steps.tolist() == once.tolist() and set(norms.values) == {2.0}
    assert run.array("loss/tokens").values.tolist() == [10.0] * 60
    found = said(run, "repeats")
    first, last = int(once[39]), int(once[49])
    assert found.level == "warn" and found.steps == (first, last)
    assert f"Steps {first:,} to {last:,} were written twice by rank 0; the last row" in found.summary
    assert found.statistic is not None and found.statistic.value == 11
    assert not [f for f in run_checks(run, ["optimisation", "loss"]).findings if f.level == "fail"]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 3), st.data())
@settings(max_examples=25, deadline=None)
def test_any_order_and_any_segments_give_the_last_row_of_each_rank(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], ranks: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("any")
    writers = [RunWriter(path, rank=r, world_size=ranks, when_full="wait", flush_seconds=60) for r in range(ranks)]
    last: dict[int, dict[int, float]] = {r: {} for r in range(ranks)}
    for r, writer in enumerate(writers):
        frame = writer.frame("grad", ["grad/sumsq"])
        for i, step in enumerate(data.draw(st.permutations(steps))):
            last[r][step] = float(i + 1)
            frame.append(step, {"grad/sumsq": float(i + 1)})
            if data.draw(st.integers(0, 9)) == 0:
                writer.flush()
        writer.close()
    run = open_run(path)
    got = run.array("grad/sumsq")
    want = {step: sum(last[r][step] for r in range(ranks)) for step in sorted(set(steps))}
    assert dict(zip(got.steps.tolist(), got.values.tolist(), strict=True)) == want
    twice = {step for step in steps if steps.count(step) > 1}
    assert {s for one in run.logged() for some in one.repeats.values() for s in some.tolist()} == twice


def test_two_passes_of_an_evaluation_at_one_step_are_no_repeat(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    frame = writer.frame("eval", ["loss/val_sum", "loss/val_tokens"])
    for total in (10.0, 30.0):
        frame.append(100, {"loss/val_sum": total, "loss/val_tokens": 10})
    writer.close()
    run = open_run(tmp_path)
    assert run.array("loss/val").values.tolist() == [2.0] and not run.logged()[0].repeats


def test_a_rollback_by_its_word_is_no_repeat_and_what_it_left_is_told(tmp_path: Path) -> None:
    write(tmp_path, range(1, 101))
    run = write(tmp_path, range(51, 151), start=50)
    found = said(run, "repeats")
    assert found.level == "pass" and "1 attempt that was left" in found.summary and "steps 51 to 100" in found.summary
    assert said(run, "holes").level == "pass"


def test_two_jobs_of_one_rank_at_once_are_both_told(tmp_path: Path) -> None:
    one, other = (RunWriter(tmp_path, when_full="wait", flush_seconds=60) for _ in range(2))
    frames = [w.frame("grad", ["grad/sumsq"]) for w in (one, other)]
    for step in range(1, 61):
        for frame, value in zip(frames, (1.0, 4.0), strict=True):
            frame.append(step, {"grad/sumsq": value})
        if step in (30, 60):
            one.flush(), other.flush()  # noqa: B018
    one.close(), other.close()  # noqa: B018
    run = open_run(tmp_path)
    assert set(run.array("grad/norm").values) < {1.0, 2.0}, "one of the two, and never both"
    found = said(run, "repeats")
    assert found.level == "fail" and "Two jobs wrote rank 0 at once" in found.summary
    assert all("whole" not in f.summary for f in run_checks(run, ["telemetry"]).findings)


@pytest.mark.parametrize("spacing", [1, 10, 100])
@pytest.mark.parametrize("rows", [5, 40, 400])
def test_a_hole_in_a_regular_record_is_named(tmp_path: Path, spacing: int, rows: int) -> None:
    steps = spacing * np.array([*range(1, 301), *range(301 + rows, 601 + rows)])
    found = said(write(tmp_path, steps), "holes")
    assert found.level == "warn" and found.statistic is not None and found.statistic.value == rows
    assert found.steps == (300 * spacing + 1, (301 + rows) * spacing - 1)
    assert f"{found.steps[0]:,} to {found.steps[1]:,} ({rows} rows)" in found.summary


def test_an_attempt_that_forgot_its_step_leaves_a_hole(tmp_path: Path) -> None:
    """It began at step 0 by its own word, and its first row is at 400: what came before is on a branch."""
    write(tmp_path, range(1, 501))
    found = said(write(tmp_path, range(400, 601)), "holes")
    assert found.level == "warn" and "steps 1 to 399 (399 rows, left to a branch" in found.summary


rng = np.random.default_rng(3)
EVEN = {
    "every step": np.arange(1, 500),
    "two rows are missing": np.delete(np.arange(1, 500), [100, 101]),
    "the interval changes": np.r_[1:200, 200:2000:10, 2000:30000:400],
    "the interval changes with the last row": np.r_[1:200, 200:1001:400],
    "the interval changes for a while": np.r_[1:200, 200:1200:50, 1200:1400],
    "intervals that double": 2 ** np.arange(18),
    "a sample of the steps": np.sort(rng.choice(20_000, 1000, replace=False)),
    "a small sample of the steps": np.sort(rng.choice(200_000, 60, replace=False)),
    "an interval that is not whole": np.unique((np.arange(1, 500) * 41.7).astype(int)),
    "rows of evaluations between": np.unique(np.r_[10:5000:10, 33:5000:250]),
}


@pytest.mark.parametrize("what", EVEN)
def test_no_hole_is_cried_in(what: str) -> None:
    assert [hole for hole in _holes("loss", EVEN[what]) if hole.rows >= 3] == []


def test_holes_in_random_samples_are_rare() -> None:
    """The stated rate: at most one sample of 1,000; and a hole of 40 mean gaps is found in each."""
    draws = [np.sort(np.random.default_rng(seed).choice(20_000, 500, replace=False)) for seed in range(400)]
    assert sum(any(hole.rows >= 3 for hole in _holes("loss", steps)) for steps in draws) <= 2
    for steps in draws[:50]:
        assert any(hole.rows >= 3 for hole in _holes("loss", steps[(steps < 9000) | (steps > 10_600)]))


def test_a_short_record_has_no_cadence(tmp_path: Path) -> None:
    found = said(write(tmp_path, [1, 2, 3, 90, 91]), "holes")
    assert found.level == "unknown" and "cadence" in found.summary


def test_ranks_that_lack_rows_or_never_wrote(tmp_path: Path) -> None:
    write(tmp_path / "lacks", range(1, 101), world=2)
    found = said(write(tmp_path / "lacks", range(1, 61), rank=1, world=2), "ranks")
    assert found.level == "warn" and found.steps == (61, 100) and found.ongoing and "Rank 1 has no row" in found.summary
    found = said(write(tmp_path / "silent", range(1, 101), world=4), "ranks")
    assert found.level == "warn" and "Ranks 1, 2, 3 of 4 have written nothing" in found.summary
    for rank in (0, 1):
        run = write(tmp_path / "whole", range(1, 101), rank=rank, world=2)
    assert said(run, "ranks").level == "pass"


def test_a_torn_end_is_told(tmp_path: Path) -> None:
    run = write(tmp_path, range(1, 101))
    assert said(run, "damage").level == "pass"
    file = next(tmp_path.glob("frames/**/*.parquet"))
    file.write_bytes(file.read_bytes()[:-10])
    assert said(open_run(tmp_path), "damage").level == "warn"
