"""Databases and folders that are damaged, locked, or made to harm: a sentence each, in bounded time and memory."""

import os
import random
import shutil
import sqlite3
import time
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from collectors.importers import _copies, _sqlite
from collectors.importers._sqlite import Database
from collectors.importers.importer import Importer, Replaced, Rows
from collectors.importers.mlflow_database import MlflowDatabase
from collectors.importers.registry import all_importers
from tests.importers.reading_tables import Log, bits, head, read_all
from tests.importers.samples import dvclive, goodseed, mlflow_files, mlflow_sqlite, neptune, trackio
from trainvitals.errors import UsageError

SAMPLES = [mlflow_sqlite, mlflow_files, trackio, goodseed, neptune, dvclive]
DAMAGES = 300


def _importer(sample: ModuleType) -> Importer:
    return next(importer for importer in all_importers() if importer.format == sample.FORMAT)


def _outcome(importer: Importer, path: Path) -> str:
    """Recognised and read, or one sentence."""
    importer.recognises(path, head(path))
    try:
        return str(sum(len(item.steps) for run in importer.runs(path) for item in importer.read(run, {})
                       if isinstance(item, Rows)))
    except (UsageError, Replaced) as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 600
        return str(error)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.FORMAT)
def test_truncations_and_bit_flips(sample: ModuleType, tmp_path: Path) -> None:
    path, importer = sample.write(tmp_path / "log"), _importer(sample)
    files = sorted(file for file in (tmp_path / "log").rglob("*") if file.is_file())
    whole = {file: file.read_bytes() for file in files}
    draw = random.Random(sample.FORMAT)
    outcomes = set()
    for _ in range(DAMAGES):
        file = draw.choice(files)
        data = bytearray(whole[file])
        if draw.random() < 0.5:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.choice((1, 8, 64))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        outcomes.add(_outcome(importer, path))
        file.write_bytes(whole[file])
    assert _outcome(importer, path).isdigit() and len(outcomes) > 1


def _made(path: Path, *sql: str) -> Path:
    base = sqlite3.connect(path)
    for statement in sql:
        base.execute(statement)
    base.commit()
    base.close()
    return path


RUNS = "CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT)"
RUN = "INSERT INTO runs VALUES ('r', 'active')"
METRICS = "CREATE TABLE metrics (key TEXT, value REAL, timestamp INT, run_uuid TEXT, step INT)"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
BOMBS = {
    "an endless view": (RUNS, RUN, f"CREATE VIEW metrics AS {ENDLESS} 'loss' AS key, i AS value, i AS timestamp, "
                        "'r' AS run_uuid, i AS step FROM n"),
    "an endless view of runs": (METRICS, f"CREATE VIEW runs AS {ENDLESS} i AS run_uuid, 'active' AS lifecycle_stage "
                                "FROM n"),
    "a computed column": (RUNS, RUN, "CREATE TABLE metrics (key TEXT, value REAL AS (abs(timestamp)), "
                          "timestamp INT, run_uuid TEXT, step INT)",
                          "INSERT INTO metrics (key, timestamp, run_uuid, step) VALUES ('loss', 1, 'r', 1)"),
    "a virtual table": (RUNS, RUN, "CREATE VIRTUAL TABLE metrics USING fts5(key, value, timestamp, run_uuid, step)"),
    "no rowid": (RUNS, RUN, "CREATE TABLE metrics (key TEXT PRIMARY KEY, value REAL, timestamp INT, run_uuid TEXT, "
                 "step INT) WITHOUT ROWID"),
    "a column rowid": (RUNS, RUN, "CREATE TABLE metrics (key TEXT, value REAL, timestamp INT, run_uuid TEXT, step INT, "
                       "rowid TEXT)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_schema_that_is_not_mlflows_is_not_run(name: str, tmp_path: Path) -> None:
    path = _made(tmp_path / "bomb.db", *BOMBS[name])
    begun = time.process_time()
    assert not MlflowDatabase().recognises(path, head(path))
    with pytest.raises(UsageError, match="MLflow did not write it"):
        MlflowDatabase().runs(path)
    assert time.process_time() - begun < 2


def test_what_is_slow_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "STATEMENT_SECONDS", 0.2)
    with Database(_made(tmp_path / "x.db", METRICS, *["INSERT INTO metrics VALUES ('k', 1, 1, 'r', 1)"] * 300)) as base:
        with pytest.raises(UsageError, match="milliseconds"):
            base.rows("SELECT count(*) FROM metrics a, metrics b, metrics c, metrics d, metrics e")
        for forbidden in ("SELECT load_extension('x')", "SELECT writefile('x', 'y')", "ATTACH 'y.db' AS y",
                          "DELETE FROM metrics", f"{ENDLESS} i FROM n", "PRAGMA journal_mode = WAL", "SELECT abs(1)"):
            with pytest.raises(UsageError):
                base.rows(forbidden)


def test_a_cell_too_large_costs_its_row_alone(tmp_path: Path) -> None:
    path = _made(tmp_path / "big.db", RUNS, RUN, METRICS,
                 *(f"INSERT INTO metrics VALUES ('loss', {i}, {i}, 'r', {i})" for i in range(50)),
                 "INSERT INTO metrics VALUES (zeroblob(9000000), 1, 1, 'r', 1)",
                 *(f"INSERT INTO metrics VALUES ('loss', {i}, {i}, 'r', {i})" for i in range(50, 100)))
    tracemalloc.start()
    log = read_all(MlflowDatabase(), path)["r"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [step for step, _ in log.values["loss"]] == list(range(100))
    assert [note.kind for note in log.notes] == ["damaged"] and peak < 8 << 20


def test_rows_of_wrong_types_are_counted(tmp_path: Path) -> None:
    odd = ["'loss', 'words', 1, 'r', 1", "'loss', x'00', 1, 'r', 1", "NULL, 1, 1, 'r', 1", "'loss', 1, 1, 'r', 1.5",
           "'loss', 1, 1, 'r', 9e18", "'loss', 1, 1, 'r', NULL", "'loss', NULL, 1, 'r', 3"]
    path = _made(tmp_path / "odd.db", RUNS, RUN, METRICS, *(f"INSERT INTO metrics VALUES ({row})" for row in odd),
                 "INSERT INTO metrics VALUES ('loss', 2, 'when?', 'r', 2)")
    log = read_all(MlflowDatabase(), path)["r"]
    assert [step for step, _ in log.values["loss"]] == [2]
    assert [note.message[:6] for note in log.notes] == ["7 rows"] and log.notes[0].hides


def test_a_damaged_page_hides_what_it_held(tmp_path: Path) -> None:
    path = _made(tmp_path / "pages.db", RUNS, RUN, METRICS,
                 *(f"INSERT INTO metrics VALUES ('loss', {i}, {i}, 'r', {i})" for i in range(3000)))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    log = read_all(MlflowDatabase(), path)["r"]
    steps = [step for step, _ in log.values["loss"]]
    assert 2000 < len(steps) < 3000 and steps[-1] == 2999 and steps == sorted(set(steps))
    assert any(note.kind == "damaged" and note.hides for note in log.notes)


def test_a_locked_database_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "LOCK_SECONDS", 0.05)
    path = mlflow_sqlite.write(tmp_path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError, match="is locked by the program that writes it"):
        MlflowDatabase().runs(path)
    writer.execute("COMMIT")
    assert MlflowDatabase().runs(path)
    writer.close()


def test_reading_blocks_no_writer(tmp_path: Path) -> None:
    path = _made(tmp_path / "live.db", RUNS, RUN, METRICS,
                 *(f"INSERT INTO metrics VALUES ('loss', {i}, {i}, 'r', {i})" for i in range(9000)))
    writer = sqlite3.connect(path, timeout=0)
    [run] = MlflowDatabase().runs(path)
    reading, seen = MlflowDatabase().read(run, {}), 0
    for item in reading:
        writer.execute("INSERT INTO metrics VALUES ('loss', 0, 0, 'r', 9999)")
        writer.commit()
        seen += isinstance(item, Rows)
    writer.close()
    assert seen >= 2


def test_a_dead_writers_transaction_is_not_shown(tmp_path: Path) -> None:
    path = mlflow_sqlite.write(tmp_path / "log")
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA cache_size = 1")
    base.execute("PRAGMA cache_spill = 1")
    base.execute("BEGIN")
    base.executemany("INSERT INTO metrics VALUES ('loss', ?, ?, ?, ?, 0)",
                     [(0.0, i, mlflow_sqlite.RUN, 1000 + i) for i in range(3000)])
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "log", kept)  # pages are written, and the journal that undoes them lies beside
    base.execute("ROLLBACK")
    base.close()
    assert (kept / "mlflow.db-journal").stat().st_size > 0
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    log = read_all(MlflowDatabase(), kept / "mlflow.db")["tiny"]
    assert max(step for step, _ in log.values["loss"]) == 30
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before


def test_a_wal_base_that_is_written_meanwhile(tmp_path: Path) -> None:
    path = goodseed.write(tmp_path)  # closed in order: its write-ahead log is gone, and it is read without a lock
    [run] = _importer(goodseed).runs(path)
    importer, state = _importer(goodseed), {}
    log = Log().take(importer, run, state)
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO metric_points (series_id, step, y, ts) VALUES (1, 31, 0.5, 0)")
    writer.commit()
    log.take(importer, run, state)
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.execute("INSERT INTO metric_points (series_id, step, y, ts) VALUES (1, 32, 0.25, 0)")
    writer.commit()
    log.take(importer, run, state)
    writer.close()
    assert [step for step, _ in log.values["loss"]] == list(range(1, 33))


@pytest.mark.parametrize("sample", [mlflow_sqlite, trackio, goodseed], ids=lambda sample: sample.FORMAT)
def test_a_database_that_did_not_change_is_not_opened(sample: ModuleType, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    path, importer, state = sample.write(tmp_path), _importer(sample), dict[str, object]()
    shutil.rmtree(tmp_path / "inbox", ignore_errors=True)
    os.utime(path, (1e9, 1e9))
    [run] = importer.runs(path)
    reading = importer.read(run, state)
    next(reading)
    reading.close()  # a look that was broken off
    log = Log().take(importer, run, state)
    assert len(log.values["loss"]) >= 25
    with monkeypatch.context() as patch:
        patch.setattr(_sqlite.sqlite3, "connect", lambda *_, **__: pytest.fail("it was opened"))
        log.take(importer, run, state)
    os.utime(path, (1e9, 1e9 + 1))
    log.take(importer, run, state)
    assert len(log.values["loss"]) <= 30


def test_runs_of_one_base_share_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mlflow_sqlite.write(tmp_path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO runs (run_uuid, name, lifecycle_stage) VALUES ('r2', 'other', 'active')")
    writer.commit()
    copies, copy = [], shutil.copyfile
    monkeypatch.setattr(_copies.shutil, "copyfile", lambda a, b: copies.append(a) or copy(a, b))
    assert set(read_all(MlflowDatabase(), path)) == {"tiny", "other"} and len(copies) == 2, "the base and its log"
    writer.execute("INSERT INTO metrics VALUES ('loss', 1, 1, 'r2', 1, 0)")
    writer.commit()
    assert read_all(MlflowDatabase(), path)["other"].values == {"loss": [(1, bits(1.0))]}
    writer.close()
