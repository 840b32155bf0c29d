"""The fingerprint of batches against the formula worked out number by number, and what it must and must not tell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import trainvitals as tv
from collectors.fingerprint import device_lanes
from tests.collectors import tiny
from trainvitals.fingerprint import batch_hashes, joined, lanes
from trainvitals.store import RunWriter

U64 = 2**64 - 1


def row_hash(row: Iterable[int | None]) -> int:
    """Of one row in Python's whole numbers; None where there is no token."""
    h = 0
    for i, token in enumerate(row, 1):
        z = i * 0x9E3779B97F4A7C15 & U64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & U64
        z = (z ^ z >> 27) * 0x94D049BB133111EB & U64
        h += 0 if token is None else (token + 1) * ((z ^ z >> 31) | 1)
    h &= U64
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & U64
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & U64
    return h ^ h >> 33


def batch_hash(rows: Iterable[Iterable[int | None]]) -> int:
    """Lane by lane, each modulo 2**32."""
    hashes = [row_hash(row) for row in rows]
    low, high = sum(h & 0xFFFFFFFF for h in hashes), sum(h >> 32 for h in hashes)
    return low % 2**32 | high % 2**32 << 32


def known(batch: dict[str, Tensor]) -> list[list[int | None]]:
    return [[int(t) if m else None for t, m in zip(row, mask, strict=True)]
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def of(values: np.ndarray) -> int:
    return int(values[0]) | int(values[1]) << 32


TOKENS = st.integers(0, 2**17)
BATCHES = st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[TOKENS] * n), min_size=1, max_size=4))


@given(BATCHES, st.integers(0, 2**20 - 1))
def test_lanes_are_the_formula_on_host_and_device(rows: list[tuple[int, ...]], bits: int) -> None:
    ids = torch.tensor(rows)
    mask = (bits >> torch.arange(ids.numel()) & 1).bool().reshape(ids.shape)
    masked = [[t if m else None for t, m in zip(*pair, strict=True)] for pair in zip(rows, mask.tolist(), strict=True)]
    assert of(lanes(ids.numpy())) == of(device_lanes(ids, None).numpy()) == batch_hash(rows)
    assert of(lanes(ids.numpy(), mask.numpy())) == of(device_lanes(ids, mask).numpy()) == batch_hash(masked)
    assert of(lanes(ids.numpy().astype(np.int32))) == of(device_lanes(ids.int(), None).numpy()) == batch_hash(rows)


@given(BATCHES, st.integers(0, 19), st.integers(1, 2**17))
def test_one_token_changed_always_shows(rows: list[tuple[int, ...]], at: int, by: int) -> None:
    ids = np.array(rows)
    changed = ids.copy()
    changed.reshape(-1)[at % ids.size] += by
    assert of(lanes(ids)) != of(lanes(changed))


def test_what_matters_and_what_does_not() -> None:
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    whole = of(lanes(ids))
    assert of(lanes(ids[::-1])) == whole, "the order of rows"
    assert of(lanes(np.array([[5, 9, 7], [8, 6, 0]]))) != whole, "tokens swapped between rows"
    assert of(lanes(np.array([[6, 5, 7], [8, 9, 0]]))) != whole, "the order of tokens"
    assert of(lanes(np.array([[5, 6, 7, 0], [8, 9, 0, 0]]))) != whole, "rows of another length"
    mask = np.array([[True] * 3 + [False]] * 2)
    assert of(lanes(np.array([[5, 6, 7, 1], [8, 9, 0, 1]]), mask)) == whole, "masked padding on the right"
    assert of(lanes(np.array([[1, 5, 6, 7], [1, 8, 9, 0]]), mask[:, ::-1])) != whole, "padding on the left"
    doubled = np.concatenate([ids, ids])
    assert of(lanes(doubled)) not in (0, whole), "a row that comes twice counts twice"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_has_one_per_step(tmp_path: Path, accumulate: int) -> None:
    data = tiny.batches(6)
    tiny.train(tiny.llama(), data, tmp_path / "run", accumulate=accumulate)
    steps, hashes = batch_hashes(tv.open_run(tmp_path / "run"))
    expected = [batch_hash(row for batch in data[i:i + accumulate] for row in known(batch))
                for i in range(0, 6, accumulate)]
    assert steps.tolist() == list(range(1, 6 // accumulate + 1))
    assert [int(h) for h in hashes] == expected
    if accumulate == 1:
        assert [int(h) for h in joined(hashes, 3)] == [
            batch_hash(row for batch in data[i:i + 3] for row in known(batch)) for i in (0, 3)]


def test_evaluations_do_not_count_and_longer_cadences_add_up(tmp_path: Path) -> None:
    data, model = tiny.batches(4), tiny.llama()

    def evaluate(tap: tv.Tap) -> None:
        model.eval()
        with torch.no_grad():
            model(**data[0])
        model.train()

    tiny.train(model, data, tmp_path / "run", each=evaluate, collectors={"data": 2})
    steps, hashes = batch_hashes(tv.open_run(tmp_path / "run"))
    assert steps.tolist() == [2, 4]
    assert [int(h) for h in hashes] == [batch_hash(row for batch in data[i:i + 2] for row in known(batch))
                                        for i in (0, 2)]


def test_without_token_ids_it_is_unknown(tmp_path: Path) -> None:
    data = tiny.batches(3)
    model = tiny.llama()
    embed = model.get_input_embeddings()
    data[1] = {"inputs_embeds": embed(data[1]["input_ids"]).detach(), "labels": data[1]["labels"],
               "attention_mask": data[1]["attention_mask"]}
    tiny.train(model, data, tmp_path / "run", domains=None)
    run = tv.open_run(tmp_path / "run")
    assert batch_hashes(run)[0].tolist() == [1, 3]
    assert run.array("data/sequences").steps.tolist() == [1, 2, 3]


def test_an_attempt_recorded_without_it_has_none(tmp_path: Path) -> None:
    """As by an older version: the store adds nothing up to 0, which is no fingerprint."""
    labels = {"domain": ["a"], "lane": ["low", "high"]}
    for start, fields in ((0, ["data/sequences"]), (2, ["data/sequences", "data/batch_lanes"])):
        writer = RunWriter(tmp_path, start_step=start)
        frame = writer.frame("data", fields, labels=labels)
        for step in (start + 1, start + 2):
            frame.append(step, {"data/sequences": 1} | ({"data/batch_lanes": np.array([5.0, 6.0])} if start else {}))
        writer.close()
    steps, hashes = batch_hashes(tv.open_run(tmp_path))
    assert steps.tolist() == [3, 4] and hashes.tolist() == [5 | 6 << 32] * 2


def test_a_run_without_it_has_none(tmp_path: Path) -> None:
    tiny.train(tiny.llama(), tiny.batches(2), tmp_path / "run", collectors={"data": 0})
    steps, hashes = batch_hashes(tv.open_run(tmp_path / "run"))
    assert len(steps) == len(hashes) == 0
