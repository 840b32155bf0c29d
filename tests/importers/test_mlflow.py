"""MLflow's stores as its own client writes them, against its own client as it reads them."""

import math
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.importers.importer import Importer, Replaced
from collectors.importers.mlflow_database import MlflowDatabase
from collectors.importers.mlflow_files import MlflowFiles
from tests.importers.reading_tables import Log, bits, read_all
from tests.importers.samples import mlflow_sqlite

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own
STORES = {"sqlite": MlflowDatabase(), "files": MlflowFiles()}
KEYS = ("train/loss", "grad_norm", "eval/deep/µ é")


@pytest.fixture(scope="module", params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Importer, Path]:
    """A client, our importer of what it writes, and where that is; three runs of different shapes."""
    pytest.importorskip("mlflow")
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")
        pytest.importorskip("alembic")
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        folder = tmp_path_factory.mktemp(request.param)
        path = folder / ("mlflow.db" if request.param == "sqlite" else "mlruns")
        client = MlflowClient(f"sqlite:///{path}" if request.param == "sqlite" else f"file:{path}")
        experiment = client.create_experiment("pre training é")
        shapes = {"short": [1.0, math.nan, math.inf, -math.inf, 5e-324, 0.1], "long": None, "resumed": None}
        for name, values in shapes.items():
            run = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": "p"}).info.run_id
            client.log_param(run, "lr", 3e-4)
            steps = list(range(2000)) if name == "long" else [*range(60), *range(40, 80)] if name == "resumed" else \
                list(range(len(values or ())))
            for start in range(0, len(steps), 200):
                batch = [Metric(key, values[step] if values else math.sin(step + len(key) + i / 3), 10**12 + i, step)
                         for i, step in enumerate(steps[start : start + 200], start) for key in KEYS]
                client.log_batch(run, metrics=batch)
            client.set_terminated(run, "FINISHED" if name != "short" else "FAILED")
        gone = client.create_run(experiment, run_name="deleted").info.run_id
        client.delete_run(gone)
        yield client, STORES[request.param], path


def test_every_value_is_the_clients(store: tuple[Any, Importer, Path]) -> None:
    client, importer, path = store
    logs = read_all(importer, path)
    assert set(logs) == {"short", "long", "resumed"}
    for run in importer.runs(path):
        for key in KEYS:
            theirs = [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.key, key)]
            expected = [(step, bits(_unclamped(value))) for step, _, value in sorted(theirs, key=lambda m: m[1])]
            assert logs[run.name].values[key] == expected, (run.name, key)
        assert logs[run.name].config == {"lr": 3e-4}
        assert logs[run.name].card["notes"]["mlflow_parent_run"] == "p"
        assert logs[run.name].notes[-1].kind == ("ended" if run.name == "short" else "closed")


def _unclamped(value: float) -> float:
    """MLflow's database cannot hold infinity; its client gives back the largest finite number, we what was logged."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def test_a_live_run_is_read_on(store: tuple[Any, Importer, Path], tmp_path: Path) -> None:
    client, importer, path = store
    experiment = client.get_experiment_by_name("pre training é").experiment_id
    run = client.create_run(experiment, run_name="live").info.run_id
    client.log_metric(run, "loss", 3.0, step=1, timestamp=1000)
    [ours] = [r for r in importer.runs(path) if r.key == run]
    state: dict[str, Any] = {}
    log = Log().take(importer, ours, state)
    assert not log.notes
    client.log_metric(run, "loss", 2.0, step=2, timestamp=2000)
    client.log_metric(run, "loss", math.nan, step=3, timestamp=3000)
    log.take(importer, ours, state).take(importer, ours, state)
    assert log.values["loss"] == [(1, bits(3.0)), (2, bits(2.0)), (3, b"nan")]
    client.delete_run(run)


def test_metrics_without_a_step_are_named(tmp_path: Path) -> None:
    path = mlflow_sqlite.write(tmp_path)
    base = sqlite3.connect(path)
    base.executemany("INSERT INTO metrics VALUES ('stepless', ?, ?, ?, 0, 0)",
                     [(i / 2, i, mlflow_sqlite.RUN) for i in range(3)])
    base.execute("INSERT INTO metrics VALUES ('system/cpu', 1, 5, ?, 3, 0)", [mlflow_sqlite.RUN])
    base.commit()
    base.close()
    assert read_all(MlflowDatabase(), path)["tiny"].blind == ["steps", "steps"]


def test_a_rewritten_database_is_read_anew(tmp_path: Path) -> None:
    path = mlflow_sqlite.write(tmp_path)
    importer, state = MlflowDatabase(), dict[str, Any]()
    [run] = importer.runs(path)
    Log().take(importer, run, state)
    base = sqlite3.connect(path)
    base.execute("DELETE FROM metrics WHERE step > 10")
    base.commit()
    base.close()
    with pytest.raises(Replaced):
        Log().take(importer, run, state)


def test_the_foreign_folder_stays_as_it_is(tmp_path: Path) -> None:
    path = mlflow_sqlite.write(tmp_path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO metrics VALUES ('loss', 1.5, 1, ?, 99, 0)", [mlflow_sqlite.RUN])
    writer.commit()
    kept = tmp_path / "kept"
    kept.mkdir()
    for file in tmp_path.glob("mlflow.db*"):  # as a killed writer leaves it
        shutil.copy(file, kept)
    writer.close()
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert "mlflow.db-wal" in before
    log = read_all(MlflowDatabase(), kept / "mlflow.db")["tiny"]
    assert (99, bits(1.5)) in log.values["loss"]
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before
