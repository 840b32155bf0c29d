"""A state that is loaded after attach: the run goes on where it was stored, or says that this is unknown."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainvitals as tv
from collectors.resume import counting
from tests.collectors.test_loop_zoo import LM, batches


def muon(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=0.1)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


class Own(torch.optim.Optimizer):
    """Signs of the gradient, and a state without a step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": 0.01})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(p.grad.sign(), alpha=group["lr"])
                self.state[p]["seen"] = True


Make = Callable[[nn.Module], torch.optim.Optimizer]
UNCOUNTED: dict[str, Make] = {"sgd": sgd, "muon": muon, "own": Own}


class Job:
    def __init__(self, make: Make, folder: Path, scheduled: bool = True) -> None:
        self.model = LM()
        self.optimizer = make(self.model)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda n: 1 - n / 100)
        self.tap = tv.attach(self.model, self.optimizer, folder, scheduler=self.scheduler if scheduled else None)

    def train(self, steps: int) -> None:
        for batch in batches(steps):
            self.model(**batch).loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()

    def state(self) -> Any:
        return copy.deepcopy([one.state_dict() for one in (self.model, self.optimizer, self.scheduler)])

    def load(self, state: Any) -> None:
        for one, stored in zip((self.model, self.optimizer, self.scheduler), state, strict=True):
            one.load_state_dict(stored)


def steps_and_kinds(folder: Path) -> tuple[list[int], set[str], int]:
    run = tv.open_run(folder)
    return run.array("grad/norm").steps.tolist(), set(run.events()["kind"]), len(run.branches())


@pytest.mark.parametrize("make", UNCOUNTED.values(), ids=UNCOUNTED)
def test_a_scheduler_says_where_the_run_goes_on(tmp_path: Path, make: Make) -> None:
    first = Job(make, tmp_path)
    first.train(3)
    first.tap.close()
    second = Job(make, tmp_path)
    second.load(first.state())
    second.train(2)
    second.tap.close()
    steps, kinds, branches = steps_and_kinds(tmp_path)
    assert steps == [1, 2, 3, 4, 5] and not branches
    assert "resumed_by_scheduler" in kinds and "resume_unknown" not in kinds


@pytest.mark.parametrize("make", UNCOUNTED.values(), ids=UNCOUNTED)
def test_without_one_the_step_is_unknown_and_said(tmp_path: Path, make: Make) -> None:
    first = Job(make, tmp_path, scheduled=False)
    first.train(3)
    first.tap.close()
    second = Job(make, tmp_path, scheduled=False)
    second.load(first.state())
    second.train(2)
    second.tap.close()
    assert "resume_unknown" in steps_and_kinds(tmp_path)[1]


def test_going_back_in_place(tmp_path: Path) -> None:
    job = Job(sgd, tmp_path)
    job.train(2)
    state = job.state()
    job.train(2)
    job.load(state)
    job.train(1)
    job.tap.close()
    steps, kinds, branches = steps_and_kinds(tmp_path)
    assert steps == [1, 2, 3] and branches == 1 and "resumed_by_scheduler" in kinds


def test_going_back_by_the_tap(tmp_path: Path) -> None:
    job = Job(sgd, tmp_path, scheduled=False)
    job.train(2)
    state = job.state()
    job.train(2)
    job.load(state)
    job.tap.rewind(2)
    job.train(1)
    job.tap.close()
    steps, kinds, branches = steps_and_kinds(tmp_path)
    assert steps == [1, 2, 3] and branches == 1 and "resume_unknown" not in kinds


@pytest.mark.parametrize("scheduled", [False, True])
def test_weights_alone_loaded_back(tmp_path: Path, scheduled: bool) -> None:
    job = Job(sgd, tmp_path, scheduled)
    job.train(2)
    weights = copy.deepcopy(job.model.state_dict())
    job.train(2)
    job.model.load_state_dict(weights)
    job.train(1)
    job.tap.close()
    steps, kinds, _ = steps_and_kinds(tmp_path)
    assert steps == [1, 2, 3, 4, 5] and "resume_unknown" in kinds


def test_weights_that_are_swapped_for_an_evaluation(tmp_path: Path) -> None:
    job = Job(sgd, tmp_path)
    job.train(3)
    own, averaged = copy.deepcopy(job.model.state_dict()), LM().state_dict()
    job.model.load_state_dict(averaged)
    with torch.no_grad():
        job.model.eval()(**batches(1)[0])
    job.model.load_state_dict(own)
    job.model.train()
    job.train(1)
    job.tap.close()
    steps, kinds, _ = steps_and_kinds(tmp_path)
    assert steps == [1, 2, 3, 4] and "resume_unknown" not in kinds


def test_weights_that_a_run_begins_with(tmp_path: Path) -> None:
    job = Job(sgd, tmp_path)
    job.model.load_state_dict(LM().state_dict())
    job.train(1)
    job.tap.close()
    assert "resume_unknown" not in steps_and_kinds(tmp_path)[1]


def test_a_scheduler_that_counts_no_steps_is_not_asked() -> None:
    optimizer = sgd(LM())
    assert counting(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)) is None
    assert counting(object()) is None and counting(None) is None
