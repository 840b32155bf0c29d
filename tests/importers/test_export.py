"""Exports against the readers of the formats: tensorboard, pyarrow, pandas, prometheus_client; and back in again."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from collectors.exporters.lines import lines
from collectors.importers.door import sessions
from tests.importers.reading import bits
from trainvitals.card import RunCard
from trainvitals.cli import cli
from trainvitals.store import RunWriter, open_run

Points = dict[tuple[str, str], list[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a vector, NaN and infinities, names of any kind, and a branch."""
    path = tmp_path_factory.mktemp("runs") / "run"
    writer = RunWriter(path, when_full="wait")
    writer.write_card(RunCard(name='a "run"\n', created=1_700_000_000.25, domains={"web": 0.5, "größe": 0.5}))
    loss = writer.frame("loss", ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"],
                        {"domain": ["web", "größe", "unattributed"]})
    custom = writer.frame("custom", [])
    for start, end in ((0, 30), (21, 40)):
        if start:
            writer.rewind(start - 1)
        for step in range(start, end):
            tokens = np.array([1024.0, 512.0, 0.0])
            loss.append(step, {"loss/sum": 3e3 / (step + 1), "loss/tokens": 1536.0,
                               "loss/domain_sum": tokens / (step + 3), "loss/domain_tokens": tokens})
            custom.append(step, {"=1+1, größe": [math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324][step % 6],
                                 "a/b": float(start), "a_b": 2.0**53 + step})
    writer.close()
    return path


def wanted(run_path: Path) -> Points:
    return {(line.name, line.label): list(zip(line.steps.tolist(), map(bits, line.values.tolist()), strict=True))
            for line in lines(open_run(run_path))}


def exported(run_path: Path, out: Path, format_: str) -> Path:
    done = CliRunner().invoke(cli, ["export", str(run_path), "--format", format_, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in out.parent.iterdir()) == [out.name]
    return out


def test_lines_are_the_runs_series(run_path: Path) -> None:
    run = open_run(run_path)
    found = wanted(run_path)
    for name in run.signals()["name"]:
        table = run.series(name)
        for (line, label), row in found.items():
            if line == name:
                part = table[table["label"] == label] if "label" in table else table
                assert row == [(s, bits(v)) for s, v in zip(part["step"], part["value"], strict=True)]
    assert {name for name, _ in found} == set(run.signals()["name"])
    assert ("loss/domain", "größe") in found and ("loss/domain", "unattributed") not in found
    assert dict(found["a/b", ""])[20] == bits(0.0) and dict(found["a/b", ""])[21] == bits(21.0)


def test_times_are_those_of_the_rows(run_path: Path) -> None:
    run = open_run(run_path)
    for name in ("loss/train", "a/b"):
        steps, times = run.times(name)
        assert steps.tolist() == list(range(40)) and (np.diff(times) >= 0).all() and (times > 1.7e9).all()


def test_parquet_is_read_by_pyarrow(run_path: Path, tmp_path: Path) -> None:
    found: Points = {}
    for row in pq.read_table(exported(run_path, tmp_path / "x.parquet", "parquet")).to_pylist():
        found.setdefault((row["name"], row["label"]), []).append((row["step"], bits(row["value"])))
        assert row["time"] > 1.7e9
    assert found == wanted(run_path)


def test_csv_is_read_by_pandas(run_path: Path, tmp_path: Path) -> None:
    path = exported(run_path, tmp_path / "x.csv", "csv")
    table = pd.read_csv(path, keep_default_na=False, na_values={"value": ["NaN"]})
    found: Points = {}
    for row in table.itertuples():
        found.setdefault((row.name.removeprefix("'"), row.label), []).append((row.step, bits(row.value)))
    assert found == wanted(run_path)
    assert "\r\n'=1+1" in path.read_bytes().decode() or '\r\n"\'=1+1' in path.read_bytes().decode()


def test_event_files_are_read_by_tensorboard(run_path: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    folder = exported(run_path, tmp_path / "x", "tfevents")
    log = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    log.Reload()
    found = {tag: [(e.step, bits(util.make_ndarray(e.tensor_proto).item())) for e in log.Tensors(tag)]
             for tag in log.Tags()["tensors"]}
    assert found == {f"{name}/{label}" if label else name: row for (name, label), row in wanted(run_path).items()}
    assert log.SummaryMetadata("loss/train").plugin_data.plugin_name == "scalars"
    assert all(event.wall_time > 1.7e9 for event in log.Tensors("a/b"))


def test_event_files_come_in_again(run_path: Path, tmp_path: Path) -> None:
    folder = exported(run_path, tmp_path / "x", "tfevents")
    [session] = sessions(folder, run=tmp_path / "again")
    session.look()
    session.close()
    again = wanted(session.folder)
    for (name, label), row in wanted(run_path).items():
        tag = f"{name}/{label}" if label else name
        assert again.get((tag, "")) == row or again[f"custom/{tag}", ""] == row, tag


def test_openmetrics_is_read_by_prometheus(run_path: Path, tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    text = exported(run_path, tmp_path / "x.txt", "openmetrics").read_text()
    found: Points = {}
    times: dict[tuple[str, str], list[float]] = {}
    for family in parser.text_string_to_metric_families(text):
        signal = family.documentation.partition(": ")[0]
        for sample in family.samples:
            key = signal, sample.labels.get("label", "")
            assert sample.labels["run"] == 'a "run"\n' and family.type == "gauge"
            found.setdefault(key, []).append((0, bits(float(sample.value))))
            times.setdefault(key, []).append(float(sample.timestamp))
    steps = [value for _, value in found.pop(("the step at each time", ""))]
    assert steps == [bits(float(step)) for step in range(40)]
    assert found == {key: [(0, value) for _, value in row] for key, row in wanted(run_path).items()}
    assert all(len(set(row)) == len(row) and sorted(row) == row for row in times.values())


@pytest.mark.parametrize("format_", ["tfevents", "parquet", "csv", "openmetrics"])
def test_nothing_is_overwritten_and_nothing_half_written(run_path: Path, tmp_path: Path, format_: str) -> None:
    (tmp_path / "x").write_text("mine")
    done = CliRunner().invoke(cli, ["export", str(run_path), "--format", format_, "--out", str(tmp_path / "x")])
    assert "is there already" in str(done.exception) and (tmp_path / "x").read_text() == "mine"
    gone = tmp_path / "gone" / "x"
    done = CliRunner().invoke(cli, ["export", str(run_path), "--format", format_, "--out", str(gone)])
    assert "cannot be written" in str(done.exception) and [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_log_without_times_is_no_openmetrics(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("step,loss\n" + "".join(f"{step},{step}\n" for step in range(9)))
    [session] = sessions(tmp_path / "x.csv", run=tmp_path / "run")
    session.look()
    session.close()
    done = CliRunner().invoke(cli, ["export", str(tmp_path / "run"), "--format", "openmetrics", "--out",
                                    str(tmp_path / "x.txt")])
    assert "without a time" in str(done.exception)
