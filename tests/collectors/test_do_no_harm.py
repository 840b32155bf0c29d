"""A tapped run is the untapped run, bit by bit, whatever happens to the telemetry."""

from __future__ import annotations

import copy
import io
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import trainvitals as tv
from collectors.signals.collector import Collector
from tests.collectors import tiny
from trainvitals.errors import UsageError

EVERYTHING = dict.fromkeys(("loss", "grad", "lr", "update", "router", "router_domain", "data", "tokens", "throughput",
                            "system"), 1)


@pytest.mark.parametrize("settings", [{}, {"collectors": EVERYTHING}], ids=["default", "everything"])
@pytest.mark.parametrize("max_norm", [0.5, None])
def test_weights_after_50_steps(tmp_path: Path, settings: dict[str, Any], max_norm: float | None) -> None:
    tapped, plain, data = tiny.olmoe(output_router_logits=True), tiny.olmoe(output_router_logits=True), tiny.batches(50)
    states = []
    for model, run, more in ((tapped, tmp_path / "run", settings), (plain, None, {})):
        torch.manual_seed(3)
        tiny.train(model, data, run, max_norm=max_norm, **more)
        states.append(torch.get_rng_state())
    assert tiny.same_weights(tapped, plain)
    assert torch.equal(*states)
    assert tv.open_run(tmp_path / "run").array("loss/train").steps.tolist() == list(range(1, 51))
    assert "collector_disabled" not in tiny.event_kinds(tmp_path / "run")


def test_weights_under_autocast_and_accumulation(tmp_path: Path) -> None:
    tapped, plain, data = tiny.olmoe(), tiny.olmoe(), tiny.batches(20)
    for model, run in ((tapped, tmp_path / "run"), (plain, None)):
        with torch.autocast("cpu", torch.bfloat16):
            tiny.train(model, data, run, accumulate=2, collectors=EVERYTHING if run else None)
    assert tiny.same_weights(tapped, plain)
    assert "collector_disabled" not in tiny.event_kinds(tmp_path / "run")


MOMENTS = [(name, moment) for name, moments in {
    "loss": ("output", "keep", "wanted", "trained", "after_step"), "grad": ("gradients", "before_update", "after_step"),
    "lr": ("before_update", "_fields"), "update": ("before_update", "after_update", "_fields"),
    "router": ("_count", "trained", "after_step"), "data": ("output", "trained", "after_step"),
    "tokens": ("output", "trained", "_fields"), "throughput": ("forward", "trained", "after_step"),
    "system": ("after_step",),
}.items() for moment in moments]


@pytest.mark.parametrize(("name", "moment"), MOMENTS)
def test_a_collector_that_throws_at_step_10(tmp_path: Path, name: str, moment: str) -> None:
    tapped, plain, data = tiny.olmoe(), tiny.olmoe(), tiny.batches(14)

    def sabotage(tap: tv.Tap | None) -> None:
        if tap is not None and tap.step == 8:
            collector, calm = tap.collectors[name], getattr(tap.collectors[name], moment)

            def throw(*args: Any, **kwargs: Any) -> Any:
                if tap.step >= 9:
                    raise RuntimeError("sabotaged")
                return calm(*args, **kwargs)

            setattr(collector, moment, throw)

    tiny.train(tapped, data, tmp_path / "run", each=sabotage, collectors=EVERYTHING)
    tiny.train(plain, data)
    assert tiny.same_weights(tapped, plain)
    events = tv.open_run(tmp_path / "run").events()
    said = events[events["kind"] == "collector_disabled"]
    assert said["data"].tolist() == [{"collector": name, "error": "RuntimeError('sabotaged')"}]
    assert said["step"].tolist() == [10]
    others = "lr/used" if name != "lr" else "loss/train"
    assert tv.open_run(tmp_path / "run").last_step == 14
    assert len(tiny.values(tmp_path / "run", others)) == 14


def test_an_error_of_the_model_stays_the_models(tmp_path: Path) -> None:
    model = tiny.llama()
    batch = tiny.batches(1)[0]
    batch["labels"][0, 3] = tiny.VOCAB + 5
    with pytest.raises(IndexError):
        tiny.train(model, [batch], tmp_path / "run")


def test_close_puts_everything_back(tmp_path: Path) -> None:
    model = tiny.olmoe()
    optimizer = torch.optim.AdamW(model.parameters())
    before = _places(model, optimizer)
    functions = [torch.nn.functional.cross_entropy, torch.amp.GradScaler.scale, nn.Module.train, DataLoader.__iter__]
    with tv.attach(model, optimizer, tmp_path / "one"):
        other = tiny.llama()
        with tv.attach(other, torch.optim.AdamW(other.parameters()), tmp_path / "two") as tap:
            assert _places(model, optimizer) != before
            assert torch.nn.functional.cross_entropy is not functions[0]
        tap.close()
        assert torch.nn.functional.cross_entropy is not functions[0]
    assert _places(model, optimizer) == before
    assert [torch.nn.functional.cross_entropy, torch.amp.GradScaler.scale, nn.Module.train,
            DataLoader.__iter__] == functions


def _places(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return [hooks, len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks),
            "zero_grad" in vars(optimizer), [bool(p._post_accumulate_grad_hooks) for p in model.parameters()]]


def test_copies_and_pickles_of_the_model_carry_no_tap(tmp_path: Path) -> None:
    model, batch = tiny.olmoe(), tiny.batches(1)[0]
    plain = {name: value for name, value in batch.items() if name != "domain"}
    expected = model(**plain).loss
    with tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "run", domains=tiny.DOMAINS) as tap:
        averaged = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        # The pickle is our own, made three lines above: a whole module cannot be loaded with weights_only.
        for other in (averaged, torch.load(file, weights_only=False)):
            assert torch.equal(other(**plain).loss, expected)
        assert tap.batch is None
        model(**batch)
        assert tap.batch is not None and tap.batch.notes["router"]


@pytest.mark.parametrize("where", ["/dev/null/run", "/proc/run"])
def test_a_folder_that_cannot_be_written(where: str, caplog: pytest.LogCaptureFixture) -> None:
    tapped, plain, data = tiny.llama(), tiny.llama(), tiny.batches(3)
    tiny.train(tapped, data, Path(where))
    tiny.train(plain, data)
    assert tiny.same_weights(tapped, plain)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2 and all(where.split("/")[1] in warning for warning in warnings)
    assert "cannot write" in warnings[0] and "did not take 18 rows" in warnings[1], "said once, and what it cost"


def test_compiled_models_train_as_before(tmp_path: Path) -> None:
    tapped, plain, data = tiny.llama(), tiny.llama(), tiny.batches(2)
    tiny.train(torch.compile(tapped, backend="aot_eager"), data, tmp_path / "run")
    torch._dynamo.reset()
    tiny.train(torch.compile(plain, backend="aot_eager"), data)
    assert tiny.same_weights(tapped, plain)
    assert np.isfinite(tiny.values(tmp_path / "run", "grad/norm")).all()
    assert tiny.values(tmp_path / "run", "data/sequences").tolist() == [4, 4]
    assert "loss_unseen" in tiny.event_kinds(tmp_path / "run")


def test_models_compiled_in_place_train_as_before(tmp_path: Path) -> None:
    tapped, plain, data = tiny.llama(), tiny.llama(), tiny.batches(2, padded=False)
    for batch in data:
        del batch["attention_mask"]
    for model, run in ((tapped, tmp_path / "run"), (plain, None)):
        torch._dynamo.reset()
        model.compile(backend="eager", fullgraph=True)
        tiny.train(model, data, run)
    assert tiny.same_weights(tapped, plain)
    assert "forward_unseen" in tiny.event_kinds(tmp_path / "run")
    assert len(tiny.values(tmp_path / "run", "grad/norm")) == 2


def test_an_adapter_around_the_model(tmp_path: Path) -> None:
    class Adapter(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, **inputs: Any) -> Any:
            return self.inner(**inputs)

    tiny.train(Adapter(tiny.llama()), tiny.batches(1), tmp_path / "run")
    assert tiny.values(tmp_path / "run", "loss/domain_tokens").sum() > 0


def test_accelerate(tmp_path: Path) -> None:
    from accelerate import Accelerator

    trained = []
    for tapped in (True, False):
        accelerator, model = Accelerator(cpu=True, gradient_accumulation_steps=2), tiny.olmoe()
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 10)
        model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
        tap = tv.attach(model, optimizer, tmp_path / "run", scheduler=scheduler) if tapped else None
        for batch in tiny.batches(4):
            del batch["domain"]
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch).loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        if tap is not None:
            tap.close()
        trained.append(model)
    assert tiny.same_weights(*trained)
    assert tiny.values(tmp_path / "run", "loss/forwards").tolist() == [2, 2]
    assert np.array_equal(tiny.values(tmp_path / "run", "lr/used"), tiny.values(tmp_path / "run", "lr/planned"))
    assert (tiny.values(tmp_path / "run", "grad/norm") > 0.2).all()


def test_rewind_starts_a_new_attempt(tmp_path: Path) -> None:
    model, data = tiny.llama(), tiny.batches(9)
    count = 0

    def roll_back(tap: tv.Tap | None) -> None:
        nonlocal count
        count += 1
        if count == 6 and tap is not None:
            tap.rewind(2)

    tiny.train(model, data, tmp_path / "run", each=roll_back)
    run = tv.open_run(tmp_path / "run")
    assert run.array("lr/used").steps.tolist() == list(range(1, 7))
    assert len(run.branches()) == 1


def test_own_metrics_and_events(tmp_path: Path) -> None:
    def own(tap: tv.Tap | None) -> None:
        assert tap is not None
        tap.log({"my/metric": torch.tensor(2.5), "my/other": 1})
        tap.log({"my/broken": "three"})
        tap.event("stage", "second stage", weight=3)

    tiny.train(tiny.llama(), tiny.batches(2), tmp_path / "run", each=own)
    run = tv.open_run(tmp_path / "run")
    assert run.array("my/metric").steps.tolist() == [0, 1] and run.array("my/metric").values.tolist() == [2.5, 2.5]
    assert run.events().query("kind == 'stage'")["data"].tolist() == [{"weight": 3}] * 2


def test_every_collector_says_its_cadence(tmp_path: Path) -> None:
    tap = tiny.train(tiny.olmoe(), tiny.batches(1), tmp_path / "run", collectors={"grad": 0, "tokens": 0})
    assert tap is not None
    assert set(tap.collectors) == {"loss", "lr", "update", "replicas", "router", "data", "throughput", "system"}
    assert all(isinstance(c, Collector) for c in tap.collectors.values())
    assert tv.open_run(tmp_path / "run").card.collectors["router_domain"] == 50


def test_steps_continue_where_the_optimizer_was(tmp_path: Path) -> None:
    model, data = tiny.llama(), tiny.batches(4)
    optimizer = torch.optim.AdamW(model.parameters())
    for part, steps in (("run", 3), ("run", 1)):
        with tv.attach(model, optimizer, tmp_path / part):
            for batch in data[:steps]:
                model(**batch).loss.backward()
                optimizer.step()
    assert tv.open_run(tmp_path / "run").array("loss/train").steps.tolist() == [1, 2, 3, 4]


def test_a_model_takes_one_tap_at_a_time(tmp_path: Path) -> None:
    model = tiny.llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tap = tv.attach(model, optimizer, tmp_path / "a")
    with pytest.raises(UsageError, match="has a tap already"):
        tv.attach(model, optimizer, tmp_path / "b")
    tap.close()
    tv.attach(model, optimizer, tmp_path / "b").close()


def test_a_forward_that_the_loop_survives_costs_no_collector(tmp_path: Path) -> None:
    model, (batch, *_) = tiny.llama(), tiny.batches(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.attach(model, optimizer, tmp_path, domains=tiny.DOMAINS):
        with pytest.raises((ValueError, RuntimeError, IndexError)):
            model(**batch | {"labels": batch["labels"][:, :-2]})
        model(**batch).loss.backward()
        optimizer.step()
    assert "collector_disabled" not in tiny.event_kinds(tmp_path)
    assert np.isfinite(tiny.values(tmp_path, "loss/train")).all()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_end_the_run(tmp_path: Path) -> None:
    model = tiny.llama()
    tap = tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path)
    child = multiprocessing.get_context("fork").Process(target=tap.close)
    child.start()
    child.join()
    tap.writer.flush()
    assert tv.open_run(tmp_path).status == "live"
    tap.close()
    assert tv.open_run(tmp_path).status == "finished"


@pytest.mark.parametrize("wrong", [
    {"domains": "abc"}, {"domains": {"a": "x"}}, {"domains": {"a": float("nan")}}, {"domains": ["a", " "]},
    {"collectors": ["loss"]}, {"start_step": "x"}, {"total_steps": "many"}, {"peak_flops": -1}])
def test_wrong_arguments_are_refused_before_training(tmp_path: Path, wrong: dict[str, Any]) -> None:
    model = tiny.llama()
    with pytest.raises(UsageError):
        tv.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, **wrong)
