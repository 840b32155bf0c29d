"""Loops of every kind beside a brute-force record that the loop itself keeps: equal to it, or unknown and said so.

Each loop trains a model of a few hundred weights twice, tapped and plain: the weights are the same bit by bit, and
every number that the tap stored is the one that the loop worked out. What a loop does not allow to know is absent, and
an event names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_ as imported_by_name
from torch.utils.checkpoint import checkpoint

import trainvitals as tv

VOCAB, WIDTH, ROWS, LENGTH = 23, 6, 3, 8
DOMAINS = ["a", "b"]
EVERYTHING = {"update": 1, "router": 0, "router_domain": 0, "tokens": 1, "system": 0}


class LM(nn.Module):
    """Next-token logits from the token alone; what it returns is the loop's choice."""

    def __init__(self, returns: str = "output") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.middle = nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.returns = returns

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(torch.tanh(self.middle(self.embed(input_ids))))
        if labels is None:
            return logits if self.returns != "output" else SimpleNamespace(logits=logits, loss=None)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        whole = SimpleNamespace(logits=logits, loss=loss)
        return {"output": whole, "tuple": (logits, loss), "scalar": loss}[self.returns]


def batches(steps: int = 6, rows: int = ROWS) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(1)
    made = []
    for _ in range(steps):
        ids = torch.randint(VOCAB, (rows, LENGTH), generator=source)
        labels = ids.masked_fill(torch.rand(ids.shape, generator=source) < 0.2, -100)
        made.append({"input_ids": ids, "labels": labels})
    return made


@dataclass
class Oracle:
    """What the loop knows by brute force, per step."""

    model: nn.Module
    rows: list[dict[str, float]] = field(default_factory=list)
    now: dict[str, Any] = field(default_factory=dict)

    def saw(self, batch: dict[str, Tensor]) -> None:
        """A forward on this batch trains: its loss and tokens, from weights as they are now, in float64."""
        with torch.no_grad():
            m = self.model
            hidden = F.embedding(batch["input_ids"], m.embed.weight.double())
            hidden = torch.tanh(hidden @ m.middle.weight.double().T + m.middle.bias.double())
            logits = hidden @ m.head.weight.double().T + m.head.bias.double()
            log_p = logits[:, :-1] - logits[:, :-1].logsumexp(-1, keepdim=True)
            target = batch["labels"][:, 1:]
            kept = target != -100
            losses = -log_p.gather(-1, target.clamp(min=0)[..., None])[..., 0]
            self.now["sum"] = self.now.get("sum", 0.0) + float(losses[kept].sum())
            self.now["tokens"] = self.now.get("tokens", 0) + int(kept.sum())
            self.now["inputs"] = self.now.get("inputs", 0) + batch["input_ids"].numel()

    def norm(self, parameters: list[nn.Parameter] | None = None, scale: float = 1.0) -> float:
        found = [p.grad for p in parameters or self.model.parameters() if p.grad is not None]
        return math.sqrt(sum(float((g.double() / scale).square().sum()) for g in found))

    def unclipped(self, scale: float = 1.0, parameters: list[nn.Parameter] | None = None) -> None:
        self.now["norm"] = self.norm(parameters, scale)

    def stepping(self, optimizers: list[torch.optim.Optimizer], scale: float = 1.0) -> None:
        held = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        self.now.setdefault("norm", self.norm(held, scale))
        self.now["clipped"] = self.norm(held, scale)
        self.now["lr"] = [g["lr"] for o in optimizers for g in o.param_groups]
        self.now["weights"] = [(p, p.detach().double().clone()) for p in held]

    def stepped(self) -> None:
        weights = self.now.pop("weights")
        moved = sum(float((p.detach().double() - before).square().sum()) for p, before in weights)
        self.now["ratio"] = math.sqrt(moved / sum(float(before.square().sum()) for _, before in weights))
        self.rows.append(self.now)
        self.now = {}

    def dropped(self) -> None:
        """What was under way belongs to no step."""
        self.now = {}

    def step(self, optimizer: torch.optim.Optimizer, *more: torch.optim.Optimizer, scale: float = 1.0) -> None:
        """A whole step of these optimizers, in this order."""
        self.stepping([optimizer, *more], scale)
        for one in (optimizer, *more):
            one.step()
        self.stepped()
        for one in (optimizer, *more):
            one.zero_grad()


class Kit:
    """What a loop trains with: the model, the tap (None in the plain run) and the oracle."""

    def __init__(self, run: Path | None) -> None:
        self.run, self.tap = run, None
        self.oracle: Oracle | None = None
        self.weights: list[Tensor] = []

    def attach(self, model: nn.Module, optimizers: Any, **arguments: Any) -> Oracle:
        self.oracle, self.model = Oracle(model), model
        if self.run is not None:
            self.tap = tv.attach(model, optimizers, self.run, **{"collectors": EVERYTHING} | arguments)
        return self.oracle

    def sgd(self, returns: str = "output", **arguments: Any) -> tuple[LM, torch.optim.Optimizer, Oracle]:
        model = LM(returns)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return model, optimizer, self.attach(model, optimizer, **arguments)


Loop = Callable[[Kit], None]
LOOPS: dict[str, tuple[Loop, dict[str, Any]]] = {}


def loop(name: str = "", **expected: Any) -> Callable[[Loop], Loop]:
    """Register a loop. `absent` are signals that must not be there, `events` kinds that must be said."""
    def register(function: Loop) -> Loop:
        LOOPS[name or function.__name__] = function, expected
        return function
    return register


# ---- where the loss is computed, and what the forward returns ---------------------------------------------------


def _returning(returns: str) -> Loop:
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd(returns)
        for batch in batches():
            oracle.saw(batch)
            out = model(**batch)
            {"output": lambda o: o.loss, "tuple": lambda o: o[1], "scalar": lambda o: o}[returns](out).backward()
            oracle.step(optimizer)
    return run


for kind in ("output", "tuple", "scalar"):
    loop(f"forward returns {kind}")(_returning(kind))


def _criterion(criterion: Callable[[Tensor, Tensor], Tensor], shape: str = "flat") -> Loop:
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd("logits")
        for batch in batches():
            oracle.saw(batch)
            logits, target = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
            loss = (criterion(logits.flatten(0, 1), target.flatten()) if shape == "flat"
                    else criterion(logits.transpose(1, 2), target))
            loss.backward()
            oracle.step(optimizer)
    return run


loop("criterion in the loop, a module")(_criterion(nn.CrossEntropyLoss()))
loop("criterion in the loop, a function")(_criterion(lambda x, y: F.cross_entropy(x, y)))
loop("criterion over [rows, classes, positions]")(_criterion(nn.CrossEntropyLoss(), "deep"))
loop("label smoothing in the loop", events=["loss_twice"])(_criterion(nn.CrossEntropyLoss(label_smoothing=0.1)))
loop("sum of the losses")(_criterion(nn.CrossEntropyLoss(reduction="sum")))
loop("a loss of its own", absent=["loss/train"], events=["loss_unseen"])(
    _criterion(lambda x, y: -x.log_softmax(-1).gather(-1, y.clamp(min=0)[:, None]).mean()))


@loop("per-token losses handed over")
def handed_over(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd("logits")
    for batch in batches():
        oracle.saw(batch)
        target = batch["labels"][:, 1:]
        log_p = model(batch["input_ids"])[:, :-1].log_softmax(-1)
        losses = -log_p.gather(-1, target.clamp(min=0)[..., None])[..., 0]
        if kit.tap is not None:
            kit.tap.loss(losses, mask=target != -100)
        losses[target != -100].mean().backward()
        oracle.step(optimizer)


@loop("one number handed over", absent=["loss/train"], events=["loss_scalar"])
def one_number(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd("logits")
    for batch in batches():
        oracle.saw(batch)
        loss = model(batch["input_ids"]).log_softmax(-1).square().mean()
        if kit.tap is not None:
            kit.tap.loss(loss)
        loss.backward()
        oracle.step(optimizer)


@loop("the loss in chunks")
def chunked(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd("logits", domains=DOMAINS)
    for batch in batches():
        oracle.saw(batch)
        logits, target = model(batch["input_ids"])[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        pieces = zip(logits.split(5), target.split(5), strict=True)
        sum(F.cross_entropy(x, y, reduction="sum") for x, y in pieces).backward()
        oracle.step(optimizer)


# ---- what happens between backward and step ----------------------------------------------------------------------


def _clipping(clip: Callable[[LM, Kit], Any]) -> Loop:
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd()
        for batch in batches():
            oracle.saw(batch)
            model(**batch).loss.backward()
            oracle.unclipped()
            clip(model, kit)
            oracle.step(optimizer)
    return run


def _by_hand(model: LM, kit: Kit) -> None:
    total = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
    for p in model.parameters():
        p.grad.data.mul_(min(1.0, 0.1 / float(total)))


def _replaced(model: LM, kit: Kit) -> None:
    for p in model.parameters():
        p.grad = p.grad * 0.25


def _per_group(model: LM, kit: Kit) -> None:
    for part in (model.embed, model.middle, model.head):
        torch.nn.utils.clip_grad_norm_(part.parameters(), 0.05)


CLIPS: dict[str, Callable[[LM, Kit], Any]] = {
    "torch's": lambda m, kit: torch.nn.utils.clip_grad_norm_(m.parameters(), 0.1),
    "imported by name before attach": lambda m, kit: imported_by_name(m.parameters(), 0.1),
    "the tap's": lambda m, kit: (kit.tap.clip_grad_norm_ if kit.tap else
                                 lambda n: torch.nn.utils.clip_grad_norm_(m.parameters(), n))(0.1),
    "by hand, on .data": _by_hand,
    "by hand, new tensors": _replaced,
    "once per group": _per_group,
    "by value": lambda m, kit: torch.nn.utils.clip_grad_value_(m.parameters(), 1e-3),
    "by the largest": lambda m, kit: torch.nn.utils.clip_grad_norm_(m.parameters(), 0.01, norm_type=math.inf),
    "not at all": lambda m, kit: None,
    "twice": lambda m, kit: [torch.nn.utils.clip_grad_norm_(m.parameters(), n) for n in (0.2, 0.1)],
}
for kind, function in CLIPS.items():
    loop(f"clipped {kind}")(_clipping(function))


def _late(clip: Callable[[LM, Kit], Any], when: int = 4) -> Loop:
    """Nothing is done to the gradient in the first steps, and then something is."""
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd()
        for i, batch in enumerate(batches(8)):
            oracle.saw(batch)
            model(**batch).loss.backward()
            oracle.unclipped()
            if i >= when:
                clip(model, kit)
            oracle.step(optimizer)
    return run


for kind in ("by hand, on .data", "by hand, new tensors", "by value", "once per group"):
    loop(f"clipped late, {kind}", surprise=5, events=["grad_surprise"])(_late(CLIPS[kind]))
loop("clipped late, torch's")(_late(CLIPS["torch's"]))


def _around_clipping(when: int, before: Callable[[Tensor], Any], after: Callable[[Tensor], Any]) -> Loop:
    """Torch's clipping with something of the loop's own before and after it, past the version of the gradient."""
    def run(kit: Kit) -> None:
        model = LM()
        optimizers = [torch.optim.SGD(model.embed.parameters(), lr=0.5),
                      torch.optim.SGD([*model.middle.parameters(), *model.head.parameters()], lr=0.5)]
        oracle = kit.attach(model, optimizers)
        for i, batch in enumerate(batches(8)):
            oracle.saw(batch)
            model(**batch).loss.backward()
            oracle.unclipped()
            for p in model.parameters() if i >= when else ():
                before(p.grad.data)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            for p in model.parameters() if i >= when else ():
                after(p.grad.data)
            oracle.step(*optimizers)
    return run


for kind, (first, then) in {"averaged by hand, then clipped": (lambda g: g.div_(2), lambda g: None),
                            "noise after clipping": (lambda g: None, lambda g: g.add_(0.01))}.items():
    loop(kind)(_around_clipping(0, first, then))
    loop(f"{kind}, late", surprise=5, events=["grad_surprise"])(_around_clipping(4, first, then))


@loop("accumulation of uneven batches")
def accumulation(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    data = [*batches(3, rows=2), *batches(3, rows=4)]
    for i, batch in enumerate(data):
        oracle.saw(batch)
        (model(**batch).loss / 3).backward()
        if i % 3 == 2:
            oracle.unclipped()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            oracle.step(optimizer)


@loop("zero_grad before the forward")
def zero_first(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for batch in batches():
        optimizer.zero_grad()
        oracle.saw(batch)
        model(**batch).loss.backward()
        oracle.stepping([optimizer])
        optimizer.step()
        oracle.stepped()


@loop("gradients zeroed in place")
def zero_in_place(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for batch in batches():
        oracle.saw(batch)
        model(**batch).loss.backward()
        oracle.stepping([optimizer])
        optimizer.step()
        oracle.stepped()
        optimizer.zero_grad(set_to_none=False)


@loop("gradients from autograd.grad")
def functional(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for batch in batches():
        oracle.saw(batch)
        parameters = list(model.parameters())
        for p, g in zip(parameters, torch.autograd.grad(model(**batch).loss, parameters), strict=True):
            p.grad = g
        oracle.step(optimizer)


# ---- closures, several optimizers --------------------------------------------------------------------------------


@loop("closure, as Lightning's")
def closure(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for batch in batches():
        def evaluate(batch: dict[str, Tensor] = batch) -> Tensor:
            oracle.saw(batch)
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            oracle.unclipped()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            oracle.stepping([optimizer])
            return loss
        optimizer.step(evaluate)
        oracle.stepped()


@loop("closure after accumulation")
def closure_accumulated(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    data = batches(6)
    for first, second in zip(data[::2], data[1::2], strict=True):
        oracle.saw(first)
        (model(**first).loss / 2).backward()

        def evaluate(batch: dict[str, Tensor] = second) -> Tensor:
            oracle.saw(batch)
            loss = model(**batch).loss / 2
            loss.backward()
            oracle.stepping([optimizer])
            return loss
        optimizer.step(closure=evaluate)
        oracle.stepped()
        optimizer.zero_grad()


def _several(order: tuple[int, int]) -> Loop:
    def run(kit: Kit) -> None:
        model = LM()
        optimizers = [torch.optim.SGD(model.embed.parameters(), lr=0.5),
                      torch.optim.AdamW([*model.middle.parameters(), *model.head.parameters()], lr=1e-2)]
        oracle = kit.attach(model, optimizers)
        for i, batch in enumerate(batches()):
            optimizers[0].param_groups[0]["lr"] = 0.5 / (i + 1)
            oracle.saw(batch)
            model(**batch).loss.backward()
            oracle.stepping(optimizers)
            for number in order:
                optimizers[number].step()
            oracle.stepped()
            for one in optimizers:
                one.zero_grad()
    return run


loop("two optimizers")(_several((0, 1)))
loop("two optimizers, in another order than given")(_several((1, 0)))


@loop("one of two optimizers given", events=["parameters_uncovered"])
def uncovered(kit: Kit) -> None:
    model = LM()
    given = torch.optim.SGD(model.embed.parameters(), lr=0.5)
    other = torch.optim.SGD([*model.middle.parameters(), *model.head.parameters()], lr=0.1)
    oracle = kit.attach(model, given)
    for batch in batches():
        oracle.saw(batch)
        model(**batch).loss.backward()
        other.step()
        oracle.step(given)
        other.zero_grad()


@loop("optimizers that step inside the backward", absent=[])
def in_backward(kit: Kit) -> None:
    model = LM()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    oracle = kit.attach(model, list(optimizers.values()))
    norms: list[float] = []

    def update(p: Tensor) -> None:
        norms.append(float(p.grad.double().square().sum()))
        optimizers[p].step()
        optimizers[p].zero_grad()
    handles = [p.register_post_accumulate_grad_hook(update) for p in model.parameters()]
    for batch in batches():
        oracle.saw(batch)
        oracle.now["weights"] = [(p, p.detach().double().clone()) for p in model.parameters()]
        norms.clear()
        model(**batch).loss.backward()
        oracle.now |= {"norm": math.sqrt(sum(norms)), "clipped": math.sqrt(sum(norms)), "lr": [0.1] * len(optimizers)}
        oracle.stepped()
    for handle in handles:
        handle.remove()


# ---- scaled, skipped, abandoned ----------------------------------------------------------------------------------


def _scaled(fused: bool, clip: bool, poison: int | None = None) -> Loop:
    def run(kit: Kit) -> None:
        model = LM()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        oracle = kit.attach(model, optimizer)
        for i, batch in enumerate(batches(5)):
            oracle.saw(batch)
            scale = scaler.get_scale()
            loss = model(**batch).loss
            scaler.scale(loss * (math.inf if i == poison else 1.0)).backward()
            oracle.unclipped(scale)
            if clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            oracle.stepping([optimizer], 1.0 if clip else scale)
            scaler.step(optimizer)
            scaler.update()
            if i == poison and not fused:
                oracle.dropped()
            else:
                oracle.stepped()
            optimizer.zero_grad()
    return run


loop("gradient scaler")(_scaled(False, False))
loop("gradient scaler, unscaled and clipped")(_scaled(False, True))
loop("gradient scaler, fused optimizer")(_scaled(True, False))
loop("gradient scaler, a step skipped", skipped=[3])(_scaled(False, False, poison=2))


@loop("continue on NaN, before the backward", unused=[3])
def nan_before(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for i, batch in enumerate(batches()):
        loss = model(**batch).loss * (math.nan if i == 2 else 1.0)
        if not torch.isfinite(loss):
            continue
        oracle.saw(batch)
        loss.backward()
        oracle.step(optimizer)


@loop("continue on a bad gradient, cleared", skipped=[3])
def nan_after(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for i, batch in enumerate(batches()):
        (model(**batch).loss * (math.nan if i == 2 else 1.0)).backward()
        if not math.isfinite(oracle.norm()):
            optimizer.zero_grad()
            continue
        oracle.saw(batch)
        oracle.step(optimizer)


@loop("continue on a bad gradient, set to None by hand", skipped=[3])
def nan_by_hand(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for i, batch in enumerate(batches()):
        (model(**batch).loss * (math.nan if i == 2 else 1.0)).backward()
        if not math.isfinite(oracle.norm()):
            for p in model.parameters():
                p.grad = None
            continue
        oracle.saw(batch)
        oracle.step(optimizer)


@loop("sharpness-aware: two passes a step", events=["weights_moved"])
def sharpness_aware(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    for batch in batches():
        model(**batch).loss.backward()
        ascent = [(p, 0.05 * p.grad.clone()) for p in model.parameters()]
        with torch.no_grad():
            for p, up in ascent:
                p.add_(up)
        optimizer.zero_grad()
        oracle.saw(batch)
        model(**batch).loss.backward()
        with torch.no_grad():
            for p, up in ascent:
                p.sub_(up)
        oracle.step(optimizer)


# ---- what forwards are for ---------------------------------------------------------------------------------------


def _purpose(before: Callable[[LM, dict[str, Tensor]], None], train: bool = True) -> Loop:
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd()
        model.train(train)
        for batch in batches():
            before(model, batch)
            oracle.saw(batch)
            model(**batch).loss.backward()
            oracle.step(optimizer)
    return run


def _without_gradient(model: LM, batch: dict[str, Tensor]) -> None:
    with torch.no_grad():
        model(**batch)


def _probe(model: LM, batch: dict[str, Tensor]) -> None:
    torch.autograd.grad(model(**batch).loss, model.head.weight)


def _evaluate(model: LM, batch: dict[str, Tensor], graph: bool = False) -> None:
    model.eval()
    with nullcontext() if graph else torch.inference_mode():
        model(**batch)
    model.train()


loop("training in evaluation mode", absent=["loss/val"])(_purpose(lambda m, b: None, train=False))
loop("a reference pass without gradient", absent=["loss/val"], events=["forward_unused"])(_purpose(_without_gradient))
loop("a probe with autograd.grad", absent=["loss/val"], events=["forward_unused"])(_purpose(_probe))
loop("an evaluation before each step", validation=True)(_purpose(_evaluate))
loop("an evaluation that keeps its graph", validation=True)(_purpose(lambda m, b: _evaluate(m, b, graph=True)))


@loop("two forwards, one backward")
def pairs(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd()
    data = batches(6)
    for chosen, rejected in zip(data[::2], data[1::2], strict=True):
        oracle.saw(chosen)
        oracle.saw(rejected)
        (model(**chosen).loss - 0.1 * model(**rejected).loss).backward()
        oracle.step(optimizer)


def _checkpointed(reentrant: bool, whole: bool) -> Loop:
    def run(kit: Kit) -> None:
        model, optimizer, oracle = kit.sgd()
        if not whole:
            middle = model.middle.forward
            model.middle.forward = lambda x: checkpoint(middle, x, use_reentrant=reentrant)
        for batch in batches():
            oracle.saw(batch)
            if whole:
                loss = checkpoint(lambda ids, labels: model(input_ids=ids, labels=labels).loss, batch["input_ids"],
                                  batch["labels"], use_reentrant=reentrant)
            else:
                loss = model(**batch).loss
            loss.backward()
            oracle.step(optimizer)
    return run


loop("the whole forward checkpointed")(_checkpointed(False, True))
loop("a layer checkpointed")(_checkpointed(False, False))
loop("a layer checkpointed, reentrant")(_checkpointed(True, False))


@loop("frozen parameters")
def frozen(kit: Kit) -> None:
    model = LM()
    model.embed.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    oracle = kit.attach(model, optimizer)
    for batch in batches():
        oracle.saw(batch)
        model(**batch).loss.backward()
        oracle.step(optimizer)


@loop("the same buffers filled again")
def static_buffers(kit: Kit) -> None:
    model, optimizer, oracle = kit.sgd(domains=DOMAINS)
    data = batches()
    buffers = {name: value.clone() for name, value in data[0].items()}
    for batch in data:
        for name, value in batch.items():
            buffers[name].copy_(value)
        oracle.saw(batch)
        model(**buffers).loss.backward()
        for value in buffers.values():
            value.fill_(0)
        oracle.step(optimizer)


# ---- what is loaded, added, chosen by experts --------------------------------------------------------------------


def test_a_state_loaded_after_attach_says_where_the_run_is(tmp_path: Path) -> None:
    first = LM()
    optimizer = torch.optim.AdamW(first.parameters(), lr=1e-2)
    with tv.attach(first, optimizer, tmp_path / "run"):
        for batch in batches(3):
            first(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    second = LM()
    resumed = torch.optim.AdamW(second.parameters(), lr=1e-2)
    with tv.attach(second, resumed, tmp_path / "run"):
        resumed.load_state_dict(optimizer.state_dict())
        for batch in batches(2):
            second(**batch).loss.backward()
            resumed.step()
            resumed.zero_grad()
    assert tv.open_run(tmp_path / "run").array("grad/norm").steps.tolist() == [1, 2, 3, 4, 5]


def test_a_state_loaded_back_goes_back(tmp_path: Path) -> None:
    model = LM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    stored: dict[str, Any] = {}
    with tv.attach(model, optimizer, tmp_path / "run"):
        for i, batch in enumerate(batches(5)):
            if i == 2:
                stored = optimizer.state_dict()
                stored = {"state": {k: {n: v.clone() for n, v in s.items()} for k, s in stored["state"].items()},
                          "param_groups": stored["param_groups"]}
            if i == 4:
                optimizer.load_state_dict(stored)
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    run = tv.open_run(tmp_path / "run")
    assert run.array("grad/norm").steps.tolist() == [1, 2, 3] and len(run.branches()) == 1


def test_parameters_added_later_are_named(tmp_path: Path) -> None:
    model, extra = LM(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with tv.attach(model, optimizer, tmp_path / "run"):
        optimizer.add_param_group({"params": list(extra.parameters())})
        model(**batches(1)[0]).loss.backward()
        optimizer.step()
    assert "parameters_added" in set(tv.open_run(tmp_path / "run").events()["kind"])


class ExpertChoiceRouter(nn.Module):
    """Every expert takes the tokens that it scores highest: rows are experts, integers are positions of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts, self.score = 4, nn.Linear(WIDTH, 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        weights, positions = self.score(hidden).softmax(-1).T.topk(5, dim=-1)
        return weights, positions


class ExpertChoice(LM):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = ExpertChoiceRouter(), nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.embed(input_ids).flatten(0, 1)
        weights, positions = self.router(hidden)
        out = hidden.clone()
        for expert, weight, at in zip(self.experts, weights, positions, strict=True):
            out = out.index_add(0, at, weight[:, None] * expert(hidden[at]))
        logits = self.head(out).view(*input_ids.shape, VOCAB)
        return SimpleNamespace(loss=F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))


def test_experts_that_choose_tokens_are_not_counted_as_choices_of_tokens(tmp_path: Path) -> None:
    model = ExpertChoice()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with tv.attach(model, optimizer, tmp_path / "run"):
        for batch in batches(2):
            model(**batch).loss.backward()
            optimizer.step()
    run = tv.open_run(tmp_path / "run")
    assert not run.has("router/tokens")
    assert set(run.events()["kind"]) & {"router_not_by_token", "router_impossible", "router_missed"}


# ---- the tests ---------------------------------------------------------------------------------------------------


def trained(function: Loop, run: Path | None) -> Kit:
    kit = Kit(run)
    torch.manual_seed(5)
    try:
        function(kit)
    finally:
        if kit.tap is not None:
            kit.tap.close()
    kit.weights = [p.detach().clone() for p in kit.model.parameters()]
    return kit


@pytest.fixture(scope="module", params=LOOPS, ids=lambda name: name.replace(" ", "-"))
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    function, expected = LOOPS[request.param]
    folder = tmp_path_factory.mktemp("zoo") / "run"
    tapped = trained(function, folder)
    yield tapped, trained(function, None), tv.open_run(folder), expected


def test_weights_are_those_of_the_plain_loop(ran: tuple[Any, ...]) -> None:
    tapped, plain, run, _ = ran
    assert all(torch.equal(one, other) for one, other in zip(tapped.weights, plain.weights, strict=True))
    assert "collector_disabled" not in set(run.events()["kind"])


def test_numbers_are_the_loops_own(ran: tuple[Any, ...]) -> None:
    tapped, _, run, expected = ran
    rows = tapped.oracle.rows
    steps = list(range(1, len(rows) + 1))
    absent = expected.get("absent", [])
    for signal, key in (("grad/norm", "norm"), ("grad/norm_clipped", "clipped"), ("update/ratio", "ratio")):
        series = run.array(signal)
        known = [s for s in steps if signal == "update/ratio" or s != expected.get("surprise")]
        assert series.steps.tolist() == known, signal
        np.testing.assert_allclose(series.values, [rows[s - 1][key] for s in known], rtol=2e-5, err_msg=signal)
    used = run.array("lr/used")
    assert used.steps.tolist() == steps
    np.testing.assert_allclose(used.values, [row["lr"] for row in rows], rtol=1e-12)
    np.testing.assert_array_equal(run.array("data/domain_tokens").values.sum(axis=-1), [row["inputs"] for row in rows])
    if "loss/train" in absent:
        assert not run.has("loss/train")
    else:
        assert run.array("loss/train").steps.tolist() == steps
        np.testing.assert_array_equal(run.array("loss/tokens").values, [row["tokens"] for row in rows])
        np.testing.assert_allclose(run.array("loss/train").values, [r["sum"] / r["tokens"] for r in rows], rtol=1e-5)


def test_what_cannot_be_known_is_said(ran: tuple[Any, ...]) -> None:
    _, _, run, expected = ran
    kinds = set(run.events()["kind"])
    assert set(expected.get("events", [])) <= kinds
    for signal in expected.get("absent", []):
        assert not run.has(signal), signal
    assert run.has("loss/val") == bool(expected.get("validation"))
    for name, signal in (("skipped", "skipped/gradients"), ("unused", "unused/forwards")):
        if name in expected:
            assert run.array(signal).steps.tolist() == expected[name]
            assert run.array(f"{name}/nonfinite" if name == "skipped" else signal).values.min() > 0
    if "skipped" not in expected:
        assert not run.has("skipped/gradients") or not run.array("skipped/gradients").values.any()


def test_there_are_forty_loops() -> None:
    assert len(LOOPS) >= 40
