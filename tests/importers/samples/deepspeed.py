"""DeepSpeed's own lines."""

from tests.importers.printing import Sample

FORMAT = "deepspeed"
_SAMPLE = Sample(FORMAT, {"lr/used": "lr"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"absent"}
