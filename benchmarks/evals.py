"""Results of many checkpoints: how long the matrix and a comparison take, and how much memory.

Files hold `TASKS` tasks of `ITEMS` items each, one file for each checkpoint, as an import writes them. Every checkpoint
but the first two is the second one's file under another name: what is read is the same.
"""

from __future__ import annotations

import dataclasses
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import Table
from checks.evals.compare import compare
from trainvitals.evals import Sheet, read_evals, write_sheets
from trainvitals.evals.files import matrix

TASKS, ITEMS = 300, 1_000


def run(quick: bool) -> list[Table]:
    """The table: one row of seconds and memory."""
    checkpoints = 5 if quick else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, checkpoints)
        began, cpu = time.perf_counter(), time.process_time()
        table = matrix(read_evals(folder))
        load, load_cpu = time.perf_counter() - began, time.process_time() - cpu
        assert table.shape == (checkpoints, TASKS)
        evals = read_evals(folder)
        began, cpu = time.perf_counter(), time.process_time()
        found = compare(evals, *evals.checkpoints[:2])
        took, took_cpu = time.perf_counter() - began, time.process_time() - cpu
        assert len(found) == TASKS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = Table(
        title="Evals: matrix and comparison",
        notes=f"{TASKS} tasks of {ITEMS:,} items each. Seconds on the wall, and of one processor in brackets.",
        columns=("checkpoints", "matrix", "one comparison of all tasks", "peak memory"),
        rows=[
            (str(checkpoints), f"{load:.2f} s ({load_cpu:.2f})", f"{took:.2f} s ({took_cpu:.2f})", f"{peak:,.0f} MiB")
        ],
    )
    return [figures]


def _write(folder: Path, checkpoints: int) -> None:
    rng = np.random.default_rng(0)
    before = rng.random((TASKS, ITEMS)) < 0.6
    after = before ^ (rng.random((TASKS, ITEMS)) < 0.1)
    second = [_sheet(task, 2, scores) for task, scores in enumerate(after)]
    write_sheets(folder, [_sheet(task, 1, scores) for task, scores in enumerate(before)])
    write_sheets(folder, second)
    for step in range(3, checkpoints + 1):
        _renamed(folder, step)


def _renamed(folder: Path, step: int) -> None:
    """The second checkpoint's file as that of another: its name is of one length in all, so only the footer differs."""
    import json

    import pyarrow.parquet as pq

    from trainvitals.evals.files import KEY

    source = next((folder / "evals").glob("step-000002-*"))
    file = pq.ParquetFile(source)
    head = json.loads(file.schema_arrow.metadata[KEY])
    for entry in head["sheets"]:
        entry["facts"] |= {"checkpoint": f"step-{step:06}", "step": step}
    schema = file.schema_arrow.with_metadata({KEY: json.dumps(head).encode()})
    with pq.ParquetWriter(folder / "evals" / f"step-{step:06}-copy.parquet", schema, compression="zstd") as writer:
        for group in range(file.num_row_groups):
            part = file.read_row_group(group)
            writer.write_table(part.cast(schema), row_group_size=len(part))


def _sheet(task: int, step: int, scores: np.ndarray) -> Sheet:
    items = pd.DataFrame({"item": [f"t{task}-{i}" for i in range(len(scores))], "score": scores.astype(float)})
    return dataclasses.replace(
        Sheet("", "", None, "model", "", "acc", True, "", "", 0, "", "", "", 0.25, items),
        task=f"task-{task:03}", checkpoint=f"step-{step:06}", step=step, source=f"{task}-{step}",
    )  # fmt: skip
