"""Lightning's Trainer with the callback and the logger, and Fabric, each beside a record that the loop itself keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import trainvitals as tv
from tests.collectors.test_loop_zoo import DOMAINS, EVERYTHING, LM, Oracle, batches
from trainvitals.errors import UsageError

L = pytest.importorskip("lightning")
needs_start = pytest.mark.skipif(not hasattr(tv, "start"), reason="loggers without a tap need tv.start")
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 6


def loader(data: list[Any] | None = None) -> Any:
    return DataLoader(batches(STEPS) if data is None else data, batch_size=None)


class Module(L.LightningModule):  # type: ignore[misc]
    """A criterion in the step, domains in the batch, and an oracle in Lightning's own hooks."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        super().__init__()
        self.net, self.kind = LM("logits"), optimizer
        self.oracle = Oracle(self.net)
        self.held_out: list[list[tuple[float, int]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.oracle.saw(batch)
        loss = self.loss(batch)
        self.log("seen", float(batch_idx))
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.loss(batch)
        apart = Oracle(self.net)
        apart.saw(batch)
        self.held_out[-1].append((apart.now["sum"], apart.now["tokens"], dataloader_idx))

    def on_validation_start(self) -> None:
        self.held_out.append([])

    def loss(self, batch: Any) -> torch.Tensor:
        logits, target = self.net(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    def configure_optimizers(self) -> Any:
        optimizer = self.kind(self.net.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_after_backward(self) -> None:
        self.oracle.unclipped()

    def configure_gradient_clipping(self, optimizer: Any, **settings: Any) -> None:
        self.clip_gradients(optimizer, **settings)
        self.oracle.stepping([getattr(optimizer, "optimizer", optimizer)])

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
        optimizer.step(closure=closure)
        self.oracle.stepped()


def fit(folder: Path | None, module: Any, *callbacks: Any, validation: Any = None, **settings: Any) -> Any:
    L.seed_everything(1, verbose=False)
    trainer = L.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False,
                           "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
                           "log_every_n_steps": 1, "callbacks": list(callbacks), "num_sanity_val_steps": 1} | settings)
    trainer.fit(module, loader(), validation)
    return trainer


def equal_to_the_oracle(run: tv.Run, rows: list[dict[str, Any]]) -> None:
    steps = list(range(1, len(rows) + 1))
    for signal, key in (("grad/norm", "norm"), ("grad/norm_clipped", "clipped"), ("update/ratio", "ratio")):
        assert run.array(signal).steps.tolist() == steps, signal
        np.testing.assert_allclose(run.array(signal).values, [row[key] for row in rows], rtol=2e-5, err_msg=signal)
    np.testing.assert_allclose(run.array("lr/used").values, [row["lr"] for row in rows])
    np.testing.assert_array_equal(run.array("loss/tokens").values, [row["tokens"] for row in rows])
    np.testing.assert_allclose(run.array("loss/train").values, [r["sum"] / r["tokens"] for r in rows], rtol=1e-5)
    assert not {"collector_disabled", "forward_unseen", "loss_unseen"} & set(run.events()["kind"])


CLIP = {"gradient_clip_val": 0.05}


@pytest.mark.parametrize(("settings", "kind"), [
    ({}, torch.optim.SGD), (CLIP, torch.optim.SGD), (CLIP | {"accumulate_grad_batches": 2}, torch.optim.AdamW),
    ({"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}, torch.optim.SGD)],
    ids=["plain", "clip", "accumulate", "value"])
def test_fit(tmp_path: Path, settings: dict[str, Any], kind: type[torch.optim.Optimizer]) -> None:
    tapped, plain = Module(kind), Module(kind)
    callback = tv.LightningCallback(tmp_path / "run", collectors=EVERYTHING, domains=DOMAINS)
    fit(tmp_path, tapped, callback, **settings)
    fit(None, plain, **settings)
    assert all(torch.equal(a, b) for a, b in zip(tapped.parameters(), plain.parameters(), strict=True))
    run = tv.open_run(tmp_path / "run")
    equal_to_the_oracle(run, tapped.oracle.rows)
    np.testing.assert_array_equal(run.array("data/domain_tokens").values.sum(axis=1),
                                  [row["inputs"] for row in tapped.oracle.rows])
    assert run.card.model == "Module" and run.card.total_steps == len(tapped.oracle.rows)
    np.testing.assert_allclose(run.array("lr/planned").values, run.array("lr/used").values)
    assert "training_step" not in vars(tapped) and "validation_step" not in vars(tapped)


@pytest.mark.parametrize("loaders", [
    1, 2, {"web": None, "code": None}], ids=["one", "two", "named"])
def test_validation_loaders_are_sets(tmp_path: Path, loaders: Any) -> None:
    module, data = Module(), [batches(2), batches(3, rows=2)]
    made = [loader(part) for part in data]
    given = dict(zip(loaders, made, strict=True)) if isinstance(loaders, dict) else made[0] if loaders == 1 else made
    fit(tmp_path, module, tv.LightningCallback(tmp_path / "run"), validation=given, val_check_interval=3)
    run = tv.open_run(tmp_path / "run")
    expected = [[sum(s for s, _, i in step if i == n) / sum(t for _, t, i in step if i == n)
                 for n in range(1 if loaders == 1 else 2)] for step in module.held_out[1:]]
    series = run.array("loss/val" if loaders == 1 else "loss/val_set")
    assert series.steps.tolist() == [3, 6], "without the sanity check before the first step"
    np.testing.assert_allclose(series.values.reshape(2, -1), expected, rtol=1e-5)
    assert run.has("loss/val") == (loaders == 1)
    if loaders != 1:
        assert series.labels == (tuple(loaders) if isinstance(loaders, dict) else
                                 ("dataloader_idx_0", "dataloader_idx_1"),)


class Manual(Module):
    """Two optimizers, stepped by hand, the second one first."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers = self.optimizers()
        self.oracle.saw(batch)
        self.manual_backward(self.loss(batch))
        self.oracle.stepping([o.optimizer for o in optimizers])
        for one in reversed(optimizers):
            one.step()
        self.oracle.stepped()
        for one in optimizers:
            one.zero_grad()

    def configure_optimizers(self) -> Any:
        head = list(self.net.head.parameters())
        rest = [*self.net.embed.parameters(), *self.net.middle.parameters()]
        return [torch.optim.SGD(rest, lr=0.1), torch.optim.AdamW(head, lr=1e-2)]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("not with manual optimisation")

    def on_after_backward(self) -> None:
        self.oracle.unclipped()


@pytest.mark.parametrize("name", [None, "net"])
def test_manual_optimisation(tmp_path: Path, name: str | None) -> None:
    tapped, plain = Manual(), Manual()
    fit(tmp_path, tapped, tv.LightningCallback(tmp_path / "run", module=name, collectors=EVERYTHING))
    fit(None, plain)
    assert all(torch.equal(a, b) for a, b in zip(tapped.parameters(), plain.parameters(), strict=True))
    equal_to_the_oracle(tv.open_run(tmp_path / "run"), tapped.oracle.rows)


def test_a_fit_that_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    trainer = fit(tmp_path, Module(), tv.LightningCallback(tmp_path / "run"))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
              enable_model_summary=False, callbacks=[tv.LightningCallback(tmp_path / "run")]).fit(
                  Module(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert tv.open_run(tmp_path / "run").array("loss/train").steps.tolist() == list(range(1, 2 * STEPS + 1))


def test_an_error_in_a_step_is_the_modules_own(tmp_path: Path) -> None:
    class Broken(Module):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 2:
                raise ZeroDivisionError("theirs")
            return super().training_step(batch, batch_idx)

    module = Broken()
    with pytest.raises(ZeroDivisionError, match="theirs"):
        fit(tmp_path, module, tv.LightningCallback(tmp_path / "run"))
    run = tv.open_run(tmp_path / "run")
    assert run.status == "finished" and "exception" in set(run.events()["kind"])
    assert run.last_step == 2 and "training_step" not in vars(module)


def test_arguments_that_attach_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no argument 'domain'"):
        tv.LightningCallback(tmp_path, domain=["a"])


@needs_start
def test_logger_and_callback_are_one_run(tmp_path: Path) -> None:
    module = Module()
    module.save_hyperparameters({"width": 6})
    fit(tmp_path, module, tv.LightningCallback(tmp_path / "run"), logger=tv.LightningLogger(tmp_path / "run"))
    run = tv.open_run(tmp_path / "run")
    assert run.array("seen").values.tolist() == [float(i) for i in range(STEPS)]
    assert run.array("loss/train").steps.tolist() == list(range(1, STEPS + 1))
    assert run.card.config["width"] == 6 and run.card.model == "Module"
    assert run.status == "finished" and len(run.attempts) == 1


@needs_start
def test_the_logger_alone(tmp_path: Path) -> None:
    logger = tv.LightningLogger(tmp_path / "run", tags=["mine"])
    assert logger.name == "run" and logger.version == "" and logger.save_dir is None
    fit(tmp_path, Module(), logger=logger, enable_checkpointing=True, default_root_dir=tmp_path)
    run = tv.open_run(tmp_path / "run")
    assert run.array("seen").values.tolist() == [float(i) for i in range(STEPS)]
    assert run.status == "finished" and "checkpoint" in set(run.events()["kind"])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric(tmp_path: Path, precision: str) -> None:
    weights = []
    for tapped in (True, False):
        fabric = L.Fabric(accelerator="cpu", devices=1, precision=precision)
        bare = LM("logits")
        oracle = Oracle(bare)
        model, optimizer = fabric.setup(bare, torch.optim.SGD(bare.parameters(), lr=0.5))
        tap = tv.attach(model, optimizer, tmp_path / "run", collectors=EVERYTHING) if tapped else None
        for batch in batches():
            oracle.saw(batch)
            logits, target = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
            fabric.backward(F.cross_entropy(logits.flatten(0, 1), target.flatten()))
            oracle.unclipped()
            fabric.clip_gradients(model, optimizer, max_norm=0.1)
            oracle.step(optimizer.optimizer)
        if tap is not None:
            tap.close()
            rows = oracle.rows
        weights.append([p.detach().clone() for p in bare.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    run = tv.open_run(tmp_path / "run")
    assert run.card.model == "LM"
    if precision == "32-true":
        equal_to_the_oracle(run, rows)
    else:
        np.testing.assert_allclose(run.array("loss/train").values, [r["sum"] / r["tokens"] for r in rows], rtol=0.02)
        np.testing.assert_allclose(run.array("grad/norm").values, [r["norm"] for r in rows], rtol=1e-4)


@needs_start
def test_the_logger_in_fabric(tmp_path: Path) -> None:
    logger = tv.LightningLogger(tmp_path / "run")
    fabric = L.Fabric(accelerator="cpu", devices=1, loggers=logger)
    bare = LM("logits")
    model, optimizer = fabric.setup(bare, torch.optim.SGD(bare.parameters(), lr=0.5))
    with logger.attach(model, optimizer):
        for i, batch in enumerate(batches(3), 1):
            logits, target = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
            fabric.backward(F.cross_entropy(logits.flatten(0, 1), target.flatten()))
            optimizer.step()
            optimizer.zero_grad()
            fabric.log_dict({"mine": torch.tensor(float(i))}, step=i)
    logger.finalize("success")
    run = tv.open_run(tmp_path / "run")
    assert run.array("mine").values.tolist() == [1, 2, 3] and run.array("loss/train").steps.tolist() == [1, 2, 3]
    assert math.isfinite(run.array("grad/norm").values[0]) and run.status == "finished"
