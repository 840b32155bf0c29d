"""What real logs do beyond their format: NaN left out, restarts, ranks in one stream, tracebacks, long lines."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from collectors.importers.importer import Facts, Note, Resumed, Rows
from tests.importers.printing import PRINTERS, megatron
from tests.importers.test_text_formats import cells, importer, look


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(text + "\n" for text in texts))
    return path


def step(name: str, number: int, loss: float = 2.5) -> str:
    return PRINTERS[name](number, loss, 1.0, 1e-4)[0]


def notes(items: list[object], kind: str) -> list[Note]:
    return [item for item in items if isinstance(item, Note) and item.kind == kind]


def blind(name: str, items: list[object]) -> set[tuple[str, str]]:
    """(kind, signal) of all that the log hides."""
    spots = [*importer(name).blind, *(spot for item in items if isinstance(item, Facts) for spot in item.blind)]
    return {(spot.kind, signal) for spot in spots for signal in spot.signals}


def without(line: str, name: str) -> str:
    return "|".join(part for part in line.split("|") if not part.strip().startswith(name + ":"))


def test_megatron_leaves_a_nan_loss_out_and_it_is_read_as_the_nan_that_it_was(tmp_path: Path) -> None:
    path = lines(tmp_path / "job.out", *(step("megatron", i) for i in range(1, 6)),
                 *(without(step("megatron", i), "lm loss") for i in range(6, 9)), step("megatron", 9))
    items = look("megatron", path)
    loss = {s: value for s, name, value in cells(items) if name == "lm loss"}
    assert [s for s, value in loss.items() if value == math.inf] == [6, 7, 8]  # cells() shows NaN as infinity
    (note,) = notes(items, "nonfinite")
    assert note.hides and note.step == 6 and "lm loss" in note.message


def test_a_second_gap_of_the_loss_is_noted_too(tmp_path: Path) -> None:
    text = [step("megatron", i) if i % 4 else without(step("megatron", i), "lm loss") for i in range(1, 13)]
    assert [note.step for note in notes(look("megatron", lines(tmp_path / "a.out", *text)), "nonfinite")] == [4, 8, 12]


def test_a_megatron_log_that_never_prints_a_loss_invents_none(tmp_path: Path) -> None:
    items = look("megatron", lines(tmp_path / "a.out", *(without(step("megatron", i), "lm loss") for i in range(1, 5))))
    assert not [cell for cell in cells(items) if cell[1] == "lm loss"]
    assert len(notes(items, "nonfinite")) == 1


def test_a_line_that_another_process_broke_is_no_nan(tmp_path: Path) -> None:
    broken = step("megatron", 3).partition(" lm loss")[0] + "[default2]:NCCL INFO"
    items = look("megatron", lines(tmp_path / "a.out", step("megatron", 1), step("megatron", 2), broken))
    assert [s for s, name, _ in cells(items) if name == "lm loss"] == [1, 2]
    assert [(note.step, note.hides) for note in notes(items, "unread")] == [(3, True)] and not notes(items, "nonfinite")


def test_an_interval_in_which_every_iteration_was_skipped_has_no_loss(tmp_path: Path) -> None:
    skipped = step("megatron", 3, 0.0).replace("skipped iterations:   0", "skipped iterations:   1")
    items = look("megatron", lines(tmp_path / "a.out", step("megatron", 1), step("megatron", 2), skipped,
                                   step("megatron", 4)))
    assert [s for s, name, _ in cells(items) if name == "lm loss"] == [1, 2, 4]
    assert [(note.step, note.hides) for note in notes(items, "skipped")] == [(3, True)]
    assert (3, "number of skipped iterations", 1.0) in cells(items)


def test_the_log_interval_is_measured_and_what_it_averages_is_said(tmp_path: Path) -> None:
    every = look("megatron", lines(tmp_path / "a.out", *(step("megatron", i) for i in range(1, 9))))
    tenth = look("megatron", lines(tmp_path / "b.out", *(step("megatron", i) for i in range(10, 90, 10))))
    assert ("averaged", "loss/train") not in blind("megatron", every)
    assert {("averaged", "loss/train"), ("last", "grad/norm")} <= blind("megatron", tenth)


def test_megatron_resumes_at_the_checkpoint_that_it_says(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", *(step("megatron", i) for i in range(1, 30)),
                 " loading checkpoint from /ckpt at iteration 20",
                 "  successfully loaded checkpoint from /ckpt [ t 1/2, p 1/4 ] at iteration 20",
                 *(step("megatron", i) for i in range(21, 40)))
    items = look("megatron", path)
    assert [item.step for item in items if isinstance(item, Resumed)] == [20]
    at = next(i for i, item in enumerate(items) if isinstance(item, Resumed))
    assert [int(rows.steps[0]) for rows in items[at:] if isinstance(rows, Rows)] == [21]
    assert int(max(rows.steps[-1] for rows in items[:at] if isinstance(rows, Rows))) == 29


def test_finetuning_from_a_checkpoint_begins_at_zero_and_is_no_resume(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", " loading checkpoint from /ckpt at iteration 5000",
                 "  successfully loaded checkpoint from /ckpt at iteration 0", step("megatron", 1))
    assert not [item for item in look("megatron", path) if isinstance(item, Resumed)]


def test_megatron_arguments_become_configuration_and_card(tmp_path: Path) -> None:
    block = ["[default0]:------------------------ arguments ------------------------",
             "[default0]:  bf16 ............................................ True",
             "[default0]:  lr .............................................. 6e-05", "[default1]:noise in between",
             "[default0]:  num_layers ...................................... 70",
             "[default0]:  optimizer ....................................... adam",
             "[default0]:  data_path ....................................... ['0.1', '/a/b']",
             "[default0]:  seq_length ...................................... 2048",
             "[default0]:-------------------- end of arguments ---------------------"]
    facts = [item for item in look("megatron", lines(tmp_path / "a.out", *block, step("megatron", 1)))
             if isinstance(item, Facts)]
    config = {name: value for fact in facts for name, value in fact.config.items()}
    card = {name: value for fact in facts for name, value in fact.card.items()}
    assert config["lr"] == 6e-05 and config["data_path"] == "['0.1', '/a/b']" and config["bf16"] is True
    assert card == {"layers": 70, "context": 2048, "precision": "bf16", "optimizer": "adam", "total_steps": 100000}


def test_megatron_validation_lines_keep_their_sets_apart(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", step("megatron", 10),
                 " validation loss at iteration 10 | lm loss value: 4.5E+00 | lm loss PPL: 9.0E+01 | ",
                 " validation loss at iteration 10 on test set | lm loss value: 4.7E+00 | lm loss PPL: 9.9E+01 | ",
                 " validation loss at the end of training for val data | lm loss value: 4.4E+00 | ")
    losses = {(name, value) for s, name, value in cells(look("megatron", path)) if "lm loss value" in name and s == 10}
    assert losses == {("lm loss value", 4.5), ("lm loss value", 4.4), ("on test set: lm loss value", 4.7)}


def test_gpt_neox_lines_are_read_with_what_stands_before_the_iteration(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", *(
        f" samples/sec: 12.5 | iteration {i:8d}/   10000 | elapsed time per iteration (ms): 150.0 | learning rate: "
        f"1.0E-04 | approx flops per GPU: 45.1TFLOPS | lm_loss: {2 + i / 10:.6E} | number of skipped "
        "iterations:   0 | number of nan iterations:   0 |" for i in range(1, 4)))
    found = cells(look("megatron", path))
    assert [(s, value) for s, name, value in found if name == "lm_loss"] == [(1, 2.1), (2, 2.2), (3, 2.3)]
    assert (1, "samples/sec", 12.5) in found


@pytest.mark.parametrize("name", ["megatron", "torchtitan"])
def test_ranks_that_print_the_same_rows_are_one_run(name: str, tmp_path: Path) -> None:
    mixed = [f"[rank{rank}]:{step(name, i, 2.0 + rank)}" for i in range(1, 20)
             for rank in ((0, 1, 2) if i % 2 else (2, 0, 1))]
    items = look(name, lines(tmp_path / "a.out", *mixed))
    alone = look(name, lines(tmp_path / "b.out", *(f"[rank0]:{step(name, i, 2.0)}" for i in range(1, 20))))
    assert cells(items) == cells(alone)
    assert len(notes(items, "ranks")) == 1


def test_a_rank_that_falls_silent_hands_over_and_no_row_is_lost(tmp_path: Path) -> None:
    text = [f"[default7]:{step('megatron', i)}" for i in range(1, 11)]
    text += [f"[default3]:{step('megatron', i)}" for i in range(11, 111)]
    items = look("megatron", lines(tmp_path / "a.out", *text))
    assert [s for s, name, _ in cells(items) if name == "lm loss"] == list(range(1, 111))
    assert [note.hides for note in notes(items, "ranks")] == [False, True]


def test_one_line_of_another_rank_at_the_beginning_hides_no_row(tmp_path: Path) -> None:
    text = ["[default0]: validation loss at iteration 0 | lm loss value: 9.0E+00 | lm loss PPL: 9.0E+01 |"]
    text += [f"[default7]:{step('megatron', i)}" for i in range(1, 4)]
    items = look("megatron", lines(tmp_path / "a.out", *text))
    assert [s for s, name, _ in cells(items) if name == "lm loss"] == [1, 2, 3]


def test_a_traceback_is_one_note_with_its_last_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", step("torchtitan", 3), "[rank1]:Traceback (most recent call last):",
                 '[rank1]:  File "train.py", line 1, in <module>', "[rank0]:something else", "[rank1]:    main()",
                 "[rank1]:torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "[rank1]:bye")
    (note,) = notes(look("torchtitan", path), "error")
    assert note.message == "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert note.step == 3


@pytest.mark.parametrize(("name", "line"), [
    ("megatron", "[default7]:[after training is done] datetime: 2025-01-31 12:00:00 "),
    ("torchtitan", "[rank0]:[titan] 2025-01-31 12:00:00,123 - root - INFO - Training completed"),
    ("nemo", "`Trainer.fit` stopped: `max_steps=100` reached."),
    ("hf-output", "{'train_runtime': '9.5', 'train_loss': '2.45', 'epoch': '0.3'}"),
])
def test_the_line_that_tells_of_an_orderly_end_closes_the_run(name: str, line: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", *(step(name, i) for i in range(1, 9)))
    assert not notes(look(name, path), "closed")
    with path.open("a") as file:
        file.write(line + "\n")
    assert len(notes(look(name, path), "closed")) == 1


def test_a_line_of_200_mb_is_left_out_and_said_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.out"
    with path.open("wb") as file:
        file.write(step("megatron", 1).encode() + b"\n")
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + step("megatron", 2).encode() + b"\n")
    tracemalloc.start()
    items = look("megatron", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert [s for s, name, _ in cells(items) if name == "lm loss"] == [1, 2]
    assert [note.hides for note in notes(items, "unread")] == [True]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
def test_any_encoding(encoding: str, tmp_path: Path) -> None:
    text = "Überschrift\n" + "".join(step("nanogpt", i) + "\r\n" for i in range(1, 9))
    plain, other = tmp_path / "a.out", tmp_path / "b.out"
    plain.write_text(text)
    bom = b"\xfe\xff" if encoding == "utf-16-be" else b""
    other.write_bytes(bom + text.encode(encoding))
    assert importer("nanogpt").recognises(other, other.read_bytes())
    assert cells(look("nanogpt", other)) == cells(look("nanogpt", plain)) != []


def test_digits_are_measured_where_few_are_printed(tmp_path: Path) -> None:
    nemo = look("nemo", lines(tmp_path / "a.out", *(PRINTERS["nemo"](i, 11.02345, 1, 1e-4)[0] for i in range(1, 9))))
    assert ("rounded", "loss/train") in blind("nemo", nemo)
    exact = look("megatron", lines(tmp_path / "b.out", *(megatron(i, 2.123456, 1, 1e-4)[0] for i in range(1, 9))))
    assert ("rounded", "loss/train") not in blind("megatron", exact)


def test_nemo_repeats_the_last_validation_loss_and_it_is_taken_once(tmp_path: Path) -> None:
    text = [step("nemo", i) + (f" | val_loss: {9.5 if i < 6 else 9.1}" if i > 2 else "") for i in range(1, 9)]
    all_cells = cells(look("nemo", lines(tmp_path / "a.out", *text)))
    found = [(s, value) for s, name, value in all_cells if name == "val_loss"]
    assert found == [(3, 9.5), (6, 9.1)]


def test_the_trainer_without_a_progress_bar_is_counted_and_says_so(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", *("{'loss': 2.5, 'grad_norm': 1.0, 'learning_rate': 1e-05, 'epoch': 0.1}",) * 3,
                 "{'eval_loss': 2.4, 'eval_runtime': 1.5, 'epoch': 0.3}",
                 "{'train_runtime': 9.5, 'train_loss': 2.45, 'epoch': 0.3}")
    items = look("hf-output", path)
    assert [s for s, name, _ in cells(items) if name == "loss"] == [1, 2, 3]
    assert [s for s, name, _ in cells(items) if name == "eval_loss"] == [3]
    assert not [cell for cell in cells(items) if cell[1] == "train_loss"]
    assert ("steps", "loss/") in blind("hf-output", items) and ("nonfinite", "loss/train") in blind("hf-output", items)


def test_csv_monitor_counts_samples_unless_the_batch_size_is_known(tmp_path: Path) -> None:
    (tmp_path / "Train_Samples_train_loss.csv").write_text(
        "step,train_loss\n64,2.5\n128,2.4\nstep,train_loss\n192,2.3\n")
    items = look("deepspeed-csv", tmp_path)
    assert [s for s, _, _ in cells(items)] == [64, 128, 192]
    assert ("steps", "loss/") in blind("deepspeed-csv", items)
    (tmp_path / "deepspeed_config.csv").write_text("key,value\ntrain_batch_size,64\n")
    items = look("deepspeed-csv", tmp_path)
    assert [(s, value) for s, _, value in cells(items)] == [(1, 2.5), (2, 2.4), (3, 2.3)]
    assert ("steps", "loss/") not in blind("deepspeed-csv", items)


def test_automodel_reads_training_and_validation_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "training.jsonl").write_text("".join(
        f'{{"step": {i}, "epoch": 0, "timestamp": "2025-01-31T12:00:00.500Z", "loss": 2.5, "grad_norm": NaN}}\n'
        for i in range(1, 4)))
    (tmp_path / "validation.jsonl").write_text(
        '{"step": 3, "epoch": 0, "timestamp": "2025-01-31T12:00:00.500Z", "val_loss": 2.4, "lr": 1e-05}\n')
    items = look("automodel", tmp_path)
    rows = [(i, name, value) for i in (1, 2, 3) for name, value in (("grad_norm", math.inf), ("loss", 2.5))]
    assert cells(items) == [*rows, (3, "val_loss", 2.4)]
    assert float(next(rows for rows in items if isinstance(rows, Rows)).times[0]) == 1738324800.5


def test_structured_logs_of_a_folder_are_those_of_the_lowest_rank(tmp_path: Path) -> None:
    folder = tmp_path / "structured_logs"
    folder.mkdir()
    for rank in (11, 2, 3):
        (folder / f"training.global_rank_{rank}.20250131-120000-ABC.jsonl").write_text(
            PRINTERS["torchtitan-structured"](rank, 2.5, 1.0, 1e-4)[0] + "\n")
    assert importer("torchtitan-structured").recognises(folder, b"")
    assert [s for s, _, _ in cells(look("torchtitan-structured", folder))] == [2]
    assert ("rank", "throughput/") in blind("torchtitan-structured", [])


def test_a_log_without_changes_costs_no_rows_and_a_grown_one_its_news(tmp_path: Path) -> None:
    path, state = lines(tmp_path / "a.out", *(step("megatron", i) for i in range(1, 9))), {}
    assert len(cells(look("megatron", path, state))) == 8 * 9
    assert look("megatron", path, state) == []
    with path.open("a") as file:
        file.write(step("megatron", 9) + "\n")
    assert {s for s, _, _ in cells(look("megatron", path, state))} == {9}


def test_steps_beyond_any_and_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.out", "step:99999999999999999999/5 train_loss:2.0", "step:1/5 train_loss:2,0,1.5",
                 "step:2/5 train_loss:nan", "step:3/5 train_loss:-inf", "step:4/5 train_loss:1e400")
    found = {s: value for s, name, value in cells(look("modded-nanogpt", path)) if name == "train_loss"}
    assert found[2] == math.inf and found[3] == -np.inf and found[4] == math.inf and 99999999999999999999 not in found
