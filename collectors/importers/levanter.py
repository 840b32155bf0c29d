"""JSON lines of levanter's and marin's `json_logger` tracker, alone in a file or among other output.

    2025-01-31T12:00:00 - levanter.json_logger - INFO - {"tracker": "json_logger", "event": "log", "step": 10,
        "metrics": {"train/loss": 4.31, "optim/learning_rate": 0.0003, "throughput/duration": 0.51}}

Written by `JsonLoggerTracker` of
https://github.com/stanford-crfm/levanter/blob/main/src/levanter/tracker/json_logger.py; marin's `tracker_metrics.jsonl`
has one line at the end of a run with the last value of every metric, and no history.
"""

from __future__ import annotations

import re

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import json_of, numbers_of
from collectors.importers.importer import BlindSpot


class Levanter(TextImporter):
    """levanter and marin."""

    format = "levanter"
    title = "levanter JSON log"
    pattern = re.compile(rb'\{"tracker": ?"[^"]{1,60}", ?"event": ?"(?:log|hparams|summary|finish)"')
    means = {"train/loss": "loss/train", "eval/loss": "loss/val", "optim/learning_rate": "lr/used",
             "throughput/duration": "throughput/step_time", "throughput/tokens_per_second": "throughput/tokens_per_s",
             "throughput/mfu": "throughput/mfu*percent", "grad/norm/total": "grad/norm",
             "throughput/total_tokens": "data/tokens_seen"}
    between = {"loss/train": "sampled", "lr/used": "sampled"}
    blind = (
        BlindSpot("rank", ("throughput/step_time_by_rank", "throughput/data_wait_by_rank"),
                  "levanter's tracker runs on one host: other hosts' times are not in its log",
                  "Give each host's log."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        entry = json_of(line) if b'"event"' in line else None
        if entry is None or not isinstance(entry.get("tracker"), str):
            return False
        event, step, metrics = entry.get("event"), entry.get("step"), entry.get("metrics")
        if event == "log" and type(step) is int and isinstance(metrics, dict):
            numbers = numbers_of(metrics)
            log.row(step, numbers, line[: line.find(b"{")], leads="train/loss" in numbers)
        elif event == "hparams" and isinstance(entry.get("hparams"), dict):
            log.facts(config=entry["hparams"])
        return True
