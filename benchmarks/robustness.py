"""What happens to a run folder that is damaged, and to a job whose disk is: nothing wrong is shown in silence.

    python -m benchmarks.robustness [--quick]

Every scenario is a function that tries many cases and returns a `Row`. A case ends in one of these ways:

- right: every value that is shown is the one that was written, and none is missing;
- earlier: a file that is only appended to ends at a record, as it did while the run was shorter;
- named: something is missing, or shown with a warning, and a sentence of `run.problems()` names it;
- silent: a wrong value, or a missing one that no sentence names;
- raised, hung: the reader did not come back with an answer.

Required: nothing silent, raised or hung.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.report import Table, machine

FLIPS = 3_000
EVERY_BYTE_UP_TO = 20_000
"""A longer file is cut at so many random places, not at all."""
HANG_S = 20
OUTCOMES = ("right", "earlier", "named", "silent", "raised", "hung")
APPENDED = ("segment", "events")


@dataclass
class Row:
    """How the cases of one scenario ended."""

    scenario: str
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """What was tried in some of the cases that should not have ended as they did."""
    remark: str = ""

    @property
    def sound(self) -> bool:
        return not any(self.outcomes[bad] for bad in ("silent", "raised", "hung"))

    def note(self, outcome: str, case: str) -> None:
        self.outcomes[outcome] += 1
        if outcome in ("silent", "raised", "hung") and len(self.examples) < 5:
            self.examples.append(f"{outcome}: {case}")


Scenario = Callable[[bool], Row]
"""Takes whether to be quick."""


class Hung(BaseException):
    """A case that did not end. Not an Exception: no handler of the reader's may swallow it."""


# -- the run that is damaged ---------------------------------------------------------------------------------------

KINDS = {
    "history (Parquet)": "frames/*/history/*.parquet", "segment": "frames/*/live/*/*.arrows", "run.json": "run.json",
    "earlier card": "cards/*.json", "events": "events/*.jsonl", "findings": "findings/latest.json",
    "forecast": "forecasts/*.json",
}


@functools.cache
def sound_run() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """A run that nothing has happened to yet, and what keeps it."""
    base = tempfile.TemporaryDirectory(prefix="tv-sound-")
    folder = Path(base.name, "run")
    subprocess.run([sys.executable, "-m", "benchmarks.robustness", "--make", str(folder)], check=True,
                   cwd=Path(__file__).parent.parent)
    return base, folder


def make_run(folder: Path) -> None:
    """Two ranks; a first attempt that ended in order, and a second that was killed; all kinds of file, each small.

    Ends the process.
    """
    from trainvitals.card import RunCard
    from trainvitals.catalogue import custom_field
    from trainvitals.sealed import seal
    from trainvitals.store import RunWriter, open_run

    for attempt, first in enumerate((1, 41)):
        writers = [RunWriter(folder, rank=rank, world_size=2, start_step=first - 1, when_full="wait")
                   for rank in range(2)]
        for writer in writers:
            loss = writer.frame("loss", ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"],
                                {"domain": ["web", "code"]})
            own = writer.frame("custom", [custom_field("mine")])
            for step in range(first, first + 40):
                loss.append(step, {"loss/sum": step + 0.5, "loss/tokens": 7, "loss/domain_sum": [step, 0.5],
                                   "loss/domain_tokens": [5, 2]})
                own.append(step, {"mine": np.sin(step)})
                if step % 10 == 0:
                    writer.flush()
            if attempt == 0:
                writer.write_card(RunCard(name=f"rank {writer.rank}", layers=4, domains={"web": 0.7}, created=1.0))
            writer.event("note", step=first, message="something happened")
            writer.flush() if attempt else writer.close()
    run = open_run(folder)
    run.save_findings([{"check": "loss.level", "level": "pass", "summary": "all is well", "n": 80}])
    forecast = {"last_step": 40, "total_steps": 800, "final_loss": 2.5, "interval": [2.4, 2.6], "time": 1.0, "law": "x"}
    (folder / "forecasts").mkdir()
    (folder / "forecasts" / "step-000000040.json").write_text(json.dumps(seal(forecast), indent=1))
    os._exit(0)  # killed


@dataclass(frozen=True)
class View:
    """All that a reader shows of a run."""

    numbers: dict[str, dict[Any, Any]]
    """Signal -> (step, label) -> value, of those that are present."""
    texts: dict[str, list[Any]]
    """Card, events, findings, forecasts."""
    problems: tuple[str, ...]


def look(folder: Path) -> View:
    """Open a run and read everything in it."""
    with patch("trainvitals.store.reader.ages", lambda *_: (1e5, 1e5)):  # nobody is writing it any more
        return _look(folder)


def _look(folder: Path) -> View:
    from checks.scaling.forecast_log import past
    from trainvitals.catalogue import SIGNALS
    from trainvitals.errors import TrainVitalsError
    from trainvitals.sealed import opened
    from trainvitals.store import open_run

    run = open_run(folder)
    numbers: dict[str, dict[Any, Any]] = {}
    for name in ("mine", "loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens", "loss/train"):
        try:
            series = run.array(name)
        except TrainVitalsError:
            continue
        values = series.values.reshape(len(series), -1)
        there = np.ones(values.shape, bool) if series.present is None else series.present.reshape(values.shape)
        if series.partial is not None and name in SIGNALS:
            there = there & ~series.partial[:, None]  # marked as that of some ranks
        numbers[name] = {(int(series.steps[i]), int(j)): values[i, j] for i, j in zip(*np.nonzero(there), strict=True)}
    events = [tuple(row) for row in run.events().drop(columns=["attempt", "data"]).astype(str).to_numpy()]
    cards = []
    for path in sorted(folder.glob("cards/*.json")):
        try:
            record, state = opened(path.read_bytes())
            cards += [record] if state != "broken" else []
        except ValueError:
            pass
    texts = {"card": [run.card], "events": events, "findings": run.findings(), "forecasts": past(run), "cards": cards}
    return View(numbers, texts, tuple(run.problems()))


def judge(whole: View, seen: View, path: str) -> str:
    """How a case ended: `seen` is what is shown of the run with a damaged file at `path`, `whole` of the sound one.

    A sentence names the loss if it names the file, or rank and steps.
    """
    said = set(seen.problems) - set(whole.problems)
    named = any(path in sentence or "has no row at" in sentence for sentence in said)
    lost = wrong = False
    for name, values in whole.numbers.items():
        found = seen.numbers.get(name, {})
        lost |= bool(values.keys() - found.keys())
        wrong |= any(key not in values or not _same(value, values[key]) for key, value in found.items())
    for name, items in whole.texts.items():
        found_items = seen.texts[name]
        lost |= any(item not in found_items for item in items)
        wrong |= any(item not in items for item in found_items) and not (named and name in ("card", "cards"))
    return "silent" if wrong or (lost and not named) else "named" if lost else "right"


def _same(left: float, right: float) -> bool:
    return bool(left == right or (left != left and right != right))


# -- damage --------------------------------------------------------------------------------------------------------


def flips(data: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for at, bit in zip(rng.integers(len(data), size=count), rng.integers(8, size=count), strict=True):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(bit)
        yield f"bit {bit} of byte {at}", bytes(damaged)


def cuts(data: bytes, most: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    everywhere = len(data) <= most
    for at in range(len(data)) if everywhere else sorted(rng.choice(len(data), most, replace=False)):
        yield f"cut at {at}", data[:at]


def zeros(data: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Stretches of zeros, as a power loss leaves them."""
    for at, length in zip(rng.integers(len(data), size=count), rng.integers(1, 513, size=count), strict=True):
        stop = min(len(data), int(at + length))
        yield f"zeros from {at} to {stop}", data[:at] + bytes(stop - int(at)) + data[stop:]


def _try(folder: Path, whole: View, path: str) -> str:
    def stop(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    try:
        return judge(whole, look(folder), path)
    except Hung:
        return "hung"
    except Exception as error:  # whatever it is: the reader must not raise
        return f"raised {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(kind: str, how: str, most: int) -> Row:
    """One kind of damage to one kind of file; `most` cases in all files of the kind, or per file where cut."""
    rng = np.random.default_rng(len(kind) * 31 + len(how))
    row = Row(f"{kind}: {how}")
    with tempfile.TemporaryDirectory(prefix="tv-robust-") as base:
        folder = Path(base, "run")
        shutil.copytree(sound_run()[1], folder)
        whole = look(folder)
        paths = sorted(folder.glob(KINDS[kind]))
        for path in paths:
            data = path.read_bytes()
            share = -(-most // len(paths))
            cases = {"flips": flips, "zeros": zeros, "cuts": cuts}[how](data, most if how == "cuts" else share, rng)
            for case, bad in cases:
                path.write_bytes(bad)
                outcome = _try(folder, whole, str(path.relative_to(folder)))
                if outcome == "silent" and how == "cuts" and kind in APPENDED and _at_a_record(kind, data, bad):
                    outcome = "earlier"
                row.note("raised" if outcome.startswith("raised") else outcome, f"{path.relative_to(folder)}, {case}"
                         + (f" ({outcome})" if outcome.startswith("raised") else ""))
            path.write_bytes(data)
    return row


def _at_a_record(kind: str, data: bytes, cut: bytes) -> bool:
    from trainvitals.store.tail import Tail

    if kind == "events":
        return not cut or cut.endswith(b"\n") or data[len(cut):len(cut) + 1] == b"\n"
    tail = Tail()
    tail.feed(cut)
    return not tail.torn_bytes


def scenarios() -> list[Scenario]:
    """All of them: damaged files here, damaged jobs in `benchmarks/robustness_writer.py`."""
    def scenario(kind: str, how: str) -> Scenario:
        full = {"flips": FLIPS // len(KINDS) + 1, "zeros": 100, "cuts": EVERY_BYTE_UP_TO}[how]
        return lambda quick: damaged(kind, how, 10 if quick else full)

    found = [scenario(kind, how) for kind in KINDS for how in ("flips", "zeros", "cuts")]
    if importlib.util.find_spec("benchmarks.robustness_writer"):
        found += importlib.import_module("benchmarks.robustness_writer").SCENARIOS
    return found


def table(rows: list[Row]) -> Table:
    return Table("Robustness", ["scenario", "cases", *OUTCOMES, "remark"], [
        [row.scenario, f"{row.outcomes.total():,}", *(f"{row.outcomes[outcome]:,}" for outcome in OUTCOMES), row.remark]
        for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only make the run that is damaged, and die")
    arguments = parser.parse_args()
    if arguments.make:
        make_run(arguments.make)
    quick = arguments.quick
    print(machine(), flush=True)
    rows = []
    for scenario in scenarios():
        rows.append(scenario(quick))
        print(rows[-1].scenario, dict(rows[-1].outcomes), *rows[-1].examples, sep="\n    ", flush=True)
    print(table(rows).markdown())
    raise SystemExit(not all(row.sound for row in rows))


if __name__ == "__main__":
    main()
