"""What the scaling page draws from: ladders beside the runs, uploaded ones, the runs themselves, published laws.

Every number comes from `checks.scaling`; here it is found, chosen, kept and handed on. A table that cannot be fitted
is an answer, one sentence long.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from checks import Finding, run_checks
from checks.scaling import forecast_log
from checks.scaling._files import read_file
from checks.scaling._ladder import LADDER_FILE, Size, size_of
from checks.scaling.bootstrap import RESAMPLES
from checks.scaling.chinchilla import Law
from checks.scaling.fit import FitResult, fit_ladder, parse_fit
from checks.scaling.levenberg import Loss
from checks.scaling.plan import Budget, Plan, plan_fit, plan_reference
from checks.scaling.reference import REFERENCES, Reference
from checks.scaling.runs import run_table, unfinished
from checks.scaling.table import FEWEST_RUNS, Ladder, ladder, parse_columns, part, read_ladder
from dashboard.server import reads
from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.store import Run

QUICK_RESAMPLES = 400
"""Enough for a band that follows a slider: a tenth of the time of the full bootstrap."""
MOST_FILES, MOST_BYTES, LOOK_SECONDS = 50, 5_000_000, 5.0
"""Tables that are listed, and the size from which a file is no ladder but something else."""
RUNS, UPLOAD = "finished runs in this folder", "uploaded table"
CHECKS = ("scaling.allocation", "scaling.on_curve", "scaling.train_longer")
PUBLISHED = {law.name: law for law in (REFERENCES[key] for key in ("besiroglu", "muennighoff", "hoffmann"))}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a law comes from."""

    name: str
    kind: str
    """table, fit, runs, upload or published."""
    place: str = ""
    stamp: tuple[object, ...] = ()
    """Changes when the content does."""
    runs: tuple[str, ...] = ()
    """Paths, where the kind is runs."""


@dataclass(frozen=True, slots=True)
class Refit:
    """What a viewer changes about a fit."""

    loss: Loss = "huber"
    drop_smallest: float = 0.0
    """Share of the runs to leave out, those with the least compute first."""
    drop_furthest: int = 0
    """Runs to leave out whose loss lies furthest from the law of the others kept."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The law that the page shows, and how it came about."""

    name: str
    law: Law
    key: tuple[object, ...]
    fit: FitResult | None = None
    reference: Reference | None = None
    whole: Ladder | None = None
    """The runs before any was left out by the viewer."""
    error: str = ""
    """Why the source that was asked for is not the one shown."""

    def plan(self, budget: Budget, unique: float | None = None) -> Plan:
        """The best use of a budget; UsageError as `checks.scaling.plan`."""
        if self.fit is not None:
            return plan_fit(self.fit, budget, unique=unique)
        assert self.reference is not None
        return plan_reference(self.reference, budget, unique=unique)

    def band_at(self, flops: float) -> float | None:
        """Half-width of the 90 % band of a loss at this compute, in log units; None where nothing was backtested."""
        if self.fit is not None:
            return None if self.fit.backtest is None else self.fit.backtest.band_at(flops / self.fit.largest_flops)
        assert self.reference is not None
        return self.reference.band_at(flops)


def sources(folder: str, run_path: str, uploaded: bytes | None) -> dict[str, Source]:
    """Name -> source, the first being the one to start with: an upload, a stored fit, a table, the runs, then others'.

    `run_path` is the run that is looked at; it is no part of the ladder that it is held against.
    """
    found = [Source(UPLOAD, "upload", "", (hash(uploaded),))] if uploaded is not None else []
    found += _files(folder)
    others = tuple(path for path in reads.runs_below(folder).values() if path != run_path)
    finished = [
        (path, snap.version) for path in others
        if (snap := reads.poll(path)).status == "finished" and not reads.shared(path).read("unfinished", unfinished)
    ]  # fmt: skip
    runs = Source(RUNS, "runs", folder, tuple(finished), tuple(path for path, _ in finished))
    published = [Source(name, "published", name) for name in PUBLISHED]
    if len(finished) >= FEWEST_RUNS:
        found.append(runs)
    return {source.name: source for source in [*found, *published]}


@st.cache_data(ttl=LOOK_SECONDS, max_entries=8, show_spinner=False)
def _files(folder: str) -> list[Source]:
    """`ladder.json` and tables directly in a folder, or beside a folder that is itself a run."""
    found: list[Source] = []
    for place in dict.fromkeys((folder, os.path.dirname(folder.rstrip("/")) if _is_run(folder) else folder)):
        try:
            entries = sorted(os.scandir(place), key=lambda e: (not e.name.startswith("ladder"), e.name))
        except OSError:  # not there yet, or no local folder
            continue
        for entry in entries:
            kind = "fit" if entry.name == LADDER_FILE else "table" if entry.name.lower().endswith(".csv") else ""
            if kind and entry.is_file() and (stat := entry.stat()).st_size <= MOST_BYTES:
                found.append(Source(entry.name, kind, entry.path, (stat.st_mtime_ns, stat.st_size)))
    found.sort(key=lambda source: source.kind != "fit")
    return found[:MOST_FILES]


def _is_run(folder: str) -> bool:
    return list(reads.runs_below(folder).values()) == [folder]


def start_with(options: Mapping[str, Source]) -> str:
    """The source to show first: the first that can be fitted as it is."""
    return next((name for name, source in options.items() if not choose(source, "", Refit(), None).error), "")


def choose(source: Source, columns: str, refit: Refit, uploaded: bytes | None) -> Chosen:
    """The law of a source; where it gives none, a published law and the reason."""
    if source.kind == "published":
        law = PUBLISHED[source.place]
        return Chosen(law.name, law.law, (law.name,), reference=law)
    key = (source.name, source.place, source.stamp, columns)
    try:
        if source.kind == "fit":
            stored = _stored(key, source.place)
            changed = refit != Refit(loss=stored.loss)
            fit = _refitted((*key, refit), stored.ladder, refit) if changed else stored
            return Chosen(source.name, fit.law, (*key, refit), fit, whole=stored.ladder)
        whole = _read(key, source, columns, uploaded)
        fit = _refitted((*key, refit), whole, refit)
        return Chosen(source.name, fit.law, (*key, refit), fit, whole=whole)
    except (TrainVitalsError, OSError) as error:
        law = next(iter(PUBLISHED.values()))
        return Chosen(law.name, law.law, (law.name,), reference=law, error=str(error))


def _read(key: tuple[object, ...], source: Source, columns: str, uploaded: bytes | None) -> Ladder:
    found = _ladder(key, source, columns, uploaded)
    if isinstance(found, str):
        raise UsageError(found)
    return found


@st.cache_resource(max_entries=32, show_spinner=False)
def _ladder(key: tuple[object, ...], _source: Source, _columns: str, _uploaded: bytes | None) -> Ladder | str:
    """The runs of a source, or why there are none."""
    try:
        named = parse_columns(_columns) if _columns.strip() else None
        if _source.kind == "runs":
            return ladder(run_table(Path(_source.place), _source.runs), where="The table of runs", unit="nats/token")
        if _source.kind == "upload":
            return _of_bytes(_uploaded or b"", named)
        return _named(Path(_source.place), _source.name, named)
    except (TrainVitalsError, OSError) as error:
        return str(error)


def _of_bytes(content: bytes, columns: Mapping[str, str] | None) -> Ladder:
    if len(content) > MOST_BYTES:
        raise UsageError(f"The table has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} are read.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload.csv"
        path.write_bytes(content)
        return _named(path, "The table", columns)


def _named(path: Path, name: str, columns: Mapping[str, str] | None) -> Ladder:
    """The ladder of a file, which sentences call by its name alone."""
    try:
        return read_ladder(path, columns)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), name)) from error


@st.cache_resource(max_entries=16, show_spinner=False)
def _stored(key: tuple[object, ...], _place: str) -> FitResult:
    return replace(parse_fit(read_file(_place, MOST_BYTES), LADDER_FILE), resamples=QUICK_RESAMPLES)


@st.cache_resource(max_entries=64, show_spinner=False)
def _refitted(key: tuple[object, ...], _ladder: Ladder, _refit: Refit) -> FitResult:
    fit = fit_ladder(kept(_ladder, _refit), _refit.loss, resamples=QUICK_RESAMPLES)
    if _refit.drop_furthest:
        order = np.argsort(-np.abs(fit.residual), kind="stable")
        fit = fit_ladder(
            part(fit.ladder, np.sort(order[_refit.drop_furthest :])), _refit.loss, resamples=QUICK_RESAMPLES
        )
    return fit


@st.cache_resource(max_entries=16, show_spinner=False)
def sure(key: tuple[object, ...], _fit: FitResult) -> FitResult:
    """The same fit with the full bootstrap."""
    return replace(_fit, resamples=RESAMPLES)


def kept(whole: Ladder, refit: Refit) -> Ladder:
    """The runs of a ladder without the smallest budgets.

    Raises:
        UsageError: too few runs or sizes are left for a fit.
    """
    order = np.argsort(whole.flops, kind="stable")
    left = part(whole, np.sort(order[int(refit.drop_smallest * len(whole)) :]))
    if len(left) - refit.drop_furthest < FEWEST_RUNS or left.sizes < 2 or np.ptp(np.log(left.d)) < 0.01:
        raise UsageError(
            f"{len(left) - refit.drop_furthest} runs of {left.sizes} sizes are left, too few for the law's five "
            "constants. Drop fewer."
        )
    return left


def position(path: str) -> Size | None:
    """Parameters and tokens of a run; None where it does not say."""

    def make(run: Run) -> Size | None:
        return size_of(run)

    return reads.shared(path).read("scaling-size", make)


def judged(path: str, chosen: Chosen) -> dict[str, Finding]:
    """What the checks say of a run by the law that is shown."""

    def make(run: Run) -> dict[str, Finding]:
        settings = {name: {"ladder": chosen.fit or chosen.reference} for name in CHECKS}
        return {finding.check: finding for finding in run_checks(run, CHECKS, settings).findings}

    return reads.shared(path).read(("scaling", chosen.key), make)


def past_forecasts(path: str, version: str) -> Sequence[forecast_log.Scored]:
    """Kept forecasts of a run; `version` is that of the report that may have added one."""
    snap = reads.poll(path)
    return reads.shared(path).read("forecasts", forecast_log.past, valid=f"{snap.version}/{version}")


def frontier_band(fit: FitResult, flops: NDArray[np.float64], what: str) -> tuple[NDArray[np.float64], ...]:
    """95 % bootstrap interval of N*, or D*, at each compute: low and high; what is "N" or "D"."""
    spans = [fit.optimum_intervals(float(c)) or {} for c in flops]
    ends = np.array([spans[i].get(what, (np.nan, np.nan)) for i in range(len(spans))])
    return ends[:, 0], ends[:, 1]
