"""Text logs in: what a Megatron log of many megabytes costs, and what one more look at a live log does.

    python -m benchmarks.importers_text [--megabytes 200]

Processor time of the whole process, its threads too (the run folder is written by one of its own), so that a busy
machine slows the figures down little. The log is generated: iteration lines of a launcher's rank, a validation every
100 iterations, noise between them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table, machine, peak_rss_mb
from collectors.importers.door import sessions
from collectors.importers.importer import Rows, RunOf
from collectors.importers.megatron import Megatron

LOOKS = 30


def run(quick: bool, megabytes: int = 200) -> list[Table]:
    """Reading alone, reading and storing, and looks at a log that grows by a line."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "megatron.log"
        last = write_megatron(log, 20 if quick else megabytes)
        size = log.stat().st_size / 1e6
        parse, rows = _parse(log)
        store, looks = _store_and_follow(log, Path(folder) / "run", last)
    table = Table(f"A Megatron log of {size:,.0f} MB, {rows:,} rows", ("what", "processor time", "rate"), notes=(
        "Reading: lines to columns. Storing: into a run folder that is flushed, with every look's bookkeeping. Looks: "
        f"the median and the worst of {LOOKS}, each after one more line."))
    table.rows += [
        ("read", f"{parse:.2f} s", f"{size / parse:,.0f} MB/s"),
        ("read and stored", f"{store:.2f} s", f"{size / store:,.0f} MB/s"),
        ("a look at the grown log", f"{1e3 * statistics.median(looks):.1f} ms (worst {1e3 * max(looks):.1f} ms)", ""),
        ("most memory of the process", f"{peak_rss_mb():,.0f} MB", ""),
    ]
    return [table]


def write_megatron(path: Path, megabytes: float) -> int:
    """Write a log; its last iteration."""
    draw, written, iteration = random.Random(1), 0, 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            iteration += 1
            text = megatron_line(iteration, draw)
            if iteration % 100 == 0:
                text += (f"[default7]: validation loss at iteration {iteration} | lm loss value: "
                         f"{draw.uniform(2, 3):.6E} | lm loss PPL: {draw.uniform(8, 20):.6E} | \n")
            if iteration % 37 == 0:
                text += "[default0]:saving the optimizer's state in the background\n"
            file.write(text)
            written += len(text)
    return iteration


def megatron_line(iteration: int, draw: random.Random) -> str:
    """One iteration as Megatron-DeepSpeed prints it."""
    return (f"[default7]: iteration {iteration:8d}/ 9999999 | consumed samples: {iteration * 2048:12d} | consumed "
            f"tokens: {iteration * 4194304:12d} | elapsed time per iteration (ms): {draw.uniform(900, 1100):.1f} | "
            f"learning rate: {draw.uniform(1e-5, 1e-4):.3E} | global batch size:  2048 | lm loss: "
            f"{draw.uniform(2, 3):.6E} | loss scale: 1.0 | grad norm: {draw.uniform(0.1, 3):.3f} | num zeros: 0.0 | "
            f"number of skipped iterations:   0 | number of nan iterations:   0 | "
            f"samples per second: {draw.uniform(18, 20):.3f} | TFLOPs: "
            f"{draw.uniform(140, 150):.2f} |\n")


def _parse(log: Path) -> tuple[float, int]:
    began, rows = time.process_time(), 0
    for item in Megatron().read(RunOf(log, "log"), {}):
        rows += len(item.steps) if isinstance(item, Rows) else 0
    return time.process_time() - began, rows


def _store_and_follow(log: Path, folder: Path, last: int) -> tuple[float, list[float]]:
    [session] = sessions(log, run=folder)
    began = time.process_time()
    session.look()
    stored, looks = time.process_time() - began, []
    for iteration in range(last + 1, last + 1 + LOOKS):
        with log.open("a") as file:
            file.write(megatron_line(iteration, random.Random(iteration)))
        began = time.process_time()
        session.look()
        looks.append(time.process_time() - began)
    session.close()
    return stored, looks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    print(machine())
    for result in run(False, parser.parse_args().megabytes):
        print(result.markdown())
