"""Evals in the loop: scores by hand, and a training that is bit by bit the one without them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from collectors.evals import Exact, MultipleChoice, NextToken, Perplexity, Prompt, Question, Text, evaluate
from collectors.tap import attach
from trainvitals.errors import UsageError
from trainvitals.evals import read_evals
from trainvitals.store import open_run

LETTERS = SimpleNamespace(encode=lambda text: [ord(c) % 64 for c in text],
                          decode=lambda ids: "".join(chr(64 + i) for i in ids))  # fmt: skip


class Tiny(nn.Module):
    """Logits from the token and a running mean of what came before; dropout and batch norm in between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(64, 16), nn.Dropout(0.2)
        self.norm, self.out = nn.BatchNorm1d(16), nn.Linear(16, 64)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        x = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.out(self.norm(self.drop(x).transpose(1, 2)).transpose(1, 2))


TASKS = [Perplexity("text", [Text("a cat sat", "prose"), Text("x = 1 + 2 + 3", "code")]),
         MultipleChoice("pick", [Question("one two ", ("three", "a dog"), 0, "counting"),
                                 Question("a", ("b", "cc"), 1)]),
         Exact("say", [Prompt("ab", "cd")], most_tokens=3),
         NextToken("next", [Text("a cat"), Text("x = 1 + 2")])]  # fmt: skip


def trained(folder, asked: bool, tapped: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    np.random.seed(0)
    model = Tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tap = attach(model, optimizer, run=folder, total_steps=6) if tapped else None
    model.embed.eval()  # a mode of its own must stay
    losses = []
    for step in range(1, 7):
        ids = torch.randint(64, (4, 12))
        loss = cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        if asked and step % 2 == 0:
            evaluate(model, LETTERS, TASKS, run=folder, step=step)  # between backward and step: gradients must stay
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert not model.embed.training and model.drop.training
    if tap is not None:
        tap.close()
    return losses, model.state_dict()


@pytest.mark.parametrize("tapped", [False, True])
def test_training_is_bit_by_bit_the_same(tmp_path, tapped):
    alone, weights = trained(tmp_path / "alone", False, tapped)
    losses, others = trained(tmp_path / "asked", True, tapped)
    assert losses == alone and all(torch.equal(weights[k], others[k]) for k in weights)
    evals = read_evals(tmp_path / "asked")
    assert evals.checkpoints == ["step-2", "step-4", "step-6"] and evals.tasks == ["next", "pick", "say", "text"]
    if tapped:
        one, other = (open_run(tmp_path / name) for name in ("alone", "asked"))
        np.testing.assert_array_equal(one.array("loss/train").values, other.array("loss/train").values)
        assert [p.kind for p in one.problems()] == [p.kind for p in other.problems()]


def test_scores_are_those_by_hand(tmp_path):
    torch.manual_seed(1)
    model = Tiny().eval()
    scores = evaluate(model, LETTERS, TASKS, run=tmp_path, step=7)
    evals = read_evals(tmp_path)
    text = evals.sheet("text", "step-7")
    for row in text.items.itertuples():
        ids = torch.tensor([LETTERS.encode(row.text)])
        by_hand = cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item()
        assert row.score == pytest.approx(by_hand, rel=1e-5)
    assert not text.higher_is_better and list(text.items["group"]) == ["prose", "code"]
    pick = evals.sheet("pick", "step-7")
    for question, row in zip(TASKS[1].items, pick.items.itertuples(), strict=True):
        each = []
        for choice in question.choices:
            ids = torch.tensor([LETTERS.encode(question.prompt + choice)])
            start = len(question.prompt)
            each.append(-cross_entropy(model(ids)[0, start - 1 : -1], ids[0, start:]).item())  # letters are tokens
        assert row.score == float(np.argmax(each) == question.right)
    assert pick.chance == 0.5 and scores["pick"] == pick.items["score"].mean()
    rows = evals.sheet("next", "step-7").items
    ids = torch.tensor([LETTERS.encode("x = 1 + 2")])
    by_hand = (model(ids)[0, :-1].argmax(-1) == ids[0, 1:]).float().tolist()
    assert rows["score"].to_list()[-8:] == by_hand and rows["cluster"].nunique() == 2 and len(rows) == 4 + 8
    say = evals.sheet("say", "step-7").items.iloc[0]
    assert say["tokens_out"] == 2 and say["latency_s"] > 0


def test_wrong_tasks_are_one_sentence(tmp_path):
    for wrong in (lambda: MultipleChoice("m", [Question("a", ("b", "c"), 2)]), lambda: Perplexity("p", []),
                  lambda: Exact("e", [Prompt("a", "b")], most_tokens=0),
                  lambda: evaluate(Tiny(), LETTERS, [TASKS[0], TASKS[0]], run=tmp_path, step=1),
                  lambda: evaluate(Tiny(), LETTERS, [Perplexity("p", [Text("a")])], run=tmp_path, step=1)):  # fmt: skip
        with pytest.raises(UsageError):
            wrong()
