"""Run the benchmarks and print their tables: `python -m benchmarks [NAME ...] [--quick]`.

A full run also writes benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.report import machine

NAMES = ("overhead", "store", "board", "scaling", "contamination", "fleet", "importers", "importers_text", "review",
         "evals")
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="smaller runs: noisier figures in about a minute")
    parser.add_argument("--runs", type=int, default=1, help="how often overhead measures, in one table")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    parts = ["# Benchmarks\n", machine()]
    print("\n".join(parts), flush=True)
    for name in args.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        for table in module.run(args.quick, args.runs) if name == "overhead" else module.run(args.quick):
            parts.append(table.markdown())
            print(parts[-1], flush=True)
    if not args.names and not args.quick:
        RESULTS.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
