"""A set that takes seconds and comes from seeds alone: synthetic runs, one fault each, and healthy ones beside them.

It says less than the recorded runs, and says it at every change: a test holds what it counts against the certificates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.detection.score import Truth
from tests.checks.synthetic import Synthetic
from tests.checks.test_faults import FAULTS, rank_lags
from trainvitals.store import Run

STEPS, ONSET = 320, 201
BRIEF = {"nan_steps": 2, "infinite_gradient": 1, "loss_spike": 5, "lr_jump": 40, "layer_explodes": 10}
"""Faults that end, and after how many steps."""
HEALTHY, SEED, LOOKS = (0, 1, 2, 3), 5, (0, 5, 20, 60)
FINDERS: Mapping[str, tuple[str, ...]] = {
    check: tuple(plant.__name__ for plant, of, *_ in FAULTS if of == check) for _, check, *_ in FAULTS}
"""Check -> faults that are its own to find."""


def runs(folder: Path) -> Iterator[tuple[Run, Truth]]:
    """Each run, written below a folder, and what was done to it."""
    for seed in HEALTHY:
        shape = {"experts": 64, "top_k": 8, "moe_layers": 2} if seed % 2 else {}
        run = Synthetic(n=STEPS, seed=seed, warmup=STEPS // 10, **shape).write(folder / f"healthy-{seed}")
        yield run, Truth("healthy", seed, None, (), None, None, STEPS, STEPS, quiet_machine=True)
    for plant, *_ in FAULTS:
        made = Synthetic(n=STEPS, seed=SEED, ranks=2 if plant is rank_lags else 1)
        plant(made, ONSET)
        name = plant.__name__
        last = ONSET + BRIEF[name] - 1 if name in BRIEF else None
        truth = Truth(name, SEED, "point" if last else "jump", (), ONSET, last, STEPS, 0, f"seed {SEED}", True)
        yield made.write(folder / name), truth
