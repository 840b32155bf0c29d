"""Empty and repeated batches, and the trainings over several passes that look like them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from checks.data._repeats import Repeats, repeats
from checks.finding import Finding
from checks.judge import run_checks
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run


def judged(where: Path, batches: Sequence[int], tokens: Sequence[float] | None = None,
           rows: Sequence[int] | None = None, switch: int | None = None) -> list[Finding]:
    """The answers for a run whose step i is trained on batch number batches[i]: first of empty, then of repeated."""
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains={"web": 1.0}))
    if switch is not None:
        writer.event("stage_switch", step=switch)
    fields = ["data/domain_tokens", "data/sequences", "data/padding_tokens", "data/documents", "data/batch_lanes"]
    data = writer.frame("data", fields, {"domain": ["web", "unattributed"], "lane": ["low", "high"]})
    for i, batch in enumerate(batches):
        count = 1000 if tokens is None else int(tokens[i])
        lanes = [(batch + 1) * 2654435761 % 2**32, (batch + 7) * 40503 % 2**32]
        data.append(i + 1, {"data/domain_tokens": [count, 0], "data/sequences": 8 if rows is None else rows[i],
                            "data/padding_tokens": 0, "data/documents": 8, "data/batch_lanes": lanes})
    writer.close()
    found = run_checks(open_run(where), only=["data.corrupt"]).findings
    return sorted(found, key=lambda f: "again" in f.summary or "stuck" in f.summary or "fingerprint" in f.summary)


def order(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).permutation(n).tolist()


HEALTHY: dict[str, list[int]] = {
    "one pass": list(range(300)),
    "passes in order": list(range(90)) * 3 + list(range(40)),
    "passes in another order each": order(90, 1) + order(90, 2) + order(90, 3)[:50],
    "other data after two passes": list(range(60)) * 2 + list(range(100, 300)),
    "one batch twice": [*range(100), 99, *range(100, 200)],
}
FAULTS: dict[str, tuple[list[int], int, str]] = {
    "four batches again and again": ([*range(150), *list(range(150, 154)) * 30], 155, "fail"),
    "one batch from a step on": ([*range(150), *[150] * 50], 152, "fail"),
    "one batch from the first step on": ([5] * 60, 2, "fail"),
    "a loader that began anew": ([*range(150), *range(40), *range(150, 300)], 151, "fail"),
    "hung for ten steps": ([*range(150), *[149] * 10, *range(150, 250)], 151, "warn"),
    "hung at the start": ([*[0] * 10, *range(1, 150)], 2, "warn"),
    "hung in the second pass": ([*range(100), *range(50), *[49] * 10, *range(50, 100)], 151, "warn"),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_passes_are_healthy(name: str, tmp_path: Path) -> None:
    for finding in judged(tmp_path, HEALTHY[name]):
        assert finding.level == "pass", finding.summary


@pytest.mark.parametrize("name", FAULTS)
def test_repeats_outside_of_passes(name: str, tmp_path: Path) -> None:
    batches, first, level = FAULTS[name]
    empty, repeated = judged(tmp_path, batches)
    assert empty.level == "pass" and repeated.level == level, repeated.summary
    assert repeated.steps is not None and abs(repeated.steps[0] - first) <= 4, repeated.summary


def test_what_is_known_of_a_row_is_known_live() -> None:
    """Cut anywhere, the rows blamed are those that the whole stream blames by then."""
    for batches, _, _ in FAULTS.values():
        whole = repeats(batches).rows
        for cut in range(1, len(batches), 7):
            assert sorted(repeats(batches[:cut]).rows) == sorted((r, at) for r, at in whole if at < cut)


def test_rates_over_seeds() -> None:
    """Passes of any length in any order blame nothing; loops of any length at any row are found within two rounds."""
    false = missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, passes = int(rng.integers(2, 80)), int(rng.integers(1, 6))
        epochs = [list(rng.permutation(n)) for _ in range(passes)]
        healthy = [batch for epoch in epochs for batch in epoch][: int(rng.integers(1, n * passes + 1))]
        false += bool(repeats(healthy).rows)
        at, loop = int(rng.integers(20, 200)), int(rng.integers(1, 15))
        stuck = list(range(at)) + list(range(at - loop, at)) * 2 + [at - loop]
        missed += not repeats(stuck).rows
    print(f"false {false} of 200, missed {missed} of 200")
    assert false == 0 and missed == 0


def test_streams_add_up() -> None:
    found = Repeats()
    for row, batch in enumerate([0, 1, 2, 0, 1, 2, 0]):
        found.add(row, batch)
    assert found.whole == [3, 4, 5] and found.pending == [6] and not found.rows and found.distinct == 3


def test_documents_that_are_equal_are_no_fault_where_a_step_is_one(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 30, 400).tolist()
    assert judged(tmp_path / "drawn", drawn, rows=[1] * 400)[1].level == "pass"
    stuck = judged(tmp_path / "stuck", [*drawn[:300], *[3] * 40], rows=[1] * 340)[1]
    assert stuck.level == "fail" and "again" in stuck.summary


def test_empty_batches(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).normal(1000, 100, 300)
    thin = tokens.copy()
    thin[200] = 0
    empty, _ = judged(tmp_path / "one", range(300), thin)
    assert empty.level == "warn" and empty.steps == (201, 201)
    thin[[200, 210, 220, 221]] = 12
    empty, _ = judged(tmp_path / "four", range(300), thin)
    assert empty.level == "fail" and empty.steps == (201, 222)
    short = np.random.default_rng(1).lognormal(6, 1, 300)
    assert judged(tmp_path / "short", range(300), short)[0].level == "pass"
    rows = [8 if (i + 1) % 100 else 1 for i in range(300)]
    assert judged(tmp_path / "last", range(300), np.where(np.array(rows) == 1, 125, tokens), rows)[0].level == "pass"


def test_without_fingerprints_it_is_unknown(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    data = writer.frame("data", ["data/domain_tokens"], {"domain": ["web", "unattributed"]})
    for step in range(1, 60):
        data.append(step, {"data/domain_tokens": [100, 0]})
    writer.close()
    levels = sorted(f.level for f in run_checks(open_run(tmp_path), only=["data.corrupt"]).findings)
    assert levels == ["pass", "unknown"]
