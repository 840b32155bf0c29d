"""A log of nested JSON objects, with Infinity as Python writes it."""

import json
from pathlib import Path

FORMAT = "jsonl"
ROWS = {
    "loss/train": {step: float("inf") if step == 9 else 2.0 + 1 / step for step in range(1, 41)},
    "throughput/tokens_per_s": {step: 1000.0 + step for step in range(1, 41)},
}
BLIND = {"absent"}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rows = [{"step": step, "train": {"loss": loss, "tok/s": 1000 + step}} for step, loss in ROWS["loss/train"].items()]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "log.jsonl"
