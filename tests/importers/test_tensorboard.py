"""Event files against tensorboard's own reader, number by number, and against damage."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from collectors.importers._files import events, tfrecord
from collectors.importers._files.crc32c import crc32c
from collectors.importers.importer import Facts, Note, Resumed, Rows
from collectors.importers.tensorboard import TensorBoard
from tests.importers import writing
from tests.importers.reading import Points, bits, points, read, survives
from tests.importers.samples import tensorboard as sample
from tests.importers.writing import event, field, scalar
from tests.importers.writing import tfrecord as framed

VERSION = framed(field(1, 1.0) + field(3, "brain.Event:2"))


def official(folder: Path) -> Points:
    """What tensorboard shows of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    log = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    log.Reload()
    found = {tag: [(e.step, bits(e.value)) for e in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    for tag in log.Tags()["tensors"]:
        if log.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found[tag] = [(e.step, bits(float(util.make_ndarray(e.tensor_proto).item()))) for e in log.Tensors(tag)]
    return found


@pytest.fixture
def writer_of():
    """SummaryWriter, where torch and tensorboard are installed."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter


def test_a_short_run_with_every_kind_of_number(tmp_path: Path, writer_of) -> None:
    writer = writer_of(tmp_path)
    for step in (0, 1, 2, 3, 200, 70_000, 2**40):
        writer.add_scalar("loss/größe 漢字", [1.5, math.nan, math.inf, -math.inf, 1e-45, -0.0, 3e38][step % 7], step)
        writer.add_scalar("t" * 300, step, step)
        writer.add_scalar("", step, step)
    writer.close()
    assert points(read(TensorBoard(), tmp_path)) == official(tmp_path)


def test_a_long_run(tmp_path: Path, writer_of) -> None:
    writer = writer_of(tmp_path, max_queue=100_000)
    values = np.random.default_rng(0).normal(size=(4_000, 5))
    for step, row in enumerate(values):
        for name, value in zip("abcde", row, strict=True):
            writer.add_scalar(f"train/{name}", value, step)
    writer.close()
    items = read(TensorBoard(), tmp_path)
    assert points(items) == official(tmp_path)
    assert sum(len(item.steps) for item in items if isinstance(item, Rows)) <= 4_000 + 2


@pytest.mark.parametrize("purge", [20, None])
def test_a_resumed_run_leaves_a_branch(tmp_path: Path, writer_of, purge: int | None) -> None:
    for start, end, at in ((0, 30, None), (20, 40, purge)):
        writer = writer_of(tmp_path, purge_step=at)
        for step in range(start, end):
            writer.add_scalar("loss", step + start, step, walltime=1_700_000_000 + step + start)
        writer.add_scalar("epoch/accuracy", 0.5, start // 20, walltime=1_700_000_000 + end + start)
        writer.close()
    items = read(TensorBoard(), tmp_path)
    assert [item.step for item in items if isinstance(item, Resumed)] == [19]
    assert points(items, lines=True)["loss"] == [(step, bits(float(step))) for step in range(20)] + [
        (step, bits(step + 20.0)) for step in range(20, 40)]
    if purge:
        assert points(items, lines=True)["loss"] == official(tmp_path)["loss"]


def test_a_tag_that_counts_epochs_makes_no_branch(tmp_path: Path) -> None:
    for start, end in ((0, 100), (80, 150)):
        records = [VERSION]
        for step in range(start, end):
            records.append(framed(event(step, start * 100 + step, scalar("loss", step + start))))
            if step % 20 == 19:
                records.append(framed(event(step // 20, start * 100 + step, scalar("accuracy", step + start))))
        (tmp_path / f"events.out.tfevents.{start:02}.a.1").write_bytes(b"".join(records))
    items = read(TensorBoard(), tmp_path)
    assert [item.step for item in items if isinstance(item, Resumed)] == [79]
    found = points(items, lines=True)
    assert found["loss"] == [(step, bits(step + 80.0 * (step >= 80))) for step in range(150)]
    assert found["accuracy"] == [(n, bits(20.0 * n + 19)) for n in range(5)] + [(step, bits(step + 80.0))
                                                                               for step in (99, 119, 139)]
    assert any(isinstance(item, Note) and item.hides and "'accuracy'" in item.message for item in items)


def test_a_resume_is_seen_though_the_file_grows_byte_by_byte(tmp_path: Path) -> None:
    old, new = ([VERSION] + [framed(event(step, start + step, *values(step))) for step in range(start, start + 30)]
                for start, values in ((0, lambda step: [scalar("x", step)]),
                                      (20, lambda step: [scalar("only here", step), scalar("x", step)])))
    (tmp_path / "events.out.tfevents.1.a.1").write_bytes(b"".join(old))
    path, data, state, items = tmp_path / "events.out.tfevents.2.a.1", b"".join(new), {}, []
    for end in range(0, len(data) + 11, 11):
        path.write_bytes(data[:end])
        items += TensorBoard().read(TensorBoard().runs(tmp_path)[0], state)
    assert [item.step for item in items if isinstance(item, Resumed)] == [19]
    assert [step for step, _ in points(items, lines=True)["x"]] == list(range(50))


def test_files_of_processes_that_ran_at_once_are_no_resume(tmp_path: Path) -> None:
    for rank in (0, 1):
        records = [VERSION] + [framed(event(step, 1_700_000_000 + step, scalar("loss", rank))) for step in range(9)]
        (tmp_path / f"events.out.tfevents.1700000000.node.{rank}.0").write_bytes(b"".join(records))
    items = read(TensorBoard(), tmp_path)
    assert not any(isinstance(item, Resumed) for item in items)
    assert any(isinstance(item, Note) and item.hides and "same time" in item.message for item in items)


def test_tensors_of_every_type(tmp_path: Path) -> None:
    pb = pytest.importorskip("tensorboard.compat.proto.summary_pb2")
    make = pytest.importorskip("tensorboard.util.tensor_util").make_tensor_proto
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    types = ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool"]
    records = [VERSION]
    for step, value in enumerate((1.0, 0.0, 100.0)):
        for name in types:
            number = np.dtype(name).type(value / 3 if "float" in name else value)
            for packed in (make(number), _as_content(make(number), number)):
                summary = pb.Summary.Value(tag=f"{name}{packed.tensor_content != b''}", tensor=packed,
                                           metadata=create_summary_metadata("", ""))
                records.append(framed(Event(step=step, wall_time=1.0 + step, summary=pb.Summary(value=[summary]))
                                      .SerializeToString()))
    (tmp_path / "events.out.tfevents.1.a.1").write_bytes(b"".join(records))
    found = points(read(TensorBoard(), tmp_path))
    assert found == official(tmp_path) and len(found) == 2 * len(types)


def _as_content(tensor, number):
    for name in ("half_val", "float_val", "double_val", "int_val", "int64_val", "bool_val", "uint32_val", "uint64_val"):
        tensor.ClearField(name)
    tensor.tensor_content = number.tobytes()
    return tensor


def test_bfloat16_is_read() -> None:
    content = field(1, 14) + field(4, struct.pack("<H", 0x4049))
    [value] = events.values(message := event(3, 1.0, field(1, "x") + field(8, content)), 0, len(message), {})
    assert (value.what, value.value) == ("number", 3.140625)


def test_what_is_no_number(tmp_path: Path, writer_of) -> None:
    writer = writer_of(tmp_path)
    writer.add_text("samples", "Once upon a time", 3)
    writer.add_histogram("weights", np.array([1.0, 2.0, 6.0]), 3)
    writer.add_hparams({"lr": 0.5, "name": "x", "warm": True}, {"hparam/best": 0.25})
    writer.add_image("picture", np.zeros((3, 4, 4)), 3)
    writer.close()
    items = read(TensorBoard(), tmp_path)
    assert Facts(config={"lr": 0.5, "name": "x", "warm": True}) in items
    assert any(isinstance(item, Note) and item.message.startswith("samples") and "Once upon" in item.message
               and item.step == 3 for item in items)
    found = points(items)
    assert found["weights/count"] == [(3, bits(3.0))] and found["weights/mean"] == [(3, bits(3.0))]
    assert found["weights/min"] == [(3, bits(1.0))] and found["weights/max"] == [(3, bits(6.0))]
    assert found["hparam/best"] == [(0, bits(0.25))]


def test_folders_are_runs(tmp_path: Path) -> None:
    for name in ("", "train", "a/b"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        data = VERSION + framed(event(1, 2.0, scalar("x", 1.0)))
        (tmp_path / name / "events.out.tfevents.1.node.1").write_bytes(data)
    assert [run.name for run in TensorBoard().runs(tmp_path)] == [tmp_path.name, "a/b", "train"]


def test_a_growing_file_costs_what_is_new(tmp_path: Path) -> None:
    records = [VERSION] + [framed(event(step, 1.0 + step, scalar("x", step))) for step in range(50)]
    data = b"".join(records)
    path = tmp_path / "events.out.tfevents.1.node.1"
    whole: Points = {}
    state: dict = {}
    for end in range(0, len(data) + 7, 7):
        path.write_bytes(data[:end])
        for name, row in points(TensorBoard().read(TensorBoard().runs(tmp_path)[0], state)).items():
            whole.setdefault(name, []).extend(row)
    assert whole == points(read(TensorBoard(), tmp_path)) and len(whole["x"]) == 50


def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    folder = sample.write(tmp_path / "log")
    path = sorted(folder.iterdir())[0]
    survives(TensorBoard(), path, path.read_bytes(), 1_000)


def test_a_damaged_length_costs_one_record(tmp_path: Path) -> None:
    records = [VERSION] + [framed(event(step, 1.0 + step, scalar("x", step))) for step in range(50)]
    at = len(b"".join(records[:21]))
    data = bytearray(b"".join(records))
    data[at + 5] ^= 255  # a length of about a petabyte
    (tmp_path / "events.out.tfevents.1.node.1").write_bytes(data)
    items = read(TensorBoard(), tmp_path)
    assert [step for step, _ in points(items)["x"]] == [step for step in range(50) if step != 20]
    [note] = [item for item in items if isinstance(item, Note)]
    assert note.hides and "are no records" in note.message


def test_a_hole_is_passed_over(tmp_path: Path) -> None:
    first, second = (framed(event(step, 1.0, scalar("x", step))) for step in (1, 2))
    for hole in (b"\0" * 700_000, np.random.default_rng(4).bytes(300_000), b"\0" * 3 + b"\1" * 50):
        (tmp_path / "events.out.tfevents.1.a.1").write_bytes(VERSION + first + hole + second)
        items = read(TensorBoard(), tmp_path)
        assert points(items) == {"x": [(1, bits(1.0)), (2, bits(2.0))]}
        assert any(isinstance(item, Note) and item.hides for item in items)


def test_many_events_of_one_number_and_the_walk_agree() -> None:
    draw = np.random.default_rng(1)
    data, spans = b"", []
    for turn in range(300):
        step = int(draw.integers(0, 2 ** int(draw.integers(1, 62))))
        value = scalar("x" * int(draw.integers(0, 200)), float(draw.normal()))
        record = event(step, float(draw.normal()), *([value] * int(draw.integers(0, 3))))
        record += b"\x1a\x01a" if turn % 9 == 0 else b""
        spans.append((len(data), len(data) + len(record)))
        data += record + b"1234"
    found = events.plain(data, spans)
    told = dict(zip(found.places.tolist(), zip(found.steps, found.times, found.tags, found.numbers, strict=True),
                    strict=True))
    assert len(told) > 50
    for place, (step, time, tag, number) in told.items():
        [value] = events.values(data, *spans[place], {})
        assert (value.step, value.time, value.tag.encode(), value.value) == (step, time, tag, number)


def test_checksums_are_those_of_the_polynomial() -> None:
    draw = np.random.default_rng(2)
    data = draw.bytes(9_000)
    starts = draw.integers(0, 3_000, 40)
    sizes = np.concatenate([[0, 1, 1023, 1024, 1025, 2048, 5_000], draw.integers(0, 3_000, 33)])
    found = crc32c(np.frombuffer(data, np.uint8), starts, sizes)
    assert found.tolist() == [writing.crc32c(data[a : a + n]) for a, n in zip(starts, sizes, strict=True)]
    assert writing.crc32c(b"123456789") == 0xE3069283  # RFC 3720


def test_a_record_longer_than_memory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "MOST_RECORD", 1_000)
    monkeypatch.setattr(tfrecord, "WINDOW", 100)
    long = framed(event(1, 1.0, field(1, "x") + field(8, field(8, "y" * 2_000))))
    (tmp_path / "events.out.tfevents.1.a.1").write_bytes(VERSION + long + framed(event(2, 2.0, scalar("x", 7.0))))
    items = read(TensorBoard(), tmp_path)
    assert points(items) == {"x": [(2, bits(7.0))]}
    assert any(isinstance(item, Note) and item.hides for item in items)
