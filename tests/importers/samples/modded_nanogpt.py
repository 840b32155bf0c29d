"""modded-nanogpt's log."""

from tests.importers.printing import Sample

FORMAT = "modded-nanogpt"
_SAMPLE = Sample(FORMAT, {"loss/train": "train_loss"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rank"}
