"""Console output of OLMo-core and of OLMo.

    [step=100/596057,epoch=1,eta=3days, 4:05:06]
        train/CE loss=4.312
        optim/total grad norm=0.4512
        throughput/device/TPS=12,345

Written by `ConsoleLoggerCallback.log_metrics` of
https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/train/callbacks/console_logger.py, a subset of the metrics
that the run has, with three or four decimals. OLMo (https://github.com/allenai/OLMo/blob/main/olmo/train.py) writes the
same, its names as `train/CrossEntropyLoss`.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import number, writer_of
from collectors.importers.importer import BlindSpot

_MARK = re.compile(rb"\[step=(\d{1,18})/(\d{1,18}|\?\?\?)(?:,epoch=(\d{1,18}))?[^\]]{0,200}\]")
_PAIR = re.compile(rb"(?:^|\s{4,})([A-Za-z][^=\n]{0,200}?)=(\S{1,60})\s*$")
_LOADS = re.compile(rb"Loading checkpoint from '?[^']{0,1000}?/step(\d{1,18})\b")


class OlmoCore(TextImporter):
    """OLMo-core and OLMo."""

    format = "olmo-core"
    title = "OLMo-core output"
    pattern = re.compile(rb"\[step=\d{1,18}/(?:\d{1,18}|\?\?\?),epoch=\d+[^\]]{0,200}\]")
    means = {
        "train/CE loss": "loss/train", "train/CrossEntropyLoss": "loss/train", "train/Z loss": "loss/z",
        "train/ZLoss": "loss/z", "train/load balancing loss": "loss/aux", "train/router Z loss": "loss/z",
        "optim/total grad norm": "grad/norm", "optim/total_grad_norm": "grad/norm", "optim/LR (group 0)": "lr/used",
        "optim/learning_rate_group0": "lr/used", "optim/step skipped": "skipped/gradients",
        "throughput/total tokens": "data/tokens_seen", "throughput/device/MFU": "throughput/mfu*percent",
    }
    between = {"loss/train": "sampled", "grad/norm": "sampled", "lr/used": "sampled"}
    blind = (
        BlindSpot("absent", ("throughput/tokens_per_s",), "OLMo-core prints the tokens per second of one device (TPS)",
                  "Give its W&B files, or tap the loop."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        open_ = log.memory.get("open")
        if found := _MARK.search(line):
            log.memory["open"] = [int(found[1]), line[: found.start()].decode("utf-8", "replace")]
            if found[2].isdigit():
                log.facts(card={"total_steps": int(found[2])})
            return True
        if open_ and (found := _PAIR.search(line)):
            prefix = line[: found.start()]
            # A line of another rank may stand between the mark and its values.
            if writer_of(prefix) in ("", writer_of(open_[1].encode())) and number(found[2]) is not None:
                name = found[1].strip().decode("utf-8", "replace")
                log.row(open_[0], {name: found[2]}, open_[1].encode(), leads="train/" in name)
                return True
        if found := _LOADS.search(line):
            log.resumed(int(found[1]), f"The job read the checkpoint of step {int(found[1]):,}")
            return True
        if open_ and line[:1] not in b" \t" and not writer_of(line):
            log.memory["open"] = None
        return False
