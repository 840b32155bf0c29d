"""data.corrupt: batches that are empty or nearly so, and batches that come again where no pass over the data ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.data._repeats import Repeats, repeats
from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import Rows, scalar, vector
from checks.registry import check
from checks.robust import trailing_baseline
from trainvitals.fingerprint import batch_hashes

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention (no published limit): no batch is without tokens, and none comes again outside of a pass"
NEARBY = 100
"""Rows within which faults are one fault, and are counted."""
STUCK = 5
"""Equal rows in a row that chance does not give where a batch is one document."""
SCATTER = 8.0
"""Robust deviations below the usual length at which a batch is nearly empty: lengths of documents scatter widely."""


@check("data.corrupt", area="data", reads=("data/domain_tokens",), uses=("data/batch_hash",), refs=())
def corrupt(
    run: Run, *, fail_empty: int = 3, nearly_empty_share: float = 0.05, warn_repeats: int = 3, fail_share: float = 0.3
) -> Iterator[Finding]:
    """Batches come without tokens, or the same batch comes again where no pass over the data explains it.

    Why it matters: a loader that hangs, a shard that reads as padding or a sampler that began anew after a resume
    trains the model on nothing, or on a few texts until it knows them by heart, and the loss looks better for it. How
    to read it: a batch is empty with no token beside padding, nearly empty with less than `nearly_empty_share` of the
    usual tokens per row and far outside their scatter. Batches are equal where the fingerprints of their token ids
    are. Passes over the data are told by counting: a pass takes every batch once, in any order, before one comes
    again. `warn_repeats` repeats outside of passes within 100 rows warn, `fail_share` of 100 rows fails. Where a step
    is one document, equal documents are no fault, and five equal steps in a row are.
    """
    tokens = vector(run, "data/domain_tokens")
    starts = quiet(run, "data").level_steps
    yield _empty(tokens, scalar(run, "data/sequences"), fail_empty, nearly_empty_share)
    yield _repeated(run, starts, warn_repeats, fail_share)


def _empty(tokens: Rows, sequences: Rows, fail_empty: int, nearly: float) -> Finding:
    known = np.isfinite(tokens.values).any(axis=1) if len(tokens) else np.zeros(0, bool)
    steps, total = tokens.steps[known], np.nansum(tokens.values[known], axis=1)
    ground = Ground(len(steps), Threshold(1, fail_empty, "steps", SOURCE))
    if not len(steps):
        return ground.unknown("No row says how many tokens a batch has.", "An empty batch cannot be told.")
    per_row = _per_sequence(steps, total, sequences)
    center, sigma = trailing_baseline(np.log(np.maximum(per_row, 0.5)), window=64, min_rows=20)
    with np.errstate(invalid="ignore"):
        thin = np.log(np.maximum(per_row, 0.5)) < np.minimum(center + np.log(nearly), center - SCATTER * sigma)
    bad = np.flatnonzero((total <= 0) | thin)
    if not len(bad):
        return ground.passed(
            f"All {len(steps):,} rows of batches hold tokens.",
            Statistic("steps without tokens, or nearly so", 0.0, "steps"),
            "The loader gave no batch of padding alone. A step that calls no forward at all has no row.",
        )
    first, last, most = _group(bad, len(steps))
    none = int((total[bad] <= 0).sum())
    spell = Spell(int(steps[first]), int(steps[last]), last == len(steps) - 1)
    return ground.alarm(
        f"{len(bad):,} of {len(steps):,} batches hold no tokens or nearly none ({none:,} hold none), {spell.words}.",
        Statistic(f"such steps within {NEARBY} rows, most", float(most), "steps"),
        spell,
        level="fail" if most >= fail_empty else "warn",
        evidence=["data/padding_share", "data/domain_tokens"],
        means="The model is trained on padding, and the mean over a batch rests on few tokens.",
        do=f"Look at what the loader gives at step {spell.first:,}: an empty document, a filter, a damaged shard.",
        onset="first such row",
    )


def _per_sequence(steps: NDArray[np.int64], total: NDArray[np.float64], sequences: Rows) -> NDArray[np.float64]:
    """Tokens per row of the batch where rows are known: the last batch of a pass has fewer rows, not shorter ones."""
    if not np.array_equal(steps, sequences.steps):
        return total
    rows = np.where(np.isfinite(sequences.values) & (sequences.values > 0), sequences.values, 1.0)
    return np.asarray(total / rows)


def _group(bad: NDArray[np.int64], rows: int) -> tuple[int, int, int]:
    """First and last row of the newest faults that lie near each other, and the most of all within 100 rows."""
    most = int(max(np.arange(1, len(bad) + 1) - np.searchsorted(bad, bad - NEARBY + 1)))
    breaks = np.flatnonzero(np.diff(bad) > NEARBY)
    first = int(bad[breaks[-1] + 1]) if len(breaks) else int(bad[0])
    return first, int(bad[-1]), most


def _repeated(run: Run, switches: tuple[int, ...], warn: int, fail_share: float) -> Finding:
    steps, fingerprints = batch_hashes(run)
    threshold = Threshold(warn, fail_share * NEARBY, "steps", SOURCE)
    if len(steps) < 2:
        return Ground(len(steps), threshold).unknown(
            "The batches have no fingerprints, so equal ones cannot be told.",
            "A batch that comes again and again looks like a loss that falls.",
            "Record with the data collector of this version; imported logs have none.",
        )
    found = repeats(fingerprints.tolist(), [int(np.searchsorted(steps, s, side="right")) for s in switches])
    lone = _documents(run) < 2
    bad = _stuck(fingerprints) if lone or _one_batch(found) else np.array(sorted(r for r, _ in found.rows), np.int64)
    ground = Ground(len(steps), threshold, details={
        "distinct_since_the_data_changed": found.distinct, "repeats_outside_of_passes": len(bad),
        "second_reading_that_may_be_a_pass": len(found.pending),
    })
    most = _group(bad, len(steps))[2] if len(bad) else 0
    if most < warn:
        return ground.passed(*_calm(found, len(bad), most, lone, steps))
    first, last, _ = _group(bad, len(steps))
    spell = Spell(int(steps[first]), int(steps[last]), last + len(found.pending) >= len(steps) - 1)
    return ground.alarm(
        f"Batches came again where no pass over the data explains it: {len(bad):,} of {len(steps):,}, {spell.words}.",
        Statistic(f"such steps within {NEARBY} rows, most", float(most), "steps"),
        spell,
        level="fail" if most >= fail_share * NEARBY else "warn",
        evidence=["data/batch_hash", "loss/train"],
        means="The same token ids were trained on again. The loss falls on what it has seen, and not because the model "
        "got better.",
        do=f"Look at the loader at step {spell.first:,}: a worker that hangs, a sampler that began anew at a resume, "
        "a cache that is read again.",
        onset="first row whose fingerprint came again outside of a pass",
    )


def _documents(run: Run) -> float:
    """Usual number of rows of a batch; with one, equal batches are equal documents. Unknown counts as many."""
    rows = scalar(run, "data/sequences").values
    rows = rows[np.isfinite(rows)]
    return float(np.median(rows)) if len(rows) else np.inf


def _one_batch(found: Repeats) -> bool:
    return found.distinct == 1 and not found.rows


def _stuck(fingerprints: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows that end, or lie in, `STUCK` equal rows in a row; the first of them is no repeat."""
    equal = np.concatenate([[False], fingerprints[1:] == fingerprints[:-1]])
    run_length = np.zeros(len(equal), np.int64)
    for row in np.flatnonzero(equal):
        run_length[row] = run_length[row - 1] + 1
    bad = np.zeros(len(equal), bool)
    for end in np.flatnonzero(run_length == STUCK - 1):
        bad[end - STUCK + 2 : end + 1] = True
    return np.flatnonzero(bad | (run_length >= STUCK - 1))


def _calm(found: Repeats, repeated: int, most: int, lone: bool, steps: NDArray[np.int64]
          ) -> tuple[str, Statistic, str]:
    again = ""
    if found.pending:
        again = f" Since step {int(steps[found.pending[0]]):,} {len(found.pending):,} batches were read again, which " \
            "may be a pass that has begun."
    passes = f" {len(found.whole):,} batches belong to whole passes over the data." if found.whole else ""
    few = f" {repeated:,} came again by themselves." if repeated else ""
    looked = f"No step is stuck on one document in {len(steps):,} batches of one." if lone else \
        f"No batch came again and again in {len(steps):,}."
    return (
        looked + passes + again + few,
        Statistic(f"repeats outside of passes within {NEARBY} rows, most", float(most), "steps"),
        "Fingerprints of the token ids differ but for passes over the data. Equal documents in different batches are "
        "not seen by them.",
    )
