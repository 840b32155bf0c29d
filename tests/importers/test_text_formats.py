"""Every text format against numbers that were printed in its documented form, with the noise of real logs around."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.importers.importer import Facts, Importer, Item, Note, Resumed, Rows
from collectors.importers.registry import all_importers
from tests.importers.printing import PRINTERS, write_log
from trainvitals.formulas import given as is_given

CURVES = Path(__file__).resolve().parents[3] / "shared" / "data" / "curves"
needs_logs = pytest.mark.skipif(not CURVES.is_dir(), reason=f"no real logs at {CURVES}")
Cell = tuple[int, str, float]


def importer(name: str) -> Importer:
    return next(one for one in all_importers() if one.format == name.split(" ")[0])


def cells(items: Iterable[Item]) -> list[Cell]:
    """(step, name, value) of every number, in order; NaN as None-like text so that it compares."""
    found: list[Cell] = []
    for rows in items:
        if isinstance(rows, Rows):
            there = {name: is_given(column) for name, column in rows.columns.items()}
            for i, step in enumerate(rows.steps.tolist()):
                found += [(step, name, float(rows.columns[name][i])) for name in sorted(there) if there[name][i]]
    return [(step, name, math.inf if math.isnan(value) else value) for step, name, value in found]


def in_order(found: list[Cell]) -> list[Cell]:
    """Cells of one step in alphabetical order, whether one row brought them or several."""
    return sorted(found, key=lambda cell: (cell[0], cell[1]))


def look(name: str, path: Path, state: dict[str, object] | None = None) -> list[Item]:
    of = importer(name)
    return list(of.read(of.runs(path)[0], {} if state is None else state))


@pytest.mark.parametrize("name", PRINTERS)
def test_a_log_is_told_and_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "job.out"
    expected = write_log(path, name, range(1, 40))
    head = path.read_bytes()[: 64 << 10]
    claims = [one for one in all_importers() if one.recognises(path, head)]
    assert [one.format for one in claims if not one.generic] == ([] if name == "printed" else [name.split(" ")[0]])
    assert importer(name) in claims
    assert cells(look(name, path)) == expected


@pytest.mark.parametrize("name", PRINTERS)
def test_cut_anywhere_it_has_the_same_rows_up_to_there(name: str, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.out", tmp_path / "part.out"
    expected = write_log(whole, name, range(1, 4))
    data = whole.read_bytes()
    for size in range(len(data) + 1):
        part.write_bytes(data[:size])
        found = cells(look(name, part)) if size else []
        assert in_order(found) == [cell for cell in expected if cell in found]
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", PRINTERS)
def test_followed_piece_by_piece_it_has_the_rows_of_one_look(name: str, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.out", tmp_path / "part.out"
    expected = write_log(whole, name, range(1, 12))
    data, state, found = whole.read_bytes(), {}, []
    part.write_bytes(b"")
    for begin in range(0, len(data), 97):
        with part.open("ab") as file:
            file.write(data[begin : begin + 97])
        found += cells(look(name, part, state))
        state = json.loads(json.dumps(state))
    assert in_order(found) == expected


NOISE = ("", "WARNING: could not find the metadata file", "> loading the tokenizer ... done", "\x1b[33mwarn\x1b[0m",
         "  0%|          | 0/100 [00:00<?, ?it/s]\r  1%|1         | 1/100", "tokens: a, b", "NCCL INFO Channel 00 : 0",
         "saved to /tmp/x", "ünïcode \udcff", "2025-01-31 12:00:00 INFO hello")


@pytest.mark.parametrize("name", [name for name in PRINTERS if name not in ("olmo-core", "composer", "hf-output")])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_prefixes_and_noise_between_lines_change_nothing(name: str, tmp_path: Path, data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from(["", "[default7]:", "3: ", "[rank0]:", "(Actor pid=12) "]))
    if name in ("llmc", "automodel", "llama-factory") or name.startswith("torchtitan-"):
        prefix = ""
    path, expected = tmp_path / "job.out", []
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for step in range(1, data.draw(st.integers(2, 9))):
            for noise in data.draw(st.lists(st.sampled_from(NOISE), max_size=2)):
                file.write(noise + "\n")
            loss = data.draw(st.floats(1e-3, 99))
            text, values = PRINTERS[name](step, loss, 1.0, 1e-4)
            file.write(prefix + text + data.draw(st.sampled_from(["\n", "\r\n"])))
            expected += [(step, key, values[key]) for key in sorted(values)]
    assert cells(look(name, path)) == expected


@pytest.mark.parametrize("name", PRINTERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=30))
def test_damaged_bytes_raise_nothing(name: str, tmp_path: Path, flips: list[tuple[float, int]]) -> None:
    path = tmp_path / "job.out"
    write_log(path, name, range(1, 6))
    data = bytearray(path.read_bytes())
    for at, byte in flips:
        data[int(at * (len(data) - 1))] = byte
    path.write_bytes(data)
    importer(name).recognises(path, bytes(data[: 64 << 10]))
    assert all(isinstance(item, Rows | Note | Resumed | Facts) for item in look(name, path))


@needs_logs
def test_llmc_main_log_as_a_loop_reads_it() -> None:
    path = CURVES / "llmc_124m_main.log"
    expected: dict[tuple[int, str], float] = {}
    for line in path.read_text().splitlines():
        step, *pairs = line.split(" ")
        expected |= {(int(step[2:]), pair.split(":")[0]): float(pair.split(":")[1]) for pair in pairs}
    found = cells(look("llmc", path))
    assert len(found) == len(expected)
    assert {(step, name): value for step, name, value in found} == expected


@needs_logs
@pytest.mark.parametrize("file", ["bloom176b_spike_2022-04-12.log", "megatron_log_divergence_sample.log"])
def test_megatron_logs_as_a_loop_reads_them(file: str) -> None:
    expected: dict[tuple[int, str], float] = {}
    for line in (CURVES / file).read_text().splitlines():
        if found := re.search(r"iteration +(\d+)[/ ]", line):
            for part in line.split("|")[1:]:
                if ":" in part:
                    expected[int(found[1]), part.split(":")[0].strip()] = float(part.split(":")[1])
    rows = cells(look("megatron", CURVES / file))
    assert {(step, name): value for step, name, value in rows} == expected
    assert len(rows) == len(expected)


def test_rows_have_the_steps_types_and_lengths_that_the_contract_says(tmp_path: Path) -> None:
    for name in PRINTERS:
        path = tmp_path / "job.out"
        write_log(path, name, range(1, 20))
        for rows in look(name, path):
            if isinstance(rows, Rows):
                assert rows.steps.dtype == np.int64
                assert {len(rows.steps)} == {len(rows.times), *map(len, rows.columns.values())}
