"""Which attempt a writer belongs to: a number that is claimed in the run folder, so that no clock decides the order.

    attempts/000003.slurm-4711-0.8.1200.node7-2-4242-1763712000000

An empty file per writer, whose name says it all: attempt, launch, world size, start step, and the writer with its host,
rank and process. A writer takes one number more than the largest it finds, unless it finds others of its own launch
that lack its rank: then it joins them. What a writer has seen in the folder before it began is older than it, whatever
the clocks of their hosts say.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from trainvitals.store.folder import Folder

CLAIMS = "attempts"
TRIES = 20
"""How often a number is claimed anew because another process of this rank claimed the same one at once."""

SCHEDULERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("slurm", ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")),
    ("ray", ("RAY_JOB_ID",)),
    ("lsf", ("LSB_JOBID",)),
    ("pbs", ("PBS_JOBID",)),
    ("pmix", ("PMIX_NAMESPACE",)),
    ("sagemaker", ("TRAINING_JOB_NAME",)),
    ("azureml", ("AZUREML_RUN_ID",)),
    ("sky", ("SKYPILOT_TASK_ID",)),
)
"""Scheduler -> the variables that all processes of one launch share, and that the next launch does not."""


def launch_of(environment: Mapping[str, str]) -> str:
    """The identity of a job launch that all its ranks share, read from their environment; "" where there is none.

    torchrun gives its workers `TORCHELASTIC_RUN_ID` (its `--rdzv-id`; "none" without one) and counts restarts in
    `TORCHELASTIC_RESTART_COUNT`. Without torchrun, one `srun` is one launch. MASTER_ADDR and MASTER_PORT are left
    out: they are the same in the next launch, and node 0 may call itself localhost.
    """
    words = []
    torchrun = environment.get("TORCHELASTIC_RUN_ID", "")
    if torchrun not in ("", "none"):
        words += ["torchrun", torchrun, environment.get("TORCHELASTIC_RESTART_COUNT", "")]
    for name, variables in SCHEDULERS:
        values = [environment.get(variable, "") for variable in variables]
        if values[0]:
            words += [name, *values]
            if name == "slurm" and not torchrun:
                words.append(environment.get("SLURM_STEP_ID", ""))
    if words and torchrun == "none":
        words.append(environment.get("TORCHELASTIC_RESTART_COUNT", ""))
    return re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(word for word in words if word))[:100]


@dataclass(frozen=True, slots=True)
class Claim:
    """One writer's place in the order of attempts."""

    attempt: int
    launch: str
    world_size: int
    start_step: int
    writer: str
    """host-rank-pid-start, see `RunWriter`."""

    @property
    def path(self) -> str:
        launch = self.launch or "-"
        return f"{CLAIMS}/{self.attempt:06d}.{launch}.{self.world_size}.{self.start_step}.{self.writer}"

    @classmethod
    def parse(cls, path: str) -> Claim | None:
        """The claim in a path of the run folder; None for any other file."""
        place, _, name = path.rpartition("/")
        words = name.split(".", 4)
        try:
            attempt, launch, world_size, start_step, writer = words
            int(writer.split("-")[1])
            found = cls(int(attempt), launch if launch != "-" else "", int(world_size), int(start_step), writer)
        except (ValueError, IndexError):
            return None
        return found if place == CLAIMS and found.attempt > 0 else None

    @property
    def rank(self) -> int:
        return int(self.writer.split("-")[1])

    @property
    def who(self) -> str:
        """Host, process and attempt in words."""
        return f"{self.host}, process {self.process} (attempt {self.attempt})"

    @property
    def host(self) -> str:
        return self.writer.split("-")[0]

    @property
    def process(self) -> str:
        return (self.writer.split("-") + ["?"])[2]


def all_claims(folder: Folder) -> list[Claim]:
    """Every claim in a run folder. Raises OSError."""
    return [claim for path in folder.sizes(CLAIMS) if (claim := Claim.parse(path))]


def number(mine: Claim, others: Iterable[Claim]) -> int:
    """The attempt that a writer belongs to, given the claims of all others."""
    teams: dict[int, list[Claim]] = {}
    for claim in others:
        teams.setdefault(claim.attempt, []).append(claim)
    newest = max(teams, default=0)
    if mine.launch:
        candidates = [n for n, team in teams.items() if any(claim.launch == mine.launch for claim in team)]
    else:
        candidates = [newest] if any(not c.launch and c.start_step == mine.start_step for c in teams.get(newest, ())) \
            else []
    latest = max(candidates, default=0)
    if latest and mine.rank not in {claim.rank for claim in teams[latest]} and \
            all(claim.world_size == mine.world_size for claim in teams[latest]):
        return latest
    return newest + 1


def claim(folder: Folder, mine: Claim) -> Claim:
    """Find this writer's attempt number and mark it as taken. Raises OSError; nothing is claimed then."""
    for turn in range(TRIES):
        mine = replace(mine, attempt=number(mine, [c for c in all_claims(folder) if c.writer != mine.writer]))
        folder.replace(mine.path, b"")
        rivals = [other for other in newer_of_same_rank(mine, all_claims(folder)) if other.attempt == mine.attempt]
        if not rivals or turn == TRIES - 1:
            break
        # Of two that claimed at once, one may have looked before the other wrote: whoever sees a rival gives way.
        folder.remove(mine.path)
        time.sleep(random.uniform(0.0, 0.01 * 2 ** min(turn, 6)))
    return mine


def newer_of_same_rank(mine: Claim, others: Iterable[Claim]) -> list[Claim]:
    """Writers of this rank that began after this one."""
    return [other for other in others if other.rank == mine.rank and other.writer != mine.writer
            and other.attempt >= mine.attempt]
