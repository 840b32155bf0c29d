"""The run store beside TensorBoard event files, trackio's SQLite and JSON lines: the same data, one run.

    python -m benchmarks store

Every write and every first chart happens in a fresh process, so that no candidate pays for, or profits from, another's
imports and caches. The operating system's page cache stays warm for all.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.report import Table, fresh, tree_bytes

SERIES = 100
WARM_UP_STEPS = 100
BUCKETS = 2_000
SPIKE_SERIES, SPIKE_STEP, SPIKE = 7, 4_321, 1e4
LONG_S = 5.0
"""A first chart that takes longer is not drawn again."""
PACED_HZ, PACED_SECONDS = 10, 15

Row = Mapping[str, float]
Append = Callable[[int, Row], None]
Flush = Callable[[], None]
Close = Callable[[], None]
Opened = tuple[Append, Flush, Close]


def names() -> list[str]:
    return [f"bench/metric_{i:02d}" for i in range(SERIES)]


def data(steps: int) -> list[Row]:
    """Random walks rounded to float32, as tensors give them, with one spike."""
    walks = np.random.default_rng(0).normal(size=(steps, SERIES)).cumsum(axis=0).astype(np.float32)
    walks[SPIKE_STEP % steps, SPIKE_SERIES] = SPIKE
    return [dict(zip(names(), row, strict=True)) for row in walks.astype(float).tolist()]


# -- writers: open a store in a folder; return how it appends, gets all rows to the disk, and ends ------------------


def open_trainvitals(folder: Path) -> Opened:
    from trainvitals.store import RunWriter

    writer = RunWriter(folder, when_full="wait")
    frame = writer.frame("custom", [])
    return frame.append, writer.flush, writer.close


def open_tensorboard(folder: Path) -> Opened:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def append(step: int, row: Row) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    return append, writer.flush, writer.close


def open_trackio(folder: Path) -> Opened:
    import trackio

    trackio.init(project="bench", name="run", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    return lambda step, row: trackio.log(dict(row), step=step), trackio.finish, nothing


def nothing() -> None:
    pass


def open_jsonl(folder: Path) -> Opened:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "rows.jsonl").open("w")

    def append(step: int, row: Row) -> None:
        file.write(json.dumps({"step": step, **row}) + "\n")

    return append, file.flush, file.close


# -- first charts: every point of one series, reduced to min/max buckets -------------------------------------------


def chart_trainvitals(folder: Path, name: str) -> tuple[float, int]:
    from trainvitals.store import open_run

    table = open_run(folder).series(name, max_points=BUCKETS)
    return float(table["hi"].max()), len(table)


def chart_tensorboard(folder: Path, name: str) -> tuple[float, int]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return minmax([event.value for event in events.Scalars(name)])


def chart_trackio(folder: Path, name: str) -> tuple[float, int]:
    from trackio.sqlite_storage import SQLiteStorage

    return minmax([row["value"] for row in SQLiteStorage.get_metric_values("bench", "run", name)])


def chart_jsonl(folder: Path, name: str) -> tuple[float, int]:
    import pandas as pd

    return minmax(pd.read_json(folder / "rows.jsonl", lines=True)[name])


def minmax(values: Iterable[float]) -> tuple[float, int]:
    """Largest value that the chart shows, and its number of points."""
    buckets = np.array_split(np.asarray(list(values)), BUCKETS // 2)
    points = [extreme for bucket in buckets for extreme in (bucket.min(), bucket.max())]
    return float(max(points)), len(points)


STORES: dict[str, tuple[Callable[[Path], Opened], Callable[[Path, str], tuple[float, int]]]] = {
    "TrainVitals": (open_trainvitals, chart_trainvitals),
    "TensorBoard event files": (open_tensorboard, chart_tensorboard),
    "trackio (SQLite)": (open_trackio, chart_trackio),
    "JSON lines, pandas": (open_jsonl, chart_jsonl),
}


# -- one measurement, in a process of its own ------------------------------------------------------------------------


def write(store: str, folder: Path, steps: int, hz: float, live: Path | None = None) -> dict[str, float]:
    """Append `steps` rows, at `hz` rows per second (0: as fast as it goes); microseconds per step.

    `live` receives a copy of the folder as it was before the store was closed.
    """
    rows = data(WARM_UP_STEPS + steps)
    gc.collect()
    gc.freeze()  # a million floats of ours would make every collection during the loop a long one
    append, flush, close = STORES[store][0](folder)
    for step in range(WARM_UP_STEPS):
        append(step, rows[step])
    if not hz:
        time.sleep(2.5)  # lets the warm-up rows be flushed, so that they are not counted
    took = np.empty(steps)
    cpu = time.process_time()
    for i in range(steps):
        began = time.perf_counter()
        append(WARM_UP_STEPS + i, rows[WARM_UP_STEPS + i])
        took[i] = time.perf_counter() - began
        if hz:
            time.sleep(1 / hz)
    flush()
    cpu = time.process_time() - cpu
    if live:
        shutil.copytree(folder, live)
    began = time.perf_counter()
    close()
    return {"caller_us": took.mean() * 1e6, "worst_ms": took.max() * 1e3, "cpu_us": cpu / steps * 1e6,
            "close_ms": (time.perf_counter() - began) * 1e3}


def main(argv: list[str]) -> None:
    what, store, folder = argv[0], argv[1], Path(argv[2])
    if what == "write":
        live = Path(argv[5]) if len(argv) > 5 else None
        print("\n" + json.dumps(write(store, folder, int(argv[3]), float(argv[4]), live)))
    else:
        top, points = STORES[store][1](folder, names()[SPIKE_SERIES])
        print("\n" + json.dumps({"top": top, "points": points}))


# -- the table -------------------------------------------------------------------------------------------------------


def first_chart_s(store: str, folder: Path, env: dict[str, str]) -> tuple[float, float]:
    """Median wall seconds of fresh processes that draw one series, and the largest value in the chart."""
    seconds, top = [], 0.0
    while len(seconds) < 3 and sum(seconds) < LONG_S:
        began = time.perf_counter()
        top = fresh("benchmarks.store", "chart", store, folder, env=env)["top"]
        seconds.append(time.perf_counter() - began)
    return median(seconds), top


def costs(cost: Mapping[str, float]) -> list[str]:
    """The cells of what writing cost."""
    return [f"{cost['caller_us']:,.1f}", f"{cost['worst_ms']:.1f}", f"{cost['cpu_us']:,.1f}",
            f"{cost['close_ms']:,.0f}"]


def views(store: str, folder: Path, points: int, env: dict[str, str]) -> list[str]:
    """The cells of what the store takes on disk, and of its first chart."""
    seconds, top = first_chart_s(store, folder, env)
    return [f"{tree_bytes(folder) / points:.1f}", f"{seconds:.2f}", "yes" if abs(top - SPIKE) < 1 else "no"]


def run(quick: bool) -> list[Table]:
    steps = 2_000 if quick else 10_000
    points = (WARM_UP_STEPS + steps) * SERIES
    rows = []
    with tempfile.TemporaryDirectory(prefix="tv-bench-") as base:
        for i, store in enumerate(STORES):
            folder, live = Path(base, str(i)), Path(base, f"{i}-live")
            env = {"TRACKIO_DIR": str(folder)}
            if store != "TrainVitals":
                cost = fresh("benchmarks.store", "write", store, folder, steps, 0, env=env)
                rows.append([store, *costs(cost), *views(store, folder, points, env)])
                continue
            cost = fresh("benchmarks.store", "write", store, folder, steps, 0, live)
            rows.append([f"{store}, live", *costs(cost), *views(store, live, points, env)])
            rows.append([f"{store}, closed", *[""] * 4, *views(store, folder, points, env)])
            cost = fresh("benchmarks.store", "write", store, Path(base, "paced"), PACED_HZ * PACED_SECONDS, PACED_HZ)
            rows.append([f"{store} at {PACED_HZ} steps/s", *costs(cost), *[""] * 3])
    return [Table(
        f"Stores: {steps:,} steps x {SERIES} scalars",
        ["store", "append, us/step in the caller", "worst append, ms", "CPU, us/step, all threads", "close, ms",
         "bytes/point", "first chart, s", "spike shown"], rows,
        notes="Append: back to back; CPU until every row is with the operating system. Closing ours compacts it to "
              "Parquet; trackio's is part of its CPU. At 10 steps/s the caller's caches are cold and a flush carries "
              "few rows. First chart: a fresh Python process imports the reader, opens the run and reduces all points "
              f"of one series to {BUCKETS:,} min/max points; median of up to 3, warm page cache. TensorBoard reads "
              "with its reservoir off; its app samples 1,000 points per series by default.")]


if __name__ == "__main__":
    main(sys.argv[1:])
