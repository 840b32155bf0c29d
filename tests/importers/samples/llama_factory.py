"""LLaMA-Factory's trainer_log.jsonl."""

from tests.importers.printing import Sample

FORMAT = "llama-factory"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss", "lr/used": "lr"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"nonfinite"}
