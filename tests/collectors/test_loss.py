"""Losses per domain against a brute-force computation of every token in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainvitals as tv
from collectors.signals.loss import LossCollector
from tests.collectors import tiny

ROWS = len(tiny.DOMAINS) + 1


def brute_force(model: nn.Module, batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of target tokens per domain, one token at a time. [D + 1] each."""
    with torch.no_grad():
        inputs = {k: v for k, v in batch.items() if k not in ("domain", "labels")}
        logits = model(**inputs).logits.double()
    sums, counts = np.zeros(ROWS), np.zeros(ROWS)
    domain = batch["domain"] if batch["domain"].dim() == 2 else batch["domain"][:, None].expand_as(batch["labels"])
    for row in range(logits.shape[0]):
        for position in range(logits.shape[1] - 1):
            label = int(batch["labels"][row, position + 1])
            if label == -100:
                continue
            d = int(domain[row, position + 1])
            d = d if 0 <= d < ROWS - 1 else ROWS - 1
            sums[d] += float(torch.logsumexp(logits[row, position], 0) - logits[row, position, label])
            counts[d] += 1
    return sums, counts


def packed(steps: int) -> list[dict[str, Tensor]]:
    """Documents of several domains in one row, positions restarting, some domain ids out of range."""
    data = tiny.batches(steps, padded=False)
    for batch in data:
        cut = torch.tensor([5, 9, 11, 13])
        position = torch.arange(16)
        batch["domain"] = torch.where(position < cut[:, None], batch["domain"][:, None], (cut % 5)[:, None] - 1)
        batch["position_ids"] = torch.where(position < cut[:, None], position, position - cut[:, None])
        del batch["attention_mask"]
    return data


@pytest.mark.parametrize("make", [tiny.olmoe, tiny.llama])
@pytest.mark.parametrize("data", [tiny.batches(4), packed(4)], ids=["padded", "packed"])
def test_domain_losses_match_brute_force(tmp_path: Path, make: Any, data: list[dict[str, Tensor]]) -> None:
    expected = []
    model, accumulate = make(), 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    returned = []
    with tv.attach(model, optimizer, tmp_path / "run", domains=tiny.DOMAINS) as tap:
        for i, batch in enumerate(data):
            if i % accumulate == 0:
                sums, counts = np.zeros(ROWS), np.zeros(ROWS)
            tap_batch = tap.batch
            more = brute_force(model, batch)
            tap.batch = tap_batch
            sums, counts = sums + more[0], counts + more[1]
            loss = model(**batch).loss
            returned.append(float(loss.detach()) * more[1].sum())
            (loss / accumulate).backward()
            if i % accumulate:
                expected.append((sums, counts))
                optimizer.step()
                optimizer.zero_grad()
    run = tmp_path / "run"
    sums, counts = (np.array(x) for x in zip(*expected, strict=True))
    assert np.array_equal(tiny.values(run, "loss/domain_tokens"), counts)
    np.testing.assert_allclose(tiny.values(run, "loss/domain_sum"), sums, rtol=1e-6)
    # The token-weighted sum over domains is the model's own loss.
    own = np.array(returned).reshape(-1, accumulate).sum(axis=1) / counts.sum(axis=1)
    np.testing.assert_allclose(tiny.values(run, "loss/train"), own, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("autocast", [False, True])
def test_cross_entropy_taken_apart_is_bit_identical(
        tmp_path: Path, dtype: torch.dtype, reduction: str, autocast: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(24, 50).to(dtype).requires_grad_()
    target = torch.randint(50, (24,)).masked_fill(torch.arange(24) % 5 == 0, -100)
    model = tiny.llama()
    tap = tv.attach(model, torch.optim.SGD(model.parameters(), lr=1.0), tmp_path / "run")
    tap.guard(None, tap._begin_batch, model, (torch.ones(4, 6, dtype=torch.long),), {}, None)
    loss = tap.collectors["loss"]
    assert isinstance(loss, LossCollector)
    results = []
    for watched in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            compute = F.cross_entropy if watched else F.cross_entropy.__wrapped__
            value = compute(logits, target, reduction=reduction)
        results.append((value.detach(), torch.autograd.grad(value.sum(), logits)[0]))
    assert tap.batch is not None
    loss.output(tap.batch, None)
    assert "loss" in tap.collectors
    assert int(tap.batch.notes["loss"].values[1][:-2].sum()) == int((target != -100).sum())
    tap.close()
    assert results[0][0].dtype is results[1][0].dtype
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_nan_is_kept(tmp_path: Path) -> None:
    model, data = tiny.llama(), tiny.batches(1)
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    tiny.train(model, data, tmp_path / "run")
    assert np.isnan(tiny.values(tmp_path / "run", "loss/train")).all()
    assert (tiny.values(tmp_path / "run", "loss/nonfinite_tokens") > 0).all()
    assert (tiny.values(tmp_path / "run", "grad/nonfinite") > 0).all()


def test_validation_losses_at_the_step_of_the_evaluation(tmp_path: Path) -> None:
    model, data = tiny.llama(), tiny.batches(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    with tv.attach(model, optimizer, tmp_path / "run", domains=tiny.DOMAINS):
        for batch in data:
            model(**batch).loss.backward()
            optimizer.step()
            model.eval()
            with torch.inference_mode():
                for other in data[:2]:
                    model(**other)
            expected.append([brute_force(model, other) for other in data[:2]])
            model.train()
    series = tv.open_run(tmp_path / "run").array("loss/val")
    assert series.steps.tolist() == [1, 2, 3]
    sums = np.array([[s for s, _ in row] for row in expected]).sum(axis=1)
    counts = np.array([[c for _, c in row] for row in expected]).sum(axis=1)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "loss/val_domain_sum"), sums, rtol=1e-6)
    assert np.array_equal(tiny.values(tmp_path / "run", "loss/val_domain_tokens"), counts)


def test_a_loop_without_a_transformers_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(tiny.VOCAB, 8), nn.Linear(8, tiny.VOCAB))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids, domain = torch.randint(tiny.VOCAB, (4, 9)), torch.tensor([0, 2, 2, 9])
    with tv.attach(model, optimizer, tmp_path / "run", domains=list(tiny.DOMAINS)) as tap:
        per_token = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(4, 8)
        tap.loss(per_token, domain, mask=ids[:, 1:] != 5)
        per_token.mean().backward()
        optimizer.step()
    kept = (ids[:, 1:] != 5).double()
    rows = (per_token.detach().double() * kept).sum(1)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "loss/domain_sum")[0],
                               [rows[0], 0, rows[1] + rows[2], rows[3]])
    assert tiny.values(tmp_path / "run", "loss/domain_tokens")[0].sum() == kept.sum()


def test_losses_that_cannot_be_seen_are_said(tmp_path: Path) -> None:
    model, data = tiny.llama(), tiny.batches(2)
    model.loss_function = lambda logits, labels, vocab_size, **kwargs: logits.float().square().mean()
    own = model.loss_function
    tiny.train(model, data, tmp_path / "run")
    kinds = tiny.event_kinds(tmp_path / "run")
    assert "loss_unseen" in kinds and "losses_missing" not in kinds, "one cause is said once"
    assert not tv.open_run(tmp_path / "run").array("loss/train").present.any()
    assert model.loss_function is own


def test_label_smoothing_leaves_the_loss_alone(tmp_path: Path) -> None:
    def smoothed(logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        return F.cross_entropy(logits[:, :-1].reshape(-1, vocab_size), labels[:, 1:].reshape(-1), label_smoothing=0.1)

    one, other, data = tiny.llama(), tiny.llama(), tiny.batches(3)
    one.loss_function = other.loss_function = smoothed
    expected = brute_force(one, data[0])
    tiny.train(one, data, tmp_path / "run")
    tiny.train(other, data)
    assert tiny.same_weights(one, other)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "loss/domain_sum")[0], expected[0], rtol=1e-6)


# ---- evaluation sets ---------------------------------------------------------------------------------------------


SETS = {"a": tiny.batches(2, seed=5), "b": tiny.batches(3, rows=2, seed=6)}


def evaluated(path: Path, evaluate: Any) -> tuple[tv.Run, dict[str, list[float]]]:
    """A loop that evaluates after steps 2 and 4, and the mean loss of each set at these steps by brute force."""
    model = tiny.llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    known: dict[str, list[float]] = {name: [] for name in SETS}
    with tv.attach(model, optimizer, path, domains=tiny.DOMAINS) as tap:
        for i, batch in enumerate(tiny.batches(5), 1):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if i % 2 == 0:
                tap.batch = None
                copy = tiny.llama()
                copy.load_state_dict(model.state_dict())
                for name, data in SETS.items():
                    parts = [brute_force(copy.eval(), b) for b in data]
                    known[name].append(sum(s.sum() for s, _ in parts) / sum(n.sum() for _, n in parts))
                evaluate(tap, model)
    assert "collector_disabled" not in tiny.event_kinds(path)
    return tv.open_run(path), known


@torch.no_grad()
def over(model: nn.Module, data: Any) -> None:
    model.eval()
    for batch in data:
        model(**batch)


def named(tap: tv.Tap, model: nn.Module) -> None:
    for name, data in SETS.items():
        with tap.evaluation(name):
            over(model, data)
    model.train()


def afterwards(tap: tv.Tap, model: nn.Module) -> None:
    for name, data in SETS.items():
        over(model, data)
        tap.evaluated(name)
    model.train()


def toggled(tap: tv.Tap, model: nn.Module) -> None:
    for data in SETS.values():
        over(model, data)
        model.train()


def by_loader(tap: tv.Tap, model: nn.Module) -> None:
    for data in SETS.values():
        over(model, torch.utils.data.DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    model.train()


@pytest.mark.parametrize(("evaluate", "labels"), [
    (named, "ab"), (afterwards, "ab"), (toggled, "12"), (by_loader, "12")])
def test_two_evaluation_sets_are_two_series(tmp_path: Path, evaluate: Any, labels: str) -> None:
    run, known = evaluated(tmp_path, evaluate)
    assert not run.has("loss/val")
    series = run.array("loss/val_set")
    assert series.steps.tolist() == [2, 4] and series.labels == (tuple(labels),)
    np.testing.assert_allclose(series.values, np.transpose(list(known.values())), rtol=1e-5)
    by_domain = run.array("loss/val_set_domain_tokens").values
    np.testing.assert_array_equal(by_domain.sum(axis=-1), run.array("loss/val_set_tokens").values)
    assert ("evaluations_unnamed" in tiny.event_kinds(tmp_path)) == (labels == "12")


def test_one_evaluation_is_the_validation_loss(tmp_path: Path) -> None:
    run, known = evaluated(tmp_path, lambda tap, model: (over(model, SETS["a"]), model.train()))
    assert not run.has("loss/val_set") and "evaluations_unnamed" not in tiny.event_kinds(tmp_path)
    np.testing.assert_allclose(run.array("loss/val").values, known["a"], rtol=1e-5)


def test_sets_that_come_later_and_not_every_time(tmp_path: Path) -> None:
    def some(tap: tv.Tap, model: nn.Module) -> None:
        for name in SETS if tap.step == 4 else "a":
            with tap.evaluation(name):
                over(model, SETS[name])
        model.train()

    run, known = evaluated(tmp_path, some)
    series = run.array("loss/val_set")
    np.testing.assert_allclose(series.values, [[known["a"][0], np.nan], [known["a"][1], known["b"][1]]], rtol=1e-5)


def test_an_evaluation_that_leaves_evaluation_mode_after_every_batch_is_one_and_says_so(tmp_path: Path) -> None:
    def toggling(tap: tv.Tap, model: nn.Module) -> None:
        for batch in 5 * SETS["a"]:
            over(model, [batch])
            model.train()

    run, known = evaluated(tmp_path, toggling)
    np.testing.assert_allclose(run.array("loss/val").values, known["a"], rtol=1e-5)
    assert "evaluations_unnamed" in tiny.event_kinds(tmp_path)


def test_more_sets_than_a_run_takes(tmp_path: Path) -> None:
    def many(tap: tv.Tap, model: nn.Module) -> None:
        for i in range(70):
            with tap.evaluation(f"{tap.step}-{i}"):
                over(model, SETS["b"][:1])
        model.train()

    run, _ = evaluated(tmp_path, many)
    assert len(run.array("loss/val_set").labels[0]) == 64
    assert "evaluation_sets_many" in tiny.event_kinds(tmp_path)


def test_an_evaluation_that_fails_stays_the_loops(tmp_path: Path) -> None:
    model = tiny.llama()
    with tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.5), tmp_path) as tap:
        with pytest.raises(ZeroDivisionError), tap.evaluation("a"):
            raise ZeroDivisionError
        over(model, SETS["a"])
    assert tv.open_run(tmp_path).has("loss/val")
