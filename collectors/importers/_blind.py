"""What trackers of single numbers hide, whichever of them it is."""

from __future__ import annotations

from collectors.importers.importer import BlindSpot


def no_rank(tool: str, more: str = "") -> BlindSpot:
    """A tracker that keeps one value per name and step, from whoever logged it."""
    return BlindSpot("rank", ("router/", "throughput/"),
                     f"{tool} does not keep which rank logged a value, or whether it was reduced over ranks{more}",
                     "Reduce over ranks before logging from rank 0, or attach the tap, which writes every rank")
