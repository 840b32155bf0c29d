"""Synthetic runs with the noise of real ones, to plant faults in. Written through the real store.

Legend: n steps, D domains, L layers, E experts, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainvitals import card as cards
from trainvitals.schedules import Plan
from trainvitals.store import Run, RunWriter, open_run

PLAN = {"web": 0.5, "code": 0.25, "math": 0.15, "wiki": 0.1}
DOMAINS = [*PLAN, cards.UNATTRIBUTED]
LAYERS = ["embed", *(f"layers.{i}" for i in range(6)), "head"]
SEQUENCES, TOKENS, VOCABULARY, WINDOW = 16, 128, 500, 25


@dataclass
class Synthetic:
    """A healthy run as arrays; change them before `write`."""

    n: int = 600
    seed: int = 0
    experts: int = 8
    top_k: int = 2
    peak_lr: float = 3e-4
    warmup: int = 30
    moe_layers: int = 3
    events: list[tuple[str, int]] = field(default_factory=list)
    ranks: int = 1

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        n, rng = self.n, self.rng
        self.steps = np.arange(1, n + 1)
        self.plan = Plan(
            kind="cosine", peak=self.peak_lr, final=self.peak_lr / 10, warmup_steps=self.warmup, total_steps=n
        )
        self.lr = self.plan.at(self.steps)
        self.popularity = rng.dirichlet(np.full(self.experts, 12.0), (len(PLAN), self.moe_layers))
        self.zipf = np.stack([self._zipf() for _ in PLAN])
        self.mix = np.tile([*PLAN.values()], (n, 1))
        self.unattributed = np.zeros(n)
        # Decay, batch noise, and a few unusual batches: losses have a heavy right tail.
        self.loss = (2.6 + 6.5 * (1 + self.steps / 8) ** -0.6) * (1 + 0.012 * rng.standard_t(6, n))
        drift = np.zeros((n, len(LAYERS)))
        for t in range(1, n):
            drift[t] = 0.9 * drift[t - 1] + 0.05 * rng.standard_normal(len(LAYERS))
        self.grad = np.exp(drift + 0.08 * rng.standard_t(5, (n, 1)) + 0.05 * rng.standard_normal((n, len(LAYERS))))
        self.grad *= (1 + 8 * np.exp(-self.steps / 20))[:, None] * np.linspace(0.2, 0.5, len(LAYERS))
        self.step_time = 0.2 * np.exp(0.04 * rng.standard_normal(n)) * (1 + 0.5 * (rng.random(n) < 0.02))
        self.step_time[0] = 3.0
        self.rank_slow = np.ones((n, self.ranks))
        self.data_wait = 0.02 * self.step_time * rng.gamma(2, 0.5, n)
        self.router_shift: np.ndarray | None = None
        """[n, moe_layers, E] replaces the popularity where not NaN"""
        self.zipf_by_step: list[tuple[int, np.ndarray]] = [(1, self.zipf)]
        there = {"parameters": 1000, "gradients": 1000, "forwards": 1, "routers": self.moe_layers}
        seen = {"parameters_held": 1000, "gradients_seen": 1000, "losses_seen": 1, "routers_read": self.moe_layers}
        self.coverage = {name: np.full(n, count) for name, count in {**there, **seen}.items()}
        """What there was to see of each step, and what of it was seen."""

    def _zipf(self) -> np.ndarray:
        p = 1 / np.arange(1, VOCABULARY + 1) ** 1.05
        return self.rng.permutation(p / p.sum())

    def other_text(self, step: int, domain: int, share: float) -> None:
        """From `step` on, a share of one domain's tokens comes from another distribution."""
        new = self.zipf.copy()
        new[domain] = (1 - share) * new[domain] + share * self._zipf()
        self.zipf_by_step.append((step, new))

    def router(self, layer: int, start: int, shares: np.ndarray, end: int | None = None) -> None:
        """From `start` to `end`, a layer's tokens go to experts in these shares."""
        if self.router_shift is None:
            self.router_shift = np.full((self.n, self.moe_layers, self.experts), np.nan)
        self.router_shift[start - 1 : end, layer] = shares

    def card(self) -> cards.RunCard:
        """The run card of this run."""
        return cards.RunCard(
            name="synthetic",
            domains=dict(PLAN),
            experts=self.experts,
            top_k=self.top_k,
            total_steps=self.n,
            lr_plan=self.plan.to_json(),
            precision="bf16",
            world_size=self.ranks,
        )

    def write(self, path: Path) -> Run:
        """Store and open it."""
        writers = [
            RunWriter(path, rank=r, world_size=self.ranks, when_full="wait", flush_seconds=60)
            for r in range(self.ranks)
        ]
        writers[0].write_card(self.card())
        for kind, step in self.events:
            writers[0].event(kind, step=step)
        tokens = self._rows(writers[0])
        for r, writer in enumerate(writers):
            frame = writer.frame("throughput", ["throughput/step_time", "throughput/data_wait", "throughput/tokens"])
            for i, step in enumerate(self.steps):
                frame.append(
                    int(step),
                    {
                        "throughput/step_time": self.step_time[i] * self.rank_slow[i, r],
                        "throughput/data_wait": self.data_wait[i],
                        "throughput/tokens": tokens[i].sum() / self.ranks,
                    },
                )
        for writer in writers:
            writer.close()
        return open_run(path)

    def _rows(self, w: RunWriter) -> np.ndarray:
        loss = w.frame("loss", ["loss/sum", "loss/tokens"])
        grad = w.frame("grad", ["grad/sumsq", "grad/sumsq_by_layer"], labels={"layer": LAYERS})
        rate = w.frame("lr", ["lr/used", "lr/planned"], labels={"group": ["0"]})
        router = w.frame(
            "router",
            ["router/tokens"],
            labels={
                "router_layer": [f"layers.{i}" for i in range(self.moe_layers)],
                "expert": [str(e) for e in range(self.experts)],
            },
        )
        data = w.frame("data", ["data/domain_tokens"], labels={"domain": DOMAINS})
        text = w.frame(
            "tokens",
            ["tokens/counts"],
            labels={"domain": DOMAINS, "token": [str(v) for v in range(VOCABULARY)]},
        )
        if self.coverage:
            coverage = w.frame("coverage", [f"coverage/{name}" for name in self.coverage])
            for i, step in enumerate(self.steps.tolist()):
                coverage.append(step, {f"coverage/{name}": int(counts[i]) for name, counts in self.coverage.items()})
        rng, all_tokens = self.rng, []
        pending = np.zeros((len(DOMAINS), VOCABULARY), np.int64)
        for i, step in enumerate(self.steps.tolist()):
            sequences = rng.multinomial(SEQUENCES, self.mix[i])
            tokens = np.array([*(sequences * TOKENS), 0])
            lost = rng.binomial(int(tokens.sum()), self.unattributed[i])
            tokens[:-1] -= (tokens[:-1] * lost / max(tokens.sum(), 1)).astype(int)
            tokens[-1] = SEQUENCES * TOKENS - tokens[:-1].sum()
            all_tokens.append(tokens)
            loss.append(step, {"loss/sum": self.loss[i] * 1000, "loss/tokens": 1000})
            grad.append(step, {"grad/sumsq": (self.grad[i] ** 2).sum(), "grad/sumsq_by_layer": self.grad[i] ** 2})
            rate.append(step, {"lr/used": [self.lr[i]], "lr/planned": [float(self.plan.at(step))]})
            data.append(step, {"data/domain_tokens": tokens})
            router.append(step, {"router/tokens": self._routed(i, tokens[:-1])})
            zipf = [z for start, z in self.zipf_by_step if start <= step][-1]
            for d in range(len(PLAN)):
                pending[d] += rng.multinomial(20 * tokens[d], zipf[d])
            if step % WINDOW == 0:
                text.append(step, {"tokens/counts": pending})
                pending[:] = 0
        return np.array(all_tokens)

    def _routed(self, i: int, tokens: np.ndarray) -> np.ndarray:
        counts = np.zeros((self.moe_layers, self.experts), np.int64)
        for layer in range(self.moe_layers):
            p = tokens @ self.popularity[:, layer] / max(tokens.sum(), 1)
            if self.router_shift is not None and np.isfinite(self.router_shift[i, layer, 0]):
                p = self.router_shift[i, layer]
            counts[layer] = self.rng.multinomial(self.top_k * int(tokens.sum()), p / p.sum())
        return counts
