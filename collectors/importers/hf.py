"""`trainer_state.json` of the Hugging Face Trainer, in a checkpoint or in the output folder: the newest one counts.

Layout: https://github.com/huggingface/transformers/blob/main/src/transformers/trainer_callback.py (TrainerState),
`Trainer.log` adds `epoch` and `step` to every entry of `log_history`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers.importer import BlindSpot, Facts, Gather, Importer, Item, Note, Replaced, Resumed, RunOf
from trainvitals.errors import UsageError
from trainvitals.untrusted import parse_json

FILE = "trainer_state.json"
MOST_BYTES = 512 << 20
_SUMMARY = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss"}
_PLACES = ("nan", "inf", "-inf")


class TrainerState(Importer):
    """One run: what the newest checkpoint knows of it."""

    format = "hf-trainer"
    title = "Hugging Face trainer_state.json"
    rewritten = True
    means = {
        "loss": "loss/train", "eval_loss": "loss/val", "grad_norm": "grad/norm", "learning_rate": "lr/used",
        "num_input_tokens_seen": "data/tokens_seen", "num_tokens": "data/tokens_seen",
    }  # fmt: skip
    blind = (
        BlindSpot("nonfinite", ("loss/train",), "The Trainer puts the mean of the other losses in place of one that is "
                  "NaN or infinite (logging_nan_inf_filter, on by default)",
                  "Train with TrainingArguments(logging_nan_inf_filter=False), or with trainvitals.TrainerCallback"),
        BlindSpot("absent", ("throughput/",), "trainer_state.json holds no times of steps",
                  "Train with trainvitals.TrainerCallback"),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        """By `log_history` in the file, or by a checkpoint that has one."""
        if head:
            return "a JSON object with log_history" if head.lstrip()[:1] == b"{" and (
                b'"log_history"' in head or (path.name == FILE and b'"global_step"' in head)) else ""
        return f"{FILE} in it" if path.is_dir() and _newest(path) else ""

    def runs(self, path: Path) -> list[RunOf]:
        """The one run of the file or folder."""
        return [RunOf(path, path.stem if path.name != FILE else path.resolve().parent.name)]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Entries of `log_history` beyond those of the last look; where an earlier one changed, the job went back."""
        file = run.path if run.path.is_file() else _newest(run.path)
        if file is None:
            raise UsageError(f"{run.path} has no {FILE} any more. Give a checkpoint that is there.")
        raw = _load(file)
        history = [entry for entry in raw["log_history"] if isinstance(entry, dict)]
        done: list[str] = state.get("entries", [])
        marks = [_mark(entry) for entry in history]
        same = next((i for i, (old, new) in enumerate(zip(done, marks, strict=False)) if old != new),
                    min(len(done), len(marks)))
        if same < len(done) and same == len(marks):
            return  # an older checkpoint: the newer one was deleted, and nothing is new
        if same < len(done) and not same:
            raise Replaced(f"{file} holds another run than before")
        if same < len(done):
            state["entries"] = done[:same]
            yield Resumed(_step(history[same]) - 1, f"The job was resumed: {file.parent.name} has other entries from "
                          f"step {_step(history[same]):,} on than the checkpoint that was read before")
        yield from self._facts(raw, history, state)
        rows, left_out = Gather(), 0
        for i in range(same, len(history)):
            values = _numbers(history[i])
            if values:
                rows.add(_step(history[i]), values)
            left_out += not isinstance(history[i].get("step"), int)
            if rows.full:
                state["entries"] = marks[: i + 1]
                yield rows.take()
        state["entries"] = marks
        if len(rows):
            yield rows.take()
        if left_out:
            yield Note("import", f"{left_out} entries of log_history have no whole step: they are taken as step 0",
                       hides=True)
        total = raw.get("max_steps")
        if isinstance(total, int) and 0 < total <= max((_step(entry) for entry in history), default=0) and \
                any("train_runtime" in entry for entry in history) and not state.get("ended"):
            state["ended"] = True
            yield Note("closed", "trainer_state.json holds the summary of a training that reached max_steps", total)

    def _facts(self, raw: dict[str, Any], history: list[dict[str, Any]], state: dict[str, Any]) -> Iterator[Item]:
        names = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps",
                 "best_metric", "trial_name", "total_flos")
        facts = {name: raw[name] for name in names if isinstance(raw.get(name), int | float | str)}
        steps = [_step(entry) for entry in history if "loss" in entry]
        gaps = [b - a for a, b in zip(steps, steps[1:], strict=False) if b > a]
        every = max([*gaps[:1000], steps[0] if steps else 1])
        blind = () if every <= 1 else (
            BlindSpot("averaged", ("loss/train",), f"A logged loss is the mean of up to {every:,} steps",
                      "Train with TrainingArguments(logging_steps=1)"),
            BlindSpot("last", ("grad/norm", "lr/used"), "A logged gradient norm is that of the last step alone, of "
                      f"up to {every:,}", "Train with TrainingArguments(logging_steps=1)"))
        mark = json.dumps([facts, every], sort_keys=True, default=str)
        if state.get("facts") != mark:
            state["facts"] = mark
            total = facts.get("max_steps")
            card = {"total_steps": total} if isinstance(total, int) and total > 0 else {}
            yield Facts(card, facts, blind)


def _newest(folder: Path) -> Path | None:
    """The state file with the most steps: of the folder itself or of its checkpoints."""
    found = [(int(number[1]), Path(entry.path, FILE)) for entry in os.scandir(folder)
             if (number := re.fullmatch(r"checkpoint-(\d{1,18})", entry.name)) and Path(entry.path, FILE).is_file()]
    own = folder / FILE
    if own.is_file():
        found.append((_steps_done(own), own))
    return max(found)[1] if found else None


def _steps_done(file: Path) -> int:
    """How far the training was, by the beginning of a file: its keys are sorted, and the long ones come later."""
    with file.open("rb") as opened:
        number = re.search(rb'"global_step": ?(\d{1,18})', opened.read(64 << 10))
    return int(number[1]) if number else 0


def _load(file: Path) -> dict[str, Any]:
    try:
        raw = parse_json(file.read_bytes() if os.stat(file).st_size <= MOST_BYTES else b"", MOST_BYTES, finite=False)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}). Give a file that you may read.") from error
    except ValueError as error:
        raise UsageError(f"{file} is no whole JSON object ({error}). Give the {FILE} of another checkpoint.") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("log_history"), list):
        raise UsageError(f"{file} has no list log_history. Give the {FILE} that the Trainer wrote.")
    return raw


def _step(entry: dict[str, Any]) -> int:
    step = entry.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) and abs(step) < 2**62 else 0


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of an entry; of the summary at the end, which is about the whole run, none."""
    if "train_runtime" in entry:
        entry = {name: value for name, value in entry.items() if name not in _SUMMARY}
    return {str(name): float(value) for name, value in entry.items() if name != "step"
            and not isinstance(value, bool) and (isinstance(value, int | float) and abs(value) < 2**1000
                                                 or isinstance(value, float) or value in _PLACES)}


def _mark(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:8]
