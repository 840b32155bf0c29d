"""The command line as a user or a script meets it: output, exit codes, one clear line for a wrong input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trainvitals import cli
from trainvitals.store import RunWriter, open_run


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["trainvitals", *words])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def _run(path: Path, *, nan_at: int | None = None) -> Path:
    writer = RunWriter(path, when_full="wait")
    frame = writer.frame("loss", ["loss/sum", "loss/tokens", "loss/nonfinite_tokens"])
    noise = np.random.default_rng(0).normal(0, 0.02, 400)
    for step in range(1, 401):
        bad = step == nan_at
        frame.append(step, {"loss/sum": np.nan if bad else 1000 * (2 + 3 / step**0.5 + noise[step - 1]),
                            "loss/tokens": 1000, "loss/nonfinite_tokens": 10 * bad})
    writer.close()
    return path


def test_check_prints_findings_as_json_and_stores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "check", str(_run(tmp_path / "a", nan_at=300)), "--json")
    answer = json.loads(out)
    findings = answer["findings"]
    assert code == 2 and answer["level"] == "fail" and answer["areas"]["loss"]["level"] == "fail"
    assert 0 < answer["areas"]["loss"]["answered"] <= answer["areas"]["loss"]["asked"]
    assert answer["incidents"][0]["steps"] == [300, 300]
    bad = next(f for f in findings if f["check"] == "loss.nonfinite")
    assert bad["level"] == "fail" and bad["steps"] == [300, 300]
    assert [f["check"] for f in open_run(tmp_path / "a").findings()] == [f["check"] for f in findings]


def test_several_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(_run(tmp_path / name)) for name in "ab"]
    code, out, _ = call(monkeypatch, capsys, "check", *runs, "--only", "loss", "--json")
    answer = json.loads(out)
    assert code == 0 and [one["run"] for one in answer["runs"]] == runs and isinstance(answer["shared"], list)


def test_a_healthy_run_exits_with_zero_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "check", str(_run(tmp_path / "a")))
    assert code == 0 and "loss.nonfinite" in out and "fail" not in out.split()


def test_what_cannot_be_judged_exits_with_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = call(monkeypatch, capsys, "check", str(_run(tmp_path / "a")), "--only", "grad.explosion")
    assert code == 3


@pytest.mark.parametrize(("words", "code", "says"), [
    (["check", "no/such/run"], 66, "holds no run"),
    (["compact", "no/such/run"], 66, "holds no run"),
    (["compact", "{run}/frames"], 66, "holds no run"),
    (["check"], 64, "Missing argument"),
    (["check", "{run}", "--only", "loss.splike"], 64, "loss.splike"),
    (["demo", "--run", "{run}"], 64, "not empty"),
    (["demo", "--run", "{new}", "--fault", "gremlins", "--no-board"], 64, "gremlins"),
    (["demo", "--run", "{new}", "--data", "no/such/folder", "--no-board"], 64, "no/such/folder"),
    (["dashboard", "{run}", "--port", "99999"], 64, "99999"),
    (["bogus"], 64, "bogus"),
])
def test_wrong_input_gets_one_line_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str], words: list[str], code: int,
                                                    says: str) -> None:
    run = str(_run(tmp_path / "a"))
    got, _, err = call(monkeypatch, capsys, *(word.format(run=run, new=tmp_path / "new") for word in words))
    assert got == code and says in err and "Traceback" not in err


def test_compact_turns_what_a_killed_writer_left_into_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    writer.frame("x", []).append(1, {"a": 1.0})
    writer.flush()
    code, out, _ = call(monkeypatch, capsys, "compact", str(tmp_path), "--quiet-for", "-1")
    assert code == 0 and "1 segment compacted" in out
    assert open_run(tmp_path).array("a").values.tolist() == [1.0]


def _log(path: Path, *, nan: bool = False) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [f"{step},{'nan' if nan and step == 300 else 2 + 3 / step**0.5}" for step in range(1, 401)]
    path.write_text("step,loss\n" + "\n".join(rows) + "\n")
    return path


def test_check_takes_the_log_of_another_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "check", str(_log(tmp_path / "logs" / "bad.csv", nan=True)))
    assert code == 2 and "loss.nonfinite" in out and "loss/train <- loss" in err and "hides absent" in err
    code, out, _ = call(monkeypatch, capsys, "check", str(_log(tmp_path / "logs" / "good.csv")), "--json")
    assert code == 0 and json.loads(out)["level"] == "pass" and "what your logger hid" in out.lower()
    code, out, _ = call(monkeypatch, capsys, "check", str(tmp_path / "logs"), "--json")
    assert code == 2 and sorted(one["level"] for one in json.loads(out)["runs"]) == ["fail", "pass"]
    code, out, _ = call(monkeypatch, capsys, "check", str(tmp_path / "runs" / "imported"))
    assert code == 2 and out.count("loss.nonfinite") == 2
    code, out, _ = call(monkeypatch, capsys, "import", str(tmp_path / "logs" / "good.csv"), "--run", "there")
    assert code == 0 and "CSV or other delimited text" in out and (tmp_path / "there" / "run.json").exists()


def test_one_log_of_several_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    _log(tmp_path / "logs" / "good.csv")
    (tmp_path / "logs" / "torn.parquet").write_bytes(b"PAR1 and no more")
    code, _, err = call(monkeypatch, capsys, "check", str(tmp_path / "logs"), "--only", "loss.spike")
    assert code == 64 and "torn.parquet cannot be read as Parquet" in err
