"""OLMo-core's console."""

from tests.importers.printing import Sample

FORMAT = "olmo-core"
_SAMPLE = Sample(FORMAT, {"loss/train": "train/CE loss", "grad/norm": "optim/total grad norm"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"absent"}
