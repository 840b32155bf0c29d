"""levanter's JSON lines."""

from tests.importers.printing import Sample

FORMAT = "levanter"
_SAMPLE = Sample(FORMAT, {"loss/train": "train/loss", "throughput/step_time": "throughput/duration"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rank"}
