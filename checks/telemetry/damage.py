"""telemetry.damage: files of the record that are damaged or end in the middle of a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic
from checks.ground import Ground
from checks.registry import check
from checks.telemetry._record import ANY, count, logged, no_data, told

if TYPE_CHECKING:
    from trainvitals.store import Run


@check("telemetry.damage", area="telemetry")
def damage(run: Run) -> Iterator[Finding]:
    """Files of the run folder that cannot be read whole: torn ends, changed bytes, missing documents.

    Why it matters: what cannot be read is in no answer. How to read it: every file's checksums are compared as far as
    it was read; the check reads the steps of all rows, and other columns are verified when a check asks for them. A
    torn end is what a killed writer leaves, and needs no repair.
    """
    frames = logged(run)
    if found := run.damage():
        yield told(
            "warn",
            found,
            "damaged files",
            "Parts of the record are missing; sums are over what could be read.",
            "Check the disk; torn ends of killed writers need no repair.",
            run.last_step,
        )
        return
    if run.last_step is None:
        yield no_data()
        return
    yield Ground(run.extent().rows, ANY).passed(
        f"The steps of all {run.extent().rows:,} rows in {count(len({one.frame for one in frames}), 'frame')} can be "
        "read, and no file that was read is torn or damaged.",
        Statistic("damaged files", 0, "files"),
        "Columns that no check asked for are verified when they are read. Rows that were never written leave no trace "
        "here: telemetry.holes looks for those.",
    )
