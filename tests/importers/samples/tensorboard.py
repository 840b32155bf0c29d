"""Two event files of one run: a job, and the job that went on from step 20."""

import math
from pathlib import Path

from tests.importers.writing import event, field, scalar, tfrecord

FORMAT = "tensorboard"
ROWS = {
    "loss/train": {step: 4.0 - step / 64 for step in range(40)} | {7: math.nan, 8: math.inf},
    "grad/norm": {step: 1.0 + step / 32 for step in range(40)},
    "loss/val": {0: 4.5, 10: 4.25, 30: 3.75},
    "größe": {30: 0.5},
}
BLIND = {"rank"}
CHECKED = True
NAMES = {"loss/train": "train/loss", "grad/norm": "train/grad_norm", "loss/val": "eval/loss", "größe": "größe"}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for start, first, last in ((1_700_000_000, 0, 25), (1_700_000_900, 20, 40)):
        records = [field(1, float(start)) + field(3, "brain.Event:2")]
        for step in range(first, last):
            for signal, name in NAMES.items():
                if step in ROWS[signal]:
                    records.append(event(step, start + step / 4, scalar(name, ROWS[signal][step])))
        name = f"events.out.tfevents.{start}.node-7.812.0"
        (folder / name).write_bytes(b"".join(map(tfrecord, records)))
    return folder
