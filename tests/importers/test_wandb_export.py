"""What W&B gives out of its server, in all its shapes, against the rows that went in."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from collectors.importers.importer import Facts, Importer, Item, Note, Replaced
from collectors.importers.wandb_export import WandbExport
from tests.importers.reading import Points, bits, points, read
from trainvitals.errors import UsageError

HISTORY = [{"_step": step, "_timestamp": 1.7e9 + step, "_runtime": step / 2, "loss": 1 / (step + 3), "note": "x",
            "val": math.nan if step % 20 else None, "größe/a": float(2**53 + 2 * step)} for step in range(0, 200, 2)]


def wanted() -> Points:
    found: Points = {}
    for row in HISTORY:
        for name in ("loss", "val", "größe/a"):
            if row[name] is not None:
                found.setdefault(name, []).append((row["_step"], bits(row[name])))
    return found


def kinds(items: list[Item]) -> set[str]:
    return {spot.kind for item in items if isinstance(item, Facts) for spot in item.blind}


def recognised(importer: Importer, path: Path) -> str:
    return importer.recognises(path, path.read_bytes()[: 64 << 10])


def lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in HISTORY))


def table(path: Path) -> None:
    rows = [{name: "NaN" if value != value else value for name, value in row.items()} for row in HISTORY]
    pd.DataFrame(rows, dtype=object).to_csv(path)


def parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [row[name] for row in HISTORY] for name in HISTORY[0]}
    columns["_step"] = [float(step) for step in columns["_step"]]
    pq.write_table(pa.table({name: pa.array(values, from_pandas=False) for name, values in columns.items()}), path)


@pytest.mark.parametrize("write", [lines, table, parquet])
def test_histories(tmp_path: Path, write) -> None:
    write(tmp_path / "history")
    importer = WandbExport()
    assert recognised(importer, tmp_path / "history")
    items = read(importer, tmp_path / "history")
    assert points(items) == wanted() and not kinds(items)


def test_a_sample_is_one(tmp_path: Path) -> None:
    steps = [step * 17 + step * step % 11 for step in range(500)]
    (tmp_path / "h.csv").write_text("_step,_timestamp,loss\n" + "".join(f"{s},{s},{s / 4}\n" for s in steps))
    assert kinds(read(WandbExport(), tmp_path / "h.csv")) == {"sampled"}


def test_a_chart_of_two_runs(tmp_path: Path) -> None:
    path = tmp_path / "chart.csv"
    path.write_text('"Step","a - b - loss","a - b - loss__MIN","a - b - loss__MAX",'
                    '"c - loss","c - loss__MIN","c - loss__MAX"\n'
                    '"0","2.5","2.25","2.75","","",""\n"10","NaN","NaN","NaN","1","1","1"\n')
    importer = WandbExport()
    assert recognised(importer, path)
    a, c = importer.runs(path)
    assert (a.name, c.name) == ("a - b", "c")
    found = list(importer.read(a, {}))
    assert points(found) == {"loss": [(0, bits(2.5)), (10, b"nan")], "loss__MIN": [(0, bits(2.25)), (10, b"nan")],
                             "loss__MAX": [(0, bits(2.75)), (10, b"nan")]}
    assert kinds(found) == {"averaged"}
    assert points(importer.read(c, {})) == {"loss": [(10, bits(1.0))]}


def test_a_chart_over_time_has_no_steps(tmp_path: Path) -> None:
    path = tmp_path / "chart.csv"
    path.write_text('"Relative Time (Process)","a - x","a - x__MIN","a - x__MAX"\n'
                    '"0.5","1","1","1"\n"1.5","2","2","2"\n')
    items = read(WandbExport(), path)
    assert points(items) == {"x": [(0, bits(1.0)), (1, bits(2.0))]} and kinds(items) == {"steps"}


def test_an_export_that_was_written_anew_is_another(tmp_path: Path) -> None:
    lines(tmp_path / "h.jsonl")
    importer, state = WandbExport(), dict[str, object]()
    [run] = importer.runs(tmp_path / "h.jsonl")
    assert list(importer.read(run, state)) and not list(importer.read(run, state))
    (tmp_path / "h.jsonl").write_text(json.dumps(HISTORY[0]) + "\n")
    with pytest.raises(Replaced):
        list(importer.read(run, state))


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    table, objects = "_step,_runtime,x\n1,1,12.5\n2,2,13", '{"_step":1,"_runtime":1,"x":12.5}\n{"_step":2,"x"'
    for name, text in (("a", table), ("b", objects)):
        (tmp_path / name).write_text(text)
        items = read(WandbExport(), tmp_path / name)
        assert points(items) == {"x": [(1, bits(12.5))]}
        assert any(isinstance(item, Note) and item.hides for item in items)


@pytest.mark.parametrize("data", [b"_step,_runtime\n", b'{"_step": 1, "_runtime": 1}\n{\n', b"PAR1" + bytes(50),
                                  b"_step,_runtime," + b"x" * (2 << 20), b'{"_step":' + b"[" * 100_000])
def test_what_is_broken_ends_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "h").write_bytes(data)
    with pytest.raises(UsageError) as error:
        read(WandbExport(), tmp_path / "h")
    assert len(str(error.value).splitlines()) == 1
