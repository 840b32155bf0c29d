"""From a fall back to the training: what moved in its steps, and nothing that did not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from checks.evals.began import began
from checks.evals.walk_back import moved, seen
from checks.review.explain import told
from tests.review.staged import POLICY, command, reviewed, sheet
from trainvitals.card import RunCard
from trainvitals.evals import read_evals, write_sheets
from trainvitals.store import RunWriter, open_run


def record(folder, starved: bool, rate: bool = False, steps: int = 400):
    """A run's record; from step 201 on its code is not drawn, or its learning rate is not the planned one."""
    rng = np.random.default_rng(0)
    names = ["docs", "code", "math", "unattributed"]
    writer = RunWriter(folder, when_full="wait")
    writer.write_card(RunCard(domains={"docs": 0.5, "code": 0.25, "math": 0.25}, total_steps=steps))
    data = writer.frame("data", ["data/domain_tokens"], {"domain": names})
    val = writer.frame("validation", ["loss/val_domain_sum", "loss/val_domain_tokens"], {"domain": names})
    lr = writer.frame("lr", ["lr/used", "lr/planned"], {"group": ["0"]})
    for step in range(1, steps + 1):
        bad = step > 200
        share = [0.67, 0.0, 0.33] if bad and starved else [0.5, 0.25, 0.25]
        data.append(step, {"data/domain_tokens": [*(100 * rng.multinomial(16, share)).tolist(), 0]})
        lr.append(step, {"lr/used": [1e-3 * (1.5 if bad and rate else 1)], "lr/planned": [1e-3]})
        if step % 20 == 0:
            loss = 3 - step / 400 + 0.003 * rng.standard_normal(3)
            loss[1] += 0.3 * (bad and starved)
            val.append(step, {"loss/val_domain_sum": [*(1000 * loss).tolist(), 0.0],
                              "loss/val_domain_tokens": [1000, 1000, 1000, 0]})  # fmt: skip
    writer.close()
    return open_run(folder)


def test_what_moved_is_told_with_its_size(tmp_path):
    found = moved(record(tmp_path / "r", True, rate=True), 200, 240)
    assert [(m.kind, m.domain) for m in found][:1] == [("mix", "code")]
    assert "25" in found[0].sentence and "to 0.0% (planned 25.0%)" in found[0].sentence
    loss = next(m for m in found if m.kind == "loss")
    assert loss.domain == "code" and loss.size == pytest.approx(0.3, abs=0.03)
    assert "the first of them 201" in next(m for m in found if m.kind == "rate").sentence


def test_where_nothing_moved_nothing_is_told(tmp_path):
    run = record(tmp_path / "r", False)
    assert [moved(run, low, low + 40) for low in range(40, 360, 40)] == [[]] * 8
    assert moved(record(tmp_path / "fault", True), 40, 80) == []


def test_what_the_record_holds_of_the_steps_is_told_apart_from_what_moved(tmp_path):
    run = record(tmp_path / "r", False)
    assert seen(run, 200, 240) == ["the data mix", "the learning rate", "validation losses by domain"]
    assert seen(run, 1_600, 2_000) == []
    facts = {"steps": [200, 240], "error": "", "lines": [], "seen": seen(run, 200, 240), "last_step": run.last_step}
    (line,) = told({"moved": facts})
    assert "nothing of what the training record holds moved" in line and "the data mix, the learning rate" in line
    (line,) = told({"moved": facts | {"steps": [1_600, 2_000], "seen": []}})
    assert "1,600 to 2,000 is not known: its record ends at step 400" in line and "moved" not in line
    (line,) = told({"moved": facts | {"steps": [380, 420], "seen": ["the data mix"]}})
    assert line.endswith("The record ends at step 400, before the end of these steps.")
    (line,) = told({"moved": facts | {"seen": []}})
    assert "so what moved is not known" in line


def test_incidents_of_these_steps_are_named(tmp_path):
    findings = {"incidents": [{"steps": [10, 20], "summary": "early"}, {"steps": [190, 210], "summary": "a spike"}]}
    (one,) = moved(record(tmp_path / "r", False), 200, 240, findings)
    assert one.kind == "incident" and "a spike" in one.sentence


def test_a_review_says_where_it_began_what_was_lost_and_what_the_training_did(tmp_path):
    rng = np.random.default_rng(3)
    ease = rng.normal(0, 1.2, 400)
    sheets = {}
    for step in range(40, 401, 40):
        for task, fall in (("qa", 0.0), ("code", 0.9 * (step > 200))):
            right = ease + 0.3 * rng.standard_normal(400) + 0.6 - fall > 0
            sheets[task, step] = sheet(task, step, right.astype(float))
    policy = POLICY.replace("step-1000", "step-200").replace("step-2000", "step-400").split("[safety")[0]
    record(tmp_path / "run", True)
    said = reviewed(tmp_path, sheets, policy)
    assert said["decision"] == "NO-GO"
    text = " ".join(said["reasons"])
    assert "code fell from checkpoint step-240 on" in text and "between steps 200 and 240" in text
    assert "task: code" in text and "not as proven cause: the share of code" in text
    company = json.loads((tmp_path / "out" / "evidence" / "company.json").read_text())
    assert company["falls"][0]["task"] == "code" and "review" not in company
    assert "share of code" in (tmp_path / "out" / "report.html").read_text()
    done = command("--verify", tmp_path / "out")
    assert "changed" not in done.output and done.exit_code == 2, done.output


def test_where_a_known_fall_began_is_found_from_behind(tmp_path):
    rng = np.random.default_rng(5)
    ease = rng.normal(0, 1.2, 400)
    levels = {100: 0.6, 200: 0.62, 300: 0.66, 400: 0.1, 500: 0.0, 600: 0.1}
    found = {step: (ease + 0.3 * rng.standard_normal(400) + level > 0).astype(float) for step, level in levels.items()}
    write_sheets(tmp_path, [sheet("qa", step, scores) for step, scores in found.items()])
    evals = read_evals(tmp_path)
    one = began(evals, "qa", "step-200", "step-600")
    assert (one.step, one.last_step) == (400, 300) and one.size < -0.08
    assert began(evals, "qa", "step-200", "step-300") is None and began(evals, "qa", "step-600", "step-200") is None
