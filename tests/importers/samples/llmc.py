"""llm.c's main.log."""

from tests.importers.printing import Sample

FORMAT = "llmc"
_SAMPLE = Sample(FORMAT, {"loss/train": "trl", "grad/norm": "norm"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"absent"}
