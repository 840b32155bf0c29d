"""What the streaming judge costs: one pass over a long run, and one more look.

    python -m benchmarks.judge --steps 1000000 --series 100

Seconds are CPU seconds of one core; the rows are synthetic t noise around a power law.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from checks.stream.book import Book
from checks.stream.layout import EPISODE, GRADIENT, LOSS, STATE
from checks.stream.series import Series

NEW_ROWS = 1000


def main() -> None:
    """Print seconds, and bytes of state."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--steps", type=int, default=1_000_000)
    arguments.add_argument("--series", type=int, default=100)
    given = arguments.parse_args()
    rng = np.random.default_rng(0)
    trend = np.log(2.8 + 7 * (1 + np.arange(given.steps + NEW_ROWS) / 20) ** -0.5)
    steps = np.arange(1, given.steps + NEW_ROWS + 1)
    rows = [np.exp(trend + 0.02 * rng.standard_t(5, len(trend))) for _ in range(min(given.series, 4))]
    Series(LOSS).feed(steps[:5000], rows[0][:5000])  # compiles
    book, seconds = Book(), 0.0
    for i in range(given.series):
        series = Series(LOSS if i == 0 else GRADIENT)
        y = rows[i % len(rows)]
        begin = time.process_time()
        series.feed(steps[: given.steps], y[: given.steps])
        seconds += time.process_time() - begin
        book.series.setdefault("grad/norm_by_layer" if i else "loss/train", {})[str(i) if i else ""] = series
    print(f"one pass over {given.steps:,} steps x {given.series} series: {seconds:.1f} s CPU, "
          f"{1e6 * seconds / given.steps / given.series:.3f} us a row")  # fmt: skip
    data = book.packed()
    begin = time.process_time()
    again = Book.unpacked(data)
    for known in again.series.values():
        for i, series in enumerate(known.values()):
            series.feed(steps[given.steps :], rows[i % len(rows)][given.steps :])
    again.packed()
    print(f"one more look after {NEW_ROWS:,} steps: {time.process_time() - begin:.3f} s CPU, with reading and writing "
          f"{len(data) / 1e6:.1f} MB of state ({STATE.itemsize:,} bytes a series, {EPISODE.itemsize} an episode)"
          )  # fmt: skip


if __name__ == "__main__":
    main()
