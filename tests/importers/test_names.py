"""Names of tools and scripts: what each is taken for, and what is better left alone."""

import math

import pytest

from collectors.importers.names import Names, guess
from trainvitals.errors import UsageError

KNOWN = {
    "loss": "loss/train", "train/loss": "loss/train", "train_loss": "loss/train", "training_loss": "loss/train",
    "Training Loss": "loss/train", "lm loss": "loss/train", "lm-loss": "loss/train", "train/lm_loss": "loss/train",
    "train/loss_step": "loss/train", "trainLoss": "loss/train", "train/ce_loss": "loss/train", 
    "Loss/train": "loss/train",
    "eval/loss": "loss/val", "eval_loss": "loss/val", "val_loss": "loss/val", "validation loss": "loss/val",
    "val/loss": "loss/val", "Loss/val": "loss/val", "lm loss validation": "loss/val", "valid_loss": "loss/val",
    "grad_norm": "grad/norm", "grad-norm": "grad/norm", "train/grad_norm": "grad/norm", "gradient_norm": "grad/norm",
    "gradnorm": "grad/norm", "optim/total_grad_norm": "grad/norm", "GradNorm": "grad/norm",
    "grad_norm_clipped": "grad/norm_clipped", "clipped_grad_norm": "grad/norm_clipped",
    "lr": "lr/used", "learning_rate": "lr/used", "train/learning_rate": "lr/used", "lr-AdamW": "lr/used",
    "lr-AdamW/pg1": "lr/used", "learning-rate": "lr/used", "optim/learning_rate_group0": "lr/used",
    "tokens_per_sec": "throughput/tokens_per_s", "tokens/s": "throughput/tokens_per_s",
    "tok/s": "throughput/tokens_per_s", "train/tokens_per_second": "throughput/tokens_per_s",
    "mfu": "throughput/mfu", "step_time_s": "throughput/step_time", "step_time_ms": "throughput/step_time",
    "elapsed time per iteration (ms)": "throughput/step_time", "iteration_time (s)": "throughput/step_time",
    "num_input_tokens_seen": "data/tokens_seen", "consumed_tokens": "data/tokens_seen",
    "train/tokens_seen": "data/tokens_seen",
}  # fmt: skip
FACTORS = {"step_time_ms": 1e-3, "elapsed time per iteration (ms)": 1e-3, "mfu(%)": 0.01, "mfu (percent)": 0.01,
           "train_loss (bits)": math.log(2)}
ALONE = (
    "accuracy", "total_loss_max", "aux_loss", "val_accuracy", "step_time", "dt", "tps",
    "tokens_per_sec_per_gpu", "tokens_per_second_per_device", "param_norm", "grad_norm/layer.0", "eval/math_loss",
    "perplexity", "train/epoch",
    "lr_scheduler_patience_and_whatever_else_is_in_a_name_that_is_far_too_long_to_be_a_group",
    "train_runtime", "lr-AdamW-momentum", "lr-AdamW-weight_decay", "lr_scheduler_step", "lr_decay",
    "kl_loss", "test_loss", "wd", "loss/domain/web", "max_grad_norm_allowed",
)  # fmt: skip


@pytest.mark.parametrize("name", list(KNOWN))
def test_what_everybody_calls_it(name: str) -> None:
    found = guess(name)
    assert found is not None and found.signal == KNOWN[name]


@pytest.mark.parametrize("name", list(FACTORS))
def test_units_in_the_name(name: str) -> None:
    found = guess(name)
    assert found is not None and found.factor == FACTORS[name]


@pytest.mark.parametrize("name", ALONE)
def test_what_could_be_something_else_is_left_alone(name: str) -> None:
    assert guess(name) is None


def test_groups_of_learning_rates_have_labels() -> None:
    labels = [found.label for name in ("lr", "lr-AdamW", "lr-AdamW/pg2") if (found := guess(name))]
    assert len(set(labels)) == 3 and labels[0] == "all"


def test_the_user_wins_over_the_format_and_the_format_over_the_table() -> None:
    names = Names({"norm": "grad/norm", "loss": "loss/val", "dt": "throughput/step_time*ms"}, ["grad/norm=g*2.5"])
    assert names.meaning("norm") is None and names.meaning("g").factor == 2.5  # type: ignore[union-attr]
    assert names.meaning("loss").signal == "loss/val"  # type: ignore[union-attr]
    assert names.meaning("dt").factor == 1e-3 and names.unused(["norm"]) == ["g"]  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="SIGNAL=COLUMN"):
        Names(maps=["=x"])
