"""Console output of MosaicML Composer and LLM Foundry.

    [batch=10/4800]:
         Train time/batch: 9
         Train loss/train/total: 11.2034
         Train lr-DecoupledAdamW/group0: 0.0001
    [Eval batch=8/8] Eval on c4 data:
         Eval metrics/eval/LanguageCrossEntropy: 9.8034

Written by `ConsoleLogger` of https://github.com/mosaicml/composer/blob/main/composer/loggers/console_logger.py, with
four decimals (`format_log_data_value`). Where the run's length is given in epochs or tokens, `time/batch`, which counts
from 0, names the step.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import NUMBER, writer_of
from collectors.importers.importer import BlindSpot

_MARK = re.compile(rb"(?:\[epoch=(\d{1,9})(?:/\d{1,9})?\])?\[(batch|token|sample|epoch)=(\d{1,18})(?:/(\d{1,18}))?\]:?")
_EVAL = re.compile(rb"\[Eval batch=\d{1,18}/\d{1,18}\] Eval on (.{1,200}?) data")
_PAIR = re.compile(rb"\s(Train|Eval) ([A-Za-z][^:\n]{0,200}): (" + NUMBER + rb")\s*$")


class Composer(TextImporter):
    """Composer and LLM Foundry."""

    format = "composer"
    title = "Composer output"
    pattern = re.compile(rb"^.{0,80}\s(?:Train|Eval) (?:loss/train/\w+|metrics/\w+/\w+|time/batch): |"
                         rb"\[Eval batch=\d{1,18}/\d{1,18}\] Eval on ")
    means = {"loss/train/total": "loss/train", "metrics/eval/LanguageCrossEntropy": "loss/val",
             "l2_norm/grad/global": "grad/norm"}
    between = {"loss/train": "sampled", "grad/norm": "sampled"}
    blind = (
        BlindSpot("rank", ("loss/train",), "Composer's loss/train/total is rank 0's",
                  "Use metrics/train, which is reduced."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        memory = log.memory
        if pair := _PAIR.search(line):
            mark = memory.get("mark")
            name = pair[2].decode("utf-8", "replace")
            if mark is None or writer_of(line[: pair.start()]) not in ("", writer_of(mark[1].encode())):
                return True
            if mark[0] is None and name == "time/batch":
                mark[0] = int(float(pair[3])) + 1
            step = mark[0] if pair[1] == b"Train" else log.last
            if step is not None:
                log.row(step, {name: pair[3]}, mark[1].encode(), leads=pair[1] == b"Train")
        elif _EVAL.search(line):
            memory["mark"] = [log.last, ""]
        elif (found := _MARK.search(line)) and line[found.end() :].strip() == b"":
            unit, count, total = found[2], int(found[3]), found[4]
            step = count if unit == b"batch" else None
            if unit == b"batch" and found[1] and total:
                step = (int(found[1]) - 1) * int(total) + count
            elif unit == b"batch" and total:
                log.facts(card={"total_steps": int(total)})
            memory["mark"] = [step, line[: found.start()].decode("utf-8", "replace")]
        else:
            return False
        return True
