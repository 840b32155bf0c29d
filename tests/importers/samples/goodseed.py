"""GoodSeed's database of a run; one series has steps that are fractions."""

import math
import sqlite3
from pathlib import Path

FORMAT = "goodseed"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)} | {9: math.inf},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "half/µ": {5: 0.25, 10: 0.5, 15: 0.75},
}
BLIND = {"rank", "nonfinite", "absent", "steps"}
SCHEMA = """
CREATE TABLE run_meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE configs (path TEXT PRIMARY KEY, type_tag TEXT NOT NULL, value TEXT, updated_at TEXT NOT NULL,
    uploaded INTEGER NOT NULL DEFAULT 0);
CREATE TABLE metric_series (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE);
CREATE TABLE metric_points (series_id INTEGER NOT NULL REFERENCES metric_series(id), step REAL NOT NULL,
    y REAL NOT NULL, ts INTEGER NOT NULL, uploaded INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (series_id, step));
"""


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.sqlite"
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.executescript(SCHEMA)
    base.execute("INSERT INTO run_meta VALUES ('name', 'tiny'), ('status', 'finished')")
    base.execute("INSERT INTO configs (path, type_tag, value, updated_at) VALUES ('lr', 'float', '0.001', '')")
    series = (("loss", "loss/train"), ("grad_norm", "grad/norm"), ("half/µ", "half/µ"))
    for number, (own, name) in enumerate(series, 1):
        base.execute("INSERT INTO metric_series VALUES (?, ?)", [number, own])
        tenth = 10 if name == "half/µ" else 1
        base.executemany("INSERT INTO metric_points (series_id, step, y, ts) VALUES (?, ?, ?, 1700000000)",
                         [(number, step / tenth, value) for step, value in ROWS[name].items()])
    base.commit()
    base.close()
    return path
