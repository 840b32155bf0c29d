"""DVCLive's folder as its own client writes it, against its own reader."""

import math
from pathlib import Path
from typing import Any

import pytest

from collectors.importers.dvclive import DvcLive
from tests.importers.reading_tables import Log, bits, read_all

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own
VALUES = {"short": [1.0, math.nan, math.inf, -math.inf, 5e-324, 0.1, 7], "long": [math.sin(i) for i in range(400)]}


@pytest.mark.parametrize("shape", [*VALUES, "resumed"])
def test_every_value_is_the_clients(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvclive = pytest.importorskip("dvclive")
    from dvclive.utils import parse_metrics

    monkeypatch.setenv("DVCLIVE_TEST", "true")
    monkeypatch.chdir(tmp_path)
    quiet: dict[str, Any] = {"dir": "live é", "report": None, "save_dvc_exp": False}
    live = dvclive.Live(**quiet)
    live.log_params({"lr": 3e-4, "model": {"layers": 2, "name": "a: b"}})
    for value in VALUES.get(shape, VALUES["long"]):
        live.log_metric("train/loss", value)
        live.log_metric("deep/µ é", value, **({"timestamp": True} if shape == "long" else {}))
        live.next_step()
    if shape == "resumed":
        live = dvclive.Live(resume=True, **quiet)
        for value in VALUES["short"]:
            live.log_metric("train/loss", value)
            live.next_step()
    history, _ = parse_metrics(live)
    [log] = read_all(DvcLive(), tmp_path / "live é").values()
    for name in ("train/loss", "deep/µ é"):
        theirs = next(rows for file, rows in history.items() if Path(file).as_posix().endswith(f"{name}.tsv"))
        assert log.values[name] == [(int(row["step"]), bits(float(row[name.rpartition("/")[2]]))) for row in theirs]
    assert log.config == {"lr": 3e-4, "model.layers": 2, "model.name": "a: b"}


def test_a_growing_table_is_read_on(tmp_path: Path) -> None:
    table = tmp_path / "plots" / "metrics" / "loss.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("step\tloss\n1\t3.0\n2\t2.")
    [run], state, log = DvcLive().runs(tmp_path), {}, Log()
    log.take(DvcLive(), run, state)
    assert log.values["loss"] == [(1, bits(3.0))], "the last line has no end yet"
    with table.open("a") as file:
        file.write("5\n3\tbad\n4\t2.0\n")
    log.take(DvcLive(), run, state).take(DvcLive(), run, state)
    assert log.values["loss"] == [(1, bits(3.0)), (2, bits(2.5)), (4, bits(2.0))]
    assert [note.message for note in log.notes] == ["1 lines are not a step and a number"]
