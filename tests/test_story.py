"""The staged release: what it leaves behind, and, on demand, its whole course with and without the fault."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from click.testing import CliRunner

from checks.review.policy import parse_policy
from collectors.demo.story import BASELINE, CHECKPOINTS, FIRST, REQUESTS, release, small_config
from trainvitals.cli import cli
from trainvitals.errors import UsageError
from trainvitals.evals import read_evals
from trainvitals.store import open_run

WORDS = {"docs": "the ship sails on and the crew sings of home", "code": "def f ( x ) : return x + 1 if x else 0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for name, words in WORDS.items():
        rng = random.Random(name)
        (data / f"{name}.txt").write_text("".join(rng.choice(words.split()) + rng.choice(" \n") for _ in range(6000)))
    return data


def test_a_story_leaves_results_a_record_and_a_policy(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("collectors.demo.story.SLOW_S", 0.0)
    config = small_config(tmp_path / "run", data=folder, steps=CHECKPOINTS, context=32, batch_rows=2)
    staged = release(config, healthy=False)
    evals = read_evals(staged.run)
    assert (staged.baseline, staged.candidate) == (BASELINE, CHECKPOINTS)
    assert evals.tasks == ["code_next_token", "docs_next_token", "search_workflow"] and not evals.problems
    assert evals.checkpoints == [f"step-{i}" for i in range(FIRST, CHECKPOINTS + 1)]
    one = evals.sheet("search_workflow", f"step-{CHECKPOINTS}")
    assert one.kind == "workflow" and len(one.items) == REQUESTS and one.items["latency_s"].notna().all()
    shares = open_run(staged.run).array("data/domain_share").values
    assert (shares[BASELINE:, 0] == 0).all() and (shares[:BASELINE, 0] > 0).any()
    policy = parse_policy(staged.policy.read_bytes(), "release.toml")
    assert list(policy.tasks) == ["code_next_token", "docs_next_token"] and policy.candidate == f"step-{CHECKPOINTS}"


def test_what_a_story_cannot_be_told_of_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few"):
        release(small_config(tmp_path / "run", data=folder, steps=5), healthy=True)
    (folder / "code.txt").rename(folder / "python.txt")
    with pytest.raises(UsageError, match="a domain called code"):
        release(small_config(tmp_path / "run", data=folder), healthy=True)
    for wrong in (["--healthy"], ["--story", "release", "--fault", "nan"]):
        done = CliRunner().invoke(cli, ["demo", "--no-board", *wrong])
        assert isinstance(done.exception, UsageError)


@pytest.mark.skipif(not os.environ.get("TRAINVITALS_LONG"), reason="two minutes; TRAINVITALS_LONG=1 runs it")
@pytest.mark.parametrize("healthy", [False, True])
def test_the_review_finds_the_fault_and_only_the_fault(tmp_path: Path, healthy: bool) -> None:
    import datetime as dt

    from checks.review.bundle import write_review

    staged = release(small_config(tmp_path / "run"), healthy)
    decided = write_review(staged.run, staged.policy, tmp_path / "out", dt.datetime.now(dt.UTC), None)
    assert decided.decision == ("GO" if healthy else "NO-GO")
    if not healthy:
        text = " ".join(decided.reasons)
        failed = {row.name for row in decided.rows if row.verdict == "fail"}
        assert {"task.code_next_token", "latency.search.p95"} <= failed
        assert "task: code_next_token" in text and "the share of code" in text
        began = re.search(r"code_next_token is worse than the baseline from checkpoint step-(\d+)", text)
        assert began and 289 <= int(began[1]) <= 360
