"""Parquet of the Neptune exporter, against pyarrow's own reading of it."""

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from collectors.importers.importer import Replaced
from collectors.importers.neptune import Neptune
from tests.importers.reading_tables import Log, bits, read_all
from tests.importers.samples import neptune as sample
from tests.importers.test_formats import imported, rows


def _write(path: Path, runs: dict[str, dict[str, list[tuple[object, float | None]]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"project_id": "me/p", "run_id": run, "attribute_path": name, "attribute_type": "float_series",
             "step": Decimal(str(step)), "timestamp": 10**12 + i, "float_value": value}
            for run, series in runs.items() for name, points in series.items()
            for i, (step, value) in enumerate(points)]
    pq.write_table(pa.Table.from_pylist(rows, schema=sample.SCHEMA), path, row_group_size=1000)


SHAPES = {
    "short": {"loss": [(s, v) for s, v in enumerate([1.0, math.inf, -math.inf, 5e-324, 0.1])]},
    "long": {name: [(s, math.sin(s + i)) for s in range(3000)] for i, name in enumerate(("loss", "a/b/µ é"))},
    "sparse": {"loss": [(s, math.sin(s)) for s in range(200)], "eval": [(s, math.cos(s)) for s in range(0, 200, 50)]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_value_is_the_files(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "p_1" / "R-1_part_0.parquet"
    _write(path, {"R-1": SHAPES[shape]})
    log = read_all(Neptune(), tmp_path)["R-1"]
    table = pq.read_table(path)
    for name in SHAPES[shape]:
        rows = table.filter(pc.equal(table["attribute_path"], name))
        expected = [(int(step), bits(value)) for step, value in
                    zip(rows["step"].to_pylist(), rows["float_value"].to_pylist(), strict=True)]
        assert log.values[name] == expected


def test_two_runs_of_one_project(tmp_path: Path) -> None:
    for run in ("R-1", "R-2"):
        _write(tmp_path / "p" / f"{run}_part_0.parquet", {run: {"loss": [(1, float(run[-1]))]}})
    found = {name: log.values["loss"] for name, log in read_all(Neptune(), tmp_path).items()}
    assert found == {"R-1": [(1, bits(1.0))], "R-2": [(1, bits(2.0))]}


def test_a_missing_part_and_an_unfinished_export_are_said(tmp_path: Path) -> None:
    _write(tmp_path / "p" / "R-1_part_0.parquet", {"R-1": {"loss": [(1, 1.0)]}})
    _write(tmp_path / "p" / "R-1_part_2.parquet", {"R-1": {"loss": [(9, 1.0)]}})
    (tmp_path / "p" / "R-1_part_1.parquet.tmp").write_bytes(b"PAR1")
    notes = read_all(Neptune(), tmp_path)["R-1"].notes
    assert [note.kind for note in notes] == ["incomplete", "incomplete"] and all(note.hides for note in notes)


def test_an_export_made_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "p" / "R-1_part_0.parquet"
    _write(path, {"R-1": {"loss": [(1, 1.0)]}})
    [run], state = Neptune().runs(tmp_path), {}
    Log().take(Neptune(), run, state)
    _write(path, {"R-1": {"loss": [(1, 1.0), (2, 2.0)]}})
    with pytest.raises(Replaced):
        Log().take(Neptune(), run, state)


def test_many_series_are_tables_of_bounded_size(tmp_path: Path) -> None:
    import collectors.importers.neptune as module

    path = tmp_path / "p" / "R-1_part_0.parquet"
    _write(path, {"R-1": {f"m{i}": [(s, float(s * i)) for s in range(40)] for i in range(50)}})
    whole = read_all(Neptune(), tmp_path)["R-1"].values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_CELLS", 500)
        [run] = Neptune().runs(tmp_path)
        sizes = [np.size(item.steps) for item in Neptune().read(run, {}) if hasattr(item, "steps")]
        assert max(sizes) == 10 and sum(sizes) == 40
        assert read_all(Neptune(), tmp_path)["R-1"].values == whole


def test_more_points_than_fit_are_read_series_by_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import collectors.importers.neptune as module

    path = sample.write(tmp_path / "log")
    [whole] = read_all(Neptune(), path).values()
    monkeypatch.setattr(module, "MOST_POINTS", 20)
    [parts] = read_all(Neptune(), path).values()
    assert parts.values == whole.values and not parts.notes
    run = imported(path, tmp_path / "run")
    for name, expected in sample.ROWS.items():
        assert {step: bits(v) for step, v in rows(run, name).items()} == {s: bits(v) for s, v in expected.items()}
