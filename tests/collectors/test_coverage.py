"""What the tap says it saw of a job against what the loop knows it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals as tv
from checks import run_checks
from tests.collectors import tiny
from tests.collectors.test_loop_zoo import LM, batches

SHARES = ("parameter_share", "gradient_share", "loss_share", "router_share")


def shares(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and shares of every row."""
    opened = tv.open_run(run)
    found = {name: opened.array(f"coverage/{name}") for name in SHARES if opened.has(f"coverage/{name}")}
    return {name: [(int(s), float(v)) for s, v in zip(series.steps, series.values, strict=True) if v == v]
            for name, series in found.items()}


def health(run: Path) -> tuple[set[str], str]:
    findings = run_checks(tv.open_run(run), only=["telemetry.health", "telemetry.coverage"]).findings
    levels = {f.level for f in findings}
    return levels - {"pass"} or levels, " ".join(f.summary for f in findings)


def test_all_of_a_plain_job_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.coverage.EVERY", 5)
    tiny.train(tiny.olmoe(), tiny.batches(12), tmp_path, accumulate=2)
    assert shares(tmp_path) == {name: [(1, 1.0), (5, 1.0), (6, 1.0)] for name in SHARES}
    forwards = tv.open_run(tmp_path).array("coverage/forwards")
    assert forwards.values.tolist() == [2, 8, 2], "counts since the last row, so that ranks and rows add up"
    levels, words = health(tmp_path)
    assert levels == {"pass"}
    assert "100 % of the trainable parameters" in words and "100 % of the choices of routers" in words


def test_losses_that_are_seen_at_times(tmp_path: Path) -> None:
    """The loop computes a loss of its own at every third step; two forwards a step."""
    model, expected = LM("logits"), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.attach(model, optimizer, tmp_path):
        for step, batch in enumerate(batches(7), 1):
            for number in range(2):
                logits, target = model(batch["input_ids"])[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
                own = step % 3 == 0 and number == 1
                (logits.square().mean() if own else nn.functional.cross_entropy(logits, target)).backward()
            expected.append(0.5 if step % 3 == 0 else 1.0)
            optimizer.step()
            optimizer.zero_grad()
    rows = shares(tmp_path)["loss_share"]
    # A row for each change, and one for the steps before it where these have none yet.
    assert rows == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 1.0), (5, 1.0), (6, 0.5), (7, 1.0)]
    assert all(expected[step - 1] == value for step, value in rows)
    run = tv.open_run(tmp_path)
    assert run.array("coverage/forwards").values.sum() == 14 and run.array("coverage/losses_seen").values.sum() == 12
    assert list(run.events()["kind"]).count("losses_missing") == 1
    levels, words = health(tmp_path)
    assert "pass" not in levels and "85.7 % of the losses" in words


def test_parameters_and_gradients(tmp_path: Path) -> None:
    model = LM()
    model.spare = nn.Linear(3, 3)  # held, and part of no forward
    held = [*model.embed.parameters(), *model.middle.parameters(), *model.spare.parameters()]
    optimizer = torch.optim.SGD(held, lr=0.1)
    with tv.attach(model, optimizer, tmp_path):
        for batch in batches(3):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    size = sum(p.numel() for p in held)
    found = shares(tmp_path)
    assert [v for _, v in found["parameter_share"]] == pytest.approx(
        [size / sum(p.numel() for p in model.parameters())] * 2)
    assert [v for _, v in found["gradient_share"]] == pytest.approx([(size - 12) / size] * 2)
    assert {"parameters_uncovered", "gradients_missing"} <= set(tiny.event_kinds(tmp_path))
    levels, words = health(tmp_path)
    assert "pass" not in levels and "of the trainable parameters; some were missing since step 1" in words


def test_domains_of_tokens(tmp_path: Path) -> None:
    data = tiny.batches(3)
    tiny.train(tiny.llama(), data, tmp_path / "named")
    known = [float((b["attention_mask"] * (b["domain"] < len(tiny.DOMAINS))[:, None]).sum() / b["attention_mask"].sum())
             for b in data]
    np.testing.assert_allclose(tiny.values(tmp_path / "named", "coverage/domain_share"), known)
    tiny.train(tiny.llama(), data, tmp_path / "unnamed", domains=None)
    assert not tv.open_run(tmp_path / "unnamed").array("coverage/domain_share").present.any()


def test_a_router_that_is_not_read(tmp_path: Path) -> None:
    model: Any = tiny.olmoe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.attach(model, optimizer, tmp_path) as tap:
        for step, batch in enumerate(tiny.batches(4), 1):
            if step == 3:
                site = tap.collectors["router"].sites[1]
                (site.module._forward_pre_hooks if site.tap == "input" else site.module._forward_hooks).clear()
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert shares(tmp_path)["router_share"] == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5)]
    assert "routers_missing" in tiny.event_kinds(tmp_path) and "pass" not in health(tmp_path)[0]
