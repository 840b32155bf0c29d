"""The tap for the Hugging Face Trainer (transformers 5).

    trainer = Trainer(model=model, args=args, train_dataset=data,
                      callbacks=[tv.TrainerCallback(run="runs/mine", domains={"web": 0.7, "code": 0.3})])

The data set may have a column "domain" with an id per row (or a list of ids, one per token). The Trainer would drop
it, because the model's forward does not take it; the callback keeps it, and the tap takes it out of the batch again
before the model sees it. The raw loss of every step is stored, also where the Trainer logs a mean instead of a NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from collectors.loop import Tap
from collectors.tap import attach

COLUMN = "domain"


class TrainerCallback(transformers.TrainerCallback):
    """Attaches the tap when training begins and closes it when training ends.

    Args:
        run: run folder.
        domains, domain_tokens, lr_plan, collectors, tokenizer, peak_flops: as in `tv.attach`. The tokenizer is the
            Trainer's where none is given; steps and schedule are always its own.

    Raises:
        UsageError: at the start of training, for arguments that `tv.attach` refuses.
    """

    def __init__(self, run: str | Path, *, domains: Mapping[str, float | None] | Sequence[str] | None = None,
                 domain_tokens: Mapping[str, int] | None = None, lr_plan: Any = None,
                 collectors: Mapping[str, int] | None = None, tokenizer: Any = None,
                 peak_flops: float | None = None) -> None:
        self.run, self.tokenizer = run, tokenizer
        self.arguments = {"domains": domains, "domain_tokens": domain_tokens, "lr_plan": lr_plan,
                          "collectors": collectors, "peak_flops": peak_flops}
        self.tap: Tap | None = None

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
        self.tap = attach(
            kwargs["model"], kwargs["optimizer"], self.run, scheduler=kwargs.get("lr_scheduler"),
            tokenizer=self.tokenizer or kwargs.get("processing_class"), total_steps=state.max_steps,
            start_step=state.global_step,
            **self.arguments)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.event("checkpoint", f"saved checkpoint-{state.global_step}", step=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                     **kwargs: Any) -> None:
        if self.tap is not None:
            self.tap.close()
            self.tap = None


def _keep_domain_columns() -> None:
    """Make Trainers that have this callback keep the column, wherever they look up which columns to keep.

    A callback is not told its Trainer, so both methods that drop columns are wrapped, once, for all Trainers; for
    those without the callback they do what they did.
    """
    for name in ("_remove_unused_columns", "_get_collator_with_removed_columns"):
        original = getattr(Trainer, name)
        if not hasattr(original, "_trainvitals"):
            setattr(Trainer, name, _keeping(original))


def _keeping(original: Any) -> Any:
    @functools.wraps(original)
    def call(trainer: Trainer, data: Any, description: str | None = None) -> Any:
        callbacks = [c for c in trainer.callback_handler.callbacks if isinstance(c, TrainerCallback)]
        trainer._set_signature_columns_if_needed()
        columns = trainer._signature_columns
        # Outside of training no tap takes the column out again, and the model might refuse it.
        wanted = any(c.live for c in callbacks) or (callbacks and str(description).lower() == "training")
        if wanted and COLUMN not in columns:
            trainer._signature_columns = [*columns, COLUMN]
        try:
            return original(trainer, data, description)
        finally:
            trainer._signature_columns = columns

    call._trainvitals = True  # type: ignore[attr-defined]
    return call
