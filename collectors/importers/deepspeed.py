"""Output of DeepSpeed, and the folder that its `csv_monitor` writes.

    [2025-01-31 12:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=4, lr=[0.0001], mom=[0.9]
    [2025-01-31 12:00:00,124] [INFO] [timer.py:215:stop] epoch=0/micro_step=40/global_step=10,
        RunningAvgSamplesPerSec=220.7, CurrSamplesPerSec=222.9, MemAllocated=0.07GB, MaxMemAllocated=1.36GB

Written by `_report_progress` of https://github.com/deepspeedai/DeepSpeed/blob/master/deepspeed/runtime/engine.py and
by deepspeed/utils/timer.py. The folder has a file per tag, `Train_Samples_train_loss.csv`, whose first column is called
`step` and holds samples (deepspeed/monitor/csv_monitor.py); the header comes again where a job resumed.
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.importers._log import Log
from collectors.importers._text import TextImporter, sample
from collectors.importers._tokens import NUMBER, number
from collectors.importers.composer import Composer
from collectors.importers.hf_output import HfOutput
from collectors.importers.importer import BlindSpot, RunOf
from collectors.importers.megatron import Megatron
from collectors.importers.nemo import Nemo

_STEP = re.compile(rb"\bstep=(\d{1,18}), skipped=(\d{1,18}), lr=\[([^\]]{0,2000})\]")
_TIMER = re.compile(rb"\bglobal_step=(\d{1,18}), (?=RunningAvg)")
_PAIR = re.compile(rb"(\w{1,60})=(" + NUMBER + rb")(GB)?")
_OVERFLOW = re.compile(rb"(?i)overflow.{0,40}(?:skipping step|detected).{0,200}?loss scale: ([\d.e+]+)")
_LOADED = re.compile(rb"\[Torch\] Loaded checkpoint from .{0,1000}?global_step(\d{1,18})/|"
                     rb"Loading checkpoint .{0,1000}?global_step(\d{1,18})/")


class DeepSpeed(TextImporter):
    """DeepSpeed's own lines, where no trainer around it prints better ones."""

    format = "deepspeed"
    title = "DeepSpeed output"
    pattern = re.compile(rb"\bstep=\d{1,18}, skipped=\d{1,18}, lr=\[|\bglobal_step=\d{1,18}, RunningAvgSamplesPerSec=")
    means = {"lr": "lr/used"}
    between = {"lr/used": "sampled"}
    blind = (
        BlindSpot("absent", ("loss/", "grad/", "throughput/step_time", "throughput/tokens_per_s"),
                  "DeepSpeed prints the learning rate, skipped steps and samples per second, and no loss",
                  "Give the training script's own output or tracker, or switch csv_monitor on."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        # Trainers on top of DeepSpeed print the loss, too: such a log is theirs.
        on_top = (Megatron, HfOutput, Composer, Nemo)
        if any(of.pattern.search(line) for of in on_top for line in sample(path, head)):
            return ""
        return super().recognises(path, head)

    def line(self, line: bytes, log: Log) -> bool:
        if found := _STEP.search(line):
            rates = [number(token) for token in found[3].split(b",")]
            known = [rate for rate in rates if rate is not None]
            values: dict[str, bytes | float] = {"skipped": float(found[2])}
            if len(set(known)) == 1:
                values["lr"] = found[3].split(b",")[0]
            else:
                values |= {f"lr group {i}": rate for i, rate in enumerate(known[:100])}
            log.row(int(found[1]), values, line[: found.start()])
        elif found := _TIMER.search(line):
            pairs = {name.decode() + ("(GB)" if unit else ""): token
                     for name, token, unit in _PAIR.findall(line, found.end())}
            log.row(int(found[1]), pairs, line[: found.start()])
        elif found := _OVERFLOW.search(line):
            log.note("skipped", "A step was skipped: its gradients overflowed at the loss scale "
                     f"{found[1].decode()}", hides=True)
        elif found := _LOADED.search(line):
            step = int(found[1] or found[2])
            log.resumed(step, f"The job read the checkpoint of step {step:,}")
        else:
            return False
        return True


class DeepSpeedCsv(TextImporter):
    """The folder of DeepSpeed's csv_monitor."""

    format = "deepspeed-csv"
    title = "DeepSpeed csv_monitor folder"
    pattern = re.compile(rb"^step,\w")
    means = {"Train_Samples_train_loss": "loss/train", "Train_Samples_lr": "lr/used"}
    blind = (
        BlindSpot("rank", ("loss/train",), "DeepSpeed's monitor writes the loss of rank 0", "Log the mean over ranks."),
    )
    samples_blind = BlindSpot("steps", ("loss/", "lr/"), "csv_monitor counts samples, not steps: the steps here are "
                              "samples", "Put deepspeed_config.csv, which has the batch size, beside the files.")

    def recognises(self, path: Path, head: bytes) -> str:
        files = self.files(path) if path.is_dir() else []
        return f"{files[0].name} and {len(files) - 1} more files, one per tag" if files else ""

    def runs(self, path: Path) -> list[RunOf]:
        return [RunOf(path, path.name)]

    def files(self, path: Path) -> list[Path]:
        tags = [file for file in sorted(path.glob("*.csv"))[:10_000]
                if file.name.startswith(("Train_", "Eval_", "Test_"))]
        config = path / "deepspeed_config.csv"
        return ([config] if config.is_file() else []) + tags if tags else []

    def line(self, line: bytes, log: Log) -> bool:
        key, comma, value = line.partition(b",")
        if log.file == "deepspeed_config.csv":
            if key == b"train_batch_size" and value.strip().isdigit():
                log.memory["batch"] = int(value)
            if comma and key != b"key" and len(key) < 200:
                log.facts(config={key.decode("utf-8", "replace"): value[:2_000].decode("utf-8", "replace")})
            return True
        if key == b"step":
            return True
        samples, batch = number(key), log.memory.get("batch") or 0
        if samples is None or samples != samples or abs(samples) > 2**53 or number(value) is None:
            log.note("unread", f"A line of {log.file} is no `step,value`", hides=True)
            return True
        if not batch and not log.memory.get("samples_said"):
            log.memory["samples_said"] = True
            log.facts(blind=(self.samples_blind,))
        step = round(samples / batch) if batch else int(samples)
        log.row(step, {log.file.removesuffix(".csv"): value}, leads=False)
        return True
