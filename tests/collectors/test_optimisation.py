"""Gradient norms, clipping, learning rates and updates against torch's own and naive computations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals as tv
from collectors.model.layers import layer_labels
from tests.collectors import tiny
from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

LAYERS = ["embed", "0", "1", "final_norm", "head"]


def grads_by_layer(model: nn.Module) -> list[float]:
    squares = dict.fromkeys(LAYERS, 0.0)
    names = [name for name, _ in model.named_parameters()]
    for label, (_, p) in zip(layer_labels(names), model.named_parameters(), strict=True):
        squares[label] += float(p.grad.double().square().sum())
    return [value**0.5 for value in squares.values()]


def test_norms_before_clipping_per_layer(tmp_path: Path) -> None:
    model = tiny.olmoe()
    expected: list[list[float]] = []
    clipped: list[float] = []
    optimizer = torch.optim.AdamW(model.parameters())
    tap = tv.attach(model, optimizer, tmp_path / "run")
    for i, batch in enumerate(tiny.batches(6)):
        model(**batch).loss.backward()
        expected.append(grads_by_layer(model))
        # The three ways in which loops clip, or do not.
        if i % 3 == 0:
            total = tap.clip_grad_norm_(0.5)
            assert float(total) == pytest.approx(np.linalg.norm(expected[-1]), rel=1e-5)
        elif i % 3 == 1:
            total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), 0.5, total)
        clipped.append(float(np.linalg.norm(grads_by_layer(model))))
        optimizer.step()
        optimizer.zero_grad()
    tap.close()
    run = tv.open_run(tmp_path / "run")
    assert run.array("grad/norm_by_layer").labels == (tuple(LAYERS),)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_by_layer"), expected, rtol=1e-5)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm"), np.linalg.norm(expected, axis=1), rtol=1e-5)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_clipped"), clipped, rtol=1e-5)
    assert tiny.values(tmp_path / "run", "grad/clipped").tolist() == [1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("arguments", [{}, {"norm_type": 1.0}, {"norm_type": float("inf")}, {"foreach": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clipping_is_bit_identical(tmp_path: Path, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    one, other = tiny.llama().to(dtype), tiny.llama().to(dtype)
    batch = tiny.batches(1)[0]
    tap = tv.attach(one, torch.optim.SGD(one.parameters(), lr=0.1), tmp_path / "run", domains=tiny.DOMAINS)
    one(**batch).loss.backward()
    before = grads_by_layer(one)
    watched = tap.clip_grad_norm_(0.3, **arguments)
    after = grads_by_layer(one)
    tapped = [p.grad.clone() for p in one.parameters()]
    tap.optimizers[0].step()
    tap.close()
    other(**{k: v for k, v in batch.items() if k != "domain"}).loss.backward()
    plain = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.3, **arguments)
    assert torch.equal(watched, plain)
    for gradient, q in zip(tapped, other.parameters(), strict=True):
        assert torch.equal(gradient, q.grad)
    close = {"rtol": 1e-5 if dtype is torch.float32 else 1e-2}
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_by_layer")[0], before, **close)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_clipped")[0], np.linalg.norm(after), **close)


def test_clipping_by_value_is_seen_before_and_after(tmp_path: Path) -> None:
    model, expected, after = tiny.llama(), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.attach(model, optimizer, tmp_path / "run"):
        model(**tiny.batches(1)[0]).loss.backward()
        expected.append(grads_by_layer(model))
        torch.nn.utils.clip_grad_value_(model.parameters(), 1e-3)
        after.append(float(np.linalg.norm(grads_by_layer(model))))
        optimizer.step()
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_by_layer"), expected, rtol=1e-5)
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_clipped"), after, rtol=1e-5)
    assert tiny.values(tmp_path / "run", "grad/clipped").tolist() == [1]


def test_someone_elses_parameters_pass_through(tmp_path: Path) -> None:
    model, stranger = tiny.llama(), nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stranger(torch.ones(2, 3)).sum().backward()

    def parameters() -> Iterator[nn.Parameter]:
        yield from stranger.parameters()

    with tv.attach(model, optimizer, tmp_path / "run"):
        model(**tiny.batches(1)[0]).loss.backward()
        expected = grads_by_layer(model)
        torch.nn.utils.clip_grad_norm_(parameters(), 0.1)
        optimizer.step()
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "grad/norm_by_layer")[0], expected, rtol=1e-5)
    assert np.linalg.norm([float(p.grad.norm()) for p in stranger.parameters()]) == pytest.approx(0.1, rel=1e-3)


def test_learning_rate_used_and_planned(tmp_path: Path) -> None:
    model = tiny.llama()
    groups = [{"params": list(model.model.parameters()), "lr": 1e-2, "name": "body"},
              {"params": list(model.lm_head.parameters()), "lr": 1e-3, "name": "head"}]
    optimizer = torch.optim.AdamW(groups)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
    used = []
    with tv.attach(model, optimizer, tmp_path / "run", scheduler=scheduler, total_steps=4) as tap:
        for i, batch in enumerate(tiny.batches(4)):
            model(**batch).loss.backward()
            if i == 2:
                optimizer.param_groups[0]["lr"] = 7.0
            used.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert tv.open_run(tmp_path / "run").array("lr/used").labels == (("body", "head"),)
    assert np.array_equal(tiny.values(tmp_path / "run", "lr/used"), used)
    planned = np.outer(1 / np.arange(1, 5), [1e-2, 1e-3])
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "lr/planned"), planned, rtol=1e-12)
    np.testing.assert_allclose(Plan.from_json(tap.card.lr_plan).at([1, 2, 3, 4]), planned[:, 0], rtol=1e-12)


@pytest.mark.parametrize("plan", [Plan(kind="cosine", peak=1e-3, warmup_steps=2, total_steps=9), lambda n: n / 7])
def test_a_given_plan_counts_steps_from_one(tmp_path: Path, plan: Any) -> None:
    tiny.train(tiny.llama(), tiny.batches(3), tmp_path / "run", lr_plan=plan)
    expected = plan.at([1, 2, 3]) if isinstance(plan, Plan) else [plan(n) for n in (1, 2, 3)]
    np.testing.assert_allclose(tiny.values(tmp_path / "run", "lr/planned")[:, 0], expected)


def test_update_ratio_is_that_of_the_weights(tmp_path: Path) -> None:
    model = tiny.olmoe()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.3)
    expected = []
    with tv.attach(model, optimizer, tmp_path / "run", collectors={"update": 2}):
        for batch in tiny.batches(4):
            model(**batch).loss.backward()
            before = [p.detach().double().clone() for p in model.parameters()]
            optimizer.step()
            optimizer.zero_grad()
            moved = [(p.detach().double() - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)]
            expected.append(float((sum(moved) / sum(b.square().sum() for b in before)).sqrt()))
    series = tv.open_run(tmp_path / "run").array("update/ratio")
    assert series.steps.tolist() == [2, 4]
    np.testing.assert_allclose(series.values, expected[1::2], rtol=1e-5)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"collectors": {"grads": 1}}, "Unknown collector 'grads'"),
    ({"collectors": {"grad": -1}}, "cadence of 'grad'"),
    ({"domains": {"web": 0.5, "code": 0.2}}, "sum to 0.7"),
    ({"domains": ["web", "web"]}, "distinct"),
    ({"domains": ["web"], "domain_tokens": {"wev": 3}}, "'wev'"),
    ({"lr_plan": 3}, "lr_plan takes"),
    ({"lr_plan": [lambda n: n, lambda n: n]}, "2 plans"),
])
def test_wrong_arguments_are_refused_before_training(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    model = tiny.llama()
    with pytest.raises(UsageError, match=words):
        tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "run", **arguments)
    with pytest.raises(UsageError, match="holds no parameter"):
        tv.attach(model, torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), tmp_path / "run")
    assert not hasattr(torch.nn.functional.cross_entropy, "_trainvitals")
