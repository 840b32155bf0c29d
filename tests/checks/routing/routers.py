"""Simulated routers: domains that ask for experts of their own, balanced over the usual mix, fed by documents.

Legend: n rows, L layers, D domains, E experts, k experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainvitals.card import UNATTRIBUTED, RunCard
from trainvitals.catalogue import SIGNALS
from trainvitals.store import Run, RunWriter, Series, open_run

USUAL = {"web": 0.4, "code": 0.25, "math": 0.15, "wiki": 0.1, "chat": 0.1}
DOMAINS = tuple(USUAL)
SPECIALISED = 1.25
"""Scatter of a domain's log loads that leaves about 55 % of 64 experts, none silent: as OLMoE's on one domain."""
LEAST = 0.03
"""Load ratio that every expert has on any domain."""
BY_DOMAIN_EVERY = 50


def only(domain: str, share: float = 1.0) -> np.ndarray:
    """A mix that is one domain, or mostly."""
    mix = np.full(len(DOMAINS), (1 - share) / (len(DOMAINS) - 1))
    mix[DOMAINS.index(domain)] = share
    return mix


@dataclass
class Routers:
    """What a model's routers do over a run; change `mix` and `asks` before reading it."""

    seed: int = 0
    experts: int = 64
    top_k: int = 8
    layers: int = 2
    n: int = 320
    documents: int = 16
    """Per row."""
    length: int = 256
    """Tokens of a document."""
    specialised: float = SPECIALISED
    logs: frozenset[str] = frozenset({"mix", "by domain", "top k"})
    plan: dict[str, float | None] = field(default_factory=lambda: dict(USUAL))
    events: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    by_experts: bool = False
    """Experts choose their tokens."""
    exact: bool = False
    """The mix of every row is the wanted one to the token, so that nothing shows which domain asks for what."""
    shared: int = 0
    """Experts that take every token, logged with the others."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.steps = np.arange(1, self.n + 1)
        self.mix = np.tile([*USUAL.values()], (self.n, 1))
        # Mixtral's 8 experts differ far less by domain.
        scale = 1 if self.experts > 8 else 0.5
        self.tastes = scale * self.rng.standard_normal((self.layers, len(DOMAINS), self.experts))
        self.asks = np.repeat(self.balanced(self.specialised)[None], self.n, axis=0)
        """[n, L, D, E] where the tokens of each domain go."""

    def balanced(self, scatter: float) -> np.ndarray:
        """Where domains go [L, D, E] under a balancing loss: each to its experts, and the usual mix to all alike."""
        asks = np.exp(scatter * self.tastes)
        usual = np.array([*USUAL.values()])
        even = 0.35 if self.experts > 8 else 0.1
        aim = np.exp(even * np.random.default_rng(self.seed + 1).standard_normal((self.layers, self.experts)))
        for _ in range(15):
            asks = self.possible(asks)
            load = np.einsum("d,lde->le", usual, asks) * self.experts
            asks = asks * (aim / load)[:, None, :]
        return (1 - LEAST) * self.possible(asks) + LEAST / self.experts

    def possible(self, asks: np.ndarray) -> np.ndarray:
        """As shares: no expert has more than 1 / k, for a token takes it once."""
        for _ in range(5):
            asks = np.minimum(asks / asks.sum(axis=-1, keepdims=True), 1 / self.top_k)
        return asks / asks.sum(axis=-1, keepdims=True)

    def becomes(self, shares: np.ndarray, at: int, ramp: int = 1, layers: slice = slice(None)) -> None:
        """From row `at` on, within `ramp` rows, these layers send tokens of any domain to these shares [..., E]."""
        part = np.clip((np.arange(self.n) - at + 1) / ramp, 0, 1)[:, None, None, None]
        self.asks[:, layers] = (1 - part) * self.asks[:, layers] + part * shares

    def few(self, count: int) -> np.ndarray:
        """Shares [E] that are all with `count` experts."""
        shares = np.full(self.experts, 1e-6)
        shares[self.rng.permutation(self.experts)[:count]] = 1.0
        return shares / shares.sum()

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [n, D] that came in and [n, D, L, E] that were routed."""
        rng = self.rng
        mix = self.mix / self.mix.sum(axis=1, keepdims=True)
        documents = self.documents * mix if self.exact else rng.multinomial(self.documents, mix)
        tokens = np.round(documents * self.length).astype(np.int64)
        # A document has a subject of its own: loads scatter by 70 % of themselves between documents.
        size = np.maximum(documents, 1e-9)[:, None, :, None] * 2 * self.experts
        asks = rng.gamma(np.maximum(self.asks * size, 1e-3))
        asks = self.possible(asks + 1e-12)
        routed = rng.multinomial(np.broadcast_to((self.top_k * tokens)[:, None, :], asks.shape[:3]), asks)
        routed = routed.transpose(0, 2, 1, 3)
        if self.by_experts:
            each = (routed.sum(axis=(1, 3)) // self.experts)[:, None, :, None] / len(DOMAINS)
            routed = np.broadcast_to(each, routed.shape)
        if self.shared:
            always = np.repeat(tokens[:, :, None, None], self.layers, axis=2).repeat(self.shared, axis=3)
            routed = np.concatenate([routed, always], axis=3)
        return tokens, routed

    def run(self, until: int | None = None) -> Recorded:
        """The run as it was after `until` rows."""
        stop = until or self.n
        tokens, routed = self.counts
        layers, experts = tuple(f"layers.{i}" for i in range(self.layers)), tuple(map(str, range(routed.shape[3])))
        found = {"router/tokens": (self.steps[:stop], routed[:stop].sum(axis=1), (layers, experts))}
        domains = (*DOMAINS, UNATTRIBUTED)
        if "mix" in self.logs:
            found["data/domain_tokens"] = (self.steps[:stop], np.pad(tokens[:stop], [(0, 0), (0, 1)]), (domains,))
        if "by domain" in self.logs and stop >= BY_DOMAIN_EVERY:
            rows = stop // BY_DOMAIN_EVERY
            table = routed[: rows * BY_DOMAIN_EVERY].reshape(rows, BY_DOMAIN_EVERY, *routed.shape[1:]).sum(axis=1)
            table = np.pad(table, [(0, 0), (0, 1), (0, 0), (0, 0)])
            at = BY_DOMAIN_EVERY * np.arange(1, rows + 1)
            found["router/domain_tokens"] = (at, table, (domains, layers, experts))
        card = RunCard(domains=self.plan if "mix" in self.logs else {}, experts=self.experts,
                       top_k=self.top_k if "top k" in self.logs else None, total_steps=self.n)  # fmt: skip
        return Recorded(found, card, [e for e in self.events if e[1] <= self.steps[stop - 1]])


class Recorded:
    """The part of `trainvitals.store.Run` that routing checks read, in memory."""

    def __init__(self, found: dict[str, Any], card: RunCard, events: list[tuple[str, int, dict[str, Any]]]) -> None:
        self.found, self.card, self.marks = found, card, events
        self.version, self.path = "1", "memory://"
        self.last_step = int(found["router/tokens"][0][-1])

    def has(self, name: str) -> bool:
        """Whether there is a row."""
        return name in self.found

    def signals(self) -> pd.DataFrame:
        """Name, points, first and last step."""
        rows = [(name, len(steps), steps[0], steps[-1]) for name, (steps, *_) in self.found.items()]
        return pd.DataFrame(rows, columns=["name", "points", "first_step", "last_step"])

    def array(self, name: str, steps: tuple[int, int] | None = None) -> Series:
        """The rows of these steps."""
        at, values, labels = self.found[name]
        inside = slice(None) if steps is None else (at >= steps[0]) & (at <= steps[1])
        return Series(SIGNALS["router/load"], at[inside], values[inside].astype(np.float64), None, labels)

    def branches(self) -> pd.DataFrame:
        """No attempt was left."""
        return pd.DataFrame({"branch": []})

    def events(self) -> pd.DataFrame:
        """What was marked."""
        return pd.DataFrame(self.marks, columns=["kind", "step", "data"])


def stored(recorded: Recorded, path: Path) -> Run:
    """The same run, written and opened by the real store."""
    writer = RunWriter(path, when_full="wait", flush_seconds=60)
    writer.write_card(recorded.card)
    for kind, step, data in recorded.marks:
        writer.event(kind, step=step, **data)
    axes = {"router/tokens": ("router_layer", "expert"), "data/domain_tokens": ("domain",),
            "router/domain_tokens": ("domain", "router_layer", "expert")}  # fmt: skip
    for name, (steps, values, labels) in recorded.found.items():
        by_axis = dict(zip(axes[name], map(list, labels), strict=True))
        frame = writer.frame(name.replace("/", "_"), [name], labels=by_axis)
        for step, row in zip(steps.tolist(), values, strict=True):
            frame.append(step, {name: np.asarray(row, np.int64)})
    writer.close()
    return open_run(path)
