"""Commands of the benchmark: `record`, `score`, `certify` and `doctors`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

SEEDS = (0, 1, 2)
RUNS = Path("runs/detection")


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train the runs that are not there yet")
    recording.add_argument("--out", type=Path, default=RUNS)
    recording.add_argument("--only", nargs="*", help="kinds; all where none is named")
    recording.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    scoring = commands.add_parser("score", help="judge them, beside the rules of training libraries")
    scoring.add_argument("folder", type=Path)
    certifying = commands.add_parser("certify", help="write the certificate of every check")
    certifying.add_argument("--runs", type=Path, default=RUNS)
    certifying.add_argument("--out", type=Path, help="[checks/certificates.json]")
    certifying.add_argument("--only-small", action="store_true", help="make the small set's part anew, keep the rest")
    cutting = commands.add_parser("cuts", help="judge runs at random steps, from stored state and from the start")
    cutting.add_argument("folder", type=Path)
    doctors = commands.add_parser("doctors", help="what other packages find in the same runs, where they are installed")
    doctors.add_argument("folder", type=Path)
    doctors.add_argument("--python", default="python", help="interpreter of the environment that has them")
    given = parser.parse_args()
    if given.command == "record":
        record_all(given.out, given.only, given.seeds)
    elif given.command == "score":
        from benchmarks.detection.tables import print_scores

        print_scores(given.folder)
    elif given.command == "cuts":
        from benchmarks.detection.cuts import print_cuts

        print_cuts(given.folder)
    elif given.command == "doctors":
        from benchmarks.detection.doctors import print_doctors

        print_doctors(given.folder, given.python)
    else:
        from benchmarks.detection import certify

        certify.write(None if given.only_small else given.runs, given.out or certify.FILE)


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
