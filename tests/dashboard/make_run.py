"""A run folder that looks like a real one, written through the real writer: for tests, screenshots and soaks.

    python -m tests.dashboard.make_run RUNS [--live]

The loss falls by a power law per domain. With `fault="lr"` the learning rate is four times its plan from 62 % of the
run on; gradients grow, the loss spikes, one router layer collapses and a NaN passes by. With `fault="mix"` the code
domain leaves the mix.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainvitals.card import RunCard
from trainvitals.schedules import Plan
from trainvitals.store import RunWriter

DOMAINS = {"web": 0.5, "code": 0.2, "math": 0.1, "wiki": 0.12, "books": 0.08}
LAYERS, EXPERTS, VOCABULARY, TOKENS = 4, 8, 256, 8192
SCRIPTS = ("Latin", "Cyrillic", "Han", "Other")

HOSTILE = (
    "<script>window.__xss=1</script>",
    '<img src=x onerror="window.__xss=2">',
    "[click](javascript:window.__xss=3) ![i](https://evil.example/p.png)",
    "$\\href{javascript:window.__xss=4}{x}$ :tada: :material/home: :red[red] -> www.evil.example a@b.example",
    "**bold** `code` | # heading " + "long " * 80,
)


@dataclass
class Maker:
    """Writes one run step by step, so that a test can append while a board looks on."""

    path: Path
    total_steps: int = 2000
    fault: str = "lr"
    seed: int = 0
    domains: dict[str, float | None] = field(default_factory=lambda: dict(DOMAINS))
    layer_names: tuple[str, ...] = tuple(f"layers.{i}" for i in range(LAYERS))
    name: str = ""
    peak_flops: float | None = None
    flush_seconds: float = 0.5
    step: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.plan = Plan(
            kind="cosine", peak=3e-4, final=3e-5, warmup_steps=self.total_steps // 20, total_steps=self.total_steps
        )
        self.writer = RunWriter(self.path, world_size=1, flush_seconds=self.flush_seconds, when_full="wait")
        self.writer.write_card(self.card())
        labels = {
            "domain": [*self.domains, "unattributed"],
            "layer": ["embed", *self.layer_names, "head"],
            "group": ["decay"],
            "router_layer": list(self.layer_names),
            "expert": [str(i) for i in range(EXPERTS)],
            "token": [str(i) for i in range(VOCABULARY)],
            "script": list(SCRIPTS),
        }
        fields = {
            "loss": [
                "loss/sum",
                "loss/tokens",
                "loss/nonfinite_tokens",
                "loss/domain_sum",
                "loss/domain_tokens",
                "loss/aux_sum",
                "loss/forwards",
            ],
            "eval": ["loss/val_sum", "loss/val_tokens", "loss/val_domain_sum", "loss/val_domain_tokens"],
            "grad": ["grad/sumsq", "grad/sumsq_by_layer", "grad/clipped_sumsq", "grad/nonfinite"],
            "lr": ["lr/used", "lr/planned"],
            "update": ["weight/sumsq_by_layer", "update/sumsq_by_layer"],
            "router": ["router/tokens"],
            "router_domain": ["router/domain_tokens"],
            "data": ["data/domain_tokens", "data/padding_tokens", "data/sequences", "data/documents"],
            "tokens": ["tokens/counts", "tokens/seen", "tokens/bytes", "tokens/script_bytes"],
            "throughput": ["throughput/step_time", "throughput/data_wait", "throughput/tokens"],
            "system": ["system/rss_bytes"],
        }
        self.frames = {name: self.writer.frame(name, wanted, labels=labels) for name, wanted in fields.items()}
        self.base = self.random.normal(0, 0.05, (LAYERS, EXPERTS))
        zipf = 1 / np.arange(1, VOCABULARY + 1)
        self.vocabulary = np.stack([np.roll(zipf, 7 * d) for d in range(len(self.domains) + 1)])
        self.vocabulary /= self.vocabulary.sum(axis=1, keepdims=True)

    def card(self) -> RunCard:
        """The run card that goes with the series."""
        return RunCard(
            name=self.name,
            created=time.time(),
            model="OlmoeForCausalLM",
            params_total=3_145_728,
            params_active=1_310_720,
            params_embedding=524_288,
            layers=LAYERS,
            experts=EXPERTS,
            top_k=2,
            context=512,
            vocab_size=VOCABULARY,
            tokenizer="bytes",
            domains=self.domains,
            domain_tokens={name: 2_000_000 + 1_500_000 * i for i, name in enumerate(self.domains)},
            optimizer="AdamW",
            lr_plan=self.plan.to_json(),
            total_steps=self.total_steps,
            precision="bfloat16",
            hardware="2 cores of a shared machine" if self.peak_flops is None else "NVIDIA H100 SXM",
            peak_flops_per_device=self.peak_flops,
            flops_per_token=6 * 1_310_720.0,
            mfu_convention="6 x active parameters + attention, PaLM appendix B",
            git_commit="0123abc",
            collectors={
                "loss": 1,
                "grad": 1,
                "lr": 1,
                "update": 10,
                "router": 10,
                "data": 1,
                "tokens": 50,
                "throughput": 1,
                "system": 20,
            },
        )

    @property
    def fault_step(self) -> int:
        return int(self.total_steps * 0.62)

    def run_to(self, step: int) -> None:
        """Write every step up to this one."""
        while self.step < step:
            self.step += 1
            self._write(self.step)

    def close(self) -> None:
        self.writer.close()

    def _write(self, step: int) -> None:
        sick = self.fault == "lr" and self.fault_step <= step < self.fault_step + self.total_steps // 10
        since = (step - self.fault_step) / (self.total_steps / 10) if sick else 0.0
        self._write_data(step)
        self._write_loss(step, since)
        self._write_optimizer(step, since, sick)
        if step % 10 == 0:
            self._write_router(step, since)
        if step % 50 == 0:
            self._write_tokens(step)
        for fraction, kind, text in (
            (0.05, "warmup_end", "warm-up of the learning rate ended"),
            (0.3, "checkpoint", "saved to checkpoints/step-30"),
            (0.5, "stage", "data stage 2: more mathematics"),
            (0.8, "checkpoint", "saved to checkpoints/step-80"),
        ):
            if step == int(self.total_steps * fraction):
                self.writer.event(kind, step=step, message=text)

    def _mix(self, step: int) -> np.ndarray:
        mix = np.array([*[share or 0.1 for share in self.domains.values()], 0.0])
        if self.fault == "mix" and step >= self.fault_step:
            mix[0], mix[1] = mix[0] + 0.9 * mix[1], 0.1 * mix[1]
        return mix / mix.sum()

    def _write_data(self, step: int) -> None:
        self.tokens = self.random.multinomial(TOKENS, self._mix(step))
        self.frames["data"].append(
            step,
            {
                "data/domain_tokens": self.tokens,
                "data/padding_tokens": float(self.random.poisson(120)),
                "data/sequences": 16,
                "data/documents": 40 + int(self.random.integers(0, 8)),
            },
        )

    def _write_loss(self, step: int, since: float) -> None:
        count = len(self.tokens)
        level = 2.1 + 0.35 * np.arange(count)[::-1] / count
        losses = level + 6.0 * (step + 15) ** -0.36 + self.random.normal(0, 0.02, count)
        losses += 2.4 * since * np.exp(-1.6 * since) * (1 + 0.5 * (np.arange(count) == 1))
        sums = losses * self.tokens
        bad = self.fault == "lr" and step == self.fault_step + self.total_steps // 25
        if bad:
            sums[1] = np.nan
        self.frames["loss"].append(
            step,
            {
                "loss/sum": float(sums.sum()),
                "loss/tokens": float(self.tokens.sum()),
                "loss/nonfinite_tokens": 12.0 if bad else 0.0,
                "loss/domain_sum": sums,
                "loss/domain_tokens": self.tokens,
                "loss/aux_sum": 1.02 + 0.4 * since,
                "loss/forwards": 1,
            },
        )
        if step % max(self.total_steps // 20, 1) == 0:
            held = np.where(self.tokens > 0, 4096, 0)
            val = (losses + 0.04 + 0.03 * step / self.total_steps) * held
            self.frames["eval"].append(
                step,
                {
                    "loss/val_sum": float(val.sum()),
                    "loss/val_tokens": float(held.sum()),
                    "loss/val_domain_sum": val,
                    "loss/val_domain_tokens": held,
                },
            )

    def _write_optimizer(self, step: int, since: float, sick: bool) -> None:
        rate = float(self.plan.at([step])[0])
        depth = np.linspace(1.3, 0.7, len(self.layer_names) + 2)
        norms = depth * (0.35 + 2.2 * (step + 10) ** -0.5) * np.exp(self.random.normal(0, 0.08, depth.size))
        norms[2] *= 1 + 9 * since * np.exp(-since)
        norms *= 1 + 2 * since * np.exp(-since)
        total = float(np.sqrt((norms**2).sum()))
        self.frames["grad"].append(
            step,
            {
                "grad/sumsq": total**2,
                "grad/sumsq_by_layer": norms**2,
                "grad/clipped_sumsq": min(total, 1.0) ** 2,
                "grad/nonfinite": 0,
            },
        )
        self.frames["lr"].append(
            step, {"lr/used": np.array([rate * (4 if sick else 1)]), "lr/planned": np.array([rate])}
        )
        if step % 10 == 0:
            weights = 20 + 4 * depth
            ratio = rate * (4 if sick else 1) * 2.2 * np.exp(self.random.normal(0, 0.05, depth.size))
            self.frames["update"].append(
                step, {"weight/sumsq_by_layer": weights**2, "update/sumsq_by_layer": (weights * ratio) ** 2}
            )
        slow = 1.0 + (0.6 if 0.4 < step / self.total_steps < 0.43 else 0.0)
        self.frames["throughput"].append(
            step,
            {
                "throughput/step_time": 0.21 * slow + abs(float(self.random.normal(0, 0.006))),
                "throughput/data_wait": 0.012 + (0.1 if slow > 1 else 0.0),
                "throughput/tokens": float(self.tokens.sum()),
            },
        )
        if step % 20 == 0:
            self.frames["system"].append(step, {"system/rss_bytes": 1.2e9 + 2e4 * step})

    def _write_router(self, step: int, since: float) -> None:
        skew = self.base.copy()
        skew[2, 3] += 3.2 * min(3 * since, 1.0)
        count = len(self.tokens)
        taste = np.sin(np.arange(count)[:, None, None] * 1.7 + np.arange(EXPERTS) + np.arange(LAYERS)[:, None]) * 0.5
        load = np.exp(skew + taste + self.random.normal(0, 0.03, skew.shape))
        load /= load.sum(axis=-1, keepdims=True)
        counts = np.round(load * self.tokens[:, None, None] * 20).astype(np.int64)
        if since > 0.5:
            counts[:, 2, 6] = 0
        self.frames["router"].append(step, {"router/tokens": counts.sum(axis=0)})
        self.frames["router_domain"].append(step, {"router/domain_tokens": counts})

    def _write_tokens(self, step: int) -> None:
        counts = np.stack(
            [self.random.multinomial(int(n) * 50, p) for n, p in zip(self.tokens, self.vocabulary, strict=True)]
        )
        if self.fault == "lr" and step > self.total_steps * 0.5:
            counts[2, 40:60] *= 3
        volume = counts.sum(axis=1) * np.linspace(4.4, 3.1, len(counts))
        scripts = volume[:, None] * np.array([0.9, 0.05, 0.03, 0.02])
        self.frames["tokens"].append(
            step,
            {
                "tokens/counts": counts,
                "tokens/seen": counts.sum(axis=1),
                "tokens/bytes": volume,
                "tokens/script_bytes": scripts,
            },
        )


def make_run(path: Path, *, steps: int = 600, total_steps: int | None = None, close: bool = True, **options) -> Path:
    """Write a run of `steps` steps and return its folder."""
    maker = Maker(path, total_steps=total_steps or steps, **options)
    maker.run_to(steps)
    maker.close() if close else maker.writer.flush()
    return path


def make_hostile_run(path: Path, steps: int = 120) -> Path:
    """A run whose every string tries to break out: name, domains, layers, events."""
    domains: dict[str, float | None] = dict(zip(HOSTILE, (0.3, 0.3, 0.2, 0.1, 0.1), strict=True))
    names = tuple(f"{HOSTILE[i % len(HOSTILE)][:60]}.{i}" for i in range(LAYERS))
    maker = Maker(path, total_steps=steps, domains=domains, layer_names=names, name=HOSTILE[0])
    for text in HOSTILE:
        maker.writer.event(text[:30], step=steps // 2, message=text)
    maker.run_to(steps)
    maker.close()
    return path


def main() -> None:
    """Write three runs, then keep the live one growing until interrupted if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--live", action="store_true", help="append a step every 0.2 s to the run `live`")
    args = parser.parse_args()
    make_run(args.runs / "olmoe-3m-lr", steps=args.steps)
    make_run(args.runs / "olmoe-3m-clean", steps=args.steps, fault="none", seed=1, peak_flops=8e11)
    live = Maker(args.runs / "olmoe-3m-live", total_steps=args.steps, fault="lr", seed=2)
    live.run_to(int(args.steps * 0.7))
    live.writer.flush()
    while args.live and live.step < args.steps:
        live.run_to(live.step + 1)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
