"""MLflow's database, with the tables of its migrations; NaN and infinity as its store puts them."""

import math
import sqlite3
import sys
from pathlib import Path

FORMAT = "mlflow-sqlite"
LOSS = {step: 3.0 - step / 64 for step in range(1, 31)} | {7: math.nan, 9: math.inf}
ROWS = {
    "loss/train": LOSS,
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "val/µ accuracy": {10: 0.25, 20: 0.5},
}
BLIND = {"rank"}
RUN = "0123456789abcdef0123456789abcdef"
SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(256) NOT NULL);
CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL, name VARCHAR(250), source_name VARCHAR(500), user_id VARCHAR(256),
    status VARCHAR(9), start_time BIGINT, end_time BIGINT, lifecycle_stage VARCHAR(20), experiment_id INTEGER,
    CONSTRAINT run_pk PRIMARY KEY (run_uuid));
CREATE TABLE metrics ("key" VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
    run_uuid VARCHAR(32) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan));
CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
CREATE TABLE params ("key" VARCHAR(250) NOT NULL, value VARCHAR(8000) NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    PRIMARY KEY ("key", run_uuid));
CREATE TABLE tags ("key" VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL,
    PRIMARY KEY ("key", run_uuid));
"""


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mlflow.db"
    base = sqlite3.connect(path)
    base.executescript(SCHEMA)
    base.execute("INSERT INTO experiments VALUES (1, 'pretraining')")
    base.execute("INSERT INTO runs VALUES (?, 'tiny', 'train.py', 'me', 'FINISHED', 1700000000000, NULL, 'active', 1)",
                 [RUN])
    base.execute("INSERT INTO runs VALUES ('gone', 'gone', '', '', 'FINISHED', 1600000000000, NULL, 'deleted', 1)")
    base.execute("INSERT INTO params VALUES ('learning_rate', '0.001', ?)", [RUN])
    base.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', 'parent', ?)", [RUN])
    for step in range(1, 31):
        for key, name in (("loss", "loss/train"), ("grad_norm", "grad/norm"), ("val/µ accuracy", "val/µ accuracy")):
            if step in ROWS[name]:
                base.execute("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
                             [key, *_stored(ROWS[name][step], 1_700_000_000_000 + step, step)])
    base.commit()
    base.close()
    return path


def _stored(value: float, time: int, step: int) -> list[object]:
    stored = 0.0 if math.isnan(value) else math.copysign(min(abs(value), sys.float_info.max), value)
    return [stored, time, RUN, step, math.isnan(value)]
