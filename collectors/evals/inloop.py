"""Ask a model small tasks in the middle of its training, and leave the training as it was.

    from collectors.evals import MultipleChoice, Question, evaluate

    if step % 500 == 0:
        evaluate(model, tokenizer, tasks, run="runs/x", step=step)

The state of every random generator, the mode of every module and all gradients are afterwards what they were before, so
that a training with it is bit by bit the one without it. On several ranks, call it on one of them, with a model whose
forward needs no other rank.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from collectors.evals.tasks import Exact, MultipleChoice, NextToken, Perplexity, Task
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet, write_sheets

HARNESS = "trainvitals"
TOKENS_AT_ONCE = 16_384
"""Tokens of one forward, padding with them."""
LONGEST = 1_000_000
SEEN = 12
"""Tokens before the one that is asked for that an item shows."""

Scored = dict[str, Any]


def evaluate(model: nn.Module, tokenizer: Any, tasks: Sequence[Task], *, run: str | os.PathLike[str], step: int,
             context: int | None = None, checkpoint: str = "") -> dict[str, float]:
    """Ask the tasks and store each item's result in the run's folder.

    Args:
        model: called as `model(input_ids)` with int64 [B, T]; gives logits [B, T, V], or an object with `.logits`.
            Causal: padding on the right changes nothing to the left of it.
        tokenizer: with `encode(text)` and `decode(ids)`, as transformers' and tokenizers' are.
        tasks: what is asked.
        run: the run folder; results go to `RUN/evals`.
        step: optimizer steps taken.
        context: tokens that the model takes, the last ones where a text is longer; by default what its config says.
        checkpoint: name; by default `step-N`.

    Returns:
        Mean score of each task.

    Raises:
        UsageError: a text that has no token, or two tasks of one name.
    """
    if len({task.name for task in tasks}) < len(tasks):
        raise UsageError("Two of the tasks have one name. Rename one: results are kept by name.")
    limit = context or int(getattr(getattr(model, "config", None), "max_position_embeddings", 0) or LONGEST)
    sheets = []
    with undisturbed(model):
        asker = _Asker(model, tokenizer, limit)
        for task in tasks:
            sheets.append(_sheet(task, asker.ask(task), step, checkpoint or f"step-{step}"))
    write_sheets(run, sheets)
    return {sheet.task: float(sheet.items["score"].mean()) for sheet in sheets}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; behind it modes and random generators as before."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    python, numpy_ = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            for module, _ in modes:
                module.training = False
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        random.setstate(python)
        np.random.set_state(numpy_)


class _Asker:
    def __init__(self, model: nn.Module, tokenizer: Any, limit: int) -> None:
        self.model, self.tokenizer, self.limit = model, tokenizer, limit
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def ask(self, task: Task) -> list[Scored]:
        if isinstance(task, Perplexity):
            return self._perplexity(task)
        if isinstance(task, NextToken):
            return self._next_tokens(task)
        return self._choices(task) if isinstance(task, MultipleChoice) else self._answers(task)

    def _ids(self, text: str) -> list[int]:
        found = self.tokenizer.encode(text)
        return list(getattr(found, "ids", found))

    def _perplexity(self, task: Perplexity) -> list[Scored]:
        rows = [self._ids(one.text)[-self.limit :] for one in task.items]
        sums = self._log_likelihoods(rows, [1] * len(rows))
        return [{"item": _name(one.text), "score": -total / (len(row) - 1), "group": one.domain, "text": one.text,
                 "tokens_in": len(row)} for one, row, total in zip(task.items, rows, sums, strict=True)]

    def _next_tokens(self, task: NextToken) -> list[Scored]:
        rows = [self._ids(one.text)[: self.limit] for one in task.items]
        guessed: dict[int, list[int]] = {}
        for now, ids_BT in self._batches(rows):
            for i, guesses in zip(now, _logits(self.model(ids_BT))[:, :-1].argmax(-1).tolist(), strict=True):
                guessed[i] = guesses[: len(rows[i]) - 1]
        found = []
        for number, (one, ids) in enumerate(zip(task.items, rows, strict=True)):
            guesses, name = guessed[number], _name(one.text)
            for at, guess in enumerate(guesses, 1):
                after = self.tokenizer.decode(ids[at : at + 1])
                found.append({"item": f"{name}-{at}", "score": float(guess == ids[at]), "cluster": name,
                              "answer": self.tokenizer.decode([guess]), "group": kind_of(after),
                              "text": f"{self.tokenizer.decode(ids[max(0, at - SEEN) : at])} -> {after}"})  # fmt: skip
        return found

    def _choices(self, task: MultipleChoice) -> list[Scored]:
        rows, starts = [], []
        for one in task.items:
            prompt = self._ids(one.prompt)
            for choice in one.choices:
                # Of the tokens that prompt and choice share, the choice begins behind those of the prompt alone.
                whole = self._ids(one.prompt + choice)
                start = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
                             min(len(prompt), len(whole) - 1))  # fmt: skip
                cut = max(0, len(whole) - self.limit)
                rows.append(whole[cut:])
                starts.append(max(1, start - cut))
        sums = iter(self._log_likelihoods(rows, starts))
        found = []
        for one in task.items:
            each = [next(sums) / len(choice.encode()) for choice in one.choices]
            picked = int(np.argmax(each))
            found.append({"item": _name("\n".join([one.prompt, *one.choices])), "score": float(picked == one.right),
                          "answer": one.choices[picked], "group": one.group, "cluster": one.cluster,
                          "text": one.prompt})  # fmt: skip
        return found

    def _answers(self, task: Exact) -> list[Scored]:
        found = []
        for one in task.items:
            began = time.perf_counter()
            ids = self._ids(one.prompt)[-self.limit :]
            if not ids:
                raise UsageError(f"A prompt of {task.name!r:.60} has no token. Give one that is not empty.")
            given: list[int] = []
            text = ""
            while len(given) < task.most_tokens and len(text.strip()) < len(one.answer.strip()):
                row = torch.tensor([(ids + given)[-self.limit :]], device=self.device)
                given.append(int(_logits(self.model(row))[0, -1].argmax()))
                text = self.tokenizer.decode(given)
            right = text.strip().startswith(one.answer.strip())
            found.append({"item": _name(one.prompt), "score": float(right), "answer": text, "group": one.group,
                          "cluster": one.cluster, "text": one.prompt, "tokens_in": len(ids), "tokens_out": len(given),
                          "latency_s": time.perf_counter() - began})  # fmt: skip
        return found

    def _log_likelihoods(self, rows: Sequence[list[int]], starts: Sequence[int]) -> list[float]:
        """Sum of the log-probabilities of each row's tokens from its start on, nats."""
        found = [0.0] * len(rows)
        for now, ids_BT in self._batches(rows):
            counted_BT = torch.zeros(ids_BT.shape, dtype=torch.bool, device=self.device)
            for at, i in enumerate(now):
                counted_BT[at, starts[i] : len(rows[i])] = True
            logits_BTV = _logits(self.model(ids_BT))[:, :-1].float()
            each_BT = logits_BTV.gather(2, ids_BT[:, 1:, None])[..., 0] - logits_BTV.logsumexp(2)
            totals = each_BT.double().masked_fill(~counted_BT[:, 1:], 0).sum(dim=1).tolist()
            for i, total in zip(now, totals, strict=True):
                found[i] = total
        return found

    def _batches(self, rows: Sequence[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of rows of about one length, and their tokens [B, T], zeros behind."""
        if (short := next((i for i, row in enumerate(rows) if len(row) < 2), None)) is not None:
            raise UsageError(f"Text {short} of a task has fewer than two tokens, so nothing in it is predicted. Give a "
                             "longer one.")  # fmt: skip
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        while order:
            longest = len(rows[order[-1]])
            now = [order.pop() for _ in range(min(len(order), max(1, TOKENS_AT_ONCE // longest)))]
            ids_BT = torch.zeros(len(now), longest, dtype=torch.long, device=self.device)
            for at, i in enumerate(now):
                ids_BT[at, : len(rows[i])] = torch.tensor(rows[i], device=self.device)
            yield now, ids_BT


def kind_of(token: str) -> str:
    """What a token is: white space, a word, a number, or a sign."""
    bare = token.strip()
    return "white space" if not bare else "number" if bare[0].isdigit() else \
        "word" if bare[0].isalpha() or bare[0] == "_" else "sign"


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise UsageError(f"The model returned {type(found).__name__}; evals need its logits.")
    return found


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sheet(task: Task, rows: list[Scored], step: int, checkpoint: str) -> Sheet:
    items = pd.DataFrame(rows)
    items["sample"] = items.groupby("item").cumcount()
    prompts = hashlib.sha256("".join(sorted(items["item"])).encode()).hexdigest()[:16]
    chance = float(np.mean([1 / len(one.choices) for one in task.items])) if isinstance(task, MultipleChoice) else None
    loss = isinstance(task, Perplexity)
    metric = {Perplexity: "nll", MultipleChoice: "acc_norm", NextToken: "acc", Exact: "exact_match"}[type(task)]
    return Sheet(task=task.name, checkpoint=checkpoint, step=step, kind="model", family=task.family, metric=metric,
                 higher_is_better=not loss, harness=HARNESS, version="1", n_shot=0, prompt_hash=prompts, filter="none",
                 source="in the loop", chance=chance, items=items)  # fmt: skip
