"""The run card: what a reader must know about a run that is not a time series (`run.json`)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from trainvitals.errors import RunDamaged
from trainvitals.sealed import opened, seal
from trainvitals.untrusted import shown

FORMAT_VERSION = 1
MOST_COUNT = 2**63
"""Whole numbers of a card are smaller, in either direction."""
UNATTRIBUTED = "unattributed"
"""Label of tokens that came without a domain, or with an id outside the plan; always the last domain label."""


@dataclass(kw_only=True, slots=True)
class RunCard:
    """Facts of a run. Every field has a value that means "unknown", so that an imported run may know little."""

    format: int = FORMAT_VERSION
    name: str = ""
    created: float = 0.0
    """Unix time, seconds."""
    model: str = ""
    params_total: int | None = None
    params_active: int | None = None
    """Parameters that one token passes through (top-k of the experts); equal to the total in a dense model."""
    params_embedding: int | None = None
    """Token and position embeddings; an output head counts only where it shares their weights."""
    layers: int | None = None
    experts: int | None = None
    top_k: int | None = None
    context: int | None = None
    """Tokens per sequence that the model is built for."""
    vocab_size: int | None = None
    tokenizer: str = ""
    domains: dict[str, float | None] = field(default_factory=dict)
    """Planned share of input tokens per domain, in the order of their ids; None where only the name is known."""
    domain_tokens: dict[str, int] = field(default_factory=dict)
    """Unique tokens that each domain holds, where known."""
    optimizer: str = ""
    lr_plan: dict[str, Any] = field(default_factory=dict)
    """`trainvitals.schedules.Plan` as JSON; empty where no plan is known."""
    total_steps: int | None = None
    precision: str = ""
    hardware: str = "unknown"
    world_size: int = 1
    peak_flops_per_device: float | None = None
    flops_per_token: float | None = None
    """Training FLOP per token, forward and backward."""
    mfu_convention: str = ""
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    collectors: dict[str, int] = field(default_factory=dict)
    """Collectors that were attached, and every how many steps each one writes."""
    config: dict[str, Any] = field(default_factory=dict)
    """The job's own settings (`trainvitals.config`); shown, never interpreted."""
    tags: list[str] = field(default_factory=list)
    group: str = ""
    """What the run belongs to: a sweep, or the training that an evaluation is of."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything else; shown, never interpreted. `notes` and `summary` are the user's."""

    @property
    def domain_labels(self) -> list[str]:
        """Labels of the domain axis: the planned domains, then `unattributed`."""
        return [*self.domains, UNATTRIBUTED]

    def to_json(self) -> str:
        """The card as JSON with its checksum (`trainvitals.sealed`)."""
        return json.dumps(seal(asdict(self)), indent=2)


def read_card(data: bytes | str, where: str) -> tuple[RunCard, list[str]]:
    """A card, and what is wrong with it: a field of a wrong type is read as unknown, the others stay.

    Raises:
        RunDamaged: this is no card at all, or was written by a newer store format.
    """
    try:
        raw, state = opened(data)
    except ValueError as error:
        raise RunDamaged(f"{where} is not a run card ({error}). Restore it, or delete it to read the run without one."
                         ) from error
    if state == "broken":
        wrong = ["was edited or damaged: it does not match its checksum; what it says is shown as it is"]
    else:
        wrong = [] if state == "whole" else ["has no checksum (written by hand or by an older version): it cannot be "
                                             "verified"]
    types = get_type_hints(RunCard)
    known = {f.name for f in fields(RunCard)}
    misfits = [name for name in known & raw.keys() if not _fits(raw[name], types[name])]
    card = RunCard(**{k: v for k, v in raw.items() if k in known and k not in misfits})
    if card.format > FORMAT_VERSION:
        raise RunDamaged(f"{where} has store format {card.format}, this version reads up to {FORMAT_VERSION}. "
                         "Upgrade trainvitals.")
    card.notes |= {k: v for k, v in raw.items() if k not in known}
    return card, [*(f"has {shown(raw[name])} as {name}, not {_words(types[name])}: it is taken as unknown"
                    for name in sorted(misfits)), *wrong]


def fits(name: str, value: Any) -> bool:
    """Whether a card has a field of this name, and it takes this value."""
    kind = get_type_hints(RunCard).get(name)
    return kind is not None and _fits(value, kind)


def _words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's declared type."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(kind)[1]) for item in value.values())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):
        right = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        return right and math.isfinite(value) and abs(value) < (MOST_COUNT if kind is int else math.inf)
    return isinstance(value, kind)
