"""The run card: what a reader must know about a run that is not a time series (`run.json`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from trainvitals.errors import RunDamaged
from trainvitals.untrusted import parse_json

FORMAT_VERSION = 1
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
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything else; shown, never interpreted."""

    @property
    def domain_labels(self) -> list[str]:
        """Labels of the domain axis: the planned domains, then `unattributed`."""
        return [*self.domains, UNATTRIBUTED]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, where: str) -> RunCard:
        """Parse a card; keys of newer versions are kept under `notes`.

        Raises:
            RunDamaged: the text is not a card, or was written by a newer store format.
        """
        try:
            raw = parse_json(text)
            types = get_type_hints(cls)
            known = {f.name for f in fields(cls)}
            wrong = [name for name in known & raw.keys() if not _fits(raw[name], types[name])]
            if wrong:
                raise ValueError(f"{wrong[0]} must be {types[wrong[0]]}")
            card = cls(**{k: v for k, v in raw.items() if k in known})
        except (ValueError, TypeError, AttributeError) as error:
            raise RunDamaged(f"{where} is not a run card ({error}). Restore it, or delete it to read the run "
                             "without one.") from error
        if card.format > FORMAT_VERSION:
            raise RunDamaged(f"{where} has store format {card.format}, this version reads up to {FORMAT_VERSION}. "
                             "Upgrade trainvitals.")
        card.notes |= {k: v for k, v in raw.items() if k not in known}
        return card


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's declared type."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(kind)[1]) for item in value.values())
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)
