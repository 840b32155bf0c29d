"""What `trainvitals run` heard of a training command: the folder that its launches left, as one run.

    .mine.heard/001/begin.json      the command, when it began
                    output.log      what it printed
                    hook-<pid>.jsonl    what wandb.log, SummaryWriter and the Trainer were given, a row a line
                    end.json        when it ended, and how
               /002/ ...            the same command, started again into the same run

One number can be heard several times: the Trainer logs a loss, its W&B callback logs it again, and it is printed. Of
several sources that tell of one signal the first of `SOURCES` that tells of it gives the signal; what the others say
is kept under their own names, `wandb: train/loss`. Which source a signal has is on the run card.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from collectors.importers._launch import BEGIN, END, OUTPUT
from collectors.importers._lines import blocks
from collectors.importers._text import TextImporter, sample
from collectors.importers._tokens import json_of, numbers_of
from collectors.importers.hf_output import FILTERED, HfOutput
from collectors.importers.importer import BlindSpot, Facts, Gather, Importer, Item, Note, Replaced, Resumed, Rows, RunOf
from collectors.importers.megatron import Megatron
from collectors.importers.names import Names

SOURCES = ("trainer", "wandb", "tensorboard", "printed")
HEAD_BYTES = 64 << 10
GUESSED = ("loss/train", "loss/val", "grad/norm", "lr/used", "throughput/step_time", "throughput/tokens_per_s")
"""What lines of no known format may be taken for, by their names."""


def _named(by: str) -> BlindSpot:
    return BlindSpot("scaled", ("loss/", "grad/"), f"what the script gave to {by} is told by its names alone: a "
                     "mean or a sum, clipped or not, one rank's or all ranks'",
                     "Log with tap.log under the catalogue's names.")


_OF_SOURCE = {
    "trainer": (FILTERED, BlindSpot("averaged", ("loss/train",), "the Trainer logs the mean loss of logging_steps "
                                    "steps", "Set logging_steps=1, or tap the loop.")),
    "wandb": (_named("wandb.log"),), "tensorboard": (_named("SummaryWriter"),),
}  # fmt: skip
_KEY = Names()


def printers() -> dict[str, TextImporter]:
    """The importers of printed output, by format."""
    from collectors.importers.registry import all_importers

    return {one.format: one for one in all_importers() if isinstance(one, TextImporter)}


class _Means(Mapping[str, str]):
    """The names of every printed format, the format before them, worked out when they are first asked for."""

    _all: dict[str, str] | None = None

    def _found(self) -> dict[str, str]:
        if self._all is None:
            self._all = {f"{name}: {column}": signal for name, one in printers().items()
                         for column, signal in one.means.items()}
        return self._all

    def __getitem__(self, name: str) -> str:
        return self._found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


class Heard(Importer):
    """The folder of `trainvitals run`."""

    format = "heard"
    title = "what trainvitals run heard"
    means: ClassVar[Mapping[str, str]] = _Means()
    blind = (
        BlindSpot("rank", ("throughput/step_time_by_rank", "throughput/data_wait_by_rank"),
                  "only rank 0 is listened to", "Tap the loop with trainvitals.attach, which every rank writes to."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        return "a launch of trainvitals run lies in it" if path.is_dir() and _launches(path) else ""

    def runs(self, path: Path) -> list[RunOf]:
        return [RunOf(path, path.name.removeprefix(".").removesuffix(".heard"))]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        launches = _launches(run.path)
        claims = _claims(launches, state)
        for launch in launches:
            own = state.setdefault("launches", {}).setdefault(launch.name, {})
            for item in _Launch(launch, state["printers"].get(launch.name, ""), claims, own).read():
                # Another job writes from here on: what the one before ended with is not this one's end.
                if isinstance(item, Rows) and launch != launches[0] and not own.get("resumed"):
                    own["resumed"] = True
                    yield Resumed(int(item.steps[0]) - 1, "the command was started again")
                yield item


class _Launch:
    """One start of the command."""

    def __init__(self, folder: Path, format: str, claims: Mapping[str, str], state: dict[str, Any]) -> None:
        """`format`: of what it printed, "" where that is not known."""
        self._folder, self._format, self._claims, self._state = folder, format, claims, state

    def read(self) -> Iterator[Item]:
        state = self._state
        if not state.get("begun") and (begin := _document(self._folder / BEGIN)):
            card = {"created": begin["time"]} if isinstance(begin.get("time"), float) else {}
            yield Facts(card, {"command": str(begin.get("command", ""))[:2_000]})
            state["begun"] = True
        for file in sorted(self._folder.glob("hook-*.jsonl")):
            yield from self._hook(file)
        yield from self._output()
        if not state.get("ended") and (end := _document(self._folder / END)):
            yield self._end(end)
            state["ended"] = True

    def _end(self, end: Mapping[str, Any]) -> Note:
        time = float(end["time"]) if isinstance(end.get("time"), int | float) else None
        if end.get("code") == 0:
            return Note("closed", "the command ended in order", None, time)
        return Note("failed", f"the command ended with {str(end.get('how', 'an error'))[:200]}", None, time)

    def _hook(self, file: Path) -> Iterator[Item]:
        """Rows of one process, in its order."""
        places = self._state.setdefault("places", {})
        told = self._state.setdefault("told", [])
        gather = Gather()
        for block in blocks(file, places.get(file.name, {})):
            for line in block.lines:
                entry = _entry(line)
                if entry is None:
                    continue
                source, step, time, numbers = entry[0], entry[1], entry[2], entry[3]
                if source not in told:
                    told.append(source)
                    yield Facts(blind=_OF_SOURCE.get(source, ()))
                about = entry[4]
                if about:
                    yield Facts({"total_steps": about["total"]} if about.get("total", 0) > 0 else {},
                                about.get("config") or {})
                if step is None or not numbers:
                    continue
                gather.add(step, {self._name(source, name): value for name, value in numbers.items()}, time)
                if gather.full:
                    yield gather.take()
            if len(gather):
                yield gather.take()
            places[file.name] = block.place

    def _name(self, source: str, name: str) -> str:
        """A number's name: its own where its source is the one for it, else with the source before it."""
        if source == "trainer" and name == "train_loss":
            return "train_loss of the run"
        best = self._claims.get(_key(name))
        return name if best in (None, source) else f"{source}: {name}"

    def _output(self) -> Iterator[Item]:
        """What was printed, by the importer whose lines it has."""
        path, state = self._folder / OUTPUT, self._state
        printer = printers().get(self._format)
        # What the Trainer prints are the numbers that it logs, with four digits and without their steps.
        if printer is None or (isinstance(printer, HfOutput) and "trainer" in self._claims.values()):
            return
        if not state.get("printer_said"):
            state["printer_said"] = True
            yield Facts(blind=self._unheard(printer.blind))
        for item in printer.read(RunOf(path, "output"), state.setdefault("text", {})):
            if isinstance(item, Rows):
                columns = {self._printed(printer, name): column for name, column in item.columns.items()}
                yield Rows(item.steps, item.times, columns)
            elif isinstance(item, Facts):
                yield Facts(item.card, item.config, self._unheard(item.blind))
            else:
                yield item

    def _printed(self, printer: TextImporter, name: str) -> str:
        signal = printer.means.get(name, "").partition("*")[0] or _key(name)
        if self._claims.get(signal, "printed") != "printed":
            return f"printed: {name}"
        return f"{printer.format}: {name}" if name in printer.means else name

    def _unheard(self, spots: tuple[BlindSpot, ...]) -> tuple[BlindSpot, ...]:
        """Blind spots of the printed output, of the signals that no better source tells of."""
        heard = [signal for signal, source in self._claims.items() if source != "printed"]
        kept = [(spot, tuple(signal for signal in spot.signals
                             if not any(replace(spot, signals=(signal,)).concerns([other]) for other in heard)))
                for spot in spots]
        return tuple(replace(spot, signals=signals) for spot, signals in kept if signals)


def _launches(path: Path) -> list[Path]:
    """The folders of launches, in their order."""
    numbered = [folder for folder in path.glob("[0-9]*") if folder.name.isdigit() and (folder / BEGIN).is_file()]
    return sorted(numbered, key=lambda folder: int(folder.name))[:10_000]


def _claims(launches: list[Path], state: dict[str, Any]) -> dict[str, str]:
    """Signal, or a name that is no signal -> the source that gives it.

    Raises:
        Replaced: a better source begins to tell of a signal that rows were already taken for.
    """
    claims: dict[str, str] = state.setdefault("claims", {})
    places: dict[str, Any] = state.setdefault("claimed", {})
    before, fresh = dict(claims), not state.get("launches")
    told: dict[str, str] = state.setdefault("printers", {})
    for launch in launches:
        for file in launch.glob("hook-*.jsonl"):
            where = f"{launch.name}/{file.name}"
            for block in blocks(file, places.get(where, {})):
                for line in block.lines:
                    if entry := _entry(line):
                        _claim(claims, entry[0], entry[3])
                places[where] = block.place
        if launch.name not in told and (printer := _printer(launch / OUTPUT)) is not None:
            told[launch.name] = printer.format
            signals = [signal.partition("*")[0] for signal in printer.means.values()]
            _claim(claims, "printed", dict.fromkeys(GUESSED if printer.generic else signals, 0.0))
    better = [signal for signal, source in claims.items() if before.get(signal, source) != source]
    if better and not fresh:
        raise Replaced(f"{claims[better[0]]} tells of {better[0]}, too")
    return claims


def _claim(claims: dict[str, str], source: str, names: Mapping[str, float]) -> None:
    for name in names:
        key = _key(name)
        if key not in claims or SOURCES.index(source) < SOURCES.index(claims[key]):
            claims[key] = source


def _key(name: str) -> str:
    """The signal that a name is taken for, or the name."""
    found = _KEY.meaning(name)
    return name if found is None else found.signal


def _printer(path: Path) -> TextImporter | None:
    """The importer whose lines an output has: of a tool's own format, else of any lines with numbers."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not sample(path, head):
        return None
    found = [one for one in printers().values() if one.recognises(path, head)]
    # A Megatron log with DeepSpeed's or a trainer's lines in it is Megatron's, which have the most in them.
    return min(found, key=lambda one: (one.generic, one.format != Megatron.format, one.format), default=None)


def _entry(line: bytes) -> tuple[str, int | None, float, dict[str, float], dict[str, Any]] | None:
    """Source, step, time, numbers and what else a hook's line tells."""
    entry = json_of(line) if line.startswith(b'{"s"') else None
    if entry is None or entry.get("s") not in SOURCES or not isinstance(entry.get("v"), dict):
        return None
    step, time = entry.get("n"), entry.get("t")
    about: dict[str, Any] = {name: entry[name] for name in ("config", "total") if name in entry}
    if not isinstance(about.get("config", {}), dict) or not isinstance(about.get("total", 0), int):
        return None
    return (entry["s"], step if type(step) is int and abs(step) < 2**62 else None,
            float(time) if isinstance(time, int | float) else math.nan, numbers_of(entry["v"]), about)


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes()[:65_536])
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
