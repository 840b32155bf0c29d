"""The page shows hostile names as text; a policy made from a run's items gives a GO for a model that did not change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from checks.review.policy import read_policy
from tests.review.staged import command, reviewed, scores, sheet, staged, with_items, written
from trainvitals.errors import UsageError

HOSTILE = "<script>alert(1)</script>|`x`\u202e"


def test_the_page_runs_nothing_and_loads_nothing(tmp_path: Path) -> None:
    sheets = staged(tmp_path)
    sheets["qa", 2000] = with_items(sheets["qa", 2000], group=HOSTILE, answer=HOSTILE)
    sheets["code", 2000] = dataclasses.replace(sheets["code", 2000], source=HOSTILE)
    said = reviewed(tmp_path, sheets)
    assert said["decision"] == "UNDECIDED"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "default-src 'none'" in page and "http" not in page.split("</style>")[1]
    assert page.index("UNDECIDED") < page.index("task.qa") and "&lt;script&gt;" in page
    assert "<script" not in (tmp_path / "out" / "model_card.md").read_text()
    for name in ("eval_results.yaml", "model_index.yaml"):
        assert "verif" not in (tmp_path / "out" / name).read_text()
    entries = json.loads((tmp_path / "out" / "eval_results.yaml").read_text())
    assert {e["dataset"]["id"] for e in entries} == {"code", "jail"}


def test_a_policy_from_the_run_gives_a_go(tmp_path: Path) -> None:
    run = written(tmp_path, staged(tmp_path))
    (run / "release.toml").unlink()
    done = command(run, "--init")
    assert done.exit_code == 0 and "Chance that an unchanged model passes" in done.stdout
    policy = read_policy(run / "release.toml")
    assert (
        set(policy.tasks) == {"qa", "code"} and policy.baseline == "step-1000" and policy.safety["jail"].limit == 0.01
    )
    assert policy.families["all"].margin < policy.tasks["qa"].margin
    done = command(run, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stdout
    again = command(run, "--init")
    assert isinstance(again.exception, UsageError) and "is there already" in str(again.exception)


def test_init_leaves_out_what_says_nothing_and_says_so(tmp_path: Path) -> None:
    sheets = staged(tmp_path)
    for step, values in zip((1000, 2000), scores(9, share=0.25, n=4000), strict=True):
        sheets["guess", step] = sheet("guess", step, values)
    run = written(tmp_path, sheets)
    (run / "release.toml").unlink()
    done = command(run, "--init")
    assert "Left out: guess: both scores are those of guessing" in done.stdout
    assert "guess" not in read_policy(run / "release.toml").tasks


def test_init_needs_two_checkpoints(tmp_path: Path) -> None:
    run = written(tmp_path, {("qa", 1000): sheet("qa", 1000, np.ones(50))})
    (run / "release.toml").unlink()
    done = command(run, "--init")
    assert isinstance(done.exception, UsageError) and "1 checkpoint" in str(done.exception)


def test_what_changed_since_the_last_review_is_told(tmp_path: Path) -> None:
    reviewed(tmp_path, staged(tmp_path))
    sheets = staged(tmp_path)
    before, after = scores(0, lost=0.3)
    sheets["qa", 2000] = sheet("qa", 2000, after)
    other = tmp_path / "other"
    done = command(written(other, sheets), "--out", other / "out", "--last", tmp_path / "out")
    assert done.exit_code == 2
    last = json.loads((other / "out" / "decision.json").read_text())["last"]
    assert last["decision"] == "GO" and last["changed"] == ["task.qa: pass before, fail now"]


@pytest.mark.parametrize("more", [("--sign", "x"), ()])
def test_one_thing_at_a_time(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = command(*more) if not more else command(tmp_path, *more)
    assert isinstance(done.exception, UsageError)
