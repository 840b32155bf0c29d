"""Output of nanoGPT, modded-nanogpt and nanochat.

    iter 250: loss 5.4321, time 123.45ms, mfu 35.21%          step 250: train loss 5.3912, val loss 5.4021
    step:125/1390 train_loss:4.1234 train_time:12345ms step_avg:98.76ms     step:125/1390 val_loss:4.1020 train_time:...
    step 00250/21400 (1.17%) | loss: 5.123456 | lrm: 1.00 | dt: 512.34ms | tok/sec: 1,023,456 | bf16_mfu: 45.67 | ...
    Step 00250 | Validation bpb: 1.123456

Written by https://github.com/karpathy/nanoGPT/blob/master/train.py,
https://github.com/KellerJordan/modded-nanogpt/blob/master/train_gpt.py and
https://github.com/karpathy/nanochat/blob/master/scripts/base_train.py. Losses are nats per token; nanochat's validation
is bits per byte, which no signal here is, and stays under its own name.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import NUMBER
from collectors.importers.importer import BlindSpot

_ONE_RANK = "Log the mean over all ranks and micro-batches, or tap the loop."


class NanoGpt(TextImporter):
    """nanoGPT."""

    format = "nanogpt"
    title = "nanoGPT output"
    pattern = re.compile(rb"\biter \d{1,18}: loss [-\d.naif]+, time [\d.]+ms|"
                         rb"\bstep \d{1,18}: train loss [-\d.naif]+, val loss [-\d.naif]+")
    means = {"loss": "loss/train", "val loss": "loss/val", "time(ms)": "throughput/step_time*ms",
             "mfu(%)": "throughput/mfu*percent"}
    between = {"loss/train": "sampled"}
    blind = (
        BlindSpot("rank", ("loss/train",), "nanoGPT prints the loss of rank 0's last micro-batch, not the step's mean: "
                  "it is noisier by about the root of ranks times micro-batches", _ONE_RANK),
        BlindSpot("absent", ("grad/", "lr/used"), "nanoGPT prints no gradient norm and no learning rate",
                  "Switch wandb_log on and give that run, or tap the loop."),
    )
    _iter = re.compile(rb"\biter (\d{1,18}): loss ")
    _step = re.compile(rb"\bstep (\d{1,18}): train loss (" + NUMBER + rb"), val loss (" + NUMBER + rb")")
    _pair = re.compile(rb"\b([a-z]\w{0,40}) (" + NUMBER + rb")(ms|%)?")

    def line(self, line: bytes, log: Log) -> bool:
        if found := self._iter.search(line):
            values: dict[str, bytes | float] = {
                name.decode() + (f"({unit.decode()})" if unit else ""): token
                for name, token, unit in self._pair.findall(line, found.end() - len(b"loss "))}
            # Before the fifth iteration it is not computed, and printed as -100%.
            if isinstance(mfu := values.get("mfu(%)"), bytes) and mfu.startswith(b"-"):
                del values["mfu(%)"]
            log.row(int(found[1]), values, line[: found.start()])
        elif found := self._step.search(line):
            # The first is an estimate on data of the training set, with the model in evaluation mode.
            log.row(int(found[1]), {"estimated train loss": found[2], "val loss": found[3]}, line[: found.start()],
                    leads=False)
        else:
            return False
        return True


class ModdedNanoGpt(TextImporter):
    """modded-nanogpt."""

    format = "modded-nanogpt"
    title = "modded-nanogpt log"
    pattern = re.compile(rb"\bstep:\d{1,18}/\d{1,18} (?:train_loss|val_loss|tl|train_time):[-\d.naif]+")
    means = {"train_loss": "loss/train", "val_loss": "loss/val"}
    between = {"loss/train": "sampled"}
    blind = (
        BlindSpot("rank", ("loss/train",), "modded-nanogpt prints the loss of rank 0's last micro-batch, not the "
                  "step's mean", _ONE_RANK),
        BlindSpot("absent", ("grad/", "lr/used", "throughput/step_time"), "modded-nanogpt prints no gradient norm and "
                  "no learning rate, and of times the total and the mean so far", "Tap the loop."),
    )
    _row = re.compile(rb"\bstep:(\d{1,18})/(\d{1,18}) (?=\w+:)")
    _pair = re.compile(rb"\b(\w{1,60}):(" + NUMBER + rb")(ms|s|GiB|MiB|%)?")

    def line(self, line: bytes, log: Log) -> bool:
        found = self._row.search(line)
        if found is None:
            return False
        values: dict[str, bytes | float] = {name.decode() + (f"({unit.decode()})" if unit else ""): token
                                            for name, token, unit in self._pair.findall(line, found.end())}
        log.facts(card={"total_steps": int(found[2])})
        log.row(int(found[1]), values, line[: found.start()], leads="train_loss" in values)
        return True


class Nanochat(TextImporter):
    """nanochat."""

    format = "nanochat"
    title = "nanochat output"
    pattern = re.compile(rb"\bstep \d{5,18}(?:/\d{5,18})? \([\d.]+%\) \| loss: [-\d.naif]+ \| |"
                         rb"\bStep \d{5,18} \| Validation bpb: ")
    means = {"loss": "loss/train", "dt(ms)": "throughput/step_time*ms", "tok/sec": "throughput/tokens_per_s",
             "mfu": "throughput/mfu*percent", "bf16_mfu": "throughput/mfu*percent", "grad norm": "grad/norm",
             "grad_norm": "grad/norm"}
    between = {"loss/train": "averaged"}
    blind = (
        BlindSpot("averaged", ("loss/train",), "nanochat prints a moving average of rank 0's loss (0.9 of the last "
                  "one): a jump of one step is ten times smaller in it", "Give its W&B run, or tap the loop."),
        BlindSpot("absent", ("lr/used", "loss/val"), "nanochat prints the factor of the learning rate (lrm), not the "
                  "rate, and its validation in bits per byte", "Tap the loop."),
    )
    _row = re.compile(rb"\bstep (\d{1,18})(?:/(\d{1,18}))? \([\d.]+%\) \|")
    _validation = re.compile(rb"\bStep (\d{1,18}) \| (?=[A-Z])")
    _pair = re.compile(rb"\| ([A-Za-z][\w/ ]{0,60}): (" + NUMBER + rb")(ms|m|s|%)?(?= *(?:\||$))")

    def line(self, line: bytes, log: Log) -> bool:
        found, leads = self._row.search(line), True
        if found is None:
            found, leads = self._validation.search(line), False
        if found is None:
            return False
        values: dict[str, bytes | float] = {
            name.decode() + (f"({unit.decode()})" if unit and unit != b"%" else ""): token
            for name, token, unit in self._pair.findall(line, found.end() - 2)}
        if leads and found[2]:
            log.facts(card={"total_steps": int(found[2])})
        log.row(int(found[1]), values, line[: found.start()], leads=leads)
        return True
