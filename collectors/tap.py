"""`tv.attach`: everything that can be refused is refused here, before training."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collectors.logger import describe, open_loggers
from collectors.loop import CADENCES, Plans, Tap, core_of, is_tapped
from collectors.model import facts as model_facts
from collectors.model import hardware
from collectors.place import Resume, keep_said, look, process_rank, run_folder, writer_here
from collectors.signals.learning_rate import find_plans, plan_for_card
from collectors.step import steps_done
from trainvitals.card import UNATTRIBUTED, RunCard
from trainvitals.errors import UsageError
from trainvitals.store import RunWriter
from trainvitals.store.liveness import GUARD_SECONDS, within

Domains = Mapping[str, float | None] | Sequence[str]

SHARES_TOLERANCE = 0.01
"""How far planned shares may be from a sum of 1; people round to two digits."""


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    run: str | Path | None = None,
    *,
    scheduler: Any = None,
    lr_plan: Any = None,
    domains: Domains | None = None,
    domain_tokens: Mapping[str, int] | None = None,
    tokenizer: Any = None,
    total_steps: int | None = None,
    start_step: int | None = None,
    peak_flops: float | None = None,
    collectors: Mapping[str, int] | None = None,
    name: str | None = None,
    config: Any = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    id: str | None = None,
    resume: Resume = "auto",
) -> Tap:
    """Tap a training loop: from here on every optimizer step is recorded in the run folder.

    Args:
        model: the module that is called in the loop; may be wrapped in DDP, FSDP2 or torch.compile.
        optimizer: what steps it; a list if several optimizers step together.
        run: run folder, a path or an fsspec URL. A folder that cannot be written does not stop training.
            With `id`, the folder of runs that it lies in.
        scheduler: a LambdaLR (as all of transformers' are) also tells the planned learning rate.
        lr_plan: a `trainvitals.schedules.Plan`, or a function of the step (1 for the first), or a list of either per
            parameter group. Overrides the scheduler.
        domains: names of the data domains in the order of their ids, or their planned shares of input tokens by name.
            Batches carry "domain": an id (or name) per row, or per token for packed documents.
        domain_tokens: unique tokens that each domain holds; epochs are counted against it.
        tokenizer: for bytes per token and shares of scripts.
        total_steps: planned length of the run.
        start_step: optimizer steps already done; None reads it from the optimizer's state, else from the scheduler.
        peak_flops: peak FLOP/s of one device, dense, in the precision of the training; None takes it from
            `collectors.model.hardware`, and leaves the utilisation unknown for a device that is not listed there.
        collectors: steps between two rows per collector; 0 switches it off. See `collectors.loop.CADENCES`.
        name, config, tags, notes, group, id, resume: what you say of the run, and whether it may or must be there
            already; as in `tv.start`.

    Raises:
        UsageError: an argument that cannot be used, `resume` forbids it, or another job is writing this rank of the
            run. Nothing is raised after attach.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
    if is_tapped(model):
        raise UsageError("This model has a tap already. Close that one first: tap.close().")
    path = run_folder(run, id)
    for argument, value in (("total_steps", total_steps), ("start_step", start_step)):
        if value is not None and not isinstance(value, int):
            raise UsageError(f"{argument} must be a number of steps, not {value!r}.")
    total_steps = total_steps if total_steps and total_steps > 0 else None
    optimizers = [_unwrapped(o) for o in (optimizer if isinstance(optimizer, Sequence) else [optimizer])]
    groups = [group for o in optimizers for group in o.param_groups]
    _check_parameters(model, groups)
    cadences = _cadences(collectors or {})
    plans = find_plans(lr_plan, scheduler, len(groups))
    rank, world_size = process_rank()
    card = RunCard(
        name=Path(path).name, created=time.time(), domains=_shares(domains),
        domain_tokens=_domain_tokens(domain_tokens or {}, _shares(domains)),
        optimizer=", ".join(type(o).__name__ for o in optimizers), total_steps=total_steps,
        lr_plan=plan_for_card(lr_plan, plans, total_steps), world_size=world_size, collectors=cadences,
        tokenizer=_tokenizer_name(tokenizer), versions=model_facts.versions(),
        git_commit=within(GUARD_SECONDS, model_facts.git_commit) or "")
    _describe_machine(card, groups, peak_flops)
    model_facts.describe(card, core_of(model))
    hidden = describe(card, name=name, config=config, tags=tags, notes=notes, group=group)
    start_step = _steps_done(optimizers, scheduler) if start_step is None else start_step
    writer, held = _writer(path, card, name, rank, start_step, resume)
    tap = Tap(writer, Plans(model=model, optimizers=optimizers, card=card, lr=plans, tokenizer=tokenizer,
                            cadences=cadences, scheduler=scheduler,
                            start_step=start_step))
    tap.began_after = start_step - 1 if held and start_step > 0 else None  # at start_step itself an evaluation may be
    tap.say_hidden(hidden)
    return tap


def _writer(path: str, card: RunCard, name: str | None, rank: int, start_step: int, resume: Resume
            ) -> tuple[RunWriter, bool]:
    """This process's writer in the run folder, and whether the run had rows before.

    It is the writer that the process has there already, say of a mirror, or one of the tap's own.
    """
    writer = writer_here(path, rank)
    if writer is None:
        before = look(path, resume, rank, card.world_size, rows=False)
        keep_said(card, before.card)
        return (RunWriter(path, rank=rank, world_size=card.world_size, start_step=start_step),
                before.exists is not False)
    here = [logger for logger in open_loggers() if logger.writer is writer]
    if any(logger.follows_training for logger in here):
        raise UsageError(f"{path} has a tap of this process already. Close that one first, or give this model a run "
                         "folder of its own.")
    for logger in here:
        keep_said(card, logger.card)
        card.name = logger.card.name if name is None else card.name
        logger.card = card
    held = any(logger.began_after is not None for logger in here)
    if start_step < writer.start_step:
        writer.rewind(start_step)
    for logger in here:
        logger.began_after = start_step - 1 if held and start_step > 0 else None
    return writer, held


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside Accelerate's."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer must be a torch.optim.Optimizer or a list of them, not "
                         f"{type(optimizer).__name__}.")
    return optimizer


def _check_parameters(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    held = {id(p) for group in groups for p in group["params"]}
    if not any(id(p) in held for p in model.parameters()):
        raise UsageError("The optimizer holds no parameter of this model. Attach after wrapping and moving the model, "
                         "with the optimizer that was made from it.")


def _cadences(given: Mapping[str, int]) -> dict[str, int]:
    if not isinstance(given, Mapping):
        raise UsageError(f"collectors must map names to steps, such as {{'update': 0}}, not {given!r}.")
    unknown = sorted(set(given) - set(CADENCES))
    if unknown:
        raise UsageError(f"Unknown collector {unknown[0]!r}. There are {', '.join(CADENCES)}.")
    wrong = [name for name, every in given.items() if not isinstance(every, int) or every < 0]
    if wrong:
        raise UsageError(f"The cadence of {wrong[0]!r} must be a number of steps, or 0 for off, not "
                         f"{given[wrong[0]]!r}.")
    return CADENCES | {name: int(every) for name, every in given.items()}


def _shares(domains: Domains | None) -> dict[str, float | None]:
    if domains is None:
        return {}
    if isinstance(domains, str):
        raise UsageError(f"domains must be several names, or shares by name, not the one string {domains!r}.")
    shares = dict(domains) if isinstance(domains, Mapping) else dict.fromkeys(domains)
    if len(shares) != len(domains) or UNATTRIBUTED in shares:
        raise UsageError(f"domains must be distinct names, and none of them {UNATTRIBUTED!r}.")
    if not all(isinstance(name, str) and name.strip() for name in shares):
        raise UsageError("Every domain needs a name that is not empty.")
    given = [share for share in shares.values() if share is not None]
    if not all(isinstance(share, (int, float)) and share == share for share in given):
        raise UsageError(f"Planned shares must be numbers, not {given!r}.")
    if given and (min(given) < 0 or abs(sum(given) - 1) > SHARES_TOLERANCE):
        raise UsageError(f"Planned shares of the domains sum to {sum(given):g}, not to 1. Give shares of input tokens, "
                         "or only the names.")
    return shares


def _domain_tokens(given: Mapping[str, int], shares: Mapping[str, Any]) -> dict[str, int]:
    unknown = sorted(set(given) - set(shares))
    if unknown:
        raise UsageError(f"domain_tokens names {unknown[0]!r}, which is not among the domains {list(shares)}.")
    return dict(given)


def _steps_done(optimizers: list[torch.optim.Optimizer], scheduler: Any) -> int:
    counted = steps_done(optimizers)
    if counted is not None:
        return counted
    return max(0, int(getattr(getattr(scheduler, "scheduler", scheduler), "last_epoch", 0) or 0))


def _describe_machine(card: RunCard, groups: list[dict[str, Any]], peak_flops: float | None) -> None:
    if peak_flops is not None and not peak_flops > 0:
        raise UsageError(f"peak_flops must be a positive number of FLOP/s, not {peak_flops!r}.")
    parameter = groups[0]["params"][0]
    card.hardware = hardware.device_name(parameter.device)
    card.peak_flops_per_device = peak_flops or hardware.peak_flops(card.hardware)
    card.mfu_convention = model_facts.MFU_CONVENTION
    card.precision = str(parameter.dtype).removeprefix("torch.")


def _tokenizer_name(tokenizer: Any) -> str:
    return "" if tokenizer is None else getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
