"""Many ranks: what opening, drawing and watching a run costs with 8 to 1,024 writers, on disk and behind S3.

    python -m benchmarks fleet

The writers are simulated: every rank's history file is written by the store's own code from one array, and its events
by a `RunWriter` of its own, so a folder of 1,024 ranks is made in a minute. Every reading happens in a fresh process.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS
from trainvitals.store import RunWriter
from trainvitals.store.compact import parquet
from trainvitals.store.folder import open_folder
from trainvitals.store.segment import Header

DOMAINS = ("web", "code", "math", "unattributed")
FRAMES = {
    "loss": ("loss/sum", "loss/tokens", "loss/nonfinite_tokens", "loss/domain_sum", "loss/domain_tokens",
             "loss/forwards"),
    "throughput": ("throughput/step_time", "throughput/data_wait", "throughput/tokens"),
    "system": ("system/rss_bytes", "system/device_peak_bytes"),
}


def make(place: str | Path, ranks: int, steps: int) -> None:
    """A finished run of `ranks` writers; the loss of step s is 2 + 100 / s on every rank."""
    folder = open_folder(place)
    at = np.arange(1, steps + 1, dtype=np.int64)
    columns = {name: _values(name, at) for names in FRAMES.values() for name in names}
    for rank in range(ranks):
        writer = RunWriter(folder, rank=rank, world_size=ranks)
        if not rank:
            writer.write_card(RunCard(name="fleet", world_size=ranks, total_steps=steps, created=writer.started))
        for frame, names in FRAMES.items():
            header = Header(frame, writer.writer, rank, ranks, 0, writer.started, 0,
                            tuple(FIELDS[name] for name in names), {"domain": DOMAINS})
            schema = header.schema()
            arrays = [pa.array(at), pa.array(writer.started - steps + at.astype(float))]
            for item in header.fields:
                flat = columns[item.name]
                arrays.append(pa.array(flat) if not item.axes else pa.FixedSizeListArray.from_arrays(
                    pa.array(flat.astype(item.dtype).ravel()), flat.shape[1]))
            table = pa.Table.from_arrays(arrays, schema=schema)
            folder.replace(f"frames/{frame}/history/steps-1-{steps}-{writer.writer}-0-0.parquet", parquet(table))
        writer.close()


def _values(name: str, at: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(len(name)).normal(0, 0.01, (len(at), len(DOMAINS)))
    if FIELDS[name].axes:
        return 1024.0 * (2 + 100 / at[:, None] + noise) if "sum" in name else np.full(noise.shape, 1024.0)
    return 4096 * (2 + 100 / at + noise[:, 0]) if name == "loss/sum" else np.full(len(at), 4096.0)


def read(place: str) -> dict[str, float]:
    import pandas  # noqa: F401 - the board has paid for it

    from benchmarks.report import peak_rss_mb
    from trainvitals.store import open_run

    base = peak_rss_mb()
    t0 = time.perf_counter()
    run = open_run(place)
    t1 = time.perf_counter()
    table = run.series("loss/train", max_points=600)
    t2 = time.perf_counter()
    for _ in range(5):
        run.refresh()
    t3 = time.perf_counter()
    domains = run.series("loss/domain", max_points=600)
    t4 = time.perf_counter()
    run.last_step, run.last_time, run.problems(), run.status
    t5 = time.perf_counter()
    return {"open": t1 - t0, "chart": t2 - t1, "idle": (t3 - t2) / 5, "domain": t4 - t3, "facts": t5 - t4, "points": len(table),
            "mb": peak_rss_mb(), "base": base, "dom": len(domains)}


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        print(read(sys.argv[2]))
