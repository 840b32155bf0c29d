"""trackio's databases as its own client writes them, against its own reader."""

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from collectors.importers.trackio import Trackio
from tests.importers.reading_tables import Log, bits, read_all
from tests.importers.samples import trackio as sample

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Three runs by the client: short with all that is not finite, long, and resumed."""
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils
    from trackio.sqlite_storage import SQLiteStorage

    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "TRACKIO_DIR", folder)
        patch.setattr(sqlite_storage, "TRACKIO_DIR", folder)
        odd = [1.0, math.nan, math.inf, -math.inf, 5e-324, 0.1, 7]
        shapes = {"short é": (range(7), lambda i: odd[i]), "long": (range(3000), math.sin),
                  "resumed": ([*range(60), *range(40, 80)], math.cos)}
        for name, (steps, value) in shapes.items():
            logged = [{"train/loss": value(step), "nested": {"µ": step / 3}, "note": "words"} for step in steps]
            SQLiteStorage.bulk_log(project="my proj.é", run=name, run_id=f"id-{name}", metrics_list=logged,
                                   steps=list(steps), config={"lr": 3e-4, "model": {"layers": 2}})
        yield SQLiteStorage, next(folder.glob("*.db"))


def test_every_value_is_the_clients(project: tuple[Any, Path]) -> None:
    storage, path = project
    logs = read_all(Trackio(), path)
    assert set(logs) == {"short é", "long", "resumed"}
    for name, log in logs.items():
        theirs = storage.get_logs("my proj.é", run=name, run_id=f"id-{name}")
        assert log.values["train/loss"] == [(row["step"], bits(float(row["train/loss"]))) for row in theirs]
        assert log.values["nested.µ"] == [(row["step"], bits(row["nested"]["µ"])) for row in theirs]
        assert set(log.values) == {"train/loss", "nested.µ"}
        assert log.config == {"lr": 3e-4, "model": {"layers": 2}}


def test_the_schema_before_run_ids(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, run_name TEXT "
                 "NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)")
    base.executemany("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES ('2025-01-01T00:00:00', ?, ?, ?)",
                     [(run, step, f'{{"loss": {step / 4}, "odd": NaN}}') for step in range(4) for run in ("a", "b")])
    base.commit()
    base.close()
    logs = read_all(Trackio(), path)
    assert set(logs) == {"a", "b"}
    assert logs["a"].values == {"loss": [(s, bits(s / 4)) for s in range(4)], "odd": [(s, b"nan") for s in range(4)]}


def test_rows_of_the_inbox_are_taken_once(tmp_path: Path) -> None:
    path = sample.write(tmp_path)
    importer, state = Trackio(), dict[str, Any]()
    [run] = importer.runs(path)
    log = Log().take(importer, run, state)
    assert [step for step, _ in log.values["loss"]] == list(range(1, 31)), "row 25 stands in both"
    base = sqlite3.connect(path)  # a server takes the fragment in, and deletes it
    for step in range(26, 31):
        base.execute("INSERT INTO metrics (run_id, timestamp, run_name, step, metrics, log_id) VALUES "
                     "(?, '', 'tiny', ?, ?, ?)", [sample.RUN, step, '{"loss": 0}', f"l{step}"])
    base.commit()
    base.close()
    (tmp_path / "inbox" / "a1b2" / "00000000.jsonl").unlink()
    log.take(importer, run, state)
    assert len(log.values["loss"]) == 30
    assert [note.message for note in log.notes] == ["trackio error: loss is NaN"]


def test_a_fragment_alone_is_a_run(tmp_path: Path) -> None:
    sample.write(tmp_path)
    for path in (tmp_path / "inbox", tmp_path / "inbox" / "a1b2" / "00000000.jsonl"):
        assert [step for step, _ in read_all(Trackio(), path)["tiny"].values["loss"]] == list(range(25, 31))
