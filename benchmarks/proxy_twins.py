"""A small model, trained first on the same batches, as the control group of a large one: how much sooner faults show.

    python -m benchmarks.proxy_twins train --out DIR       # about 25 minutes of one core; goes on where it was ended
    python -m benchmarks.proxy_twins score DIR             # seconds

The demo's model (2.9 M parameters) is trained on batches of 1,024 tokens, and from one step on four times with a fault
and once without, from the very same state; proxies of 1/4, 1/12 and 1/30 of its size see the same batches. No threshold
was set on these runs: the bounds are those of `loss.divergence`, with a proxy and without.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.twins import delay_words, first_after
from checks.twins.backtest import RISES_NAT, backtest, said_alone, said_with
from checks.twins.judge import controls, partings
from checks.twins.recognise import recognise
from checks.twins.rows import LossRows, from_arrays
from collectors.demo.batches import Batch
from collectors.demo.faults import Training
from collectors.demo.train import DemoConfig, Job, prepare
from trainvitals.fingerprint import lanes

STEPS, ONSET, ROWS, PARTS, SEEDS = 950, 700, 8, (4, 12, 30), (0, 1, 2)
Floats = NDArray[np.float64]
Fault = Callable[[Training, int], None]


def rate_times_four(training: Training, age: int) -> None:
    """The learning rate is four times its plan, to the end of the run."""
    if age == 0:
        training.scheduler.base_lrs = [4 * rate for rate in training.scheduler.base_lrs]
        for group in training.optimizer.param_groups:
            group["lr"] *= 4


def optimizer_state_lost(training: Training, age: int) -> None:
    """AdamW's moments are gone, and its count of steps with them, as after a resume that lacks them."""
    if age == 0:
        training.optimizer.state.clear()


def label_noise(training: Training, age: int) -> None:
    """A fifth of the labels of the largest domain are other tokens."""
    domain, noise = int(np.argmax(training.mixture.shares)), torch.Generator().manual_seed(age)

    def spoilt(batch: Batch) -> Batch:
        labels = batch["labels"].clone()
        at = (batch["domain"] == domain)[:, None] & (torch.rand(labels.shape, generator=noise) < 0.2)
        labels[at] = torch.randint(training.model.config.vocab_size, (int(at.sum()),), generator=noise)
        return batch | {"labels": labels}

    training.on_batch = spoilt


def layer_frozen(training: Training, age: int) -> None:
    """The second layer learns no more."""
    if age == 0:
        for parameter in training.model.model.layers[1].parameters():
            parameter.requires_grad_(False)
            parameter.grad = None


FAULTS: dict[str, Fault | None] = {
    "none": None, "rate_times_four": rate_times_four, "optimizer_state_lost": optimizer_state_lost,
    "label_noise": label_noise, "layer_frozen": layer_frozen}  # fmt: skip


def train(out: Path) -> None:
    """Train whatever `out` does not hold yet."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for part in PARTS:
            _keep(out / f"proxy-{part}-{seed}.npz", lambda p=part, s=seed: _proxy(p, s))
        wanted = [name for name in FAULTS if not (out / f"{name}-{seed}.npz").exists()]
        if wanted:
            _branches(out, seed, wanted)


def _keep(path: Path, make: Callable[[], tuple[Floats, NDArray[np.uint64]]]) -> None:
    if not path.exists():
        losses, hashes = make()
        np.savez(path, losses=losses, hashes=hashes)
        print(f"{path.name}: loss {losses[-50:].mean():.3f}", flush=True)


def _job(seed: int, part: int = 1) -> Job:
    return prepare(DemoConfig(run="", steps=STEPS, fault="none", seed=seed, part=part, batch_rows=ROWS))


def _proxy(part: int, seed: int) -> tuple[Floats, NDArray[np.uint64]]:
    return _steps(_job(seed, part).training, STEPS, None)


def _branches(out: Path, seed: int, wanted: list[str]) -> None:
    """The healthy run up to the onset, and from its state one run for each fault."""
    whole = _job(seed).training
    losses, hashes = _steps(whole, ONSET, None)
    for name in wanted:
        branch = copy.deepcopy(whole)
        rest = _steps(branch, STEPS - ONSET, FAULTS[name])
        _keep(out / f"{name}-{seed}.npz", lambda r=rest: (np.r_[losses, r[0]], np.r_[hashes, r[1]]))


def _steps(training: Training, steps: int, fault: Fault | None) -> tuple[Floats, NDArray[np.uint64]]:
    """Cross-entropy of each step in nats per token, and the batches' fingerprints."""
    losses, hashes = np.zeros(steps), np.zeros(steps, np.uint64)
    for i in range(steps):
        if fault is not None:
            fault(training, i)
        drawn = training.mixture.draw()
        low, high = lanes(drawn["input_ids"].numpy()).astype(np.uint64)
        hashes[i] = low | high << np.uint64(32)
        output = training.model(**training.on_batch(drawn))
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        training.scheduler.step()
        training.optimizer.zero_grad()
        losses[i] = float(output.loss.detach() - training.model.balance_coef * output.aux_loss.detach())
    return losses, hashes


def score(out: Path) -> None:
    """Print how soon each fault was said, with each proxy and without."""
    steps = np.arange(1, STEPS + 1)
    runs = {path.stem: dict(np.load(path)) for path in out.glob("*.npz")}
    rows = {name: from_arrays(name, steps, run["losses"], steps, run["hashes"]) for name, run in runs.items()}
    print("| fault | seed | loss moved, nat | alone | " + " | ".join(f"1/{part}" for part in PARTS) + " |")
    print("|---|---|---|---|" + "---|" * len(PARTS))
    for name in FAULTS:
        for seed in SEEDS:
            mine, losses = rows[f"{name}-{seed}"], runs[f"{name}-{seed}"]["losses"]
            moved = float(np.mean(losses[ONSET:] - runs[f"none-{seed}"]["losses"][ONSET:]))
            proxies = [rows[f"proxy-{part}-{seed}"] for part in PARTS]
            said = [said_alone(steps, losses), *(_live(mine, p) for p in proxies)]
            print(f"| {name} | {seed} | {moved:+.3f} | " + " | ".join(_words(s) for s in said) + " |")
    for part in PARTS:
        pairs = [recognise(rows[f"none-{seed}"], rows[f"proxy-{part}-{seed}"]) for seed in SEEDS]
        unmarked = [[from_arrays(n, steps, runs[n]["losses"]) for n in (f"none-{seed}", f"proxy-{part}-{seed}")]
                    for seed in SEEDS]
        blind = [recognise(a, b) for a, b in unmarked]
        print(f"1/{part}: noise falls {', '.join(f'{p.noise_ratio:.1f}' for p in pairs)} times; without fingerprints "
              f"twins: {', '.join(str(p.twin) for p in blind)}")


def _live(run: LossRows, proxy: LossRows) -> list[int]:
    """As `said_with`, with what was said of the fault at the step at which a judge of the live run says it first."""
    said = said_with(run, [(proxy, recognise(run, proxy))])
    latest = min((step for step in said if step >= ONSET), default=None)
    if latest is None:
        return said
    for last in range(ONSET, latest):
        mine, other = (from_arrays(r.name, r.steps[:last], np.exp(r.values[:last]), r.steps[:last], r.hashes[:last])
                       for r in (run, proxy))  # fmt: skip
        found = partings(controls(mine, [(other, recognise(mine, other))]))
        if any(p.moved is not False and p.episode.noticed >= ONSET for p in found):
            return [*(step for step in said if step < ONSET), last]
    return said


def rises(out: Path) -> None:
    """Print how soon lasting rises are said that are planted into the healthy runs, at 12 places of each."""
    steps = np.arange(1, STEPS + 1)

    def rows(name: str) -> LossRows:
        run = np.load(out / f"{name}.npz")
        return from_arrays(name, steps, run["losses"], steps, run["hashes"])

    print("\n| proxy | rise, nat | found | median delay, steps | found alone |\n|---|---|---|---|---|")
    for part in PARTS:
        tests = []
        for seed in SEEDS:
            mine, proxy = rows(f"none-{seed}"), rows(f"proxy-{part}-{seed}")
            tests += backtest(mine, [(proxy, recognise(mine, proxy))])
        for rise in RISES_NAT:
            these = [t for t in tests if t.rise_nat == rise]
            delays = [t.delay_rows for t in these if t.delay_rows is not None]
            places = sum(t.places for t in these)
            print(f"| 1/{part} | {rise} | {sum(t.found for t in these)} of {places} | "
                  f"{f'{np.median(delays):.0f}' if delays else 'mostly never'} | "
                  f"{sum(t.found_alone for t in these)} of {places} |")


def _words(said: list[int]) -> str:
    """Delay in steps; what was said of the healthy part, in brackets."""
    early = [step for step in said if step < ONSET]
    return delay_words([first_after(said, ONSET)]).split(" / ")[0] + (f" ({len(early)} before)" if early else "")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("--out", type=Path, required=True)
    commands.add_parser("score").add_argument("out", type=Path)
    given = parser.parse_args()
    if given.command == "train":
        train(given.out)
    else:
        score(given.out)
        rises(given.out)


if __name__ == "__main__":
    main()
