"""One rank's structured log of torchtitan."""

from tests.importers.printing import Sample

FORMAT = "torchtitan-structured"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rank"}
