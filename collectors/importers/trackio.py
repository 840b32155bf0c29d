"""trackio's SQLite databases (`~/.cache/huggingface/trackio/PROJECT.db`): a row of JSON for every `trackio.log`.

Layout: https://github.com/gradio-app/trackio/blob/main/trackio/sqlite_storage.py. Rows that no server has taken in yet
lie as JSONL in `inbox/` beside the databases (`trackio/fragments.py`); they are read with their project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collectors.importers._blind import no_rank
from collectors.importers._copies import seen
from collectors.importers._points import Points, Unread, as_step, as_time, as_value
from collectors.importers._runs import news, titles
from collectors.importers._sqlite import Database, tables_of
from collectors.importers.importer import BlindSpot, Facts, Importer, Item, Note, Replaced, RunOf
from trainvitals.errors import UsageError
from trainvitals.untrusted import parse_json

ALERT = ("title", "text", "level", "step", "timestamp")
METRICS = {"run_name", "timestamp", "step", "metrics"}
MOST_RUNS, MOST_FRAGMENTS = 10_000, 2_000
MOST_CELL, MOST_FRAGMENT_BYTES = 4 << 20, 64 << 20
MOST_REMEMBERED = 100_000
"""Rows read from the inbox, which are known again once a server has put them into the database."""
NESTED = 4
"""Objects inside each other whose numbers are metrics of their own, `eval.loss`."""


class Trackio(Importer):
    """A project's database, or the inbox."""

    format = "trackio"
    title = "trackio"
    rewritten = True
    blind = (
        no_rank("trackio"),
        BlindSpot("steps", ("loss/", "grad/", "lr/"),
                  "Where trackio.log was called without step, trackio counts the calls: its step is then not the "
                  "optimizer's",
                  "Give step= to trackio.log"),
        BlindSpot("absent", ("system/",),
                  "trackio keeps the machine's metrics by time, without a step: they are not read",
                  "Look at them in trackio"),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        """Tables as trackio makes them, or lines as its fragments have them."""
        if METRICS <= tables_of(path, head).get("metrics", set()):
            return "a SQLite database with trackio's table metrics (run_name, step, metrics as JSON)"
        if path.is_dir():
            fits = path.name == "inbox" and any(True for _ in _records(path))
            return "trackio's inbox of JSONL fragments" if fits else ""
        return "a fragment of trackio's inbox" if _is_fragment(head) else ""

    def runs(self, path: Path) -> list[RunOf]:
        """The runs, in the order in which they began."""
        known: dict[str, str] = {}
        if _is_base(path):
            with _opened(path) as base:
                key = _key(base)
                known = {str(of): str(name) for of, name, _ in base.rows(
                    f"SELECT {key}, max(run_name), min(rowid) FROM metrics GROUP BY {key} ORDER BY min(rowid) "
                    f"LIMIT {MOST_RUNS}")}
        for _, record in _waiting(path):
            known.setdefault(_of(record), str(record.get("run")))
        if not known:
            raise UsageError(f"{path} holds no run yet. Wait for the first trackio.log.")
        return [RunOf(path, title, key) for key, title in titles(known.items())]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Configuration and alerts where they are new, then the rows behind the last one, then those of the inbox."""
        points, unread, version = Points(state), Unread(state), seen(run.path) if _is_base(run.path) else ""
        taken = dict.fromkeys(state.get("taken", ()))
        if not _is_base(run.path):
            yield from _inbox(run, taken, points, state)
        elif not version or version != state.get("version") or next(_waiting(run.path), None):
            with _opened(run.path) as base:
                yield from _told(base, run, state)
                yield from _stored(base, run, taken, points, unread, state)
                yield from _inbox(run, taken, points, state, base)
        state["taken"] = list(taken)[-MOST_REMEMBERED:]
        yield from points.end()
        state["version"] = version
        yield from unread.told("rows hold no step or no readable JSON")


def _stored(base: Database, run: RunOf, taken: Mapping[str, None], points: Points, unread: Unread, state: dict[str, Any]
            ) -> Iterator[Item]:
    """Rows of the database that did not come from the inbox."""
    at = state.get("at")
    if at is not None and not base.rows("SELECT 1 FROM metrics WHERE rowid = ?", at):
        raise Replaced(f"{run.path} is another database than before")
    columns = ["step", "timestamp", "metrics", *(["log_id"] if "log_id" in base.tables()["metrics"] else [])]
    for rows, lost in base.walk("metrics", columns, at, f"{_key(base)} = ?", [run.key]):
        if lost:
            yield from points.end()
            yield Note("damaged", lost, hides=True)
        for row in rows:
            if row[4:] and row[4] in taken:
                continue
            values, step = _values(row[3]), as_step(row[1])
            if values is None or step is None:
                unread.met("metrics", row[0])
                continue
            yield from points.add(step, values, as_time(row[2]), row[0])
    yield from points.end()


def _inbox(run: RunOf, taken: dict[str, None], points: Points, state: dict[str, Any], base: Database | None = None
           ) -> Iterator[Item]:
    """Records that wait in the inbox and are not in the database, which a server may have died between."""
    held = base is not None and "log_id" in base.tables()["metrics"]
    for log_id, record in _waiting(run.path):
        if _of(record) != run.key or log_id in taken:
            continue
        taken[log_id] = None
        if record.get("kind") == "alert":
            yield _alert(*(record.get(name) for name in ALERT))
        if record.get("kind") != "metric":
            continue
        if held and base is not None and base.rows("SELECT 1 FROM metrics WHERE log_id = ? LIMIT 1", log_id):
            continue
        step = as_step(record.get("step"))
        if step is None:
            yield Note("unreadable", "A fragment in the inbox has no step", hides=True)
        else:
            yield from points.add(step, _numbers(record.get("metrics")), as_time(record.get("timestamp")),
                                  state.get("at"))


def _is_base(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\x00"
    except OSError:
        return False


def _opened(path: Path) -> Database:
    base = Database(path)
    if METRICS <= base.tables().get("metrics", set()):
        return base
    base.close()
    raise UsageError(f"{path} has no table metrics with run_name, step and metrics, so trackio did not write it. Leave "
                     "--format out.")


def _key(base: Database) -> str:
    """Earlier versions knew runs by their name alone."""
    return "run_id" if "run_id" in base.tables()["metrics"] else "run_name"


def _told(base: Database, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
    tables, key = base.tables(), _key(base)
    if {key, "config"} <= tables.get("configs", set()):
        found = base.rows(f"SELECT config FROM configs WHERE {key} = ? LIMIT 1", run.key)
        config = _object(found[0][0]) if found else None
        own = {name: value for name, value in (config or {}).items() if name.startswith("_")}
        created = as_time(own.get("_Created"))
        facts = Facts({"name": run.name, **({"created": created} if created == created else {}), "notes": own},
                      {name: value for name, value in (config or {}).items() if name not in own})
        yield from news(facts, state)
    if {key, *ALERT} <= tables.get("alerts", set()):
        for rows, lost in base.walk("alerts", ALERT, state.get("alert"), f"{key} = ?", [run.key]):
            if lost:
                yield Note("damaged", lost, hides=True)
            for at, *alert in rows:
                state["alert"] = at
                yield _alert(*alert)


def _alert(title: Any, text: Any, level: Any, step: Any, time: Any) -> Note:
    said = f"{title}: {text}" if text else str(title)
    return Note("alert", f"trackio {str(level or 'warn')[:20]}: {said[:500]}", as_step(step), as_time(time))


def _object(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, (str, bytes)):
        return None
    try:
        found = parse_json(text, MOST_CELL, finite=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _values(text: Any) -> dict[str, float] | None:
    found = _object(text)
    return None if found is None else _numbers(found)


def _numbers(metrics: Any, prefix: str = "", depth: int = NESTED) -> dict[str, float]:
    """Numbers, and NaN and infinity, which trackio spells. Tables, images and texts have a `_type` or are no number."""
    found: dict[str, float] = {}
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and depth and "_type" not in value:
            found |= _numbers(value, f"{full}.", depth - 1)
        elif not isinstance(value, str) or value in ("NaN", "Infinity", "-Infinity"):
            number = as_value(value)
            if number is not None:
                found[full] = number
    return found


def _is_fragment(head: bytes) -> bool:
    record = _record(head.split(b"\n", 1)[0])
    return record is not None and {"v", "project", "run"} <= record.keys()


def _record(line: bytes) -> Mapping[str, Any] | None:
    if not line.startswith(b"{") or len(line) > MOST_CELL:
        return None
    found = _object(line)
    return found if found and found.get("kind") in ("metric", "system_metric", "alert") else None


def _of(record: Mapping[str, Any]) -> str:
    return str(record.get("run_id") or record.get("run"))


def _waiting(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records that wait beside a database for its project, or all of a fragment or an inbox."""
    if path.is_dir() or not _is_base(path):
        yield from _records(path)
        return
    for log_id, record in _records(path.parent / "inbox"):
        if _file_name(str(record.get("project"))) == path.stem:
            yield log_id, record


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    files = sorted(path.glob("*/*.jsonl"))[:MOST_FRAGMENTS] if path.is_dir() else [path]
    for file in files:
        try:
            lines = []
            if file.is_file():
                with file.open("rb") as opened:
                    lines = opened.read(MOST_FRAGMENT_BYTES).split(b"\n")
        except OSError:
            continue  # a server has taken it in
        for number, line in enumerate(lines):
            if (record := _record(line)) is not None:
                own = record.get("log_id") or record.get("alert_id")
                yield str(own or f"{file.parent.name}/{file.name}:{number}"), record


def _file_name(project: str) -> str:
    """`canonical_project_name` of trackio's."""
    return "".join(c for c in project if c.isalnum() or c in "-_").rstrip() or "default"
