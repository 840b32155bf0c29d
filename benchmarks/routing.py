"""Both error rates of the routing checks, over simulated routers and families of them.

    python -m benchmarks.routing [--seeds 8] [--first 1000]

Prints, per family, healthy runs with a warning or a failure and faults found, as a Markdown table. The thresholds were
chosen on seeds below 100, so others are the measure. Routers are simulated (`tests/checks/routing/routers.py`), with
the loads that OLMoE's have on mixed text and on one domain; those of the detection benchmark are trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from checks import run_checks
from checks.certificates import upper_bound
from tests.checks.routing import kinds
from tests.checks.routing.kinds import COLLAPSES, DEATHS, HEALTHY, OVERLOADS, UNKNOWABLE, Kind

FAMILIES: Mapping[str, dict[str, Any]] = {
    "as OLMoE": {}, "more specialised": {"specialised": 1.6}, "hardly specialised": {"specialised": 0.6},
    "4 documents a row": {"documents": 4}, "200 documents a row": {"documents": 200}, "4 layers": {"layers": 4},
    "1,200 rows": {"n": 1200},
}  # fmt: skip
FAULTS: Mapping[str, tuple[Mapping[str, Kind], str]] = {
    "collapse": (COLLAPSES, "router.collapse"), "imbalance": (OVERLOADS, "router.overload"),
    "dead experts": (DEATHS | {"dies_while_resting": kinds.dies_while_resting}, "router.dead"),
}  # fmt: skip


def levels(made: Iterable[Kind], seeds: range, check: str = "") -> list[set[str]]:
    """Levels of the answers to each run, of one check or of all."""
    found = []
    for kind in made:
        for seed in seeds:
            report = run_checks(kind(seed).run(), only="routing")  # type: ignore[arg-type]
            found.append({f.level for f in report.findings if f.check.startswith(check)})
    return found


def line(family: str, seeds: range) -> str:
    """One row of the table."""
    kinds.FAMILY.clear()
    kinds.FAMILY.update(FAMILIES[family])
    healthy = levels(HEALTHY.values(), seeds)
    warned, failed = (sum(level in of_run for of_run in healthy) for level in ("warn", "fail"))
    unclear = levels(UNKNOWABLE.values(), seeds)
    cells = [family, len(healthy), warned, failed, f"{100 * upper_bound(failed, len(healthy)):.1f} %",
             f"{sum('fail' in of_run for of_run in unclear)} of {len(unclear)}"]  # fmt: skip
    for of_kind, check in FAULTS.values():
        told = levels(of_kind.values(), seeds, check)
        cells.append(f"{sum(bool({'warn', 'fail'} & of_run) for of_run in told)} of {len(told)}")
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=1000)
    given = parser.parse_args()
    print("| routers | healthy runs | warned | failed | failed, 95 % below | failed though nobody can tell | "
          + " | ".join(f"{name} found" for name in FAULTS) + " |")  # fmt: skip
    print("|" + "---|" * (6 + len(FAULTS)))
    for family in FAMILIES:
        print(line(family, range(given.first, given.first + given.seeds)), flush=True)


if __name__ == "__main__":
    main()
