"""Commands of the benchmark: `record` and `score`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

SEEDS = (0, 1, 2)


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train the runs that are not there yet")
    recording.add_argument("--out", type=Path, default=Path("runs/detection"))
    recording.add_argument("--only", nargs="*", help="kinds; all where none is named")
    recording.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    scoring = commands.add_parser("score", help="judge them")
    scoring.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record_all(given.out, given.only, given.seeds)
    else:
        from benchmarks.detection.score import print_scores

        print_scores(given.folder)


def record_all(out: Path, only: list[str] | None, seeds: list[int]) -> None:
    """Train every kind at every seed, one after the other; a run that is whole already is kept."""
    import torch

    from benchmarks.detection.kinds import KINDS
    from benchmarks.detection.training import record

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for name in only or KINDS:
        for seed in seeds:
            folder = out / f"{name}-{seed}"
            if folder.with_name(folder.name + ".truth.json").exists():
                continue
            began = time.perf_counter()
            record(KINDS[name], seed, folder)
            print(f"{folder.name:32} {time.perf_counter() - began:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
