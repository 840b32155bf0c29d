"""Whatever a disk does to a byte, a reader shows the value that was written, or says what is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.robustness import scenarios
from trainvitals.card import RunCard
from trainvitals.catalogue import custom_field
from trainvitals.sealed import opened, seal
from trainvitals.store import RunWriter, open_run
from trainvitals.store.compact import SegmentName, compact, live_path
from trainvitals.store.folder import LocalFolder
from trainvitals.store.history import KEY, HistoryFile
from trainvitals.store.tail import Tail


def write(path: Path, steps: range, close: bool = True) -> RunWriter:
    writer = RunWriter(path, when_full="wait")
    frame = writer.frame("custom", [custom_field("a"), custom_field("a.b"), custom_field("loss/x")])
    for step in steps:
        frame.append(step, {"a": float(step), "a.b": -float(step), "loss/x": step / 2})
    writer.close() if close else writer.flush()
    return writer


def history(path: Path) -> Path:
    return next(path.glob("frames/custom/history/*.parquet"))


@pytest.mark.parametrize("scenario", scenarios()[:21])
def test_no_damage_to_any_kind_of_file_is_silent_raises_or_hangs(scenario) -> None:  # type: ignore[no-untyped-def]
    row = scenario(True)
    assert row.sound, row.examples


def test_every_byte_of_history_that_is_read_is_covered(tmp_path: Path) -> None:
    write(tmp_path, range(1, 200))
    path = history(tmp_path)
    data = path.read_bytes()
    metadata = pq.read_metadata(path)
    for column in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(column)
        header = chunk.data_page_offset  # the first byte of a page header, which page checksums leave out
        for at in (header, header + 3, header + chunk.total_compressed_size - 1):
            bad = bytearray(data)
            bad[at] ^= 0x10
            path.write_bytes(bad)
            run = open_run(tmp_path)
            name = metadata.schema.to_arrow_schema().names[column]
            shown = {field: run.array(field) for field in ("a", "a.b", "loss/x")}
            for field, series in shown.items():
                there = slice(None) if series.present is None else series.present
                expected = series.steps * {"a": 1.0, "a.b": -1.0, "loss/x": 0.5}[field]
                np.testing.assert_array_equal(series.values[there], expected[there])
                lost = name in (field, "step")
                assert len(series.steps[there]) == (0 if lost else 199), "damage in one column costs that column"
                assert "time" in name or not lost or any(path.name in p and "199 rows" in p for p in run.problems())


def test_other_parquet_readers_pass_over_the_checksums(tmp_path: Path) -> None:
    write(tmp_path, range(1, 100))
    assert pq.read_table(history(tmp_path))["a"].to_pylist() == list(range(1, 100))


def test_a_name_that_begins_another_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == list(range(1, 10))
    assert run.array("a.b").values.tolist() == [-float(s) for s in range(1, 10)]


def _as_an_older_version_wrote_it(path: Path) -> None:
    table = pq.read_table(path)
    metadata = {k: v for k, v in table.schema.metadata.items() if k != KEY}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd", use_dictionary=False,
                   use_byte_stream_split=True, write_statistics=["step"])


def test_history_of_an_older_version_is_read_and_named_as_unverified(tmp_path: Path) -> None:
    write(tmp_path, range(1, 100))
    _as_an_older_version_wrote_it(history(tmp_path))
    run = open_run(tmp_path)
    assert run.array("a").values.tolist() == list(range(1, 100))
    assert [p for p in run.problems() if "cannot be verified" in p and "parquet" in p]


def test_history_without_its_checksums_is_damaged_not_old(tmp_path: Path) -> None:
    write(tmp_path, range(1, 100))
    path = history(tmp_path)
    pq.write_table(pq.read_table(path), path)  # keeps the metadata that promises checksums
    run = open_run(tmp_path)
    assert run.last_step is None and any("checksums are damaged" in p for p in run.problems())


@pytest.mark.parametrize("damage", ["flip", "old"])
def test_compaction_gives_no_checksum_to_what_had_none(tmp_path: Path, damage: str) -> None:
    writer = write(tmp_path, range(1, 100))
    path = history(tmp_path)
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
    else:
        _as_an_older_version_wrote_it(path)
    before = path.read_bytes()
    folder, name = LocalFolder(tmp_path), SegmentName.parse(str(path.relative_to(tmp_path)))
    assert name is not None
    other = tmp_path / "other"
    write(other, range(100, 120), close=False)
    live = next(other.glob("frames/custom/live/*/*.arrows"))
    tail = Tail()
    tail.feed(live.read_bytes())
    assert tail.header is not None
    moved = live_path(tail.header, 1)
    (tmp_path / moved).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / moved).write_bytes(live.read_bytes())
    made = compact(folder, moved, str(path.relative_to(tmp_path)))
    assert made is not None and path.read_bytes() == before, "the old file stays as it is"
    assert HistoryFile.open(folder, made, (tmp_path / made).stat().st_size).metadata.num_rows == 20
    del writer


def test_a_damaged_record_costs_itself_and_not_those_behind_it(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    frame, ends = writer.frame("custom", [custom_field("a")]), []
    for step in range(1, 101):
        frame.append(step, {"a": float(step)})
        if step % 10 == 0:
            writer.flush()
            path = next(tmp_path.glob("frames/custom/live/*/*.arrows"))
            ends.append(path.stat().st_size)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(200):
        at = int(rng.integers(ends[0], len(data)))
        bad = bytearray(data)
        bad[at] ^= 1 << int(rng.integers(8))
        tail = Tail()
        tail.feed(bytes(bad))
        steps = [s for batch in tail.batches for s in batch["step"].to_pylist()]
        hit = int(np.searchsorted(ends, at, side="right"))
        whole = [s for s in range(1, 101) if (s - 1) // 10 != hit]
        assert steps in (whole, list(range(1, 101))), "the bytes between columns mean nothing"
        if hit < 9 and steps == whole:
            assert [(gap.after, gap.before) for gap in tail.gaps] == [(hit * 10, hit * 10 + 11)]
    writer.close()


def test_a_card_edited_by_hand_is_used_and_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.write_card(RunCard(name="mine", layers=4))
    writer.close()
    path = tmp_path / "run.json"
    assert open_run(tmp_path).problems() == []
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    assert open_run(tmp_path).problems() == [], "spelling is no value"
    path.write_text(path.read_text().replace('"layers": 4', '"layers": 5'))
    run = open_run(tmp_path)
    assert run.card.layers == 5 and any("edited or damaged" in p for p in run.problems())
    path.write_text('{"layers": 6}')
    run = open_run(tmp_path)
    assert run.card.layers == 6 and any("no checksum" in p for p in run.problems())
    path.write_text('{"layers": 6, "world_size": 1e999, "total_steps": true, "name": "still here"}')
    run = open_run(tmp_path)
    assert (run.card.layers, run.card.name, run.card.world_size, run.card.total_steps) == (6, "still here", 1, None)
    assert any("world_size" in p and "total_steps" in p for p in run.problems())


def test_findings_that_were_changed_are_not_shown(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    run = open_run(tmp_path)
    run.save_findings([{"level": "pass", "summary": "fine"}])
    assert open_run(tmp_path).findings()[0]["summary"] == "fine" and open_run(tmp_path).problems() == []
    path = tmp_path / "findings" / "latest.json"
    path.write_text(path.read_text().replace("pass", "fail"))
    run = open_run(tmp_path)
    assert run.findings() == [] and any("findings/latest.json" in p for p in run.problems())


def test_a_torn_event_costs_its_line_only(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    for i in range(4):
        writer.event("note", step=i, message=f"note {i}")
    writer.close()
    path = next(tmp_path.glob("events/*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    names = lambda: open_run(tmp_path).events()["message"].tolist()  # noqa: E731
    whole = names()
    path.write_bytes(b"".join([*lines[:2], lines[2][:40], *lines[2:]]))  # torn, and its retry glued to it
    assert names() == whole and any("1 lines" in p for p in open_run(tmp_path).problems())
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"\n", b"\x0b"), *lines[3:]]))  # a flipped end of line
    assert names() == whole
    path.write_bytes(b"".join([*lines[:2], lines[2][:-9] + b"\n", *lines[3:]]))
    assert names() == [m for i, m in enumerate(whole) if i != 2]
    path.write_bytes(b"".join(lines)[:-1])  # the last line has no end; its checksum says that it is whole
    assert names() == whole


def test_a_follower_reads_new_lines_only_and_a_torn_line_once_it_is_whole(tmp_path: Path) -> None:
    writer = write(tmp_path, range(1, 5), close=False)
    run = open_run(tmp_path)
    path = next(tmp_path.glob("events/*.jsonl"))
    line = json.dumps(seal({"time": 1.0, "kind": "note", "message": "late"})).encode() + b"\n"
    before = len(run.events())
    with path.open("ab") as file:
        file.write(line[:20])
        file.flush()
        run.refresh()
        assert len(run.events()) == before
        file.write(line[20:])
    reads: list[int] = []
    folder = run._contents.folder
    real = folder.read
    folder.read = lambda p, start=0, stop=None: (reads.append(start) if p.startswith("events") else None,  # type: ignore
                                                 real(p, start, stop))[1]
    run.refresh()
    assert len(run.events()) == before + 1 and run.events()["message"].tolist().count("late") == 1
    assert reads and min(reads) == path.stat().st_size - len(line)
    writer.close()


def test_a_poll_does_not_verify_again_what_it_has_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, range(1, 100))
    writer = write(tmp_path, range(100, 110), close=False)
    run = open_run(tmp_path)
    run.array("a")
    read: list[str] = []
    real = LocalFolder.read
    monkeypatch.setattr(LocalFolder, "read", lambda self, path, start=0, stop=None: (read.append(path),
                                                                                      real(self, path, start, stop))[1])
    writer.event("note")
    writer.flush()
    assert run.refresh()
    run.array("a")
    assert read and all(path.startswith("events/") or path == "run.json" for path in read)
    writer.close()


def test_sealed_json_knows_every_change_of_a_value() -> None:
    record = {"a": 1, "b": [1.5, None, "x"], "c": {"d": True, "e": float("inf")}}
    text = json.dumps(seal(record))
    assert opened(text) == (record, "whole")
    assert opened(json.dumps(record))[1] == "unsealed"
    for i in range(len(text)):
        for bit in range(8):
            bad = bytearray(text.encode())
            bad[i] ^= 1 << bit
            try:
                found, state = opened(bytes(bad))
            except ValueError:
                continue
            assert state != "whole" or found == record


def test_a_history_file_reads_one_column_of_many(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    names = [f"m{i}" for i in range(200)]
    frame = writer.frame("custom", [custom_field(name) for name in names])
    rng = np.random.default_rng(0)
    for step in range(2_000):
        frame.append(step, dict(zip(names, rng.normal(size=200).tolist(), strict=True)))
    writer.close()
    size = history(tmp_path).stat().st_size
    taken: list[int] = []
    folder = LocalFolder(tmp_path)
    real = folder.read
    folder.read = lambda *args: (data := real(*args), taken.append(len(data)))[0]  # type: ignore[method-assign]
    run = open_run(folder)
    run.array("m7")
    assert sum(taken) < size / 10


def test_bytes_that_are_no_parquet_say_so() -> None:
    for data in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", io.BytesIO().getvalue() + b"x" * 1000):
        from trainvitals.store.history import InMemory
        with pytest.raises((ValueError, pa.ArrowException)):
            HistoryFile.open(InMemory(data), "x", len(data))
