"""Megatron-LM, with its iteration lines."""

from tests.importers.printing import Sample

FORMAT = "megatron"
_SAMPLE = Sample(FORMAT, {
    "loss/train": "lm loss", "grad/norm": "grad norm", "throughput/step_time": "elapsed time per iteration (ms)*0.001"
})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"absent"}
