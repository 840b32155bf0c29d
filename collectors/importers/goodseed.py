"""GoodSeed's SQLite file of a run (`~/.goodseed/projects/PROJECT/runs/RUN.sqlite`): points of named series.

Layout: `goodseed/storage.py` of https://pypi.org/project/goodseed/0.4.0/. A step may be a fraction; a second value for
a step replaces the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers._blind import no_rank
from collectors.importers._copies import seen
from collectors.importers._points import Point, Points, Unread, as_time, as_value, together
from collectors.importers._runs import news
from collectors.importers._sqlite import Database, tables_of
from collectors.importers._steps import factor_of, scaled, scaled_steps
from collectors.importers.importer import BATCH_ROWS, BlindSpot, Facts, Importer, Item, Note, RunOf
from trainvitals.errors import UsageError

NEEDED = {"metric_series": {"id", "path"}, "metric_points": {"series_id", "step", "y", "ts"}}
MOST_SERIES, MOST_CONFIGS, MOST_FRACTIONS = 4_096, 5_000, 100_000


class GoodSeed(Importer):
    """A run's database."""

    format = "goodseed"
    title = "GoodSeed"
    rewritten = True
    blind = (
        no_rank("GoodSeed"),
        BlindSpot("nonfinite", ("loss/", "grad/"),
                  "GoodSeed's database takes no NaN: logging one is an error, and the step has no value",
                  "Log the loss also to a file that keeps NaN, or attach the tap"),
        BlindSpot("absent", ("branches",),
                  "GoodSeed keeps one value per step: what a resumed job logged replaced what was there",
                  "Give a resumed job a run of its own"),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        """Tables as GoodSeed makes them."""
        tables = tables_of(path, head)
        fits = all(columns <= tables.get(name, set()) for name, columns in NEEDED.items())
        return "a SQLite database with GoodSeed's tables metric_series and metric_points" if fits else ""

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Facts where they are new, then of every series the points behind its last."""
        version = seen(run.path)
        if version and version == state.get("version"):
            return
        with Database(run.path) as base:
            tables = base.tables()
            if not all(columns <= tables.get(name, set()) for name, columns in NEEDED.items()):
                raise UsageError(f"{run.path} has no tables metric_series and metric_points, so GoodSeed did not write "
                                 "it. Leave --format out.")
            facts = _facts(base, tables, run)
            yield from news(facts, state)
            named = base.rows(f"SELECT id, path FROM metric_series ORDER BY id LIMIT {MOST_SERIES}")
            yield from _fractions(base, {key: str(path) for key, path in named}, state)
            unread = Unread(state)
            series = [_points(base, key, str(path), state, unread) for key, path in named]
            yield from together(series, state, Points(state))
            yield from unread.told("points hold no number or no step")
            status = facts.card["notes"].get("goodseed_status")
            if status in ("finished", "failed") and state.get("status") != status:
                state["status"] = status
                yield Note("closed" if status == "finished" else "ended", f"GoodSeed says that the run is {status}")
        state["version"] = version


def _fractions(base: Database, named: dict[int, str], state: dict[str, Any]) -> Iterator[Item]:
    """Look, once, which series have steps that are fractions."""
    if "factors" in state:
        return
    found = base.rows("SELECT series_id, step FROM metric_points WHERE step <> CAST(step AS INTEGER) "
                      f"LIMIT {MOST_FRACTIONS}")
    factor = factor_of(step for _, step in found)
    state["factors"] = {named[key]: factor for key, _ in found if key in named and factor > 1}
    if state["factors"]:
        yield Facts(blind=scaled_steps(factor, sorted(state["factors"])))


def _points(base: Database, key: int, path: str, state: dict[str, Any], unread: Unread) -> Iterator[Point]:
    last, factor = state.get("ends", {}).get(path), state["factors"].get(path, 1)
    while True:
        behind = "" if last is None else "AND step > ?"
        rows = base.rows(f"SELECT step, y, ts FROM metric_points WHERE series_id = ? {behind} ORDER BY step "
                         f"LIMIT {BATCH_ROWS // 8}", key, *([] if last is None else [last]))
        for at, y, time in rows:
            step, value = scaled(at, factor), as_value(y)
            last = at
            if step is None or value is None:
                unread.met(path, at if isinstance(at, (int, float)) else 0.0)
            else:
                yield Point(float(at), step, path, value, as_time(time), at)
        if not rows or not isinstance(last, (int, float)):
            return


def _facts(base: Database, tables: dict[str, set[str]], run: RunOf) -> Facts:
    pairs = {str(path): _typed(tag, value) for path, tag, value in base.rows(
        f"SELECT path, type_tag, value FROM configs LIMIT {MOST_CONFIGS}")
    } if {"path", "type_tag", "value"} <= tables.get("configs", set()) else {}
    meta = {str(key): value for key, value in base.rows(f"SELECT key, value FROM run_meta LIMIT {MOST_CONFIGS}")
            } if {"key", "value"} <= tables.get("run_meta", set()) else {}
    own = {path: value for path, value in pairs.items() if path.startswith("sys/")}
    created = as_time(meta.get("created_at") or own.get("sys/creation_time"))
    card = {"name": str(meta.get("name") or run.name), **({"created": created} if created == created else {}),
            "notes": {f"goodseed_{key}": value for key, value in meta.items() if value is not None} | own}
    return Facts(card, {path: value for path, value in pairs.items() if path not in own})


def _typed(tag: Any, value: Any) -> Any:
    if tag in ("int", "float") and isinstance(value, str):
        number = as_value(value)
        if number is None or not abs(number) < 2**53:
            return value
        return int(number) if tag == "int" else number
    if tag == "bool":
        return str(value).lower() == "true"
    if tag == "string_set" and isinstance(value, str) and len(value) < 100_000:
        try:
            return [str(item) for item in json.loads(value)]
        except (ValueError, TypeError, RecursionError):
            return value
    return None if tag == "null" else value
