"""telemetry.blind_spots: what the log of an imported run hides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.registry import check

if TYPE_CHECKING:
    from trainvitals.store import Run

THRESHOLD = Threshold(1, None, "blind spots", "convention: what a log hides is said")


@check("telemetry.blind_spots", area="telemetry")
def blind_spots(run: Run) -> Iterator[Finding]:
    """What your logger hid: faults that the log of an imported run could not show.

    Why it matters: a log without a NaN, a spike or a slow rank may be one that leaves them out. How to read it: every
    blind spot with its remedy; checks that need what is hidden answer unknown, and not pass.
    """
    imported = run.imported
    if imported is None and run.last_step is None:
        yield Finding(
            level="unknown",
            summary="The run holds no data yet.",
            what_it_means="Nothing has been written.",
            what_to_do="Wait for the first flush, or check that this is the run folder of the job.",
        )
        return
    if imported is None:
        yield Finding(
            level="pass",
            summary="The run was written by TrainVitals itself, and not imported from another tool's log.",
            n=run.extent().rows,
            statistic=Statistic("blind spots", 0, "blind spots"),
            threshold=THRESHOLD,
            what_it_means="No other tool's format stands between the training and this record; the other checks of "
            "this area say what else it lacks.",
            what_to_do="Nothing.",
        )
        return
    if not imported.blind:
        yield Finding(
            level="unknown",
            summary=f"No blind spot is known of {imported.title}, from which the run was imported.",
            what_it_means="What the format hides has not been written down, or it hides nothing.",
            what_to_do="Read docs/import.md; log with tv.attach(model, ...) to have everything.",
            threshold=THRESHOLD,
        )
        return
    says = [f"{spot.says.rstrip('.')}." for spot in imported.blind]
    more = f" (and {len(says) - 1} more)" if len(says) > 1 else ""
    yield Finding(
        level="unknown",
        summary=f"What your logger hid: {says[0].rstrip('.')}{more}.",
        n=len(says),
        statistic=Statistic("blind spots", len(says), "blind spots"),
        threshold=THRESHOLD,
        what_it_means=" ".join(dict.fromkeys(says)),
        what_to_do=" ".join(dict.fromkeys(f"{spot.remedy.rstrip('.')}." for spot in imported.blind)),
        details={
            "blind": [
                {"kind": spot.kind, "signals": list(spot.signals), "says": spot.says, "remedy": spot.remedy}
                for spot in imported.blind
            ],
            "notes": list(imported.notes),
        },
    )
