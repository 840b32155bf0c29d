"""Optimizers that forget their state, in real trainings, and those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainvitals as tv
from checks import run_checks
from trainvitals.store import open_run


def train(path: Path, make: Any, steps: int, first: int = 1, lost: int | None = None, state: Any = None) -> Any:
    """Some steps under an optimizer that `make` makes; at step `lost` its state is cleared. Returns its state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    optimizer = make([{"params": model[0].parameters()}, {"params": model[1].parameters()}])
    if state is not None:
        optimizer.load_state_dict(state)
    with tv.attach(model, optimizer, path, start_step=first - 1) as tap:
        for step in range(first, first + steps):
            if step == lost:
                optimizer.state.clear()
            x = torch.randn(8, 4)
            loss = nn.functional.cross_entropy(model(x), x.argmax(dim=1))
            tap.loss(loss.detach())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return optimizer.state_dict()


def said(path: Path) -> Any:
    (finding,) = run_checks(open_run(path), ["optimizer.reset"]).findings
    return finding


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.Adagrad,
                                  lambda groups: torch.optim.RMSprop(groups, lr=1e-3)])  # fmt: skip
def test_a_count_that_rises_passes(tmp_path, make):
    train(tmp_path, make, 12)
    finding = said(tmp_path)
    assert finding.level == "pass" and finding.n == 12
    assert open_run(tmp_path).array("optimizer/steps").values.tolist() == [[i, i] for i in range(12)]


def test_a_state_that_is_cleared(tmp_path):
    train(tmp_path, torch.optim.AdamW, 130, lost=21)
    finding = said(tmp_path)
    assert finding.level == "warn" and finding.steps == (21, 121) and finding.onset == (21, 21)
    assert "fell from 19 to 0" in finding.summary and not finding.ongoing


@pytest.mark.parametrize("kept", [True, False])
def test_a_resume_with_and_without_the_state(tmp_path, kept):
    state = train(tmp_path, torch.optim.AdamW, 20)
    train(tmp_path, torch.optim.AdamW, 20, first=21, state=state if kept else None)
    finding = said(tmp_path)
    assert finding.level == ("pass" if kept else "warn")
    assert kept or (finding.steps[0] == 21 and finding.ongoing)


def test_a_resume_from_an_earlier_step_is_no_reset(tmp_path):
    train(tmp_path, torch.optim.AdamW, 30)
    state = train(tmp_path / "other", torch.optim.AdamW, 20)
    train(tmp_path, torch.optim.AdamW, 20, first=21, state=state)
    assert said(tmp_path).level == "pass"


def test_one_group_alone_is_named(tmp_path):
    from trainvitals.store import RunWriter

    writer = RunWriter(tmp_path, when_full="wait")
    frame = writer.frame("lr", ["lr/used", "optimizer/steps"], labels={"group": ["body", "head"]})
    for step in range(1, 41):
        frame.append(step, {"lr/used": [1e-3, 1e-3], "optimizer/steps": [step - 1, (step - 1) % 29]})
    writer.close()
    assert "of group head began anew at step 30" in said(tmp_path).summary


def test_an_optimizer_that_counts_nothing_is_not_asked(tmp_path):
    train(tmp_path, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9), 12)
    assert said(tmp_path).level == "unknown"
