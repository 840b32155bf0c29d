"""Runs beyond one machine: what 8 to 1,024 ranks cost a reader, and what an object store is asked for.

    python -m benchmarks fleet

Ranks are simulated: every history file is written by the store's own code from one array, and every rank's events by a
`RunWriter` of its own, so a folder of 1,024 ranks is made in a minute. Every reading happens in a fresh process, with a
warm page cache. The object store is moto's S3 server on this machine, over HTTP: its requests and bytes are those of
any store, its times are not.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import Table, fresh, peak_rss_mb, tree_bytes
from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS
from trainvitals.store import RunWriter, open_run
from trainvitals.store.compact import history_path
from trainvitals.store.folder import open_folder
from trainvitals.store.history import encode
from trainvitals.store.segment import Header

DOMAINS = ("web", "code", "math", "unattributed")
FRAMES = {
    "loss": ("loss/sum", "loss/tokens", "loss/nonfinite_tokens", "loss/domain_sum", "loss/domain_tokens",
             "loss/forwards"),
    "throughput": ("throughput/step_time", "throughput/data_wait", "throughput/tokens"),
    "system": ("system/rss_bytes", "system/device_peak_bytes"),
}
BUCKET = "lab"
STEPS_PER_FLUSH, FLUSHES_PER_HOUR = 4, 1_800
"""Two steps a second, flushed every 2 seconds."""
PUT_DOLLARS, GET_DOLLARS = 5e-6, 0.4e-6
"""Of S3 Standard in us-east-1: a PUT or LIST, and a GET or HEAD. A DELETE costs nothing, nor does traffic in the
region. https://aws.amazon.com/s3/pricing/"""


# -- the fleet --------------------------------------------------------------------------------------------------------


def make(place: str | Path, ranks: int, steps: int) -> None:
    """A finished run of `ranks` writers; the loss of step s is about 2 + 100 / s on every rank."""
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
            table = _table(header, at, columns)
            folder.replace(history_path(header, table, 0, 0), encode(table, 0))
        writer.close()


def _table(header: Header, at: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Table:
    arrays = [pa.array(at), pa.array(header.started - len(at) + at.astype(float))]
    for item in header.fields:
        flat = columns[item.name].astype(item.dtype)
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]) if item.axes
                      else pa.array(flat))
    return pa.Table.from_arrays(arrays, schema=header.schema())


def _values(name: str, at: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(len(name)).normal(0, 0.01, (len(at), len(DOMAINS)))
    if FIELDS[name].axes:
        return 1024 * (2 + 100 / at[:, None] + noise) if "sum" in name else np.full(noise.shape, 1024.0)
    return 4096 * (2 + 100 / at + noise[:, 0]) if name == "loss/sum" else np.full(len(at), 4096.0)


def look(place: str) -> dict[str, float]:
    """Seconds to open a run, to draw its first chart and one with labels, and to look at it again; peak memory, MB."""
    import pandas  # noqa: F401 - the board has it in memory already

    began, cpu = time.perf_counter(), time.process_time()
    run = open_run(place)
    opened, cpu_opened = time.perf_counter(), time.process_time()
    first = run.series("loss/train", max_points=600)
    drawn, cpu_drawn = time.perf_counter(), time.process_time()
    run.series("loss/domain", max_points=600)
    labels = time.perf_counter()
    run.status, run.last_time, run.problems()
    known = time.perf_counter()
    run.refresh()
    idle = time.perf_counter()
    for _ in range(5):
        run.refresh()
    return {"open": opened - began, "open_cpu": cpu_opened - cpu, "chart": drawn - opened,
            "chart_cpu": cpu_drawn - cpu_opened, "labels": labels - drawn, "facts": known - labels,
            "idle": (time.perf_counter() - idle) / 5, "mb": peak_rss_mb(), "rows": len(first)}


def fleet(quick: bool) -> Table:
    rows = []
    with tempfile.TemporaryDirectory(prefix="tv-fleet-") as base:
        for ranks in (8, 64) if quick else (8, 64, 1024):
            place = Path(base, str(ranks))
            make(place, ranks, 10_000)
            found = fresh("benchmarks.fleet", "look", place)
            files = sum(len(names) for _, _, names in os.walk(place))
            rows.append([f"{ranks:,}", f"{files:,}", f"{tree_bytes(place) / 1e6:,.0f}", *_cells(found)])
    return Table(
        "Ranks: 10,000 steps, three frames, on disk",
        ["ranks", "files", "MB", "open, s", "first chart, s", "chart by domain, s", "status and problems, s",
         "idle look, ms", "peak memory, MB"], rows,
        notes="In brackets: CPU seconds, which a busy machine does not change. First chart: loss/train of all ranks to "
              "600 points. Peak memory is that of the process; Python, pandas and pyarrow are 120 MB of it.")


def _cells(found: dict[str, float]) -> list[str]:
    return [f"{found['open']:.2f} ({found['open_cpu']:.2f})", f"{found['chart']:.2f} ({found['chart_cpu']:.2f})",
            f"{found['labels']:.2f}", f"{found['facts']:.2f}", f"{found['idle'] * 1e3:.1f}", f"{found['mb']:,.0f}"]


# -- the object store -------------------------------------------------------------------------------------------------


def fleet_remote(quick: bool) -> Table:
    from tests.store.object_store import lab

    rows = []
    with lab() as proxy:
        for ranks in (4, 16) if quick else (8, 64):
            place = f"s3://{BUCKET}/runs/{ranks}"
            make(place, ranks, 2_000)
            before = proxy.requests.copy()
            found = fresh("benchmarks.fleet", "look", place, env={"AWS_ENDPOINT_URL": proxy.endpoint})
            asked = proxy.requests - before
            run = open_run(place)
            before = proxy.requests.copy()
            for _ in range(10):
                run.refresh()
            idle = proxy.requests - before
            rows.append([f"{ranks:,}", *_cells(found), f"{asked['GET']:,} GET, {asked['LIST']:,} LIST, "
                         f"{asked['HEAD']:,} HEAD", f"{idle.total() / 10:g} ({', '.join(idle)})"])
    return Table(
        "Ranks: 2,000 steps, three frames, behind S3 over HTTP",
        ["ranks", "open, s", "first chart, s", "chart by domain, s", "status and problems, s", "idle look, ms",
         "peak memory, MB", "requests of all that", "requests of an idle look"], rows)


def bill(hours: float) -> dict[str, float]:
    """What one rank with the default collectors asks of a store in `hours`, by kind, and the bytes it sends."""
    from tests.dashboard.make_run import Maker
    from tests.store.object_store import lab

    with lab() as proxy:
        place: Any = f"s3://{BUCKET}/runs/bill"
        maker = Maker(place, 100_000, "none", flush_seconds=1e9)
        maker.writer.flush()
        run = open_run(place)
        before, sent, looks, read = proxy.requests.copy(), proxy.sent, Counter[str](), 0
        for flush in range(round(hours * FLUSHES_PER_HOUR)):
            maker.run_to(maker.step + STEPS_PER_FLUSH)
            maker.writer.flush()
            if not flush % 10:
                mark = proxy.requests.copy()
                run.refresh()
                looks += proxy.requests - mark
                read += 1
        asked = proxy.requests - before - looks
        objects = len(maker.writer.folder.sizes())
        maker.writer.close()
    return dict(asked) | {"sent": proxy.sent - sent, "objects": objects} | {
        f"look_{name}": count / read for name, count in looks.items()}


def bills(quick: bool) -> Table:
    hours = 0.05 if quick else 0.25
    found = fresh("benchmarks.fleet", "bill", hours)
    puts, gets = found["PUT"] / hours, found["GET"] / hours
    rows = []
    for ranks in (1, 8):
        cost = ranks * (puts * PUT_DOLLARS + gets * GET_DOLLARS)
        rows.append([f"{ranks}", f"{ranks * puts:,.0f}", f"{ranks * gets:,.0f}",
                     f"{ranks * found['DELETE'] / hours:,.0f}", f"{ranks * found['sent'] / hours / 1e6:,.0f}",
                     f"{cost:.2f}", f"{ranks * found['objects']:,.0f}"])
    return Table(
        "The bill of a store: default collectors, 2 steps/s, a flush every 2 s",
        ["ranks", "PUT/h", "GET/h", "DELETE/h", "MB/h sent", "$/h", "objects at the end"], rows,
        notes=f"One rank measured for {hours:g} h of a simulated run, times the number of ranks. A look of a live "
              f"reader took {found.get('look_GET', 0):.0f} GET and {found.get('look_LIST', 0):.1f} LIST per 10 flushes "
              "of a rank. Dollars as S3 Standard in us-east-1 bills requests.")


def run(quick: bool) -> list[Table]:
    return [fleet(quick), fleet_remote(quick), bills(quick)]


def main(argv: list[str]) -> None:
    if argv[0] == "make":
        make(argv[1], int(argv[2]), int(argv[3]))
    else:
        print("\n" + json.dumps(look(argv[1]) if argv[0] == "look" else bill(float(argv[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
