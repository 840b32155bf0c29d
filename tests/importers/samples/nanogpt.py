"""nanoGPT's console."""

from tests.importers.printing import Sample

FORMAT = "nanogpt"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "throughput/step_time": "time(ms)*0.001"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rank", "absent"}
