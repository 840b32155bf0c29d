"""A table that pyarrow wrote."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = "parquet"
ROWS = {
    "loss/train": {step: 3.0 - step / 77 for step in range(1, 51) if step != 7},
    "loss/val": {step: 3.5 - step / 100 for step in range(10, 51, 10)},
}
BLIND = {"nonfinite"}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    steps = list(range(1, 51))
    pq.write_table(pa.table({
        "_step": steps, "loss": [ROWS["loss/train"].get(step) for step in steps],
        "val_loss": [ROWS["loss/val"].get(step) for step in steps],
    }), folder / "history.parquet")  # fmt: skip
    return folder / "history.parquet"

