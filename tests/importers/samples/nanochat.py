"""nanochat's console."""

from tests.importers.printing import Sample

FORMAT = "nanochat"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "throughput/tokens_per_s": "tok/sec"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"averaged"}
