"""NeMo 2's console."""

from tests.importers.printing import Sample

FORMAT = "nemo"
_SAMPLE = Sample(FORMAT, {"loss/train": "reduced_train_loss", "throughput/step_time": "train_step_timing in s"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rounded"}
