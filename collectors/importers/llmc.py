"""Logs of llm.c: `main.log`, which its Logger writes, and its console.

    s:250 tel:6.1710
    s:251 trl:6.1544 lr:0.000216 norm:1.02
    step  252/19560 | loss 6.154400 (-0.52z)| norm 1.0200 (+0.31z)| lr 2.16e-04 | 1234.56 ms | 424242 tok/s

Formats: https://github.com/karpathy/llm.c/blob/master/llmc/logger.h and `printf0` in train_gpt2.cu. Both losses are
means over the batch in nats per token, the norm is before clipping. The console counts from 1 and main.log from 0.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import NUMBER
from collectors.importers.importer import BlindSpot

_MAIN = re.compile(rb"^s:(\d{1,18}) (?=(?:tel|trl|eval):)")
_MAIN_PAIR = re.compile(rb"\b(tel|trl|eval|lr|norm):(" + NUMBER + rb")")
_STEP = re.compile(rb"\bstep +(\d{1,18})/(\d{1,18}) \| (?:train )?loss ")
_CONSOLE = re.compile(rb"(?:\| |\|)(?:train )?(loss|norm|lr) +(" + NUMBER + rb")(?: \((" + NUMBER + rb")z\))?|"
                      rb"\| ?(" + NUMBER + rb") (ms|tok/s)|\| ?(" + NUMBER + rb")% (?:bf16 |fp32 |fp16 )?MFU")
_VALIDATION = re.compile(rb"\bval loss (" + NUMBER + rb")\s*$")
_SMOOTHED = BlindSpot("averaged", ("throughput/tokens_per_s",), "llm.c's console prints a moving average of the tokens "
                      "per second (0.95 of the last one)", "Use its step times.")


class LlmC(TextImporter):
    """llm.c."""

    format = "llmc"
    title = "llm.c log"
    pattern = re.compile(rb"^s:\d{1,18} (?:tel|trl):[-\d.naif]+|"
                         rb"\bstep +\d{1,18}/\d{1,18} \| (?:train )?loss [-\d.naif]+ (?:\([-+.\dnaif]+z\))?\|")
    means = {"trl": "loss/train", "tel": "loss/val", "lr": "lr/used", "norm": "grad/norm", "loss": "loss/train",
             "val loss": "loss/val", "ms": "throughput/step_time*ms", "tok/s": "throughput/tokens_per_s",
             "MFU(%)": "throughput/mfu*percent"}
    between = {"loss/train": "sampled", "grad/norm": "sampled"}
    blind = (
        BlindSpot("absent", ("grad/norm_clipped", "grad/norm_by_layer", "loss/domain"),
                  "llm.c logs the norm before clipping, and nothing per layer or domain", "None: it is not computed."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        if found := _MAIN.match(line):
            pairs = {name.decode(): token for name, token in _MAIN_PAIR.findall(line, found.end())}
            log.row(int(found[1]), pairs, leads="trl" in pairs)
        elif found := _STEP.search(line):
            values: dict[str, bytes | float] = {}
            for name, token, z, rate, unit, mfu in _CONSOLE.findall(line, found.start()):
                if name:
                    values[name.decode()] = token
                    if z:
                        values[f"{name.decode()} z"] = z
                else:
                    values[unit.decode() if rate else "MFU(%)"] = rate or mfu
            log.facts(card={"total_steps": int(found[2])}, blind=() if log.memory.get("console") else (_SMOOTHED,))
            log.memory["console"] = True
            log.row(int(found[1]), values, line[: found.start()])
        elif found := _VALIDATION.search(line):
            log.row(log.last or 0, {"val loss": found[1]}, line[: found.start()], leads=False)
        else:
            return False
        return True
