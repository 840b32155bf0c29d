"""NeMo Automodel's console."""

from tests.importers.printing import Sample

FORMAT = "automodel"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "grad/norm": "grad_norm", "throughput/tokens_per_s": "tps"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND: set[str] = set()
