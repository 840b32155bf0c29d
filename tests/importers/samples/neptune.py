"""Two parts of a run as the Neptune exporter shards it; a NaN is an empty cell with a time."""

import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = "neptune"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)} | {7: math.nan},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "eval/µ": {5: 0.25, 10: 0.5, 15: 0.75},
}
BLIND = {"rank", "nonfinite", "absent", "steps"}
SCHEMA = pa.schema([
    ("project_id", pa.string()), ("run_id", pa.string()), ("attribute_path", pa.string()),
    ("attribute_type", pa.string()), ("step", pa.decimal128(18, 6)), ("timestamp", pa.timestamp("ms", "UTC")),
    ("int_value", pa.int64()), ("float_value", pa.float64()), ("string_value", pa.string()), ("bool_value", pa.bool_()),
    ("datetime_value", pa.timestamp("ms", "UTC")), ("string_set_value", pa.list_(pa.string())),
    ("file_value", pa.struct([("path", pa.string())])),
    ("histogram_value", pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())),
                                   ("values", pa.list_(pa.float64()))])),
])  # fmt: skip


def write(folder: Path) -> Path:
    project = folder / "me_tiny_1a2b3c4d"
    project.mkdir(parents=True)
    known = {"project_id": "me/tiny", "run_id": "TINY-1"}
    rows: list[dict[str, object]] = [
        {**known, "attribute_path": "config/lr", "attribute_type": "float", "float_value": 1e-3},
        {**known, "attribute_path": "sys/name", "attribute_type": "string", "string_value": "tiny"},
        {**known, "attribute_path": "weights", "attribute_type": "histogram_series", "step": Decimal(1),
         "histogram_value": {"type": "COUNTING", "edges": [0.0, 1.0], "values": [4.0]}},
    ]  # fmt: skip
    for path, name in (("loss", "loss/train"), ("grad_norm", "grad/norm"), ("eval/µ", "eval/µ")):
        tenth = 10 if name == "eval/µ" else 1
        rows += [{**known, "attribute_path": path, "attribute_type": "float_series", "step": Decimal(step) / tenth,
                  "timestamp": 1_700_000_000_000 + step, "float_value": None if math.isnan(value) else value}
                 for step, value in ROWS[name].items()]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table.slice(0, 20), project / "TINY-1_part_0.parquet", compression="snappy")
    pq.write_table(table.slice(20), project / "TINY-1_part_1.parquet", compression="snappy")
    return folder
