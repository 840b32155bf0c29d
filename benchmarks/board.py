"""A run of a million steps and 100 series: how long the board waits for it, and whether every spike is still there.

    python -m benchmarks board

The run is written by the real writer. Reads happen in fresh processes with a warm page cache; what the browser adds is
not measured here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Table, fresh, tree_bytes

POINTS = 2_000
SPIKES = 40
SPIKE_FACTOR = 20.0
DOMAINS = ["web", "code", "math", "unattributed"]
LAYERS = [f"layers.{i}" for i in range(6)]
EXPERTS, ROUTER_LAYERS = 8, 4
CUSTOM = 43
SPIKED = ("loss/train", "grad/norm", "bench/metric_00")
"""Signals with one-step spikes, and the fields that they come from: see `main_rows`."""


def spike_steps(steps: int) -> np.ndarray:
    """Where one-step spikes are planted, the first and the last step among them."""
    inner = np.random.default_rng(1).choice(np.arange(2, steps), SPIKES - 2, replace=False)
    return np.sort(np.concatenate([[1], inner, [steps]]))


def write(folder: Path, steps: int) -> dict[str, float]:
    """Write the run: 100 series in five frames, one row per step. Seconds, and microseconds per step."""
    from trainvitals.card import RunCard
    from trainvitals.store import RunWriter

    rng = np.random.default_rng(0)
    noise = rng.normal(1.0, 0.01, (4096, CUSTOM))
    noise_rows = noise.tolist()
    custom = [f"bench/metric_{i:02d}" for i in range(CUSTOM)]
    loads = rng.integers(900, 1100, (64, ROUTER_LAYERS, EXPERTS))
    tokens = np.array([2048, 1024, 1024, 0])
    spikes = set(spike_steps(steps).tolist())

    writer = RunWriter(folder, when_full="wait")
    writer.write_card(RunCard(name="million", created=time.time(), total_steps=steps, layers=len(LAYERS),
                              experts=EXPERTS, domains=dict.fromkeys(DOMAINS[:-1])))
    loss = writer.frame("loss", ["loss/sum", "loss/tokens", "loss/nonfinite_tokens", "loss/domain_sum",
                                 "loss/domain_tokens"], {"domain": DOMAINS})
    grad = writer.frame("grad", ["grad/sumsq", "grad/clipped_sumsq", "grad/nonfinite", "grad/sumsq_by_layer"],
                        {"layer": LAYERS})
    rate = writer.frame("lr", ["lr/used", "lr/planned"], {"group": ["0"]})
    speed = writer.frame("throughput", ["throughput/step_time", "throughput/data_wait", "throughput/tokens"])
    router = writer.frame("router", ["router/tokens"], {"router_layer": [f"layers.{i}" for i in range(ROUTER_LAYERS)],
                                                        "expert": [str(i) for i in range(EXPERTS)]})
    own = writer.frame("custom", [])
    began, cpu = time.perf_counter(), time.process_time()
    for step in range(1, steps + 1):
        numbers = noise_rows[step % 4096]
        peak = SPIKE_FACTOR if step in spikes else 1.0
        mean_loss = peak * numbers[1] * (2.0 + 8.0 * (1.0 + step / 1000.0) ** -0.5)
        loss.append(step, {"loss/sum": mean_loss * 4096, "loss/tokens": 4096, "loss/nonfinite_tokens": 0,
                           "loss/domain_sum": mean_loss * tokens, "loss/domain_tokens": tokens})
        sumsq = (peak * numbers[2]) ** 2
        grad.append(step, {"grad/sumsq": sumsq, "grad/clipped_sumsq": sumsq, "grad/nonfinite": 0,
                           "grad/sumsq_by_layer": np.full(len(LAYERS), sumsq / len(LAYERS))})
        lr = np.array([3e-4 * min(1.0, step / 2000)])
        rate.append(step, {"lr/used": lr, "lr/planned": lr})
        speed.append(step, {"throughput/step_time": 0.5 * numbers[3], "throughput/data_wait": 0.01,
                            "throughput/tokens": 4096})
        router.append(step, {"router/tokens": loads[step % 64]})
        values = dict(zip(custom, numbers, strict=True))
        values["bench/metric_00"] *= peak
        own.append(step, values)
    writer.close()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "cpu_us": (time.process_time() - cpu) / steps * 1e6, "dropped": writer.dropped_rows}


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def read(folder: Path, steps: int) -> dict[str, Any]:
    """What a process that opens the run for the first time waits for."""
    from trainvitals.store import open_run

    found: dict[str, Any] = {}
    found["open_s"], run = timed(lambda: open_run(folder))
    found["signals_s"], table = timed(run.signals)
    found["first_series_s"], _ = timed(lambda: run.series("loss/train", max_points=POINTS))
    for name in ("loss/train", "grad/norm", "loss/domain", "router/max_vio", "bench/metric_05"):
        run.series(name, max_points=POINTS)
        found[f"redraw {name}"], _ = timed(lambda name=name: run.series(name, max_points=POINTS))
    middle = (steps // 2, steps // 2 + 10_000)
    found["zoom_s"], _ = timed(lambda: run.series("loss/train", steps=middle, max_points=POINTS))
    missed = 0
    for name in SPIKED:
        buckets = run.series(name, max_points=POINTS)
        ordinary = float(buckets["value"].median())
        at = np.searchsorted(buckets["step"].to_numpy(), spike_steps(steps), side="right") - 1
        missed += int((buckets["hi"].to_numpy()[at] < SPIKE_FACTOR / 2 * ordinary).sum())
    return found | {"missed": missed, "points": int(table["points"].max())}


def health(folder: Path, other: Path) -> dict[str, float]:
    """Server side of Health in a server that has shown another run: the first view of this one, and the next.

    The checks run beside the first view, in a thread of their own.
    """
    from streamlit.testing.v1 import AppTest

    import dashboard
    from dashboard.server.launch import RUNS_VARIABLE

    def visit(run: Path) -> tuple[float, Any]:
        os.environ[RUNS_VARIABLE] = str(run)
        app = AppTest.from_file(str(Path(dashboard.__file__).with_name("app.py")), default_timeout=120)
        seconds, _ = timed(app.run)
        errors = [error.value for error in app.exception]
        assert not errors and any(metric.label.startswith("Loss") for metric in app.metric), errors
        return seconds, app

    visit(other)
    first, app = visit(folder)
    again, _ = timed(app.run)
    return {"first_s": first, "again_s": again}


def main(argv: list[str]) -> None:
    what, folder, argument = argv[0], Path(argv[1]), argv[2]
    result = health(folder, Path(argument)) if what == "health" else \
        {"write": write, "read": read}[what](folder, int(argument))
    print("\n" + json.dumps(result))


def run(quick: bool) -> list[Table]:
    steps = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="tv-bench-") as base:
        folder, small = Path(base, "million"), Path(base, "small")
        fresh("benchmarks.board", "write", small, 100)
        wrote = fresh("benchmarks.board", "write", folder, steps)
        size = tree_bytes(folder)
        saw = fresh("benchmarks.board", "read", folder, steps)
        page = fresh("benchmarks.board", "health", folder, small)
    table = Table(f"The board on {steps:,} steps x 100 series", ["what", "figure"], notes=(
        f"One process writes, others read; {POINTS:,} buckets per line; browser time not included."))
    table.rows += [
        ["written, six frames of one row per step", f"{wrote['seconds']:.0f} s, {wrote['cpu_us']:.1f} us CPU per step, "
                                                    f"{wrote['dropped']:.0f} rows dropped"],
        ["on disk", f"{size / 1e6:.0f} MB, {size / steps / 100:.2f} bytes/point"],
        ["open_run, cold", f"{saw['open_s']:.2f} s"],
        ["list of signals", f"{saw['signals_s']:.2f} s"],
        ["first chart after that", f"{saw['first_series_s']:.2f} s"],
        *([f"redraw of {name.removeprefix('redraw ')}, warm", f"{seconds:.3f} s"]
          for name, seconds in saw.items() if name.startswith("redraw ")),
        ["zoom to 10,000 steps", f"{saw['zoom_s']:.3f} s"],
        ["Health, server side, first view of this run", f"{page['first_s']:.2f} s"],
        ["Health, server side, next view", f"{page['again_s']:.2f} s"],
        [f"one-step spikes lost at full zoom-out, of {SPIKES * len(SPIKED)}", f"{saw['missed']}"],
    ]
    return [table]


if __name__ == "__main__":
    main(sys.argv[1:])
