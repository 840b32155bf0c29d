from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator

import pytest

from checks import all_checks, judged_by
from dashboard.server import judging
from dashboard.server.verdicts import Judge, Judged
from trainvitals.sealed import seal
from trainvitals.store import open_run


@pytest.fixture
def judge() -> Iterator[Judge]:
    made = Judge()
    yield made
    made.close()


def wait_for(judge: Judge, path: str, *, seconds: float = 90.0) -> Judged:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = judge.report(path)
        if found.report or found.error:
            return found
        time.sleep(0.05)
    raise AssertionError("the judge gave no answer")


def test_the_judge_finds_the_fault_in_a_process_of_its_own(judge, runs):
    found = wait_for(judge, str(runs / "faulty"))
    assert found.report is not None and found.report.level == "fail"
    assert found.report.version == open_run(runs / "faulty").version


def test_a_run_that_is_gone_is_an_answer_and_so_is_a_dead_process(judge, tmp_path, runs):
    assert "holds no run" in wait_for(judge, str(tmp_path / "gone")).error
    judge._process.kill()
    assert "process ended" in wait_for(judge, str(runs / "clean")).error
    deadline = time.monotonic() + 60
    while judge.report(str(runs / "clean")).report is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert judge.report(str(runs / "clean")).report is not None


def test_stored_findings_of_this_version_are_not_made_again(runs, tmp_path, monkeypatch):
    path = str(shutil.copytree(runs / "faulty", tmp_path / "faulty"))
    first = json.loads(json.dumps(judging.answer({}, path, "")))
    assert (tmp_path / "faulty" / "findings" / "latest.json").exists()
    monkeypatch.setattr(judging, "run_checks", None)
    assert judging.answer({}, path, "") == first
    assert judging.answer({}, path, first["version"]) == {"same": True}
    assert judging.report_of(first).summary_json() | {"findings": judging.report_of(first).to_json()} == first


@pytest.mark.parametrize("judge", ["", "of an earlier package"])
def test_stored_findings_of_another_judge_are_made_again(runs, tmp_path, judge):
    path = tmp_path / "faulty"
    shutil.copytree(runs / "faulty", path)
    old = [{**f, "summary": "An old sentence."} for f in judging.answer({}, str(path), "")["findings"]]
    open_run(path).save_findings(old, judge)
    assert all(f["summary"] != "An old sentence." for f in judging.answer({}, str(path), "")["findings"])


def test_the_judge_is_its_code_and_its_settings(monkeypatch):
    own = judged_by.judged_by()
    assert own == judged_by.judged_by({}) == judged_by.judged_by({"loss.spike": {}})
    assert judged_by.judged_by({"throughput.drop": {"k": 7}}) != own
    monkeypatch.setattr(judged_by, "_code", lambda: "changed")
    assert judged_by.judged_by() != own


def test_findings_are_shown_even_if_they_cannot_be_stored(runs, tmp_path):
    path = shutil.copytree(runs / "faulty", tmp_path / "faulty")
    shutil.rmtree(path / "findings", ignore_errors=True)
    (path / "findings").write_text("a file where the folder should be")
    assert judging.answer({}, str(path), "")["level"] == "fail"


def test_a_check_that_raises_is_an_answer_and_its_fault_is_in_the_log(runs, monkeypatch, capsys):
    def broken(run, **rest):
        raise RuntimeError("boom")

    monkeypatch.setattr(judging, "run_checks", broken)
    monkeypatch.setattr(judging, "_stored", lambda run, policy: None)
    said = judging.answer({}, str(runs / "clean"), "")["error"]
    assert "RuntimeError" in said and "boom" not in said
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_what_was_stored_is_shown_at_once_and_then_how_many_checks_have_answered(runs, tmp_path, judge):
    path = shutil.copytree(runs / "faulty", tmp_path / "faulty")
    first = judging.answer({}, str(path), "")
    latest = path / "findings" / "latest.json"
    older = json.loads(latest.read_text()) | {"version": "an earlier one", "step": 7}
    older_keys = ("version", "judge", "time", "step", "findings")
    latest.write_text(json.dumps(seal({k: v for k, v in older.items() if k in older_keys})))
    said = []
    last = judging.answer({}, str(path), "", said.append)
    assert judging.report_of(said[0]["stored"]).step == 7 and said[0]["stored"]["findings"] == first["findings"]
    total = len(all_checks())
    assert [(s["done"], s["of"]) for s in said[1:]] == [(n, total) for n in range(1, total + 1)]
    assert last["version"] == first["version"]
    found = wait_for(judge, str(path))
    assert found.report is not None and found.progress is None
