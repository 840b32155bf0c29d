"""The tap for the Hugging Face Trainer (transformers 5) and for TRL's trainers, which are Trainers.

    trainer = Trainer(model=model, args=args, train_dataset=data,
                      callbacks=[tv.TrainerCallback(run="runs/mine", domains={"web": 0.7, "code": 0.3})])

The data set may have a column "domain" with an id or a name per row (or a list, one per token). The Trainer would drop
it, because the model's forward does not take it; the callback keeps it, and the tap takes it out of the batch again
before the model sees it. The raw loss of every step is stored, also where the Trainer logs a mean instead of a NaN.
Evaluation sets keep their names, and what the Trainer logs itself is stored as `trainer/<name>`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from collectors.loop import Tap
from collectors.tap import attach
from collectors.trainers.arguments import check_arguments
from collectors.trainers.domains import COLUMN, DomainCollator, lost


class TrainerCallback(transformers.TrainerCallback):
    """Attaches the tap when training begins and closes it when training ends.

    Args:
        run: run folder.
        **arguments: any others of `tv.attach`, such as domains, domain_tokens, lr_plan, collectors, peak_flops. Model,
            optimizer, scheduler, tokenizer, total_steps and start_step are the Trainer's where they are not given.

    Raises:
        UsageError: for an argument that `tv.attach` does not have; at the start of training, for values that it
            refuses.
    """

    def __init__(self, run: str | Path, **arguments: Any) -> None:
        check_arguments(arguments)
        self.run, self.arguments = run, arguments
        self.tap: Tap | None = None
        self.domains_lost: str | None = None
        """Why the batches of the training carry no domains."""

    @property
    def live(self) -> bool:
        """Whether a tap is attached."""
        return self.tap is not None

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        _keep_domain_columns()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.close()
        own = {"scheduler": kwargs.get("lr_scheduler"), "tokenizer": kwargs.get("processing_class"),
               "total_steps": state.max_steps, "start_step": state.global_step}
        given = {name: value for name, value in self.arguments.items() if value is not None or name not in own}
        self.tap = attach(kwargs["model"], kwargs["optimizer"], self.run, **own | given)
        if self.domains_lost is not None:
            self.tap.once("domains_unknown", self.domains_lost)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if self.tap is not None and logs:
            numbers = {f"trainer/{name}": value for name, value in logs.items()
                       if isinstance(value, int | float) and not isinstance(value, bool)}
            self.tap.log(numbers, step=state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    metrics: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.evaluated(evaluation_set(metrics or {}))

    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                   metrics: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.on_evaluate(args, state, control, metrics, **kwargs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.event("checkpoint", f"saved checkpoint-{state.global_step}", step=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                     **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.close()
            self.tap = None


def evaluation_set(metrics: Mapping[str, Any]) -> str:
    """Name of the set by the prefix of its metrics: `eval_<name>` for one of several; "" for the only one."""
    prefix = next((name.removesuffix("_runtime") for name in metrics if name.endswith("_runtime")), "eval")
    return "" if prefix == "eval" else prefix.removeprefix("eval_")


def _keep_domain_columns() -> None:
    """Make Trainers that have this callback keep the column, wherever they look up which columns to keep.

    A callback is not told its Trainer, so the methods that drop columns and make loaders are wrapped, once, for all
    Trainers; for those without the callback they do what they did.
    """
    for name, wrapper in (("_remove_unused_columns", _keeping), ("_get_collator_with_removed_columns", _keeping),
                          ("_get_dataloader", _placing)):
        original = getattr(Trainer, name)
        if not hasattr(original, "_trainvitals"):
            wrapped = wrapper(original)
            wrapped._trainvitals = True
            setattr(Trainer, name, wrapped)


def _callbacks(trainer: Trainer) -> list[TrainerCallback]:
    return [c for c in trainer.callback_handler.callbacks if isinstance(c, TrainerCallback)]


def _wanted(trainer: Trainer, description: str | None) -> list[str]:
    """The planned domains, where the column is to be kept.

    Outside of training no tap takes it out again, and the model might refuse it.
    """
    planned = [c for c in _callbacks(trainer) if c.arguments.get("domains")]
    if any(c.live for c in planned) or str(description).lower() == "training":
        return next((list(c.arguments["domains"]) for c in planned), [])
    return []


def _keeping(original: Any) -> Any:
    @functools.wraps(original)
    def call(trainer: Trainer, data: Any, description: str | None = None) -> Any:
        trainer._set_signature_columns_if_needed()
        columns = trainer._signature_columns
        if _wanted(trainer, description) and COLUMN not in columns:
            trainer._signature_columns = [*columns, COLUMN]
        try:
            return original(trainer, data, description)
        finally:
            trainer._signature_columns = columns

    return call


def _placing(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def call(trainer: Trainer, dataset: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        names, collator = _wanted(trainer, description), trainer.data_collator
        if not names:
            return original(trainer, dataset, description, *args, **kwargs)
        if str(description).lower() == "training":
            for callback in _callbacks(trainer):
                callback.domains_lost = lost(trainer, dataset)
        trainer.data_collator = DomainCollator(collator, names)
        try:
            return original(trainer, dataset, description, *args, **kwargs)
        finally:
            trainer.data_collator = collator

    return call
