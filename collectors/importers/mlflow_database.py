"""MLflow's SQLite store (`mlflow.db`): one row per metric and step, with a flag in place of NaN.

Layout: https://github.com/mlflow/mlflow/blob/v3.1.0/mlflow/store/tracking/dbmodels/models.py. A NaN is stored as 0 with
`is_nan`, an infinity as the largest finite number (`sanitize_metric_value` in `sqlalchemy_store.py`): both are read as
what was logged.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers._copies import seen
from collectors.importers._mlflow import BLIND, Stepless, facts_of, status_note
from collectors.importers._points import Points, Unread, as_step, as_time, as_value
from collectors.importers._runs import news, titles
from collectors.importers._sqlite import Database, Row, tables_of
from collectors.importers.importer import Facts, Importer, Item, Note, Replaced, RunOf
from trainvitals.errors import UsageError

NEEDED = {
    "metrics": {"key", "value", "timestamp", "run_uuid", "step"},
    "runs": {"run_uuid", "lifecycle_stage"},
}
MOST_RUNS = 10_000
MOST_PAIRS = 5_000
"""Parameters, or tags, of a run."""


class MlflowDatabase(Importer):
    """`mlflow.db`, or any other file that MLflow's `sqlite:///` writes."""

    format = "mlflow-sqlite"
    title = "MLflow database"
    blind = BLIND
    rewritten = True

    def recognises(self, path: Path, head: bytes) -> str:
        """Tables as MLflow makes them."""
        tables = tables_of(path, head)
        fits = all(columns <= tables.get(name, set()) for name, columns in NEEDED.items())
        return "a SQLite database with MLflow's tables metrics and runs" if fits else ""

    def runs(self, path: Path) -> list[RunOf]:
        """The runs that are not deleted, oldest first."""
        with _opened(path) as base:
            tables = base.tables()
            name, start = (column if column in tables["runs"] else "NULL" for column in ("name", "start_time"))
            found = base.rows(f"SELECT run_uuid, {name}, lifecycle_stage FROM runs ORDER BY {start}, rowid "
                              f"LIMIT {MOST_RUNS}")
            named = _tags(base, tables, "mlflow.runName")
        known = [(str(key), str(title or named.get(key) or "")) for key, title, stage in found if stage != "deleted"]
        if not known:
            raise UsageError(f"{path} holds {len(found):,} runs, all of them deleted. Bring one back with "
                             "`mlflow runs restore`." if found else f"{path} holds no run yet. Wait for the first one.")
        return [RunOf(path, title, key) for key, title in titles(known)]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Facts where they are new, then metrics behind the last one."""
        version = seen(run.path)
        if version and version == state.get("version"):
            return
        with _opened(run.path) as base:
            tables = base.tables()
            facts = _facts(base, tables, run)
            yield from news(facts, state)
            yield from _metrics(base, tables, run, state)
            yield from status_note(facts, state)
        state["version"] = version


def _opened(path: Path) -> Database:
    base = Database(path)
    tables = base.tables()
    if all(columns <= tables.get(name, set()) for name, columns in NEEDED.items()):
        return base
    base.close()
    raise UsageError(f"{path} has no tables metrics and runs, so MLflow did not write it. Leave --format out.")


def _metrics(base: Database, tables: dict[str, set[str]], run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
    columns = ["key", "value", "timestamp", "step", *(["is_nan"] if "is_nan" in tables["metrics"] else [])]
    at = state.get("at")
    if at and base.rows("SELECT rowid, key, timestamp, step FROM metrics WHERE rowid = ? AND run_uuid = ?", at[0],
                        run.key) != [tuple(at)]:
        raise Replaced(f"{run.path} was rewritten since it was last read (`mlflow gc`, VACUUM or a restored backup)")
    points, unread, stepless = Points(state), Unread(state), Stepless(state)
    for rows, lost in base.walk("metrics", columns, at[0] if at else None, "run_uuid = ?", [run.key]):
        if lost:
            yield from points.end()
            yield Note("damaged", lost, hides=True)
        for row in rows:
            point = _point(row)
            if point is None:
                unread.met("metrics", row[0])
                continue
            name, step, value, time = point
            stepless.met(name, step)
            yield from points.add(step, {name: value}, time, [row[0], row[1], row[3], row[4]])
    yield from points.end()
    yield from unread.told("rows of table metrics hold no number or no whole step")
    yield from stepless.told()


def _point(row: Row) -> tuple[str, int, float, float] | None:
    _, key, stored, at, on, *flag = row
    step, value = as_step(on), as_value(stored)
    if not isinstance(key, str) or step is None or value is None:
        return None
    if flag and flag[0] not in (0, None):
        value = math.nan
    elif abs(value) == sys.float_info.max:
        value = math.copysign(math.inf, value)
    return key, step, value, as_time(at, 1000.0)


def _facts(base: Database, tables: dict[str, set[str]], run: RunOf) -> Facts:
    wanted = [column for column in ("status", "start_time", "end_time", "user_id", "source_name", "experiment_id")
              if column in tables["runs"]]
    rows = base.rows(f"SELECT {', '.join(wanted) or 'run_uuid'} FROM runs WHERE run_uuid = ? LIMIT 1", run.key)
    if not rows:
        raise UsageError(f"{run.path} has no run {run.key[:40]} any more. Look at what it holds, and import it anew.")
    told = dict(zip(wanted, rows[0], strict=False))
    if "experiments" in tables and told.get("experiment_id") is not None:
        named = base.rows("SELECT name FROM experiments WHERE experiment_id = ? LIMIT 1", told["experiment_id"])
        told["experiment"] = named[0][0] if named else told["experiment_id"]
    params, tags = (_pairs(base, tables, table, run.key) for table in ("params", "tags"))
    return facts_of(run, told, params, tags)


def _pairs(base: Database, tables: dict[str, set[str]], table: str, key: str) -> dict[Any, Any]:
    if not {"key", "value", "run_uuid"} <= tables.get(table, set()):
        return {}
    return dict(base.rows(f"SELECT key, value FROM {table} WHERE run_uuid = ? LIMIT {MOST_PAIRS}", key))


def _tags(base: Database, tables: dict[str, set[str]], key: str) -> dict[Any, Any]:
    if not {"key", "value", "run_uuid"} <= tables.get("tags", set()):
        return {}
    return dict(base.rows(f"SELECT run_uuid, value FROM tags WHERE key = ? LIMIT {MOST_RUNS}", key))
