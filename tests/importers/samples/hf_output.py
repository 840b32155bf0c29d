"""What HF's Trainer prints."""

from tests.importers.printing import Sample

FORMAT = "hf-output"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "grad/norm": "grad_norm"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"nonfinite", "steps"}
