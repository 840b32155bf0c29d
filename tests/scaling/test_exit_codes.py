"""What a wrong input ends the command line with: one line, and the exit code of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scaling.curves import plan, simulated, write_csv
from tests.test_cli import call

FORECAST = ["scaling", "forecast"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([*FORECAST, "{folder}"], 66, "holds no run"),
        ([*FORECAST], 64, "Missing argument"),
        ([*FORECAST, "{curve}", "--siblings"], 64, "names no curve"),
        ([*FORECAST, "{curve}", "--schedule", '{{"kind": "cosine", "peak": "x", "total_steps": 9}}'], 64, "peak must"),
        ([*FORECAST, "{curve}", "--schedule", "{latin}"], 64, "not JSON in UTF-8"),
        (["demo", "--run", "{curve}", "--no-board"], 64, "run.csv is a file"),
        (["demo", "--run", "{curve}/below", "--no-board"], 64, "run.csv is a file"),
    ],
)
def test_wrong_input_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int,
    says: str,
) -> None:
    curve = write_csv(tmp_path / "run.csv", simulated(plan("cosine", 2000)))
    latin = tmp_path / "plan.json"
    latin.write_bytes(b'{"kind": "cosine\xff"}')
    (tmp_path / "empty").mkdir()
    given = [word.format(curve=curve, latin=latin, folder=tmp_path / "empty") for word in words]
    got, _, err = call(monkeypatch, capsys, *given)
    assert got == code and says in err and "internal error" not in err
