"""torchtitan's console."""

from tests.importers.printing import Sample

FORMAT = "torchtitan"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "grad/norm": "grad_norm", "throughput/mfu": "mfu(%)*0.01"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"absent"}
