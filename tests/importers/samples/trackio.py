"""A trackio project: metrics as JSON blobs, NaN spelled, and rows that still wait in the inbox."""

import json
import math
import sqlite3
from pathlib import Path

FORMAT = "trackio"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)} | {7: math.nan, 9: math.inf},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "nested.µ": {10: 0.25, 20: 0.5},
}
BLIND = {"rank", "steps", "absent"}
RUN = "4f3d"
SCHEMA = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
    run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, log_id TEXT, space_id TEXT);
CREATE TABLE configs (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, run_name TEXT NOT NULL,
    config TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE(run_id));
CREATE TABLE alerts (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
    run_name TEXT NOT NULL, title TEXT NOT NULL, text TEXT, level TEXT NOT NULL DEFAULT 'warn', step INTEGER,
    alert_id TEXT);
"""


def write(folder: Path) -> Path:
    inbox = folder / "inbox" / "a1b2"
    inbox.mkdir(parents=True)
    path = folder / "tiny.db"
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.executescript(SCHEMA)
    base.execute("INSERT INTO configs (run_id, run_name, config, created_at) VALUES (?, 'tiny', ?, '2026-01-01')",
                 [RUN, json.dumps({"learning_rate": 1e-3, "_Created": "2026-01-01T00:00:00+00:00"}).encode()])
    base.execute("INSERT INTO alerts (run_id, timestamp, run_name, title, level, step) VALUES (?, '2026-01-01', "
                 "'tiny', 'loss is NaN', 'error', 7)", [RUN])
    waiting = []
    for step in range(1, 31):
        metrics, time = _metrics(step), f"2026-01-01T00:00:{step:02}+00:00"
        if step <= 25:
            base.execute("INSERT INTO metrics (run_id, timestamp, run_name, step, metrics, log_id) VALUES "
                         "(?, ?, 'tiny', ?, ?, ?)", [RUN, time, step, json.dumps(metrics).encode(), f"l{step}"])
        if step >= 25:  # 25 was taken in by a server that died before it deleted the fragment
            waiting.append({"v": 1, "kind": "metric", "project": "tiny", "run": "tiny", "run_id": RUN,
                            "metrics": metrics, "step": step, "timestamp": time, "log_id": f"l{step}"})
    base.commit()
    base.close()
    (inbox / "00000000.jsonl").write_text("".join(json.dumps(record) + "\n" for record in waiting))
    return path


def _metrics(step: int) -> dict[str, object]:
    loss = ROWS["loss/train"][step]
    found: dict[str, object] = {"loss": loss if math.isfinite(loss) else "NaN" if math.isnan(loss) else "Infinity",
                                "grad_norm": ROWS["grad/norm"][step], "words": "not a number",
                                "image": {"_type": "trackio.image", "file_path": "a.png"}}
    if step in ROWS["nested.µ"]:
        found["nested"] = {"µ": ROWS["nested.µ"][step]}
    return found
