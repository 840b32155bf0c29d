"""Output of Megatron-LM, Megatron-DeepSpeed and GPT-NeoX, old and new.

     iteration    31219/  115311 | consumed samples: 47778736 | elapsed time per iteration (s): 106.36 |
        learning rate: 5.279E-05 | lm loss: 5.098124E+00 | grad norm: 960.351 | number of skipped iterations:   0 |
     validation loss at iteration 100 | lm loss value: 9.322275E+00 | lm loss PPL: 1.118440E+04 |

Written by `training_log` and `evaluate_and_print_results` of
https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/training.py: a loss is the mean over the iterations
since the last line that were not skipped, and is printed only `if avg >= 0.0` (older: `> 0.0`), which a NaN is not;
the gradient norm is the last iteration's, before clipping. Lines begin ` [2025-01-31 12:00:00.123456] iteration` in
newer versions; the launcher may put a rank before. GPT-NeoX (megatron/logging.py) prints every loss, NaN too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import number, time_of, writer_of
from collectors.importers.importer import BlindSpot

_ROW = re.compile(rb"(?<!, )\biteration +(\d{1,18})/ *(\d{1,18}) \|")
_VALIDATION = re.compile(rb"\bvalid(?:ation)? loss at (?:iteration (\d{1,18})|the end of training)([^|]{0,200})\|")
_LOADED = re.compile(rb"\b(loading|successfully loaded) checkpoint from (.{1,1000}?) (?:\[[^\]]{0,100}\] )?"
                     rb"at iteration (\d{1,18})\b")
_ARGUMENT = re.compile(rb"([a-z]\w{0,99}) \.{2,} ?(.{0,2000})$")
_TELLING = re.compile(rb"iteration|end of training|arguments ---|Traceback|training is done")
"""In every line that is more than noise between rows."""
_SKIPPED, _NAN = "number of skipped iterations", "number of nan iterations"
_CARD = {"num_layers": "layers", "seq_length": "context", "padded_vocab_size": "vocab_size", "world_size": "world_size",
         "train_iters": "total_steps", "num_experts": "experts", "moe_router_topk": "top_k"}
"""Megatron's arguments -> fields of the run card."""


class _Shape(NamedTuple):
    """Lines that have the same names in the same order: one pattern takes all of their numbers at once."""

    pattern: re.Pattern[bytes]
    names: tuple[str, ...]
    losses: frozenset[str]


class Megatron(TextImporter):
    """Megatron-LM, Megatron-DeepSpeed, GPT-NeoX."""

    format = "megatron"
    title = "Megatron output"
    pattern = re.compile(rb"(?<!, )\biteration +\d{1,18}/ *\d{1,18} \|.*\b(?:elapsed time per iteration|"
                         rb"consumed samples|lm[ _]loss)|\bvalid(?:ation)? loss at iteration \d+ \|.{0,100}value: ")
    means = {
        "lm loss": "loss/train", "lm_loss": "loss/train", "lm loss value": "loss/val", "lm_loss value": "loss/val",
        "grad norm": "grad/norm", "loss scale": "grad/loss_scale", "learning rate": "lr/used",
        "elapsed time per iteration (s)": "throughput/step_time",
        "elapsed time per iteration (ms)": "throughput/step_time*ms",
        _SKIPPED: "skipped/gradients", "load_balancing_loss": "loss/aux", "z_loss": "loss/z",
    }
    ended = re.compile(rb"\[after training is done\]")
    between = {"loss/train": "averaged", "throughput/step_time": "averaged", "grad/norm": "last", "lr/used": "last"}
    blind = (
        BlindSpot("absent", ("grad/norm_clipped", "grad/norm_by_layer", "loss/domain", "throughput/data_wait_share"),
                  "Megatron prints the gradient norm before clipping, and nothing per layer, domain or rank",
                  "Tap the loop with trainvitals.attach."),
    )

    def lines(self, lines: Sequence[bytes], log: Log) -> None:
        shape: _Shape | None = None
        rows: list[tuple[bytes, ...]] = []
        for line in lines:
            if shape is not None and (found := shape.pattern.fullmatch(line)):
                rows.append(found.groups())
                continue
            if not _TELLING.search(line) and "arguments" not in log.memory:
                log.other(line)
                continue
            if shape is not None and rows:
                _add_rows(shape, rows, log)
                rows = []
            if self.line(line, log):
                shape = _shape(line) or shape
                if shape is not None and not shape.losses.issuperset(log.memory.get("losses", ())):
                    shape = None
            else:
                log.other(line)
        if shape is not None and rows:
            _add_rows(shape, rows, log)

    def line(self, line: bytes, log: Log) -> bool:
        if found := _ROW.search(line):
            _row(line, found, log)
        elif found := _VALIDATION.search(line):
            _validation(line, found, log)
        elif found := _LOADED.search(line):
            step = int(found[3])
            log.resumed(step, f"The job read the checkpoint of iteration {step:,} "
                              f"({found[2].strip().decode('utf-8', 'replace')})")
        elif b" arguments ---" in line or "arguments" in log.memory:
            return _arguments(line, log)
        else:
            return False
        return True


def _fields(line: bytes) -> dict[str, bytes]:
    """What stands between the bars as `name: number`; behind the last bar nothing is whole."""
    fields = {}
    for part in line.split(b"|")[:-1]:
        name, colon, token = part.rpartition(b":")
        if colon and number(token) is not None:
            fields[name.strip().decode("utf-8", "replace")] = token.strip()
    return fields


def _row(line: bytes, found: re.Match[bytes], log: Log) -> None:
    step, prefix = int(found[1]), line[: found.start()]
    values: dict[str, bytes | float] = {**_fields(line)}
    for name in [name for name in values if name.startswith(("[", "iteration"))]:
        del values[name]
    log.facts(card={"total_steps": int(found[2])})
    _missing_losses(step, values, line, log)
    log.row(step, values, prefix)


def _losses(line: bytes) -> frozenset[str]:
    """Names that are printed as `%.6E` and are losses: those that a NaN takes out of the line."""
    return frozenset(name for name, token in _fields(line).items()
                     if "loss" in name and name != "loss scale" and re.fullmatch(rb"\d\.\d{6}E[+-]\d\d+", token))


def _missing_losses(step: int, values: dict[str, bytes | float], line: bytes, log: Log) -> None:
    """Say which loss a line lacks, and why: NaN is put where it is certain."""
    memory = log.memory
    known: list[str] = memory.setdefault("losses", [])
    known.extend(name for name in sorted(_losses(line)) if name not in known)
    skipped, nans = (number(values.get(name, b"0")) or 0.0 for name in (_SKIPPED, _NAN))  # type: ignore[arg-type]
    interval = memory.get("gap") or 1
    all_skipped = skipped >= interval and skipped > 0
    lacking = [name for name in known if name not in values or (all_skipped and _zero(values[name]))]
    if lacking and _SKIPPED not in values:
        # That count stands behind the losses in every version: the line was broken by another process's.
        log.note("unread", f"The line of iteration {step:,} is not whole: no {' and no '.join(lacking)} is there", step,
                 hides=True)
    elif all_skipped and lacking:
        for name in lacking:
            values.pop(name, None)
        log.note("skipped", f"All iterations up to {step:,} since the last line were skipped: no loss is there", step,
                 hides=True)
    elif lacking or (nans and not known):
        lacking = lacking or ["lm loss"]
        if not memory.get("missing"):
            why = (f"{nans:.0f} NaN iterations were counted" if nans else
                   "Megatron prints a loss only if it is at least 0, which a NaN is not")
            log.note("nonfinite", f"From iteration {step:,} on lines have no {' and no '.join(lacking)}: {why}. It is "
                     "read as NaN", step, hides=True)
        memory["missing"] = True
        values |= dict.fromkeys(lacking, float("nan"))
    elif not known and not any("loss" in name and name != "loss scale" for name in values):
        if not memory.get("missing"):
            log.note("nonfinite", f"The line of iteration {step:,} has no loss: it was NaN, or this job prints none",
                     step, hides=True)
        memory["missing"] = True
    else:
        memory.pop("missing", None)


def _zero(token: bytes | float) -> bool:
    return (number(token) if isinstance(token, bytes) else token) == 0.0


def _validation(line: bytes, found: re.Match[bytes], log: Log) -> None:
    step = int(found[1]) if found[1] else log.last
    if step is None:
        return
    # " on test set", " for val data" name the set; the plain line is the validation set's.
    place = found[2].decode("utf-8", "replace").strip()
    test = f"{place}: " if place and "valid" not in place and "val data" not in place else ""
    values = {test + name: token for name, token in _fields(b"|" + line[found.end() :]).items()}
    log.row(step, values, line[: found.start()], leads=False)


def _arguments(line: bytes, log: Log) -> bool:
    """Collect the block of arguments that a job prints when it starts."""
    memory = log.memory
    if b" end of arguments ---" in line:
        config = memory.pop("arguments", {})
        if config:
            card = {field: config[name] for name, field in _CARD.items() if type(config.get(name)) is int}
            card |= {"precision": "bf16" if config.get("bf16") is True else "fp16"} if (
                config.get("bf16") is True or config.get("fp16") is True) else {}
            card |= {"optimizer": config["optimizer"]} if type(config.get("optimizer")) is str else {}
            log.facts(card=card, config=config)
        return True
    if b" arguments ---" in line:
        memory["arguments"] = {}
        return True
    found = _ARGUMENT.search(line)
    if found is None or len(memory["arguments"]) >= 2_000:
        memory["arguments_other"] = memory.get("arguments_other", 0) + 1
        # A block without an end must not take the rest of the log.
        if memory["arguments_other"] > 200:
            memory.pop("arguments"), memory.pop("arguments_other")
        return False
    memory["arguments"][found[1].decode()] = _argument(found[2].decode("utf-8", "replace").strip())
    return True


def _argument(text: str) -> Any:
    try:
        value = ast.literal_eval(text) if len(text) <= 200 else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text


def _shape(line: bytes) -> _Shape | None:
    """The pattern of a line's kind; None where it has a part that is no `name: number`."""
    parts = line.split(b"|")
    first = next((i for i, part in enumerate(parts) if b"iteration " in part), 0)
    if first or parts[-1].strip() or len(parts) > 64 or _ROW.search(line) is None:
        return None
    names = []
    for part in parts[1:-1]:
        name, colon, token = part.partition(b":")
        if not colon or number(token) is None or name.strip() != name[1:]:
            return None
        names.append(name[1:])
    return _compiled(tuple(names), _losses(line))


@lru_cache(64)
def _compiled(names: tuple[bytes, ...], losses: frozenset[str]) -> _Shape:
    fields = b"".join(rb" " + re.escape(name) + rb": *([^ |]+) \|" for name in names)
    return _Shape(re.compile(rb"([^|]*?)(?<!, )\biteration +(\d{1,18})/ *\d{1,18} \|" + fields + rb" *"),
                  tuple(name.decode("utf-8", "replace") for name in names), losses)


def _add_rows(shape: _Shape, rows: list[tuple[bytes, ...]], log: Log) -> None:
    """Rows of one shape, column by column; one by one where several ranks print, or a number is none."""
    prefixes, steps, *tokens = zip(*rows, strict=True)
    columns = dict(zip(shape.names, tokens, strict=True))
    one = len(set(prefixes)) == 1
    writers = {writer_of(prefixes[0])} if one else set(map(writer_of, prefixes))
    skips = any(token.strip() != b"0" for token in columns.get(_SKIPPED, ()))
    try:
        numbers = {name: np.array(list(map(float, column))) for name, column in columns.items()}
    except ValueError:
        numbers = {}
    if len(writers) > 1 or not log.reads(*writers) or log.memory.get("aside") or skips or not numbers:
        _add_one_by_one(columns, prefixes, steps, log)
        return
    for name in shape.names:
        log.measure(name, columns[name])
    times = np.full(len(rows), time_of(prefixes[0])) if one else np.array(list(map(time_of, prefixes)))
    log.columns(np.array(list(map(int, steps)), np.int64), times, numbers)
    log.memory.pop("missing", None)


def _add_one_by_one(columns: Mapping[str, tuple[bytes, ...]], prefixes: tuple[bytes, ...], steps: tuple[bytes, ...],
                    log: Log) -> None:
    for i, step in enumerate(steps):
        values: dict[str, bytes | float] = {name: column[i] for name, column in columns.items()}
        line = b"|" + b"|".join(name.encode() + b": " + column[i] for name, column in columns.items()) + b"|"
        _missing_losses(int(step), values, line, log)
        log.row(int(step), values, prefixes[i])
