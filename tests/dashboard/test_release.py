"""The page of the release review: it reads what the review wrote, and never shows a GO that is not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dashboard.release import beside
from dashboard.release.reviews import open_review, reviews_of, verified
from dashboard.release.rows import figure, groups
from tests.dashboard.test_results import shown
from tests.review.staged import POLICY, command, scores, sheet, staged, written
from trainvitals.errors import RunDamaged
from trainvitals.evals import write_sheet

WAIVERS = """
[latency.qa]
p99_s = 0.5
[[waivers]]
row = "latency.qa.p99"
reason = "<b>capacity</b> follows"
owner = "Ada"
expires = 2999-01-31
"""


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its review, a GO; and a public key that signed it, beside."""
    root = tmp_path_factory.mktemp("reviewed")
    run = written(root, staged(root), POLICY + WAIVERS)
    done = command(run, "--out", run / "reviews" / "first")
    assert done.exit_code == 0, done.output
    key = Ed25519PrivateKey.generate()
    private = root / "key.pem"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))
    (root / "public.pem").write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    signed = command("--sign", run / "reviews" / "first", "--key", private, "--name", "Grace <b>", "--role", "lead")
    assert signed.exit_code == 0, signed.output
    private.unlink()
    return root


@pytest.fixture
def copy(reviewed: Path, tmp_path: Path) -> Path:
    """The same folder, to be damaged."""
    shutil.copytree(reviewed, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_board_shows_the_decision_and_the_rows_of_the_file(board, reviewed):
    test = board(reviewed, page="review", run="run")
    assert not test.exception
    said, record = shown(test), json.loads((reviewed / "run/reviews/first/decision.json").read_text())
    assert "✓ GO" in said and "font-size:24px" in said and record["reasons"][0] in said
    for row in record["rows"]:
        assert f"<b>{row['name']}</b>" in said
    assert "step-2000" in said and "Whole" in said and "its signer is unknown" in said
    assert "<b>capacity" not in said and "<b>capacity</b> follows" in test.dataframe[0].value["Reason"][0]
    assert test.dataframe[0].value["State"].to_list() == ["in force"]
    names = {b.proto.label for b in test.get("download_button")}
    assert names == {"HTML report", "JSON", "Policy", "Model card"}


def test_a_key_from_outside_makes_the_signature_count(reviewed):
    path = str(reviewed / "run/reviews/first")
    known = verified(path, ((reviewed / "public.pem").read_text(),))
    assert not known.changed and not known.open and known.signers[0].startswith("Grace <b> (lead)")
    assert not verified(path, ()).signers
    assert "no public key" in verified(path, ("nonsense",))


@pytest.mark.parametrize(("file", "old", "new"), [
    ("decision.json", '"decision": "GO"', '"decision": "NO-GO"'),
    ("policy.toml", "margin = 0.05", "margin = 0.15"),
    ("report.html", "may be released", "may be sold"),
    ("evidence/facts.json", "step-2000", "step-3000"),
])  # fmt: skip
def test_what_was_changed_is_no_go(board, copy, file, old, new):
    path = copy / "run/reviews/first" / file
    data = path.read_text()
    assert old in data
    path.write_text(data.replace(old, new))
    test = board(copy, page="review", run="run")
    assert not test.exception
    said = shown(test)
    assert "✕ CHANGED" in said and "which does not count" in said and "✓ GO" not in said
    assert Path(file).name in said


@pytest.mark.parametrize("data", [
    "", "[]", "{", '{"decision": "GO"}', '{"decision": "MAYBE", "rows": []}', "\x00" * 50, "[" * 100_000,
])  # fmt: skip
def test_a_broken_decision_is_one_sentence(board, copy, data):
    (copy / "run/reviews/first/decision.json").write_text(data)
    test = board(copy, page="review", run="run")
    assert not test.exception and len(test.error) == 1 and "decision.json" in test.error[0].value.replace("\\", "")
    assert "GO" not in "".join(e.proto.body for e in test.get("html"))


def test_lost_files_and_pipes_are_one_sentence(copy):
    import os

    path = copy / "run/reviews/first"
    shutil.rmtree(path / "evidence")
    found = verified(str(path), ())
    assert isinstance(found, str) or found.changed
    (path / "decision.json").unlink()
    os.mkfifo(path / "decision.json")
    with pytest.raises(RunDamaged, match="no regular file"):
        open_review(str(path))


def test_a_review_beside_the_runs_is_found_by_the_name_of_its_run(reviewed, copy):
    assert list(reviews_of(str(reviewed / "run"), str(reviewed))) == ["run/reviews/first"]
    shutil.move(copy / "run/reviews/first", copy / "elsewhere")
    shutil.copytree(copy / "run", copy / "other")
    assert reviews_of(str(copy / "run"), str(copy)) == {"elsewhere": str(copy / "elsewhere")}
    assert reviews_of(str(copy / "other"), str(copy)) == {}


def test_a_review_of_another_run_and_of_an_older_step_say_so(board, copy):
    (copy / "run").rename(copy / "renamed")
    write_sheet(copy / "renamed", sheet("qa", 3000, scores(0)[1]))
    said = shown(board(copy, page="review", run="renamed"))
    assert "is about the run **run**" in said and "says nothing of it" in said


def test_where_no_review_is_one_command_is_said(board, copy):
    shutil.rmtree(copy / "run/reviews")
    test = board(copy, page="review", run="run")
    assert "No release review" in shown(test) and "--policy" in test.code[0].value
    (copy / "run/release.toml").unlink()
    assert "--init" in board(copy, page="review", run="run").code[0].value
    (copy / "bare").mkdir()
    (copy / "bare/run.json").write_text("{}")
    assert "evals import" in board(copy, page="review", run="bare").code[0].value


def test_the_page_about_safety_shows_the_limits_of_the_review(board, copy):
    test = board(copy, page="safety", run="run")
    assert not test.exception and "Safety: holds" in shown(test)
    row = test.dataframe[0].value.iloc[0]
    assert (row["Answer"], row["Limit"]) == ("✓ holds", "1 %")
    assert "Latency and cost: " in shown(board(copy, page="latency", run="run"))
    report = copy / "run/reviews/first/report.html"
    report.write_text(report.read_text() + " ")
    test = board(copy, page="safety", run="run")
    assert "does not count" in shown(test) and test.dataframe[0].value.iloc[0]["Answer"] == "no limit is set"


def test_rows_are_grouped_as_in_the_report_and_numbers_have_units(reviewed):
    rows = open_review(str(reviewed / "run/reviews/first")).rows
    assert [name for name, _ in groups(rows)] == ["Tasks", "Safety", "Latency and cost"]
    assert sum(len(own) for _, own in groups(rows)) == len(rows)
    named = {row.name: row for row in rows}
    assert figure(named["task.qa"], -0.05) == "-5.00 points" and figure(named["safety.jail"], 0.01) == "1 %"
    assert figure(named["latency.qa.p99"], 0.5) == "0.5 s" and figure(named["task.qa"], None) == "–"
    assert set(beside.HEADS) == {"pass", "warn", "fail", "unknown"}


def test_a_go_that_does_not_hold_today_is_not_green(board, copy, monkeypatch):
    from checks.review.verify import Verified
    from dashboard.release import reviews

    line = "Today the decision is UNDECIDED, not GO: The waiver of latency.qa.p99 (Ada) expired."
    monkeypatch.setattr(reviews, "verify", lambda *given: Verified("GO", (), (line,), ()))
    said = shown(board(copy, page="review", run="run"))
    assert "? GO, and not today" in said and "✓ GO" not in said and line in said


def test_evidence_that_nobody_foresaw_is_no_go(board, copy, monkeypatch, failures):
    from dashboard.release import reviews

    monkeypatch.setattr(reviews, "verify", lambda *given: 1 / 0)
    test = board(copy, page="review", run="run")
    assert not test.exception and "NOT A WHOLE REVIEW" in shown(test) and "✓ GO" not in shown(test)
    assert "could not be verified" in failures.pop()
