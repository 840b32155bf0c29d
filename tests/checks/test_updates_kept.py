"""Updates that the weights do not keep: copies, and rounding; measured on trainings, and on rows made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals as tv
from checks import Finding, run_checks
from trainvitals.store import RunWriter, open_run


def said(path: Path) -> Finding:
    (finding,) = run_checks(open_run(path), ["update.lost"]).findings
    return finding


def train(path: Path, after: Callable[[nn.Module], None], steps: int = 40, lr: float = 0.02) -> None:
    """A net of two layers under AdamW, weights looked at every second step; `after` comes behind each update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    with tv.attach(model, optimizer, path, collectors={"update": 2}):
        for _ in range(steps):
            x = torch.randn(32, 8)
            nn.functional.cross_entropy(model(x), x[:, :4].argmax(dim=1)).backward()
            optimizer.step()
            optimizer.zero_grad()
            after(model)


@torch.no_grad()
def test_a_training_that_keeps_its_updates(tmp_path: Path) -> None:
    with torch.enable_grad():
        train(tmp_path, lambda model: None)
    assert said(tmp_path).level == "pass", said(tmp_path).summary


def test_old_weights_that_come_back(tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []
    step = iter(range(1, 10**6))

    @torch.no_grad()
    def restore(model: nn.Module) -> None:
        if next(step) < 20:
            kept[:] = [p.clone() for p in model.parameters()]
            return
        for p, old in zip(model.parameters(), kept, strict=True):
            p.copy_(old)

    train(tmp_path, restore)
    found = said(tmp_path)
    assert found.level == "fail" and found.ongoing and "all " in found.summary
    assert found.onset is not None and found.onset[0] <= 20 <= found.onset[1] and found.onset[1] - found.onset[0] <= 2


def test_a_layer_that_rounds_its_updates_away(tmp_path: Path) -> None:
    """The scale of the norm sits at 1, where bfloat16 has steps of 2**-7: updates of 0.002 never leave it."""

    @torch.no_grad()
    def rounded(model: nn.Module) -> None:
        for p in model[1].parameters():
            p.copy_(p.bfloat16())

    torch.manual_seed(0)
    train(tmp_path, lambda model: (rounded(model), model[1].bias.data.zero_())[0], lr=0.002)
    found = said(tmp_path)
    assert found.level == "warn" and len(found.details["layers"]) == 1, found.summary


def write(path: Path, norms: np.ndarray, updates: np.ndarray, spacing: int) -> None:
    writer = RunWriter(path, when_full="wait")
    labels = [str(i) for i in range(norms.shape[1])]
    frame = writer.frame("update", ["weight/sumsq_by_layer", "update/sumsq_by_layer"], labels={"layer": labels})
    for i in range(len(norms)):
        frame.append((i + 1) * spacing, {"weight/sumsq_by_layer": norms[i] ** 2,
                                         "update/sumsq_by_layer": (norms[i] * updates[i]) ** 2})
    writer.close()


@pytest.mark.parametrize(("update", "level"), [(1e-3, "fail"), (1e-6, "unknown"), (0.0, "unknown")])
def test_only_updates_that_must_show_prove_it(tmp_path: Path, update: float, level: str) -> None:
    write(tmp_path, np.full((12, 3), 10.0), np.full((12, 3), update), 50)
    assert said(tmp_path).level == level
