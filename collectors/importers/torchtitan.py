"""Console output and structured per-rank logs of torchtitan.

    [rank0]:[titan] 2025-01-31 12:00:00,123 - root - INFO - step: 10  loss:  7.3421  grad_norm:  2.1234
        memory: 47.28GiB(59.70%)  tps: 5,762  tflops: 333.61  mfu: 33.73%

Written by `MetricsProcessor.log` and `log_validation` of
https://github.com/pytorch/torchtitan/blob/main/torchtitan/components/metrics.py, in colours: the loss is the step's
mean over all ranks, the gradient norm before clipping, `tps` the tokens per second of one device. Structured logs are
`structured_logs/<source>.global_rank_<rank>.<time>.jsonl`
(https://github.com/pytorch/torchtitan/blob/main/torchtitan/observability/structured_logger/jsonl_handler.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.importers._log import Log
from collectors.importers._text import TextImporter, sample
from collectors.importers._tokens import NUMBER, json_of
from collectors.importers.importer import BlindSpot, RunOf

_ROW = re.compile(rb"\b(validate )?step: *(\d{1,18})  +(?=[a-z])")
_PAIR = re.compile(rb"\b([A-Za-z][\w. ]{0,40}?): +(" + NUMBER + rb")(GiB|%|s\b)?(?:\((" + NUMBER + rb")%\))?")
_STARTS = re.compile(rb"Training starts at step (\d{1,18})(?:.{0,200}?total steps (\d{1,18}))?")
_LOADS = re.compile(rb"Loading the checkpoint (?:from .{0,1000}?step-|at step )(\d{1,18})\b")
_RANK = re.compile(r"\.global_rank_(\d+)\.")


class Torchtitan(TextImporter):
    """torchtitan's console."""

    format = "torchtitan"
    title = "torchtitan output"
    pattern = re.compile(rb"\bstep: *\d{1,18}  +.{0,200}(?:loss: .{0,400}\bmemory: +[\d.]+GiB|\btps: )")
    means = {"loss": "loss/train", "grad_norm": "grad/norm", "mfu(%)": "throughput/mfu*percent",
             "validate loss": "loss/val", "lr": "lr/used"}
    ended = re.compile(rb"Training completed")
    between = {"loss/train": "sampled", "grad/norm": "sampled"}
    blind = (
        BlindSpot("absent", ("lr/used", "throughput/step_time", "throughput/tokens_per_s"), "torchtitan prints no "
                  "learning rate and no step time, and of the throughput that of one device (tps)",
                  "Give its TensorBoard or W&B files, or tap the loop."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        if found := _ROW.search(line):
            validates = found[1] is not None
            values: dict[str, bytes | float] = {}
            for name, token, unit, share in _PAIR.findall(line, found.end()):
                full = ("validate " if validates else "") + name.decode() + (f"({unit.decode()})" if unit else "")
                values[full] = token
                if share:
                    values[("validate " if validates else "") + name.decode() + "(%)"] = share
            log.row(int(found[2]), values, line[: found.start()], leads=not validates)
        elif found := _STARTS.search(line):
            if found[2]:
                log.facts(card={"total_steps": int(found[2])})
            if int(found[1]) > 1:
                log.resumed(int(found[1]) - 1, f"Training starts at step {int(found[1]):,}")
        elif found := _LOADS.search(line):
            log.resumed(int(found[1]), f"The job read the checkpoint of step {int(found[1]):,}")
        else:
            return False
        return True


class TorchtitanStructured(TextImporter):
    """torchtitan's structured logs: of a folder, the file of the lowest rank."""

    format = "torchtitan-structured"
    title = "torchtitan structured log"
    pattern = re.compile(rb'"log_type_name":.{0,8000}"(?:time_us|caller)":|"time_us":.{0,8000}"log_type_name":')
    blind = (
        BlindSpot("rank", ("throughput/",), "each rank of torchtitan writes a file of its own, and the lowest rank's "
                  "alone is read", "Give the file of another rank to see that one."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if not path.is_dir():
            return super().recognises(path, head)
        files = self.files(path)
        if not files or files == [path]:
            return ""
        with files[0].open("rb") as file:
            start = file.read(65_536)
        found = any(map(self.pattern.search, sample(files[0], start)))
        return f"{files[0].name} in it is a structured log" if found else ""

    def runs(self, path: Path) -> list[RunOf]:
        return [RunOf(path, path.parent.name if path.name == "structured_logs" else path.stem)]

    def files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        ranks = {file: int(found[1]) for file in sorted(path.glob("*.jsonl"))[:100_000]
                 if (found := _RANK.search(file.name))}
        return sorted(file for file, rank in ranks.items() if rank == min(ranks.values()))

    def line(self, line: bytes, log: Log) -> bool:
        found = json_of(line)
        if found is None:
            return False
        step, name, value = found.get("step"), found.get("log_type_name"), found.get("value")
        time = found.get("time_us")
        if type(step) is int and isinstance(name, str) and isinstance(value, int | float):
            log.row(step, {name: float(value)}, time=time / 1e6 if isinstance(time, int | float) else None)
        return True
