"""What trackers of single numbers hide, whichever of them it is."""

from __future__ import annotations

from collectors.importers.importer import BlindSpot


def of_one_process(tool: str, package: str) -> tuple[BlindSpot, ...]:
    """A tracker that writes what one process logs, and measures its machine beside it."""
    return (
        BlindSpot("rank", ("router/", "throughput/"),
                  f"A {tool} run is what one process logged, as a rule rank 0, reduced over ranks or not",
                  f"Reduce before {package}.log, or attach the tap, which writes every rank."),
        BlindSpot("sampled", ("system/",), f"{package} measures the machine every few seconds, and the last "
                  "measurement before a row is kept", "Attach the tap, which measures at every step."),
    )


def no_rank(tool: str, more: str = "") -> BlindSpot:
    """A tracker that keeps one value per name and step, from whoever logged it."""
    return BlindSpot("rank", ("router/", "throughput/"),
                     f"{tool} does not keep which rank logged a value, or whether it was reduced over ranks{more}",
                     "Reduce over ranks before logging from rank 0, or attach the tap, which writes every rank")
