"""Where a job's run folder is, what it holds already, and whether this job may write there: asked before training.

`run="runs/mine"` is that folder, `id="mine"` is `runs/mine`, and `run="sweep", id="seed-3"` is `sweep/seed-3`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainvitals.card import RunCard
from trainvitals.config import joined
from trainvitals.errors import RunDamaged, UsageError
from trainvitals.store import RunWriter, list_runs, open_run
from trainvitals.store.claims import Claim, all_claims, launch_of
from trainvitals.store.folder import open_folder
from trainvitals.store.liveness import GUARD_SECONDS, live_rival, within

RUNS = "runs"
"""The folder of runs where none is given."""
ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
Resume = Literal["auto", "must", "never"]


def run_folder(run: Any, id: str | None) -> str:
    """The run folder that `run` and `id` name. Raises UsageError where they name none."""
    if id is not None and not (isinstance(id, str) and ID.fullmatch(id)):
        raise UsageError(f"id must be up to 100 letters, digits, dots, dashes or underscores, not {id!r:.120}.")
    if run is not None and not (isinstance(run, str | Path) and str(run).strip()):
        raise UsageError(f"run must name a folder, not {run!r:.80}.")
    if run is None and id is None:
        raise UsageError('Give run="runs/mine" (a folder), or id="mine" for runs/mine.')
    folder = RUNS if run is None else str(run)
    return folder if id is None else f"{folder.rstrip('/') or '/'}/{id}"


def process_rank() -> tuple[int, int]:
    """This process's rank and the number of processes: from torch.distributed, else from the environment, else 0, 1."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@dataclass(slots=True)
class Before:
    """What a run folder held before this job."""

    exists: bool | None = None
    """None: the folder could not be looked at."""
    last_step: int | None = None
    """Newest step on the main line, of earlier attempts; None without one."""
    card: RunCard = field(default_factory=RunCard)


def look(path: str, resume: Resume, rank: int, world_size: int, *, rows: bool) -> Before:
    """Look at a run folder before this job writes to it. Takes `GUARD_SECONDS` at most, mostly far less.

    Args:
        path: the run folder.
        resume: "must" where a run must be there already, "never" where none may be, "auto" for either. Rank 0 judges.
        rank, world_size: of this process.
        rows: whether `last_step` is asked for; it means opening the run.

    Raises:
        UsageError: `resume` forbids it, or another job is writing this rank there.
    """
    if resume not in ("auto", "must", "never"):
        raise UsageError(f'resume must be "auto", "must" or "never", not {resume!r:.80}.')
    launch = launch_of(os.environ)
    rival: list[Claim] = []

    def ask() -> Before:
        found = _held(path, rank, world_size, launch, rows)
        if found.exists and (other := live_rival(open_folder(path), rank, launch)) is not None:
            rival.append(other)
        return found

    before = within(GUARD_SECONDS, ask) or Before()
    if rival:
        raise UsageError(f"{path} is being written by {rival[0].who}, as rank {rank}: its files grew while this was "
                         "watched. Stop that job, or give this one a run folder of its own. If both are ranks of one "
                         "job, attach after torch.distributed is initialised, or set RANK and WORLD_SIZE.")
    if rank == 0 and resume != "auto":
        if before.exists is None:
            raise UsageError(f"{path} could not be looked at within {GUARD_SECONDS:g} s, and resume={resume!r} needs "
                             "to know whether a run is there. Mend the disk, or use resume=\"auto\".")
        if before.exists != (resume == "must"):
            raise UsageError(f"There is no run in {path}, and resume=\"must\" asks for one. Check the path, or use "
                             "resume=\"auto\"." if resume == "must" else f"There is a run in {path} already, and "
                             "resume=\"never\" forbids to go on with it. Give another folder or id, or use "
                             "resume=\"auto\".")
    return before


def _held(path: str, rank: int, world_size: int, launch: str, rows: bool) -> Before:
    folder = open_folder(path)
    if list_runs(path) != [str(folder).rstrip("/")]:
        return Before(exists=False)
    if not rows:
        return Before(True, card=_card(path))
    run = open_run(path)
    claims = all_claims(folder)
    newest = max((claim.attempt for claim in claims), default=0)
    team = [claim for claim in claims if claim.attempt == newest]
    # Ranks of this job that began before this one may have rows already; what the first of them found counts for all.
    joins = world_size > 1 and rank not in {claim.rank for claim in team} and all(
        (claim.world_size, claim.launch) == (world_size, launch) for claim in team)
    last = (min(claim.start_step for claim in team) or None) if team and joins else run.last_step
    return Before(True, last, run.card)


def _card(path: str) -> RunCard:
    from trainvitals.card import read_card
    from trainvitals.sealed import MOST_BYTES

    try:
        return read_card(open_folder(path).read("run.json", 0, MOST_BYTES), path)[0]
    except (OSError, ValueError, RunDamaged):
        return RunCard()


def writer_here(path: str, rank: int) -> RunWriter | None:
    """The writer that this process has open in a run folder as this rank."""
    from collectors.logger import open_loggers

    where = _absolute(str(open_folder(path)))
    return next((logger.writer for logger in open_loggers() if logger.writer.rank == rank
                 and not logger.writer.closed and _absolute(str(logger.writer.folder)) == where), None)


def _absolute(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(os.path.expanduser(path))


def keep_said(card: RunCard, earlier: RunCard) -> None:
    """Keep what a user said of the run before, where this job does not say it anew."""
    card.config = joined(earlier.config, card.config)
    card.tags = list(dict.fromkeys([*earlier.tags, *card.tags]))
    card.group = card.group or earlier.group
    card.notes = {**earlier.notes, **card.notes}
