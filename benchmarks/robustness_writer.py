"""A job that is killed, or whose disk hangs, fills up or vanishes: what it cost, and whether that was said.

Called by `python -m benchmarks.robustness`; alone: `python -m benchmarks.robustness_writer [--quick]`.

A kill ends right if no lost row was older than the flush interval and `WRITE_SECONDS` for the write under way (and the
longest time in which the killed loop itself did not get to run: the machine's, not ours); else silent. A disk in
trouble ends right without a loss, named if exactly the rows that are missing were counted in the log or as an event,
else silent; hung if the process does not end.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.store.killing import Kill, Victim
from trainvitals.store import RunWriter, disk, open_run
from trainvitals.store.folder import LocalFolder

if TYPE_CHECKING:
    from benchmarks.robustness import Row

KILLS, AT_ONCE = 500, 4
FLUSH_SECONDS, WRITE_SECONDS = 0.1, 0.25
COMPACT_SECONDS = 3.0
HANG_S = 60
TRAIN_SECONDS, STEP_SECONDS = 3.0, 0.001
DISK_BYTES = 1 << 20


def row(scenario: str) -> Row:
    from benchmarks.robustness import Row

    return Row(scenario)


# -- kills -----------------------------------------------------------------------------------------------------------


def kills(quick: bool, compact_seconds: float) -> Row:
    """Kill writers at random times, and compare what a reader finds with what they had appended, and when."""
    rng, count = np.random.default_rng(0), 10 if quick else KILLS // 2
    name = f", {compact_seconds:g} s for each compaction" if compact_seconds else ""
    found, result = list[Kill](), row(f"kill -9, flush {FLUSH_SECONDS} s{name}")
    with tempfile.TemporaryDirectory(prefix="tv-kill-") as base:
        for batch in range(0, count, AT_ONCE):
            victims = [Victim(Path(base, f"{batch}-{n}"), FLUSH_SECONDS, compact_seconds)
                       for n in range(min(AT_ONCE, count - batch))]
            for victim in victims:
                found.append(victim.kill(lambda: time.sleep(rng.uniform(0.0, 0.3))))
                shutil.rmtree(victim.path, ignore_errors=True)
    for kill in found:
        late = kill.oldest_lost - kill.stall - FLUSH_SECONDS - WRITE_SECONDS
        outcome = "right" if kill.in_order and late <= 0 else "silent"
        result.outcomes[outcome] += 1
        if outcome != "right":
            result.examples.append(str(kill))
    ages = np.array([kill.oldest_lost for kill in found])
    kept, appended = sum(kill.stored for kill in found), sum(kill.appended for kill in found)
    result.remark = (f"oldest lost row: median {np.median(ages):.2f} s, 99 % {np.quantile(ages, 0.99):.2f} s, worst "
                     f"{ages.max():.2f} s; {kept:,} of {appended:,} rows kept")
    return result


# -- disks in trouble --------------------------------------------------------------------------------------------------


class Trouble(LocalFolder):
    """A folder of which one operation hangs from a time on."""

    def __init__(self, root: Path, where: str, after: float) -> None:
        super().__init__(root)
        hangs_at = time.monotonic() + after

        def hang(*args: Any, **kwargs: Any) -> Any:
            if time.monotonic() >= hangs_at:
                threading.Event().wait()
            return getattr(LocalFolder, where)(self, *args, **kwargs)

        if where:
            setattr(self, where, hang)


def train(folder: str, where: str, after: str, rescue: str) -> None:
    """A job of `TRAIN_SECONDS`; prints what it appended and the longest time that a step lost to telemetry.

    `rescue`: a file that it deletes in the middle, so that a full disk has room again.
    """
    disk.QUEUE_BYTES = 200_000  # what a job of days fills in hours
    writer = RunWriter(Trouble(Path(folder), where, float(after)), flush_seconds=FLUSH_SECONDS)
    frame = writer.frame("x", [])
    steps, worst, ends = 0, 0.0, time.monotonic() + TRAIN_SECONDS
    while time.monotonic() < ends:
        steps += 1
        values = {f"x/{i}": float(steps) for i in range(20)}
        began = time.perf_counter()
        frame.append(steps, values)
        worst = max(worst, time.perf_counter() - began)
        if rescue and steps % 100 == 0 and time.monotonic() > ends - TRAIN_SECONDS / 3:
            Path(rescue).unlink(missing_ok=True)
        time.sleep(STEP_SECONDS)
    print(json.dumps({"steps": steps, "worst_ms": worst * 1e3}), flush=True)
    writer.close()


def trouble(result: Row, folder: Path, *, where: str = "", after: float = 0.0, rescue: str = "",
            meanwhile: Callable[[], None] = lambda: None) -> None:
    """One job on a disk in trouble, judged."""
    command = [sys.executable, "-m", "benchmarks.robustness_writer", "train", str(folder), where, str(after), rescue]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None
    meanwhile()
    try:
        said = json.loads(job.stdout.readline() or "{}")
        began = time.monotonic()
        _, errors = job.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        job.kill()
        job.communicate()
        result.outcomes["hung"] += 1
        return
    exit_s = time.monotonic() - began
    if job.returncode or not said:
        result.outcomes["raised"] += 1
        result.examples.append(errors[-300:])
        return
    lost, named = said["steps"] - stored(folder), rows_named(folder, errors)
    result.outcomes["right" if lost == named == 0 else "named" if lost == named else "silent"] += 1
    if lost != named:
        result.examples.append(f"{where or rescue or 'gone'}: {lost} rows lost, {named} named")
    cost = f"{lost:,} of {said['steps']:,} rows lost, {named:,} named, worst step {said['worst_ms']:.0f} ms, " \
           f"exit {exit_s:.1f} s"
    result.remark += f"{'; ' if result.remark else ''}{where or ''} {cost}".replace("  ", " ")


def stored(folder: Path) -> int:
    """Steps that a reader finds."""
    try:
        return len(open_run(folder).array("x/0"))
    except (OSError, KeyError):
        return 0


def rows_named(folder: Path, errors: str) -> int:
    """Rows of which the log or the folder itself says that they are lost."""
    last = re.findall(r"did not take ([\d,]+) rows and [\d,]+ events \(([\d,]+) rows were", errors)
    if last:
        return sum(int(number.replace(",", "")) for number in last[-1])
    try:
        events = open_run(folder).events()
    except OSError:
        return 0
    dropped = [data["rows"] for data in events.query("kind == 'rows_dropped'")["data"]]  # each a running total
    gone = [data["rows"] for data in events.query("kind in ('folder_lost', 'rows_gone')")["data"]]
    return max(dropped, default=0) + sum(gone)


def hung(quick: bool) -> Row:
    """An operation that never comes back, from the start or later on: a dead mount."""
    result = row("disk hangs")
    cases = [(where, after) for where in ("append", "replace", "sizes", "stamp") for after in (0.0, 1.0)]
    with tempfile.TemporaryDirectory(prefix="tv-hang-") as base, ThreadPoolExecutor(2) as pool:
        chosen = [case for case in cases if case != ("replace", 1.0)][: 1 if quick else None]
        list(pool.map(lambda case: trouble(result, Path(base, f"{case[0]}-{case[1]}"), where=case[0], after=case[1]),
                      chosen))
    return result


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of `DISK_BYTES`. Raises OSError where it cannot be mounted."""
    with tempfile.TemporaryDirectory(prefix="tv-disk-") as base:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", base],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode:
            raise OSError(mounted.stderr.strip())
        try:
            yield Path(base)
        finally:
            subprocess.run(["umount", "-l", base], check=False)


def full(quick: bool) -> Row:
    """A disk that is full from the start to the end, and one that has room again after a while."""
    result = row("disk full")
    try:
        for rescued in (True,) if quick else (True, False):
            with small_disk() as place:
                ballast = place / "ballast"
                ballast.write_bytes(bytes(DISK_BYTES - 150_000))
                trouble(result, place / "run", rescue=str(ballast) if rescued else "")
    except OSError as error:
        result.remark = f"not tried: no small file system can be mounted here ({error})"
    return result


def vanished(quick: bool) -> Row:
    """The folder is moved away while the job writes."""
    result = row("folder moved away")
    with tempfile.TemporaryDirectory(prefix="tv-gone-") as base:
        for n in range(1 if quick else 5):
            place = Path(base, f"run-{n}")

            def move(place: Path = place) -> None:
                while not list(place.glob("frames/x/live/*/*")):
                    time.sleep(0.01)
                time.sleep(0.5)
                place.rename(f"{place}-elsewhere")

            trouble(result, place, meanwhile=move)
    return result


SCENARIOS: list[Callable[[bool], Row]] = [
    lambda quick: kills(quick, 0.0),
    lambda quick: kills(quick, COMPACT_SECONDS),
    hung,
    full,
    vanished,
]


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(*sys.argv[2:])
    else:
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        for scenario in SCENARIOS:
            done = scenario("--quick" in sys.argv)
            print(done.scenario, dict(done.outcomes), done.remark, *done.examples[:5], sep="\n    ", flush=True)
