"""Every command with every kind of input that is none: one clear line, an exit code from 64 to 66, and an end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.dashboard.make_run import make_run
from trainvitals import cli

SECONDS = 20
DEEP = 100_000
FILES: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "nul": b"\0" * 5000,
    "not utf-8": "loss,step\né,ü\n".encode("latin-1"),
    "utf-16": "N,D,loss\n1e8,2e9,3.5\n".encode("utf-16"),
    "deep.json": b"[" * DEEP + b"]" * DEEP,
    "deep object.json": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "digits.json": b'{"step": ' + b"9" * 4000 + b', "points": {"N": [1e999]}}',
    "nan.json": b'{"points": NaN}',
    "number.json": b"5",
    "digits.csv": b"N,D,loss,step,lr\n" + (b"9" * 400 + b",1e999,nan,1e999,1\n") * 20,
    "nan.csv": b"N,D,loss,step,lr\n" + b"nan,nan,nan,nan,nan\n" * 20,
    "words.csv": b"N,D,loss,step,lr\n" + b"a,b,c,d,e\n" * 20,
    "one line.csv": b"x" * 2_000_000,
    "quotes.csv": b'N,D,loss\n"' + b"1,2,3\n" * 20,
    "ragged.csv": b"N,D,loss\n1,2\n1,2,3,4,5,6\n",
    "header.csv": b"N,D,loss,step,lr\n",
    "parquet": b"PAR1" + b"\x15" * 300 + b"PAR1",
    "gzip.gz": b"\x1f\x8b\x08\x00" + b"\xff" * 300,
}
NUMBERS = ("nan", "inf", "-inf", "1e999", "9" * 400, "-" + "9" * 400, "9" * 5000, "-1", "0", "1e308", "1e-320", "x", "")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> path of everything that is no run, no table, no curve, no benchmark and no corpus."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    card = folder / "card of a pipe"
    (card / "frames").mkdir(parents=True)
    os.mkfifo(card / "run.json")
    found = {name: str(folder / name) for name in [*FILES, "folder", "pipe", "loop"]}
    return found | {"zero": "/dev/zero", "random": "/dev/urandom", "missing": str(folder / "missing" / "x"),
                    "url": "memory://no/such/thing", "scheme": "nosuch://x", "nul byte": "a\0b", "long": "x" * 5000}


MACHINES = {"gpus": "256", "days": "10", "peak-flops": "989e12", "mfu": "0.4", "price": "2"}
KINDS = [*FILES, "folder", "pipe", "loop", "zero", "random", "missing", "url", "scheme", "nul byte", "long"]
COMMANDS = {
    "check": ["check", "{}"],
    "compact": ["compact", "{}"],
    "fit": ["scaling", "fit", "{}", "--bootstrap", "0"],
    "plan": ["scaling", "plan", "--flops", "1e21", "--fit", "{}"],
    "forecast": ["scaling", "forecast", "{}"],
    "siblings": ["scaling", "forecast", "{curve}", "--siblings", "{}", "--schedule",
                 "linear:total=900,warmup=1,peak=3e-4,final=3e-5"],
    "schedule": ["scaling", "forecast", "{curve}", "--schedule", "{}"],
    "benchmark": ["audit", "--corpus", "{corpus}", "--benchmark", "{}", "--out", "{out}", "--semantic", "none",
                  "--workers", "1"],
    "scores": ["audit", "--corpus", "{corpus}", "--benchmark", "{benchmark}", "--scores", "{}", "--out", "{out}",
               "--semantic", "none", "--workers", "1"],
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Sound inputs for the other arguments."""
    curve = "step,loss,lr\n" + "".join(f"{s},{2 + 8 * s**-0.5},{3e-4}\n" for s in range(1, 400))
    (tmp_path / "curve.csv").write_text(curve)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "a text about nothing in particular"}) + "\n")
    items = [{"question": f"What is {i} and {i} more of it in the end?", "answer": str(2 * i)} for i in range(20)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    rows = "".join(
        f"{n},{d},{1.7 + 400 * n**-0.34 + 410 * d**-0.28}\n" for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11)
    )
    (tmp_path / "ladder.csv").write_text("N,D,loss\n" + rows)
    make_run(tmp_path / "run", steps=5)
    names = {"ladder": "ladder.csv", "run": "run", "curve": "curve.csv", "corpus": "corpus.jsonl",
             "benchmark": "items.jsonl", "out": "audit"}
    return {name: str(tmp_path / file) for name, file in names.items()}


def ended(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and standard error of the command line, which must end by itself."""

    def late(*_: object) -> None:
        raise AssertionError(f"{words} does not end")

    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGALRM, late)
    monkeypatch.setattr(sys, "argv", ["trainvitals", *words])
    signal.alarm(SECONDS)
    try:
        with pytest.raises(SystemExit) as ending:
            cli.main()
            raise SystemExit(0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])
    return int(ending.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_none(command, kind, inputs, places, capsys, monkeypatch):
    if (command, kind) == ("scores", "nan.json"):
        pytest.skip("an item `points` whose score is not known: a file of scores, if a poor one")
    words = [word.format(inputs[kind], **places) for word in COMMANDS[command]]
    code, said = ended(words, capsys, monkeypatch)
    # What is a table to nobody else may be a log to `check`: then it says what it took it for, and ends with a verdict.
    verdict = command == "check" and " -> runs/imported/" in said
    assert code in (0, 1, 2, 3) if verdict else 64 <= code <= 66, said[-500:]
    lines = said.strip().splitlines()
    assert "internal error" not in said and "Traceback" not in said
    assert lines and len(lines[-1]) < 1200


OPTIONS = {
    "fit": ["scaling", "fit", "{ladder}", "--bootstrap", "0", "--flops", "{}"],
    "resamples": ["scaling", "fit", "{ladder}", "--bootstrap", "{}"],
    "flops": ["scaling", "plan", "--flops", "{}"],
    "unique": ["scaling", "plan", "--flops", "1e21", "--unique", "{}"],
    **{name: ["scaling", "plan", *(word for other, value in MACHINES.items() if other != name
                                   for word in (f"--{other}", value)), f"--{name}", "{}"] for name in MACHINES},
    "target": ["scaling", "forecast", "{curve}", "--target", "{}"],
    "total": ["scaling", "forecast", "{curve}", "--schedule", "linear:total={},warmup=10,peak=3e-4,final=3e-5"],
    "peak": ["scaling", "forecast", "{curve}", "--schedule", "linear:total=500,warmup=10,peak={},final=3e-5"],
    "quiet": ["compact", "{run}", "--quiet-for", "{}"],
    "port": ["dashboard", "{run}", "--port", "{}"],
    "steps": ["demo", "--run", "{out}", "--no-board", "--steps", "{}"],
    "workers": ["audit", "--corpus", "{corpus}", "--benchmark", "{benchmark}", "--out", "{out}", "--workers", "{}"],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of numbers that overflow: no error to a user
@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_number_that_is_none(option, value, places, capsys, monkeypatch):
    """It may be taken where it makes sense (a target of 0, a far budget); it never ends in a fault of ours."""
    if (option, value) in {("port", "0"), ("port", ""), ("steps", "1e308")}:
        pytest.skip("a port that is free, as if none were given")
    words = [word.format(value, **places) for word in OPTIONS[option]]
    code, said = ended(words, capsys, monkeypatch)
    assert code in (0, 1, 2, 3, 64, 65, 66), said[-500:]
    assert "internal error" not in said and "Traceback" not in said
    if code >= 64:
        assert said.strip() and len(said.strip().splitlines()[-1]) < 1200
    elif value in ("nan", "inf", "-inf", "1e999", "x", "") or len(value) > 300:
        raise AssertionError(f"{words} ended with {code}")
