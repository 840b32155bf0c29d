"""Texts, tables, histograms and images come back as they were logged, within bounds, or one is told what is lost."""

from __future__ import annotations

import errno
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainvitals.errors import UsageError
from trainvitals.store import RunWriter, disk, open_run, samplelog, samples
from trainvitals.store.folder import LocalFolder
from trainvitals.store.samplekinds import take_histogram, take_image, take_table, take_text, unpacked
from trainvitals.store.samples import SampleFile

CELLS = st.one_of(st.none(), st.booleans(), st.integers(-2**60, 2**60), st.floats(), st.text(max_size=20))


def decoded(data: bytes) -> Any:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(data)))


def stored(kind: str, taken: Any) -> Any:
    return unpacked(kind, taken.make().payload)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))))
@settings(max_examples=30, deadline=None)
def test_pixels_come_back_from_a_decoder_of_others(pixels: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(decoded(stored("image", take_image(pixels))), pixels.squeeze(-1) if
                                  pixels.shape[-1] == 1 else pixels)


def test_forms_of_images() -> None:
    image = pytest.importorskip("PIL.Image")
    floats = np.array([[0.0, 0.5, 1.0, 2.0, -1.0, np.nan, np.inf]])
    assert decoded(stored("image", take_image(floats))).tolist() == [[0, 128, 255, 255, 0, 0, 255]]
    assert decoded(stored("image", take_image(np.array([[True, False]])))).tolist() == [[255, 0]]
    assert decoded(stored("image", take_image(np.array([[300, -5, 7]])))).tolist() == [[255, 0, 7]]
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(stored("image", take_image(np.moveaxis(colours, -1, 0)))), colours)
    np.testing.assert_array_equal(decoded(stored("image", take_image(image.fromarray(colours)))), colours)
    palette = image.fromarray(colours).convert("P")
    np.testing.assert_array_equal(decoded(stored("image", take_image(palette))), np.asarray(palette.convert("RGBA")))
    for wrong in ("a.png", b"\x89PNG", np.zeros((2, 3, 2)), np.zeros(5), np.zeros((0, 3)), np.array([["a"]]), None, 5):
        with pytest.raises(UsageError, match="image"):
            take_image(wrong)


@pytest.mark.parametrize("shape", [(3000, 2000), (1, 5_000_000), (3_000_000, 2, 3), (1025, 1025)])
def test_large_images_lose_rows_and_columns_and_say_so(shape: tuple[int, ...]) -> None:
    content = take_image(np.broadcast_to(np.uint8(7), shape)).make()
    assert content.data["scaled_from"] == list(shape[:2])
    assert 250_000 < content.data["height"] * content.data["width"] <= 1 << 20
    found = decoded(unpacked("image", content.payload))
    assert found.shape[:2] == (content.data["height"], content.data["width"]) and (found == 7).all()


def test_an_image_that_does_not_compress_is_halved() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 4)).astype(np.uint8)
    content = take_image(noise).make()
    assert len(content.payload) <= 4 << 20 and content.data["scaled_from"] == [1024, 1024]
    np.testing.assert_array_equal(decoded(unpacked("image", content.payload)), noise[::2, ::2])


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5))
@settings(max_examples=30, deadline=None)
def test_tables_come_back(rows: list[list[Any]]) -> None:
    found = stored("table", take_table(columns=["a", "b"], rows=rows))
    clean = [[cell.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(cell, str) else cell
              for cell in row] for row in rows]
    pd.testing.assert_frame_equal(found, pd.DataFrame(clean, columns=["a", "b"]))


def test_forms_of_tables() -> None:
    frame = pd.DataFrame({"x": [1, 2], "when": pd.to_datetime(["2020-01-01", "2020-01-02"])})
    assert stored("table", take_table(frame)).to_dict("list") == {
        "x": [1, 2], "when": ["2020-01-01 00:00:00", "2020-01-02 00:00:00"]}
    mapped = stored("table", take_table(rows=[{"a": 1}, {"b": np.float32(0.5), "a": np.int64(2)}]))
    assert mapped["a"].tolist() == [1, 2] and mapped["b"].tolist()[1] == 0.5
    odd = stored("table", take_table(columns=["a"], rows=[[object()], [{"k": [1]}], [10**30], [np.array(3)]]))
    assert odd["a"].tolist() == ["<object>", {"k": [1]}, "a whole number of 100 bits", 3]
    for wrong in ({"rows": 5}, {"columns": ["a"], "rows": ["text"]}, {"columns": ["a"], "rows": [[1, 2]]},
                  {"rows": [[1]]}, {"table": "text"}, {}):
        with pytest.raises(UsageError, match="table"):
            take_table(**wrong)


def test_large_tables_and_texts_are_cut_and_say_so() -> None:
    content = take_table(columns=range(500), rows=[range(500)] * 5000).make()
    assert content.data["cut_from"] == [5000, 500] and content.data["rows"] == 1000
    heavy = take_table(columns=["a"], rows=[["x" * 5000]] * 1000).make()
    assert len(heavy.payload) <= 1 << 20 and heavy.data["cut_from"] == [1000, 1] and 400 < heavy.data["rows"] < 600
    text = take_text("é" * 300_000).make()
    assert text.data == {"characters": 300_000, "cut_from": 300_000} and len(unpacked("text", text.payload)) == 100_000


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e6, 1e6)), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_histograms_are_numpys(values: np.ndarray[Any, Any], bins: int) -> None:
    counts, edges = stored("histogram", take_histogram(values, bins))
    if len(np.unique(values)) > 1 and values.max() - values.min() < 1e-9:
        assert counts.sum() == len(values)  # no room for the edges
        return
    wanted, at = np.histogram(values, bins)
    np.testing.assert_array_equal(counts, wanted)
    np.testing.assert_array_equal(edges, at)


def test_histograms_of_odd_values() -> None:
    content = take_histogram([1.0, np.nan, np.inf, 2.0]).make()
    assert content.data["nonfinite"] == 2 and content.data["counted"] == 2
    assert take_histogram([np.nan]).make().data["counted"] == 0
    close = np.array([1.0, np.nextafter(1.0, 2)])
    assert take_histogram(close).make().data["counted"] == 2
    large = take_histogram(np.arange(3_000_000)).make()
    assert large.data["values"] == 3_000_000 and large.data["read_every"] == 3 and large.data["counted"] == 1_000_000
    counts, edges = stored("histogram", take_histogram(([1, 2], [0.0, 1.0, 2.0])))
    assert counts.tolist() == [1, 2] and edges.tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="further apart"):
        take_histogram([-1e308, 1e308]).make()
    for wrong in (["a"], [], ([1], [2.0, 1.0]), ([-1], [0.0, 1.0]), ([math.nan], [0.0, 1.0]), 1j):
        with pytest.raises(UsageError):
            take_histogram(wrong)


def make(path: Path, count: int = 6) -> RunWriter:
    writer = RunWriter(path, flush_seconds=60)
    for step in range(count):
        writer.sample("text", "words", take_text(f"é {step}\n\t"), step=step)
        writer.sample("image", "dot", take_image(np.full((2, 2), step, np.uint8), "c"), step=step)
    assert writer.flush()
    return writer


def whole_ones(file: SampleFile) -> list[tuple[int | None, str, Any]]:
    return [(sample.step, sample.kind, sample.read()) for sample in file.samples]


def test_every_truncation_gives_exactly_the_whole_samples(tmp_path: Path) -> None:
    make(tmp_path, 3).close()
    (path,) = (tmp_path / "samples").iterdir()
    data = path.read_bytes()
    folder = LocalFolder(tmp_path)
    file = SampleFile(folder, "samples/whole")
    (tmp_path / "samples/whole").write_bytes(data)
    file.refresh(len(data))
    wanted = whole_ones(file)
    assert len(wanted) == 6 and not list(file.problems(False))
    ends = [i for i, byte in enumerate(data) if byte == 10]
    (tmp_path / "samples/cut").write_bytes(data)
    for cut in range(len(data)):
        file = SampleFile(folder, "samples/cut")
        file.refresh(cut)
        whole = sum(end <= cut for end in ends)  # without its line end, a sample is whole
        assert whole_ones(file) == wanted[:whole]
        torn = cut - (ends[whole - 1] + 1 if whole else 0)
        assert len(list(file.problems(False))) == (torn > 0) and not list(file.problems(True))
        file.refresh(len(data))  # the writer was only slow
        assert whole_ones(file) == wanted and not list(file.problems(False))


def test_damage_costs_what_it_touches_and_is_named(tmp_path: Path) -> None:
    make(tmp_path, 3).close()
    (path,) = (tmp_path / "samples").iterdir()
    data, rng = path.read_bytes(), np.random.default_rng(0)
    folder = LocalFolder(tmp_path)

    def read(changed: bytes) -> tuple[list[tuple[int | None, str, Any]], bool]:
        path.write_bytes(changed)
        file = SampleFile(folder, f"samples/{path.name}")
        file.refresh(len(changed))
        found = whole_ones(file)
        return found, bool(list(file.problems(False)))

    wanted, _ = read(data)
    for _ in range(400):
        changed = bytearray(data)
        at = int(rng.integers(len(data)))
        match rng.integers(3):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at:at + 40] = bytes(len(changed[at:at + 40]))
            case _:
                del changed[at:at + int(rng.integers(1, 300))]
        found, named = read(bytes(changed))
        good = [item for item in found if item[2] is not None]
        assert all(item in wanted for item in good), "nothing wrong is shown"
        assert len(good) >= len(wanted) - 4
        lost = len(good) < len(wanted)
        ends_early = data.startswith(bytes(changed)) and changed[-1:] == b"\n"
        assert named or not lost or ends_early


def test_hostile_files_are_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = LocalFolder(tmp_path)
    for hostile in (b'{"' * 200_000 + b"\n", b"\n" * 100_000, rng.bytes(100_000), b'{"a":1}\tx\n' * 1000, b"[" * 50_000,
                    b'{"bytes": 1e999, "crc32": "x"}\t\n', b"{}\t\n"):
        (tmp_path / "x").write_bytes(hostile)
        file = SampleFile(folder, "x")
        file.refresh(len(hostile))
        assert not file.samples and (list(file.problems(False)) or not hostile.strip())


def test_a_run_lists_and_filters(tmp_path: Path) -> None:
    make(tmp_path).close()
    run = open_run(tmp_path)
    assert len(run.samples()) == 12 and len(run.samples("words")) == len(run.samples(kind="image")) == 6
    assert [sample.step for sample in run.samples("words", steps=(2, 3))] == [2, 3]
    sample = run.samples("dot")[4]
    assert (sample.kind, sample.step, sample.rank, sample.data["caption"]) == ("image", 4, 0, "c")
    assert decoded(sample.read()).tolist() == [[4, 4], [4, 4]] and run.problems() == []


def test_a_payload_that_is_damaged_is_none_and_named(tmp_path: Path) -> None:
    make(tmp_path, 1).close()
    (path,) = (tmp_path / "samples").iterdir()
    data = path.read_bytes()
    at = data.index(b"\t", data.index(b'"image"')) + 20
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
    run = open_run(tmp_path)
    assert run.samples("dot")[0].read() is None and run.samples("words")[0].read() == "é 0\n\t"
    assert "cannot be shown" in run.problems()[0]
    path.unlink()
    run.refresh()
    assert run.samples() == []


def test_samples_of_a_branch_are_not_on_the_main_line(tmp_path: Path) -> None:
    first = RunWriter(tmp_path)
    frame = first.frame("x", ["grad/sumsq"])
    for step in range(10):
        frame.append(step, {"grad/sumsq": 1.0})
        first.sample("text", "t", take_text("first"), step=step)
    first.rewind(4)
    frame.append(5, {"grad/sumsq": 2.0})
    first.sample("text", "t", take_text("second"), step=5)
    first.close()
    run = open_run(tmp_path)
    assert [(s.step, s.read()) for s in run.samples(steps=(4, 9))] == [(4, "first"), (5, "second")]
    assert [s.step for s in run.samples(branch=0)] == [5, 6, 7, 8, 9]


def test_what_cannot_be_encoded_is_told_and_the_rest_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = RunWriter(tmp_path)
    writer.sample("text", "a", take_text("a"), step=1)
    writer.sample("histogram", "far", take_histogram([-1e308, 1e308]), step=1)
    writer.sample("text", "b", take_text("b"), step=1)
    writer.close()
    run = open_run(tmp_path)
    assert [sample.name for sample in run.samples()] == ["a", "b"]
    assert "further apart" in run.events().query("kind == 'sample_refused'")["message"].item()


@pytest.mark.parametrize(("bound", "value", "why"), [
    ("WAITING_SAMPLES", 3, "faster than the disk"), ("MOST_SAMPLES", 3, "a process stores"),
    ("MOST_RUN_BYTES", 700, "a run holds")])
def test_what_is_over_a_bound_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int,
                                         why: str) -> None:
    monkeypatch.setattr(samplelog, bound, value)
    writer = RunWriter(tmp_path, flush_seconds=60)
    kept = 0
    for step in range(9):
        if writer.disk.samples.room():
            writer.sample("text", "t", take_text("x"), step=step)
            kept += 1
        if bound == "MOST_RUN_BYTES":
            writer.flush()
    writer.close()
    run = open_run(tmp_path)
    assert len(run.samples()) == kept < 9
    (told,) = [problem for problem in run.problems() if "not stored" in problem][-1:]
    assert why in told and f"{9 - kept}" in told


def test_a_disk_that_refuses_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path, flush_seconds=60)
    original, fails = LocalFolder.append, [True]

    def append(self: LocalFolder, path: str, data: bytes) -> None:
        if fails[0] and path.startswith("samples/"):
            original(self, path, data[:len(data) // 2])
            raise OSError(errno.ENOSPC, "full")
        original(self, path, data)

    monkeypatch.setattr(LocalFolder, "append", append)
    for step in range(3):
        writer.sample("text", "t", take_text(str(step)), step=step)
    assert not writer.flush()
    fails[0] = False
    writer.close()
    run = open_run(tmp_path)
    assert [sample.read() for sample in run.samples()] == ["0", "1", "2"]
    assert len([problem for problem in run.problems() if "lost samples" in problem]) == 1


def test_closing_does_not_wait_for_a_thousand_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LAST_SAMPLE_SECONDS", 0.2)
    monkeypatch.setattr(disk, "SAMPLE_SECONDS", 0.05)
    writer = RunWriter(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700)).astype(np.uint8)
    for step in range(80):
        writer.sample("image", "noise", take_image(noise), step=step)
    frame = writer.frame("x", ["grad/sumsq"])
    frame.append(1, {"grad/sumsq": 4.0})
    writer.close()
    run = open_run(tmp_path)
    lost = 80 - len(run.samples())
    assert lost > 0 and any(f"{lost} texts" in problem for problem in run.problems())
    assert run.status == "finished" and run.array("grad/norm").values.tolist() == [2.0]


def test_a_file_of_too_many_is_cut_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path).close()
    monkeypatch.setattr(samples, "MOST_LISTED", 5)
    run = open_run(tmp_path)
    assert len(run.samples()) == 5 and "holds more than the 5 samples" in run.problems()[0]


def test_behind_a_url_that_cannot_append(tmp_path: Path) -> None:
    writer = RunWriter(f"memory://samples/{tmp_path.name}", flush_seconds=60)
    for step in range(4):
        for i in range(3):
            writer.sample("text", "t", take_text(f"{step} {i}"), step=step)
        assert writer.flush()
    writer.close()
    run = open_run(f"memory://samples/{tmp_path.name}")
    assert [sample.read() for sample in run.samples()] == [f"{step} {i}" for step in range(4) for i in range(3)]
    assert run.problems() == [] and run.status == "finished"
