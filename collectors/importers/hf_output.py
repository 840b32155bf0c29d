"""What transformers' Trainer prints (TRL, Axolotl and LLaMA-Factory with it), and LLaMA-Factory's `trainer_log.jsonl`.

    {'loss': 2.1034, 'grad_norm': 1.25, 'learning_rate': 4.5e-05, 'epoch': 0.32}
      1%|▏         | 10/1000 [00:05<08:15,  2.00it/s]
    {"current_steps": 10, "total_steps": 1000, "loss": 2.1034, "lr": 4.5e-05, "epoch": 0.32, "percentage": 1.0, ...}

`ProgressCallback.on_log` and `PrinterCallback.on_log` of
https://github.com/huggingface/transformers/blob/main/src/transformers/trainer_callback.py (from version 5 on every
number is text of four digits), `LogCallback` of
https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/train/callbacks.py. What is printed names no step:
it is read off the progress bar that is drawn anew behind it, and without one the rows are counted.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import NUMBER, json_of, numbers_of
from collectors.importers.importer import Blindness, BlindSpot

MOST_DICT_BYTES = 32_768
"""Of a line with a dictionary; the longest that a Trainer prints has a few dozen numbers."""
_MEANS = {"loss": "loss/train", "grad_norm": "grad/norm", "learning_rate": "lr/used", "lr": "lr/used",
          "eval_loss": "loss/val"}
_BETWEEN: dict[str, Blindness] = {"loss/train": "averaged", "grad/norm": "last", "lr/used": "last"}
FILTERED = BlindSpot("nonfinite", ("loss/train",), "the Trainer leaves NaN and infinite losses out of the mean that "
                      "it logs (logging_nan_inf_filter is on by default)",
                      "Set logging_nan_inf_filter=False, or tap the loop.")


class HfOutput(TextImporter):
    """The Trainer's printed dictionaries."""

    format = "hf-output"
    title = "HF Trainer output"
    pattern = re.compile(rb"\{'(?:loss|eval_loss|train_runtime|train_loss)': '?[-\d.naifeE+]+'?, '[\w/]+': .{0,4000}\}")
    means = _MEANS
    between = _BETWEEN
    blind = (
        FILTERED,
        BlindSpot("steps", ("loss/", "grad/norm", "lr/used"), "the Trainer prints no step: it is read off the progress "
                  "bar, or, where there is none, rows are counted from 1",
                  "Give trainer_state.json, which has the steps."),
    )
    _dict = re.compile(rb"\{('[\w/.\- ]{1,200}': .{1,8000})\}")
    _pair = re.compile(rb"'([\w/.\- ]{1,200})': '?(" + NUMBER + rb")'?(?=[,}]|$)")
    _bar = re.compile(rb"%\|[^|]{0,400}\| *(\d{1,18})/(\d{1,18}) \[")

    def line(self, line: bytes, log: Log) -> bool:
        memory = log.memory
        if bar := self._bar.search(line):
            steps, total = int(bar[1]), int(bar[2])
            waiting = memory.pop("waiting", None)
            if memory.get("total") in (None, total) and waiting is not None and steps > 0:
                memory |= {"total": total, "by": "bar"}
                log.facts(card={"total_steps": total})
                self._put(waiting, max(steps, (log.last or 0) + 1), log)
            elif waiting is not None:
                self._put(waiting, None, log)
            elif memory.get("total") == total and b"{'" not in line:
                return True
        found = self._dict.search(line) if len(line) < MOST_DICT_BYTES else None
        if found is None:
            # The bar follows at once; two lines later it is nobody's.
            if memory.get("waiting") is not None and line.strip() and bar is None:
                memory["patience"] = memory.get("patience", 0) + 1
                if memory["patience"] > 2:
                    self._put(memory.pop("waiting"), None, log)
            return bar is not None
        pairs = {name.decode("utf-8", "replace"): token.decode() for name, token in self._pair.findall(found[1])}
        if not pairs.keys() & {"loss", "eval_loss", "train_runtime", "eval_runtime", "reward", "rewards/chosen"}:
            return False
        if memory.get("waiting") is not None:
            self._put(memory.pop("waiting"), None, log)
        trains = "loss" in pairs and "train_runtime" not in pairs
        if "train_runtime" in pairs:
            pairs = {f"{name} of the run" if name == "train_loss" else name: token for name, token in pairs.items()}
            log.note("closed", "the Trainer printed its closing line: train_runtime")
        row = [pairs, line[: found.start()].decode("utf-8", "replace"), trains]
        if not trains:
            self._put(row, log.last or 0, log)
        elif memory.get("by") == "count":
            self._put(row, None, log)
        else:
            memory |= {"waiting": row, "patience": 0}
        return True

    def end(self, log: Log) -> None:
        # With a bar the row waits for it; a log that never had one ends with its row.
        if log.memory.get("by") != "bar" and log.memory.get("waiting") is not None and log.last is not None:
            self._put(log.memory.pop("waiting"), None, log)

    def _put(self, waiting: list[object], step: int | None, log: Log) -> None:
        pairs, prefix, leads = waiting
        if step is None:
            if log.memory.setdefault("by", "count") == "bar" and not log.memory.get("bar_said"):
                log.memory["bar_said"] = True
                log.note("steps", "A row has no progress bar behind it: its step is the one after the last row's",
                         hides=True)
            step = (log.last or 0) + (log.memory.get("gap") or 1)
        assert isinstance(pairs, dict) and isinstance(prefix, str)
        log.row(step, {name: token.encode() for name, token in pairs.items()}, prefix.encode(), leads=bool(leads))


class LlamaFactory(TextImporter):
    """LLaMA-Factory's trainer_log.jsonl."""

    format = "llama-factory"
    title = "LLaMA-Factory trainer_log"
    pattern = re.compile(rb'^\{"current_steps": \d{1,18}, "total_steps": \d{1,18}, ')
    means = _MEANS
    between = _BETWEEN
    blind = (
        FILTERED,
        BlindSpot("absent", ("grad/",), "trainer_log.jsonl has no gradient norm",
                  "Give trainer_state.json, which has it."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        entry = json_of(line) if line.startswith(b'{"current_steps"') else None
        if entry is None or type(entry.get("current_steps")) is not int:
            return False
        numbers = numbers_of(entry)
        step, total = int(numbers.pop("current_steps")), numbers.pop("total_steps", 0.0)
        if total > 0:
            log.facts(card={"total_steps": int(total)})
        log.row(step, {name: value for name, value in numbers.items() if name != "percentage"}, leads="loss" in numbers)
        return True
