"""The cleaned benchmark, the items to replace and the documents to drop: complete, and safe to open."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from checks.contamination.records import Benchmark, Item
from checks.contamination.report.exports import DROP, REPLACE, write_exports
from tests.contamination.make_audit import make_audit


def _exported(folder: Path, names: tuple[str, ...] = ("gsm8k_made", "code_made", "trivia_made"), **made: object):
    make_audit(folder, 150, **made)
    items = pq.read_table(folder / "items.parquet").to_pandas()
    matches = pq.read_table(folder / "matches.parquet").to_pandas()
    benchmarks = []
    for name in names:
        ids = items.loc[items["benchmark"] == name, "item_id"]
        rows = [{"n": n, "text": f"{i}\u2028\ud800" if n == 0 else i} for n, i in enumerate(ids)]
        benchmarks.append(Benchmark(name, "", "", [Item(name, i, {}) for i in ids], rows, {}))
    return items, matches, write_exports(folder, benchmarks, items, matches)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_exports_hold_exactly_what_the_tables_say(tmp_path: Path):
    items, matches, exported = _exported(tmp_path)
    assert exported.files == (
        "clean/gsm8k_made.jsonl", "clean/code_made.jsonl", "clean/trivia_made.jsonl", "replace.csv",
        "drop_documents.csv",
    )  # fmt: skip
    own = items[items["benchmark"] == "gsm8k_made"].reset_index(drop=True)
    kept = [json.loads(line)["n"] for line in (tmp_path / exported.files[0]).read_text().split("\n")[:-1]]
    assert kept == own.index[own["verdict"] != "contaminated"].tolist()
    assert len((tmp_path / exported.files[1]).read_bytes().split(b"\n")) - 1 == 164

    dirty = items[items["verdict"] == "contaminated"]
    replaced = _read(tmp_path / "replace.csv")
    assert [row["item_id"] for row in replaced] == dirty["item_id"].tolist()
    assert all(row["best_document"] and row["rule"] and row["document_id"] for row in replaced)
    assert list(replaced[0]) == list(REPLACE)

    proof = matches[matches["level"] == "contaminated"]
    dropped = _read(tmp_path / "drop_documents.csv")
    assert list(dropped[0]) == list(DROP)
    assert {(row["shard"], int(row["record"])) for row in dropped} == set(
        zip(proof["shard"], proof["record"], strict=True)
    )
    held = {(item, f"{row['shard']}#{row['record']}") for row in dropped for item in json.loads(row["items"])}
    assert held == {(f"{m.benchmark}/{m.item_id}", m.document) for m in proof.itertuples()}
    assert exported.notes == ()


def test_documents_that_are_not_listed_are_said(tmp_path: Path):
    items, matches, _ = _exported(tmp_path)
    items.loc[items["verdict"] == "contaminated", "documents"] = 5_000
    assert "drop_documents.csv holds the best of them" in write_exports(tmp_path, [], items, matches).notes[0]


def test_hostile_strings_stay_in_their_cells_and_files_in_their_folder(tmp_path: Path):
    folder = tmp_path / "audit"
    items, _, _ = _exported(folder, hostile=True)
    for name in ("replace.csv", "drop_documents.csv"):
        rows = _read(folder / name)
        assert rows and None not in rows[0]
        assert not any(str(cell).startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())
    ids = [Item("x", "1", {})]
    odd = [Benchmark(name, "", "", ids, [{}], {}) for name in ("../../up", "..", "UP", "up", "a/b c")]
    files = write_exports(
        folder, odd, items, pd.DataFrame(columns=pq.read_schema(folder / "matches.parquet").names)
    ).files
    assert len({name.casefold() for name in files}) == len(files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit"]
